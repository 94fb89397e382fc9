"""Lookup: which rows a batch contains, and in which batch a row comes, without running up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from unbounded.chain import Chain
from unbounded.core import check
from unbounded.core.block import Run
from unbounded.core.node import CannotTell, Cursor
from unbounded.core.runtime import SYSTEM
from unbounded.core.trees import Tree
from unbounded.core.words import checked
from unbounded.opened import places_of
from unbounded.sources.counting import Counting
from unbounded.sources.source import SourcePart
from unbounded.stages.combined import Combined
from unbounded.stages.drop_missing import DropMissing
from unbounded.stages.encode import Encode
from unbounded.stages.event_time import Time
from unbounded.stages.fill import Fill
from unbounded.stages.images import Images
from unbounded.stages.map import Columns, Filter, Map, MapRows
from unbounded.stages.mix import Mix
from unbounded.stages.normalize import Normalize
from unbounded.stages.pad import Pad
from unbounded.stages.random_map import RandomMap
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.skip_non_finite import Finite
from unbounded.stages.stage import Stage
from unbounded.stages.windows import Windows


class Lookup(Chain):
    """A chain that can tell which rows its batches have, provided that its source and stages only move rows."""

    @checked(".batch_at(step)")
    def batch_at(self, step: int) -> Tree:
        """The content of batch number `step` (from 0), without running up to it.

        Raises:
            LookupError: the stream can't tell, because of a filter, running statistics, or a source that can't seek to
                a row.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays(np.arange(10), shuffle=False).batch(4).batch_at(10**12)
        array([0, 1, 2, 3])
        """
        return self.run_at(check.at_least(0, step, "batch_at(step)")).items[0]

    def run_at(self, step: int) -> Run:
        """The run that begins with batch number `step`, with its rows' metadata."""
        if not self._batched:
            raise CannotTell(
                "batch_at() and rows_at() count batches, and the stream has no .batch(): the source's own blocks are "
                "its batches."
            )
        cursor = self.cursor_at(step)
        opened = self.open(SYSTEM)
        try:
            opened.top.restore(cursor)
            while not ((run := opened.top.pull(None)) and run.count):
                pass
            assert isinstance(run, Run)
            return run
        finally:
            opened.top.close()

    def cursor_at(self, step: int) -> Cursor:
        """The cursor before batch number `step`."""
        return self._cursors(0)(step)

    def _cursors(self, first: int) -> Callable[[int], Cursor]:
        """A function that returns the cursor before an output row; `first` is the place of the first part."""
        rows, places, head = self._rows_at(), places_of(self, first), self._head

        def at_head(ordinal: int) -> Cursor:
            if not isinstance(head, Combined):
                return head.cursor_at(ordinal)
            below = [each._cursors(at) for each, at in zip(self.branches.values(), places.branches, strict=True)]
            return head.cursor_at(ordinal, below, places.head)

        def before(level: int) -> Callable[[int], Cursor]:
            if level == 0:
                return at_head
            stage, place = self._stages[level - 1], places.stages[level - 1]
            if stage.ends_with_pass and rows[level - 1] is None and any(rows[:level]):
                unknown = self._stages[rows.index(None) - 1].word
                raise CannotTell(f"how many rows of a pass come out of {unknown}() is not known beforehand")
            return lambda ordinal: stage.cursor_at(ordinal, before(level - 1), rows[level - 1], place)

        return before(len(self._stages))

    @checked(".step_of(row, source=None, after=0)")
    def step_of(self, row: int, *, source: str | None = None, after: int = 0) -> int:
        """The number of the next batch, from batch `after` on, that has row `row` of a source.

        Args:
            row: the row's number in its source.
            source: the source's name, in a mix: such as "old", or "old/a" in a mix of mixes.
            after: the batch to begin with.

        Raises:
            LookupError: the stream can't tell.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.from_arrays(np.arange(100), seed=7).shuffle(30).batch(8)
        >>> 42 in stream.batch_at(stream.step_of(42))
        True
        """
        row, after = check.at_least(0, row, "step_of(row)"), check.at_least(0, after, "step_of(after=n)")
        names = list(self.leaves)
        name = names[0] if source is None and len(names) == 1 else source
        if name not in names:
            raise ValueError(
                f"step_of({row}, source={source!r}): expected the name of a source, {', '.join(map(repr, names))}."
            )
        size = self.batch_size
        if size is None:
            raise CannotTell("step_of() counts batches, and the stream has no .batch().")
        head = self.leaves[name]._head
        assert not isinstance(head, Combined)
        # A stage moves a row within its pass only, or, after a mix, within its buffer: search back that far before
        # batch `after`.
        slack = sum(stage.rows for stage in self._stages if isinstance(stage, Shuffle)) if self.branches else 0
        per_pass = head.rows_per_pass()
        start = self._taken(name, max(0, after * size - slack), 0)
        start = start // per_pass * per_pass if per_pass else start
        found: int | None = None
        passes = 0
        while passes < 3 or (self.branches and found is None):
            ordinal = head.ordinal_of(row, start)
            start, passes = ordinal + 1, passes + 1
            step = self._ordinal_of(name, ordinal, 0)
            if step >= after:
                if not self.branches:
                    return step
                found = step if found is None else min(found, step)
        if found is None:
            raise CannotTell(f"row {row:,} does not come again after batch {after:,}")
        return found

    def _taken(self, name: str, ordinal: int, first: int) -> int:
        """The rows of a source before output row `ordinal` of the head, not counting moves by stages."""
        if not isinstance(self._head, Combined):
            return ordinal
        places = places_of(self, first)
        index, branch, rest = self._branch_of(name)
        return branch._taken(rest, self._head.taken(ordinal, places.head)[index], places.branches[index])

    def _ordinal_of(self, name: str, ordinal: int, first: int) -> int:
        """The output row, or batch, that has row number `ordinal` of a source."""
        places = places_of(self, first)
        if isinstance(self._head, Combined):
            index, branch, rest = self._branch_of(name)
            ordinal = branch._ordinal_of(rest, ordinal, places.branches[index])
            ordinal = self._head.ordinal_of(index, ordinal, places.head)
        for stage, rows, place in zip(self._stages, self._rows_at(), places.stages, strict=False):
            ordinal = stage.ordinal_of(ordinal, rows, place)
        return ordinal

    def _branch_of(self, name: str) -> tuple[int, Self, str]:
        """The branch that contains a source: its number, the branch, and the source's name in it."""
        own, _, rest = name.partition("/")
        return list(self.branches).index(own), self.branches[own], rest or "source"

    @checked(".rows_at(step, source=None)")
    def rows_at(self, step: int, *, source: str | None = None) -> NDArray[np.int64]:
        """The rows of a source that batch number `step` (from 0) has, without running up to it.

        Args:
            step: the batch.
            source: the source's name, in a mix.

        Returns:
            The rows' numbers in their source, in the order of the batch: for arrays the index of each row, for other
            sources counted from the run's beginning. Of shape [rows], or [rows, length] if rows are windows.

        Raises:
            LookupError: the stream can't tell.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays(np.arange(100) * 10, seed=7).shuffle(30).batch(4).rows_at(1000)
        array([55, 33,  9, 49])
        """
        names = list(self.leaves)
        name = names[0] if source is None and len(names) == 1 else source
        if name not in names:
            raise ValueError(
                f"rows_at({step}, source={source!r}): expected the name of a source, {', '.join(map(repr, names))}."
            )
        run = self.numbers().run_at(check.at_least(0, step, "rows_at(step)"))
        numbers: NDArray[np.int64] = run.items[0]
        if run.provenance is None:
            return numbers
        of_source: NDArray[np.int64] = numbers[run.provenance[: len(numbers)] & 0xFF == names.index(name)]
        return of_source

    def numbers(self) -> Lookup:
        """Like `numbered`, but sources whose rows are not known beforehand are numbered as they come."""
        head = self._head
        if isinstance(head, SourcePart):
            return Lookup(_counted(head, self._stages), self._moving())
        if not isinstance(head, Mix):
            raise CannotTell(f"which rows {head.word}() gives depends on all rows before them")
        branches = {name: each.numbers() for name, each in self.branches.items()}
        return Lookup(replace(head, branches=branches), self._moving())

    def numbered(self) -> Lookup:
        """The same stream over its sources' row numbers in place of the rows, without calling any user function."""
        return Lookup(self._head.numbered(), self._moving())

    def _moving(self) -> tuple[Stage, ...]:
        """The stages for row numbers: those that change values only are replaced by the identity."""
        if any(isinstance(stage, Filter | Finite | Normalize | DropMissing) for stage in self._stages):
            raise CannotTell("which rows come through depends on their values")
        # The replacement keeps the stage's place, which keys the random choices of later stages.
        changes = (Map, MapRows, RandomMap, Columns, Encode, Fill, Time, Pad, Images)
        return tuple(Map(_same) if isinstance(stage, changes) else stage for stage in self._stages)


def _counted(part: SourcePart, stages: Sequence[Stage]) -> SourcePart:
    """A source of the row numbers of another source."""
    if hasattr(part.source, "numbered"):
        return part.numbered()
    if part.passes is not None:
        raise CannotTell(f"where the passes of {part.word}() end is not known beforehand")
    holding = [stage for stage in stages if isinstance(stage, Shuffle | Windows)]
    if part.is_logged and holding:
        raise CannotTell(f"a gap in {part.name} would close a buffer of {holding[0].word}()")
    return SourcePart(Counting())


def _same(rows: Tree) -> Tree:
    return rows
