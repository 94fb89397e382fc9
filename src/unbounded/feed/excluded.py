"""Weights of excluded rows in the batches of a feed, and the record of excluded rows in its checkpoints.

The row numbers of the stream are read in the same order as the rows: a batch's weights follow from its step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core.block import Run
from unbounded.core.node import CannotTell
from unbounded.core.runtime import Runtime
from unbounded.core.warn import warn
from unbounded.lookup import Lookup
from unbounded.stages.exclude import Exclude, weighted
from unbounded.stages.tap import place_of
from unbounded.stages.windows import Windows
from unbounded.stream import Stream


class Weights:
    """Sets the weights of runs of batches.

    Args:
        stream: the feed's stream.
        excluded: its stages that exclude rows.
        runtime: the feed's.

    Raises:
        ValueError: the rows of a batch are not known beforehand.
    """

    def __init__(self, stream: Stream, excluded: Sequence[Exclude], runtime: Runtime) -> None:
        self._excluded = excluded
        self._names = list(stream.leaves)
        try:
            self._numbers = stream.numbers()
            self._numbers.cursor_at(0)
        except CannotTell as error:
            raise ValueError(
                f"exclude() needs to know which rows a batch has, and {error}. Give such rows a weight of 0 with "
                ".map()."
            ) from error
        self._top = self._numbers.open(runtime).top
        self._step: int | None = None  # the number of the next batch; None if it is not known
        self._run: Run | None = None

    def weigh(self, run: Run, step: int) -> Run:
        """A run whose first batch has number `step`, with weights."""
        items = [weighted(item, self._without(step + i)) for i, item in enumerate(run.items)]
        return replace(run, items=items, parts=tuple(items))

    def _without(self, step: int) -> Any:
        """The mask of rows of a batch with weight 0; a window has weight 0 if one of its rows has."""
        # A signal may end this at any line: until it is done, it is not known where the row numbers stand.
        at, run = self._step, self._run
        self._step = None
        if step != at:
            self._top.restore(self._numbers.cursor_at(step))
            run = None
        while run is None or not run.count:
            pulled = self._top.pull(None)
            assert pulled is None or isinstance(pulled, Run)
            run = pulled
        numbers, leaf = run.items[0], run.provenance
        rows = len(numbers)
        out = np.zeros(numbers.shape, bool)
        for stage in self._excluded:
            named = stage.names(numbers)
            if leaf is not None:
                index = self._names.index(str(stage.source))
                named &= (leaf[:rows] & 0xFF == index).reshape(-1, *[1] * (numbers.ndim - 1))
            out |= named
        self._run = run.part(1, run.count)
        self._step = step + 1
        return out.reshape(rows, -1).any(1)

    def close(self) -> None:
        """Close the stream of row numbers."""
        self._top.close()


class ExcludedNewRows:
    """Which of the rows that come to a source's tap are excluded.

    Args:
        leaf: the branch of the source.
        excluded: the stages that exclude rows of this source.
        runtime: the feed's.
    """

    def __init__(self, leaf: Stream, excluded: Sequence[Exclude], runtime: Runtime) -> None:
        self._excluded = excluded
        self._numbers = Lookup(leaf.head).numbers()
        self._top = self._numbers.open(runtime).top
        self._first: int | None = None  # the ordinal of the first of the numbers at hand; None if it is not known
        self._known: NDArray[np.int64] = np.empty(0, np.int64)
        # A window is known by its last row: how many rows before that one each of its rows came.
        before, step = np.zeros(1, np.int64), 1
        for stage in leaf.stages[: place_of(leaf.stages)]:
            if isinstance(stage, Windows):
                before = np.unique(before[:, None] + np.arange(stage.length) * step)
                step *= stage.stride
        self._before = before

    def mask(self, ordinals: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows are excluded.

        Args:
            ordinals: in which place of the source's rows each came, from the run's beginning, rising; of a window, its
                last row. [rows].
        """
        low = int(ordinals[0]) - int(self._before[-1])
        numbers = self._read(low, int(ordinals[-1]) + 1)
        named = np.zeros(len(numbers), bool)
        for stage in self._excluded:
            named |= stage.names(numbers)
        out: NDArray[np.bool_] = named[ordinals[:, None] - self._before - low].any(1)
        return out

    def _read(self, low: int, stop: int) -> NDArray[np.int64]:
        """The numbers of the rows that came from place `low` up to `stop`."""
        # As in `Weights`: a signal may end this at any line.
        first, known = self._first, self._known
        self._first = None
        if first is None or not first <= low <= first + len(known):
            self._top.restore(self._numbers.cursor_at(low))
            first, known = low, known[:0]
        end = first + len(known)
        parts = [known[low - first :]]
        while end < stop:
            block = self._top.pull(None)
            if block is not None and block.count:
                assert not isinstance(block, Run)
                parts.append(block.rows)
                end += block.count
        self._known = known = np.concatenate(parts)
        self._first = low
        return known[: stop - low]


def plain(excluded: Sequence[Exclude]) -> list[Any]:
    """Excluded rows as plain data: for each source a list of ranges [first, end]."""
    return [[stage.source, [list(each) for each in stage.ranges]] for stage in excluded]


def record_of(state: Mapping[str, Any], step: int, now: list[Any]) -> list[Any]:
    """The record of excluded rows (from which step on, which rows) of a feed that resumes a state and excludes `now`.

    Warns:
        UserWarning: rows that were excluded before are not any more.
    """
    record = [list(entry) for entry in state.get("excluded", [])]
    before = record[-1][1] if record else []
    if now == before:
        return record
    if not all(_within(each, now) for each in before):
        warn(
            f"The checkpoint excludes rows that the stream does not exclude: from step {step:,} on they weigh again. "
            "feed.excluded has the record."
        )
    return [*record, [step, now]]


def _within(entry: list[Any], now: list[Any]) -> bool:
    """True if all rows of a record's entry are excluded now, too."""
    ranges = [each for source, found in now if source == entry[0] for each in found]
    return all(any(low <= start and stop <= high for low, high in ranges) for start, stop in entry[1])
