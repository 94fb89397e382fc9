"""Decisions: what one node decided by arrival, for ranges of the ordinals of its rows or groups.

A range has one decision for all of its ordinals: the partition of these rows, the inputs that these groups leave out,
whether these rows were dropped. Adjacent ranges with the same decision are merged, so that a partition that is read row
by row costs no more than one that is read in blocks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unbounded.core.locked import locked
from unbounded.core.runtime import Runtime

Decision: TypeAlias = Any
"""What JSON can hold: a string, a number, a bool, None, or a tuple of these."""


class DecidedRange(NamedTuple):
    """The ordinals from `first` up to `stop`, and what was decided for them."""

    first: int
    stop: int
    decision: Decision


class _DecidedRanges(NamedTuple):
    """Ranges in order; the first `gone` are released. Their number is that of `made`: an item that only the other two
    arrays have was being added when an exception came."""

    gone: int
    firsts: array[int]
    stops: array[int]
    made: list[Decision]


class Decisions:
    """The decisions of one node, in the order of its ordinals.

    Safe between threads, and if an exception comes at any line: each change is one assignment or one append.

    Args:
        runtime: gives the lock.
        apart: decisions of which each range stays by itself.
    """

    def __init__(self, runtime: Runtime, apart: Iterable[Decision] = ()) -> None:
        self._lock = runtime.lock()
        self._apart = frozenset(apart)
        self._all = _DecidedRanges(0, array("q"), array("q"), [])
        self.released = 0
        """Ordinals before this one are not needed again."""
        self.written = 0
        """The ordinal up to which decisions are in the file, if there is one."""

    @property
    def stop(self) -> int:
        """The ordinal up to which decisions were made."""
        _, _, stops, made = self._all
        return stops[len(made) - 1] if made else 0

    @locked
    def note(self, first: int, stop: int, decision: Decision) -> None:
        """Add a decision for the ordinals from `first` up to `stop`. Earlier decisions are kept."""
        self._note(first, stop, decision)

    def _note(self, first: int, stop: int, decision: Decision) -> None:
        _, firsts, stops, made = self._all
        count = len(made)
        first = max(first, self.stop)
        if first >= stop:
            return
        if count and stops[count - 1] == first and made[-1] == decision and decision not in self._apart:
            stops[count - 1] = stop
            return
        del firsts[count:], stops[count:]
        firsts.append(first)
        stops.append(stop)
        made.append(decision)

    @locked
    def at(self, ordinal: int) -> DecidedRange | None:
        """The range that contains an ordinal; None if nothing is decided for it."""
        i = self._index(ordinal)
        return self._range(i) if i < len(self._all.made) and self._all.firsts[i] <= ordinal else None

    @locked
    def between(self, first: int, stop: int) -> list[DecidedRange]:
        """The whole ranges that have ordinals from `first` up to `stop`, in order."""
        found = []
        for i in range(self._index(first), len(self._all.made)):
            if self._all.firsts[i] >= stop:
                break
            found.append(self._range(i))
        return found

    def _index(self, ordinal: int) -> int:
        """The first range that ends after an ordinal."""
        gone, _, stops, made = self._all
        return bisect_right(stops, ordinal, gone, len(made))

    def _range(self, i: int) -> DecidedRange:
        _, firsts, stops, made = self._all
        return DecidedRange(firsts[i], stops[i], made[i])

    @locked
    def release(self, ordinal: int) -> None:
        """Ordinals before `ordinal` are not needed again."""
        if ordinal <= self.released:
            return
        self.released = ordinal
        _, firsts, stops, made = self._all
        gone = max(
            0, min(self._index(ordinal), len(made) - 1)
        )  # the last one is kept, since it tells where decisions end
        if gone > 64 and gone > len(made) // 2:
            self._all = _DecidedRanges(0, firsts[gone:], stops[gone:], made[gone:])
        else:
            self._all = _DecidedRanges(gone, firsts, stops, made)

    @locked
    def unwritten(self) -> list[DecidedRange]:
        """The decisions that are not in the file."""
        found = [self._range(i) for i in range(self._index(self.written), len(self._all.made))]
        if found and found[0].first < self.written:
            found[0] = DecidedRange(self.written, *found[0][1:])
        return found

    # -- as plain data -------------------------------------------------------------------------------------------------

    @locked
    def state(self) -> dict[str, Any]:
        """As plain data and arrays: the distance of each range from the one before, its length, and which of the
        different decisions it has."""
        gone, *rest = self._all
        firsts, stops, made = (each[gone : len(self._all.made)] for each in rest)
        known: dict[Decision, int] = {}
        which = [known.setdefault(decision, len(known)) for decision in made]
        begin, end = np.array(firsts, np.int64), np.array(stops, np.int64)
        start = firsts[0] if made else self.stop
        return {
            "start": start,
            "skipped": _small(begin - np.concatenate(([start], end[:-1])) if made else begin),
            "lengths": _small(end - begin),
            "which": _small(np.array(which, np.int64)),
            "decisions": list(known),
        }

    @locked
    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the decisions of a state that are not known yet."""
        decisions = [as_decision(each) for each in state["decisions"]]
        stop = int(state["start"])
        for skipped, length, which in zip(
            *(np.asarray(state[name]).tolist() for name in ("skipped", "lengths", "which")), strict=True
        ):
            first, stop = stop + skipped, stop + skipped + length
            self._note(first, stop, decisions[which])

    @locked
    def covers(self, state: Mapping[str, Any]) -> bool:
        """True if all decisions of a state are here, except those after the last one here."""
        gone, firsts, _, made = self._all
        start = firsts[gone] if made else 0
        return not len(state["lengths"]) or start <= state["start"] <= self.stop


def as_decision(value: Any) -> Decision:
    """A decision that was read from JSON, which has lists for tuples."""
    return tuple(value) if isinstance(value, list) else value


def _small(numbers: NDArray[np.int64]) -> NDArray[Any]:
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))
