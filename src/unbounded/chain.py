"""Chain: a source and its stages, without the words that a user writes: what is known of them beforehand, what a step
contains, and how they are put to work.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from unbounded.core import check
from unbounded.core.block import Run
from unbounded.core.identity import comparable
from unbounded.core.node import CannotTell, Context, Cursor, Node, StreamError
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.show import words
from unbounded.core.trees import Tree
from unbounded.core.words import checked
from unbounded.sources.arrays import Arrays
from unbounded.sources.source import Source, Turns
from unbounded.stages.batch import Batch
from unbounded.stages.map import Filter, Map, MapRows, Select
from unbounded.stages.normalize import Normalize
from unbounded.stages.random_map import RandomMap
from unbounded.stages.skip_non_finite import Finite
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee, Stage
from unbounded.stages.take import Take


@dataclass(frozen=True)
class Opened:
    """A stream at work: the nodes of its sources, what these are called, and the last stage's node, to pull from."""

    sources: list[Node]
    names: list[str]
    top: Node


class Chain:
    """A source and its stages, which never change: what a `Stream` is made of."""

    def __init__(self, source: Source, stages: tuple[Stage, ...] = ()) -> None:
        self._source = source
        self._stages = stages
        self._fingerprint: str | None = None

    def __repr__(self) -> str:
        return ".".join(map(words, self.parts))

    @property
    def parts(self) -> tuple[Source | Stage, ...]:
        """The source, and the stages in order."""
        return (self._source, *self._stages)

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch; None without `batch`, where the source's own blocks are the batches."""
        return next((stage.rows for stage in self._stages if isinstance(stage, Batch)), None)

    @property
    def _batched(self) -> bool:
        return any(isinstance(stage, Batch) for stage in self._stages)

    @property
    def _batch_index(self) -> int:
        return next((i for i, s in enumerate(self._stages) if isinstance(s, Batch)), len(self._stages))

    @property
    def guarantee(self) -> Guarantee:
        """What is promised of each row: the weakest of the source's and the stages' promises.

        `exact`: trained once for each time it comes, whatever happens. `at_least_once`: never lost.
        `at_most_once`: never twice.
        """
        return min([self._source.guarantee, *(s.guarantee for s in self._stages)], key=WEAKEST_FIRST.index)

    @property
    def has_passes(self) -> bool:
        """Whether the source's rows come in passes."""
        return self._source.rows_per_pass() is not None or getattr(self._source, "passes", None) is not None

    @property
    def has_end(self) -> bool:
        """Whether it has a declared end."""
        return any(isinstance(part, Take) or getattr(part, "passes", None) is not None for part in self.parts)

    @property
    def rows_per_pass(self) -> int | None:
        """Rows that come out of the last stage in each pass; None where that can't be said, or no pass
        ends."""
        return self._rows_at()[-1]

    def _rows_at(self) -> list[int | None]:
        """Rows in a pass as the source gives them, and after each stage."""
        rows = [self._source.rows_per_pass()]
        for stage in self._stages:
            rows.append(stage.rows_per_pass(rows[-1]))
        return rows

    def _declared_rows(self) -> int | None:
        """How many rows come before a declared end, where that can be said."""
        passes = getattr(self._source, "passes", None)
        per_pass = self._source.rows_per_pass()
        total = None if passes is None or per_pass is None else passes * per_pass
        for stage in self._stages:
            if isinstance(stage, Take):
                total = stage.rows if total is None else min(total, stage.rows)
            elif total is not None:
                total = stage.rows_per_pass(total)
        return total

    def check_gives_rows(self) -> None:
        """Raise ValueError where it is known beforehand that no row will come out of the last stage."""
        for before, rows, stage in zip(self._rows_at(), self._rows_at()[1:], self._stages, strict=False):
            if rows == 0 and before:
                raise ValueError(
                    f".{words(stage)} gives nothing of a pass of {before:,} rows: no window spans the end of a pass. "
                    f"Use .windows({before}) or a shorter one."
                )
        if self._declared_rows() == 0:
            raise ValueError(f"{self!r} gives no row before its declared end. Declare a later one.")

    def refuse_without_batches(self, passes: int) -> None:
        """Raise StreamError where rows repeat and whole passes of them gave no batch: no later one will."""
        if isinstance(self._source, Arrays):
            raise StreamError(
                f"{passes} passes over the rows have ended without a batch, and the next ones would too: {self!r} "
                "gives none. Look at what .filter() keeps, and whether a pass is long enough for .windows()."
            )

    def identity(self) -> list[Any]:
        """What moves or makes rows, as plain data: the source, the seeds, the stages and their sizes; functions by
        their code and the constants that they read.

        Each part's is taken once, at the latest when the stream is first put to work: what functions hold may change
        then.
        """
        source, stages = self._source, [stage for stage in self._stages if stage.moves_rows]
        return [[source.word, source.first_identity], *([stage.word, stage.first_identity] for stage in stages)]

    @property
    def fingerprint(self) -> str:
        """A short checksum of `identity`: equal where a position of the one stream is one of the other."""
        if self._fingerprint is None:
            text = json.dumps(comparable(self.identity()), sort_keys=True, default=str)
            self._fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return self._fingerprint

    # -- chains made of it ---------------------------------------------------------------------------------------------

    def before_batch(self) -> Self:
        """The chain up to `batch`; all of it where there is no `batch`."""
        return self._with(self._stages[: self._batch_index])

    def finite(self, address: Callable[[int], str]) -> Self:
        """The same stream without rows that have a NaN or an infinity: see `Finite`. For a feed, not for a user."""
        if any(isinstance(stage, Finite) for stage in self._stages):
            return self
        at = self._batch_index
        return self._with((*self._stages[:at], Finite(address), *self._stages[at:]))

    def numbered(self) -> Chain:
        """The same stream over arrays' row numbers in place of the rows: as far as no function has to be
        asked."""
        assert isinstance(self._source, Arrays)
        if any(isinstance(stage, (Filter, Finite, Normalize)) for stage in self._stages):
            raise CannotTell("which rows come through depends on their values")
        kept = tuple(s for s in self._stages if not isinstance(s, (Map, MapRows, RandomMap, Select)))
        source = replace(self._source, rows=np.arange(self._source.rows_per_pass()))
        return Chain(source, kept)

    def _with(self, stages: tuple[Stage, ...]) -> Self:
        stream = copy.copy(self)  # of the same class: tests have streams that stall and fail on purpose
        stream._stages = stages
        stream._fingerprint = None
        return stream

    # -- what a step contains ------------------------------------------------------------------------------------------

    @checked(".batch_at(step)")
    def batch_at(self, step: int) -> Tree:
        """What batch number `step` (from 0) contains, without running up to it.

        Raises:
            LookupError: where the stream can't tell: a filter, running statistics, or a source that can't go
                to a row come before.

        >>> import numpy as np, unbounded as ub
        >>> ub.arrays(np.arange(10), shuffle=False).batch(4).batch_at(10**12)
        array([0, 1, 2, 3])
        """
        if not self._batched:
            raise CannotTell(
                "batch_at() counts batches, and the stream has no .batch(): the source's own blocks are its batches."
            )
        cursor = self.cursor_at(check.at_least(0, step, "batch_at(step)"))
        opened = self.open(SYSTEM)
        try:
            opened.top.restore(cursor)
            while not ((run := opened.top.pull(None)) and run.count):
                pass
            assert isinstance(run, Run)
            return run.items[0]
        finally:
            opened.top.close()

    def cursor_at(self, step: int) -> Cursor:
        """The cursor before batch number `step`."""
        rows = self._rows_at()
        places = self._places()

        def before(level: int) -> Callable[[int], Cursor]:
            if level == 0:
                return self._source.cursor_at
            stage = self._stages[level - 1]
            return lambda ordinal: stage.cursor_at(ordinal, before(level - 1), rows[level - 1], places[level - 1])

        return before(len(self._stages))(step)

    @checked(".step_of(row, after=0)")
    def step_of(self, row: int, *, after: int = 0) -> int:
        """The number of the batch in which row `row` of the source comes next, from batch `after` on.

        Raises:
            LookupError: where the stream can't tell.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.arrays(np.arange(100), seed=7).shuffle(30).batch(8)
        >>> 42 in stream.batch_at(stream.step_of(42))
        True
        """
        row, after = check.at_least(0, row, "step_of(row)"), check.at_least(0, after, "step_of(after=n)")
        rows, places = self._rows_at(), self._places()
        size = self.batch_size
        if size is None:
            raise CannotTell("step_of() counts batches, and the stream has no .batch().")
        # A stage moves a row within its pass alone: the pass of batch `after`, and the two that follow, hold
        # the answer.
        per_pass = rows[0]
        start = after * size // per_pass * per_pass if per_pass else after * size
        for _ in range(3):
            source = self._source.ordinal_of(row, start)
            ordinal = source
            for stage, before, place in zip(self._stages, rows, places, strict=False):
                ordinal = stage.ordinal_of(ordinal, before, place)
            if ordinal >= after:
                return ordinal
            start = source + 1
        raise CannotTell(f"row {row:,} does not come again after batch {after:,}")

    # -- at work -------------------------------------------------------------------------------------------------------

    def _places(self) -> list[int]:
        """Each stage's place: those that move no rows are not counted, so that a prefetch changes no random
        choice."""
        places, place = [], 0
        for stage in self._stages:
            place += 1 if stage.moves_rows and stage.has_place else 0
            places.append(place)
        return places

    def open(
        self,
        runtime: Runtime = SYSTEM,
        *,
        block_rows: int | None = None,
        wrap: Callable[[Node], Node] | None = None,
    ) -> Opened:
        """Put it to work; `wrap` may put something between any two nodes, for tests."""
        self.identity()
        wrap = wrap or (lambda node: node)
        context = Context(runtime, 0, block_rows, self.batch_size or 1)
        source = self._source.open(context)
        node = wrap(Turns(source))
        for stage, place in zip(self._stages, self._places(), strict=True):
            node = wrap(stage.open(node, context.at(place)))
        return Opened([source], ["source"], node)
