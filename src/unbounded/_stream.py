"""Stream: the chain of words. An immutable description of where rows come from and what becomes of them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from unbounded import _rows, _show
from unbounded._block import Run
from unbounded._clock import SYSTEM, Clock
from unbounded._identity import comparable, not_compared
from unbounded._node import CannotTell, Context, EndOfStream, Mark, Node, empty_stream
from unbounded._rows import Tree
from unbounded._show import words
from unbounded._waiting import Waiting
from unbounded._words import STREAM, checked, unknown
from unbounded.sources._base import Source, Turns
from unbounded.sources.arrays import Arrays
from unbounded.stages._base import WEAKEST_FIRST, Guarantee, Stage
from unbounded.stages.batch import Batch
from unbounded.stages.finite import Finite
from unbounded.stages.map import Filter, Map, MapRows, Select
from unbounded.stages.normalize import Normalize
from unbounded.stages.prefetch import Buffer, Overflow, Prefetch
from unbounded.stages.random_map import RandomMap
from unbounded.stages.replay import Replay
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.take import Take
from unbounded.stages.windows import Windows


class LeafShape(NamedTuple):
    """The shape and the dtype of one leaf of a batch."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class Opened:
    """A stream at work: the source's node, and the last stage's, which is the one to pull from."""

    source: Node
    top: Node


class Stream:
    """Where rows come from and what becomes of them: `source.stage().stage()`, in the order in which the data
    goes.

    A stream is a description, and nothing runs before a `Feed` is made of it. It never changes: each word
    gives a new one. `batch` is the last word that changes rows; only `map`, `random_map` and `prefetch` may
    follow it.

    Sources make streams: `unbounded.arrays`, `generate`, `samples`, `machine`.
    """

    def __init__(self, source: Source, stages: tuple[Stage, ...] = ()) -> None:
        self._source = source
        self._stages = stages
        self._fingerprint: str | None = None

    # -- the words -----------------------------------------------------------------------------------------------

    @checked(".map(fn, workers=0)")
    def map(self, fn: Callable[[Tree], Tree], *, workers: int = 0) -> Stream:
        """Change rows, whole columns at a time.

        Args:
            fn: is given a tree of arrays, each of shape (rows, …), and returns a tree with as many rows. It
                must be pure, and treat each row for itself: how many rows it is given at a time carries no
                meaning. After `batch` it is given one whole batch, and may look across rows.
            workers: threads that call it; 0 calls it where the rows are pulled. Order is kept. Worth it for
                functions that release the GIL, as most of NumPy does on large arrays.

        >>> import numpy as np, unbounded as ub
        >>> ub.arrays(np.arange(4), shuffle=False).map(lambda rows: rows * 10).batch(2).batch_at(1)
        array([20, 30])
        """
        return self._then(Map(fn, workers))

    @checked(".map_rows(fn)")
    def map_rows(self, fn: Callable[[Tree], Tree]) -> Stream:
        """Change rows one at a time: convenient and slow; `map` is the fast one.

        Args:
            fn: is given a tree of arrays of shape (…), one row without its first dimension, and returns such
                a tree.
        """
        return self._then(MapRows(fn))

    @checked(".random_map(fn, seed=0, group=64)")
    def random_map(self, fn: Callable[[Tree, np.random.Generator], Tree], *, seed: int = 0, group: int = 64) -> Stream:
        """Change rows by chance, such as augmentation: the same draws after any number of resumes.

        Args:
            fn: is given rows and a `numpy.random.Generator`, and returns as many rows. Before `batch` it is
                given the rows in groups that begin at fixed rows; after `batch`, a whole batch.
            seed: draws are a function of the seed, the stage's place in the stream, and the group's or
                batch's number.
            group: rows to a group. Rows wait until their group is full: choose a small one for slow live
                streams.

        >>> import numpy as np, unbounded as ub
        >>> def noisy(rows, rng):
        ...     return rows + rng.normal(size=rows.shape)
        >>> stream = ub.arrays(np.zeros(8)).random_map(noisy).batch(4)
        >>> bool((stream.batch_at(5) == stream.batch_at(5)).all())
        True
        """
        return self._then(RandomMap(fn, seed, group, self._batched))

    @checked(".filter(fn)")
    def filter(self, fn: Callable[[Tree], Any]) -> Stream:
        """Keep the rows for which `fn` says True.

        Args:
            fn: is given a tree of arrays of shape (rows, …) and returns bool of shape (rows,). It must be
                pure, and treat each row for itself.
        """
        return self._then(Filter(fn))

    @checked(".select(x, y, weight)")
    def select(self, x: Any, y: Any = None, weight: Any = None) -> Stream:
        """Columns of a dict as what `fit` takes: x, or (x, y), or (x, y, weight).

        Args:
            x: the name of a column; or a list or dict of names, nested as the model's inputs are.
            y: the same for the targets.
            weight: the name of the column of sample weights.
        """
        return self._then(Select(x, y, weight))

    @checked(".shuffle(rows, seed=0)")
    def shuffle(self, rows: int, *, seed: int = 0) -> Stream:
        """Put each `rows` rows on end in a random order. A buffer closes at the end of a pass: each row comes
        once in each.

        Args:
            rows: how many rows the buffer holds. As many as a pass has make its order uniformly random.
            seed: the order is a function of the seed, the stage's place in the stream, and the buffer's
                number.
        """
        return self._then(Shuffle(rows, seed))

    @checked(".buffer(rows, overflow='block')")
    def buffer(self, rows: int, *, overflow: Overflow = "block") -> Stream:
        """Hold up to `rows` rows, first in, first out, filled by a thread while the model trains.

        Args:
            rows: how many rows it holds.
            overflow: what happens when it is full: "block" lets the source wait; "drop_oldest" lets the
                oldest rows go, counts them, and leaves a gap in their place (the stream's guarantee is then
                `at_most_once`).
        """
        return self._then(Buffer(rows, overflow))

    @checked(".windows(length, stride=1, by=None)")
    def windows(self, length: int, *, stride: int = 1, by: str | None = None, expire: int | None = None) -> Stream:
        """Sliding windows: each row becomes `length` consecutive rows, leaves of shape (windows, length, …).

        A window never spans a break: the end of a pass, or a gap.

        Args:
            length: rows in a window.
            stride: rows between the starts of two windows.
            by: the name of a column: windows hold the rows of one key each. Each key's last rows are then
                part of the position.
            expire: with `by`, rows of the whole stream after which a silent key is forgotten. None keeps keys
                for ever.
        """
        return self._then(Windows(length, stride, by, expire))

    @checked(".normalize(*columns, by=None)")
    def normalize(self, *columns: Any, by: str | None = None) -> Stream:
        """Bring columns to mean 0 and variance 1, by the running statistics of all rows so far.

        NaN stays out of the statistics, is counted (`stats.bad`), and passes through.

        Args:
            columns: names of columns of a dict, or positions in a tuple. None given: every floating-point
                column.
            by: the name of a column: each key has statistics of its own, which are part of the position.
        """
        return self._then(Normalize(columns, by))

    @checked(".replay(capacity, reuse=4.0, half_life=None)")
    def replay(
        self,
        capacity: int,
        *,
        reuse: float = 4.0,
        half_life: float | None = None,
        seed: int = 0,
        start_after: int = 0,
    ) -> Stream:
        """Train on the recent rows, each about `reuse` times.

        For each row that comes in, `reuse` rows come out, drawn from the `capacity` newest. The ratio is
        exact from the first row on; so the first rows, which are alone in the buffer, are used far more often than
        later ones, unless `start_after` lets the buffer fill.

        Args:
            capacity: how many rows count as recent.
            reuse: rows out for each row in; fractions are fine.
            half_life: in rows: a row this much older is half as likely to be drawn. None draws uniformly.
            seed: which row comes when is a function of the seed and the stage's place in the stream.
            start_after: rows that must have come in before the first comes out, `capacity` at most. The ratio counts
                from there: the rows before are drawn as all others while they are in the buffer, and less often.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.arrays(np.arange(1000), shuffle=False).replay(100, reuse=16, start_after=100).batch(50)
        >>> uses = np.bincount(np.concatenate([stream.batch_at(step) for step in range(100)]))
        >>> int(uses[0]), int(uses.max())
        (0, 18)
        """
        return self._then(Replay(capacity, reuse, half_life, seed, start_after))

    @checked(".take(rows)")
    def take(self, rows: int) -> Stream:
        """The first `rows` rows, and then the declared end."""
        return self._then(Take(rows))

    @checked(".batch(rows)")
    def batch(self, rows: int) -> Stream:
        """Rows in batches of `rows` each. Only at a declared end may the last have fewer; it is neither
        padded nor mixed."""
        return self._then(Batch(rows))

    @checked(".prefetch(batches)")
    def prefetch(self, batches: int) -> Stream:
        """Work ahead in a thread: at least `batches` batches, so that the model does not wait."""
        return self._then(Prefetch(batches))

    def _then(self, stage: Stage) -> Stream:
        if self._batched and isinstance(stage, Batch):
            raise ValueError(
                f".batch({stage.rows:,}) stands after .batch({self.batch_size:,}): rows are put into batches once. "
                "Write the one that is meant."
            )
        if self._batched and not stage.after_batch:
            raise ValueError(
                f".{stage.word}() stands after .batch(), which is the last word that changes rows. Expected only "
                ".map(), "
                f".random_map() and .prefetch() there: put .{stage.word}() before .batch()."
            )
        stream = self._with((*self._stages, stage))
        if isinstance(stage, Batch):
            rows = stream._declared_rows()
            if rows is not None and stage.rows > rows:
                raise ValueError(
                    f".batch({stage.rows:,}) is larger than the {rows:,} rows that come before the declared end. Use "
                    f".batch({rows}) or fewer, or declare a later end."
                )
        return stream

    def peek(self) -> Tree:
        """The first batch; without `batch`, the source's first block. Nothing is trained on, and no feed is moved.

        A source that can't go back is read for it, from its beginning, and what was read is gone: of a live stream
        that is at work, use `Feed.peek`.

        >>> import numpy as np, unbounded as ub
        >>> ub.arrays({"x": np.arange(6.0)}, shuffle=False).batch(3).peek()
        {'x': array([0., 1., 2.])}
        """
        self.check_gives_rows()
        opened = self.open()
        waiting = Waiting([(part.word, words(part)) for part in self.parts], opened.top.counts, SYSTEM)
        waiting.begin()
        try:
            while True:
                block = opened.top.pull(0.05)
                if block is not None and block.count:
                    return block.items[0] if isinstance(block, Run) else block.rows
                waiting.look()
        except EndOfStream:
            raise empty_stream(repr(self)) from None
        finally:
            opened.top.close()

    def shapes(self) -> Tree:
        """The shapes and dtypes of the first batch, each with the batch's rows first; it looks as `peek` does.

        >>> import numpy as np, unbounded as ub
        >>> ub.arrays({"x": np.zeros((6, 2)), "y": np.arange(6)}).select("x", "y").batch(3).shapes()
        (float64[3, 2], int64[3])
        """
        return _rows.map_leaves(lambda leaf: LeafShape(leaf.shape, leaf.dtype), self.peek())

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

    def before_batch(self) -> Stream:
        """The stream up to `batch`; all of it where there is no `batch`."""
        return self._with(self._stages[: self._batch_index])

    def finite(self, address: Callable[[int], str]) -> Stream:
        """The same stream without rows that have a NaN or an infinity: see `Finite`. For a feed, not for a user."""
        if any(isinstance(stage, Finite) for stage in self._stages):
            return self
        at = self._batch_index
        return self._with((*self._stages[:at], Finite(address), *self._stages[at:]))

    @property
    def _batch_index(self) -> int:
        return next((i for i, s in enumerate(self._stages) if isinstance(s, Batch)), len(self._stages))

    def _with(self, stages: tuple[Stage, ...]) -> Stream:
        stream = copy.copy(self)  # of the same class: tests have streams that stall and fail on purpose
        stream._stages = stages
        stream._fingerprint = None
        return stream

    # -- what it says of itself
    # ------------------------------------------------------------------------------------

    @property
    def _batched(self) -> bool:
        return any(isinstance(stage, Batch) for stage in self._stages)

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch; None without `batch`, where the source's own blocks are the batches."""
        return next((stage.rows for stage in self._stages if isinstance(stage, Batch)), None)

    @property
    def guarantee(self) -> Guarantee:
        """What is promised of each row: the weakest of the source's and the stages' promises.

        `exact`: trained once for each time it comes, whatever happens. `at_least_once`: never lost.
        `at_most_once`: never twice.
        """
        return min([self._source.guarantee, *(s.guarantee for s in self._stages)], key=WEAKEST_FIRST.index)

    @property
    def parts(self) -> tuple[Source | Stage, ...]:
        """The source, and the stages in order."""
        return (self._source, *self._stages)

    @property
    def has_passes(self) -> bool:
        """Whether the source's rows come in passes."""
        return self._source.rows_per_pass() is not None or getattr(self._source, "passes", None) is not None

    @property
    def has_end(self) -> bool:
        """Whether it has a declared end."""
        return any(isinstance(part, Take) or getattr(part, "passes", None) is not None for part in self.parts)

    def numbered(self) -> Stream:
        """The same stream over arrays' row numbers in place of the rows: as far as no function has to be
        asked."""
        assert isinstance(self._source, Arrays)
        if any(isinstance(stage, (Filter, Finite, Normalize)) for stage in self._stages):
            raise CannotTell("which rows come through depends on their values")
        kept = tuple(s for s in self._stages if not isinstance(s, (Map, MapRows, RandomMap, Select)))
        source = replace(self._source, rows=np.arange(self._source.rows_per_pass()))
        return Stream(source, kept)

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

    def __repr__(self) -> str:
        return ".".join(map(words, self.parts))

    def _repr_html_(self) -> str:
        return _show.stream(self.parts, self._rows_at(), self.batch_size, self.guarantee)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"Stream has no {name!r}.", name=name, obj=self)
        raise AttributeError(unknown("Stream", name, STREAM, dir(type(self))), name=name, obj=self)

    def __iter__(self) -> Iterator[Tree]:
        raise TypeError(
            "A stream is a description: nothing runs yet, and it may never end. Batches come from a feed: "
            "for batch in ub.Feed(stream, epoch=ub.Epoch(steps=1000)); stream.peek() gives the first one."
        )

    def __len__(self) -> int:
        raise TypeError(
            "A stream has no length: it may never end. stream.rows_per_pass says how many rows a pass has; "
            "len(feed) how many batches an epoch has: ub.Feed(stream, epoch=ub.Epoch(steps=1000))."
        )

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, step: int) -> Tree:
        raise TypeError(f"A stream has no items. stream.batch_at({step!r}) gives what that batch contains.")

    def describe(self) -> str:
        """The chain, a line for each word, with what it holds back and what it promises.

        "Known by type alone" is what a function reads and the fingerprint can't compare: a model, an open file.
        """
        lines = []
        for part, rows in zip(self.parts, self._rows_at(), strict=True):
            first = "" if part is self._source else "."
            text = f"{first}{words(part)}"
            notes = [] if rows is None else [f"{rows:,} rows a pass"]
            if part.guarantee != "exact":
                notes.append(part.guarantee.replace("_", " "))
            if (fn := getattr(part, "fn", None)) is not None and (unknown := not_compared(fn)):
                notes.append(f"known by type alone: {', '.join(unknown)}")
            lines.append(f"{text:<44}{', '.join(notes)}".rstrip())
        lines.append(f"guarantee: {self.guarantee.replace('_', ' ')}; fingerprint {self.fingerprint}")
        return "\n".join(lines)

    # -- what a step contains
    # --------------------------------------------------------------------------------------

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
        mark = self.mark_at(step)
        opened = self.open(SYSTEM)
        try:
            opened.top.restore(mark)
            while not ((run := opened.top.pull(None)) and run.count):
                pass
            assert isinstance(run, Run)
            return run.items[0]
        finally:
            opened.top.close()

    def mark_at(self, step: int) -> Mark:
        """The mark before batch number `step`."""
        rows = self._rows_at()
        places = self._places()

        def before(level: int) -> Callable[[int], Mark]:
            if level == 0:
                return self._source.mark_at
            stage = self._stages[level - 1]
            return lambda ordinal: stage.mark_at(ordinal, before(level - 1), rows[level - 1], places[level - 1])

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

    # -- at work -----------------------------------------------------------------------------------------------------

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
        clock: Clock = SYSTEM,
        *,
        block_rows: int | None = None,
        wrap: Callable[[Node], Node] | None = None,
    ) -> Opened:
        """Put it to work; `wrap` may put something between any two nodes, for tests."""
        self.identity()
        wrap = wrap or (lambda node: node)
        context = Context(clock, 0, block_rows, self.batch_size or 1)
        source = self._source.open(context)
        node = wrap(Turns(source))
        for stage, place in zip(self._stages, self._places(), strict=True):
            node = wrap(stage.open(node, context.at(place)))
        return Opened(source, node)
