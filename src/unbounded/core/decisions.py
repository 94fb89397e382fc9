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
    """Ranges in order, of which the first `gone` are let go of. There are as many as there are `made`: what the
    other two have beyond that was about to be added when an exception came."""

    gone: int
    firsts: array[int]
    stops: array[int]
    made: list[Decision]


class Decisions:
    """The decisions of one node, in the order of its ordinals. Safe between threads, and where an exception may come at
    any line: each change is one assignment, or one element more.

    Args:
        runtime: the lock.
        apart: decisions of which each range stays by itself.
    """

    def __init__(self, runtime: Runtime, apart: Iterable[Decision] = ()) -> None:
        self._lock = runtime.lock()
        self._apart = frozenset(apart)
        self._all = _DecidedRanges(0, array("q"), array("q"), [])
        self.released = 0
        """Nothing before this ordinal will be asked for again."""
        self.written = 0
        """Up to here it is in the file, where there is one."""

    @property
    def stop(self) -> int:
        """Up to here it is decided."""
        _, _, stops, made = self._all
        return stops[len(made) - 1] if made else 0

    @locked
    def note(self, first: int, stop: int, decision: Decision) -> None:
        """It is decided for the ordinals from `first` up to `stop`. What was decided before stays."""
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
        """The range with an ordinal; None where that is not decided."""
        i = self._index(ordinal)
        return self._range(i) if i < len(self._all.made) and self._all.firsts[i] <= ordinal else None

    @locked
    def between(self, first: int, stop: int) -> list[DecidedRange]:
        """The ranges with ordinals from `first` up to `stop`, in order, each of them whole."""
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
        """Nothing before `ordinal` will be asked for again."""
        if ordinal <= self.released:
            return
        self.released = ordinal
        _, firsts, stops, made = self._all
        gone = max(0, min(self._index(ordinal), len(made) - 1))  # the last one stays, and with it where it ends
        if gone > 64 and gone > len(made) // 2:
            self._all = _DecidedRanges(0, firsts[gone:], stops[gone:], made[gone:])
        else:
            self._all = _DecidedRanges(gone, firsts, stops, made)

    @locked
    def unwritten(self) -> list[DecidedRange]:
        """What is not in the file."""
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
        """Take up what `state` gave, as far as it is not known yet."""
        decisions = [as_decision(each) for each in state["decisions"]]
        stop = int(state["start"])
        for skipped, length, which in zip(
            *(np.asarray(state[name]).tolist() for name in ("skipped", "lengths", "which")), strict=True
        ):
            first, stop = stop + skipped, stop + skipped + length
            self._note(first, stop, decisions[which])

    @locked
    def covers(self, state: Mapping[str, Any]) -> bool:
        """Whether nothing is missing here that a state has, but for what follows."""
        gone, firsts, _, made = self._all
        start = firsts[gone] if made else 0
        return not len(state["lengths"]) or start <= state["start"] <= self.stop


def as_decision(value: Any) -> Decision:
    """A decision that JSON gave back."""
    return tuple(value) if isinstance(value, list) else value


def _small(numbers: NDArray[np.int64]) -> NDArray[Any]:
    return numbers.astype(np.min_scalar_type(numbers.max(initial=0)))
