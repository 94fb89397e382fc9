"""Stream: the methods by which a user describes a stream and looks at it; what a chain is, and opening it, is in
`chain`.

Most of this file is docstrings: an example and the arguments of each method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from unbounded.core import show, trees
from unbounded.core.durations import Duration
from unbounded.core.identity import not_compared
from unbounded.core.trees import Tree
from unbounded.core.words import STREAM, checked, unknown
from unbounded.item_words import ItemWords
from unbounded.lookup import Lookup
from unbounded.read_out import batches_of
from unbounded.stages.batch import Batch
from unbounded.stages.bucket_batch import BucketBatch, Buckets
from unbounded.stages.exclude import Exclude, ranges_of
from unbounded.stages.join import WITHIN, Unmatched
from unbounded.stages.join import described as join_of
from unbounded.stages.keys import EXPIRE
from unbounded.stages.map import Columns, Filter, Map, MapRows
from unbounded.stages.mix import Mix
from unbounded.stages.normalize import Normalize
from unbounded.stages.prefetch import Buffer, Overflow, Prefetch
from unbounded.stages.random_map import RandomMap
from unbounded.stages.replay import Replay
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.stage import Stage
from unbounded.stages.take import Take
from unbounded.stages.windows import Windows
from unbounded.table_words import TableWords


class LeafShape(NamedTuple):
    """The shape and the dtype of one leaf of a batch."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Stream(TableWords, ItemWords, Lookup):
    """A source and the stages after it: `source.stage().stage()`, in the order in which rows pass them.

    A stream is an immutable description: each method returns a new one, and nothing runs before a `Feed` is made of it.
    `batch` is the last method that changes rows; only `map`, `random_map`, `prefetch` and `exclude` may follow it.

    Streams are made by `unbounded.from_arrays`, `from_generator`, `from_samples`, `from_dataset`, `from_files`,
    `from_machine` and `from_source`; `mix` makes one of several.

    >>> import numpy as np, unbounded as ub
    >>> stream = ub.from_arrays(np.arange(100)).shuffle(10).batch(4)
    >>> stream
    from_arrays(100 rows).shuffle(10).batch(4)
    """

    # -- stages --------------------------------------------------------------------------------------------------

    @checked(".map(fn, workers=0)")
    def map(self, fn: Callable[[Tree], Tree], *, workers: int = 0) -> Stream:
        """Change rows, whole columns at a time.

        Args:
            fn: receives a tree of arrays of shape (rows, …), and returns a tree with as many rows. It must be pure and
                row-wise: the number of rows in a call has no meaning. After `batch` it receives one whole batch, and
                may look across rows.
            workers: threads that call it; 0 calls it in the thread that pulls. The order is kept. Useful for functions
                that release the GIL, as most of NumPy does on large arrays.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays(np.arange(4), shuffle=False).map(lambda rows: rows * 10).batch(2).batch_at(1)
        array([20, 30])
        """
        return self._then(Map(fn, workers))

    @checked(".map_rows(fn)")
    def map_rows(self, fn: Callable[[Tree], Tree]) -> Stream:
        """Change rows one at a time: convenient and slow; `map` is fast.

        Args:
            fn: receives one row, a tree of arrays of shape (…) without the first dimension, and returns such a tree.

        >>> import numpy as np, unbounded as ub
        >>> rows = {"text": np.array(["1 2", "3 4 5"])}
        >>> stream = ub.from_arrays(rows, shuffle=False).map_rows(lambda row: {"words": len(str(row["text"]).split())})
        >>> stream.batch(2).peek()
        {'words': array([2, 3])}
        """
        return self._then(MapRows(fn))

    @checked(".random_map(fn, seed=0, group=64)")
    def random_map(self, fn: Callable[[Tree, np.random.Generator], Tree], *, seed: int = 0, group: int = 64) -> Stream:
        """Change rows at random, such as augmentation: the draws are the same after any number of resumes.

        Args:
            fn: receives rows and a `numpy.random.Generator`, and returns as many rows. Before `batch` it receives
                groups of rows that begin at fixed rows; after `batch`, a whole batch.
            seed: of the draws, together with the stage's place in the stream and the number of the group or batch.
            group: the rows of a group. Rows wait until their group is full: choose a small one for slow live streams.

        >>> import numpy as np, unbounded as ub
        >>> def noisy(rows, rng):
        ...     return rows + rng.normal(size=rows.shape)
        >>> stream = ub.from_arrays(np.zeros(8)).random_map(noisy).batch(4)
        >>> bool((stream.batch_at(5) == stream.batch_at(5)).all())
        True
        """
        return self._then(RandomMap(fn, seed, group, self._batched))

    @checked(".filter(fn)")
    def filter(self, fn: Callable[[Tree], Any]) -> Stream:
        """Keep the rows for which `fn` returns True.

        Args:
            fn: receives a tree of arrays of shape (rows, …), and returns bool of shape (rows,). It must be pure and
                row-wise.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays(np.arange(9), shuffle=False).filter(lambda rows: rows % 2 == 0).batch(4).peek()
        array([0, 2, 4, 6])
        """
        return self._then(Filter(fn))

    @checked(".columns(x, y, sample_weight)")
    def columns(self, x: Any, y: Any = None, sample_weight: Any = None) -> Stream:
        """Pick columns of a dict as the arguments of `fit`: x, or (x, y), or (x, y, sample_weight).

        Args:
            x: the name of a column; or a list or dict of names, nested as the model's inputs are.
            y: the same for the targets.
            sample_weight: the name of the column of sample weights.

        >>> import numpy as np, unbounded as ub
        >>> table = {"a": np.arange(4), "b": np.ones(4), "label": np.zeros(4)}
        >>> x, y = ub.from_arrays(table, shuffle=False).columns(x={"in": "a"}, y="label").batch(4).peek()
        >>> x["in"], y
        (array([0, 1, 2, 3]), array([0., 0., 0., 0.]))
        """
        return self._then(Columns(x, y, sample_weight))

    @checked(".shuffle(rows, seed=0)")
    def shuffle(self, rows: int, *, seed: int = 0) -> Stream:
        """Put each `rows` consecutive rows in a random order. A buffer closes at the end of a pass: each row comes once
        in each pass.

        Args:
            rows: the rows of a buffer. A buffer of a whole pass makes the pass's order uniformly random.
            seed: of the order, together with the stage's place in the stream and the buffer's number.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.from_arrays(np.arange(100), shuffle=False).shuffle(10).batch(10)
        >>> sorted(stream.batch_at(3).tolist())
        [30, 31, 32, 33, 34, 35, 36, 37, 38, 39]
        """
        return self._then(Shuffle(rows, seed))

    @checked(".buffer(rows, overflow='block')")
    def buffer(self, rows: int, *, overflow: Overflow = "block") -> Stream:
        """Queue up to `rows` rows, filled by a thread while the model trains.

        Args:
            rows: the size of the queue.
            overflow: what to do when it is full: "block" makes the source wait; "drop_oldest" drops the oldest rows,
                counts them, and puts a gap in their place (the stream's guarantee is then `at_most_once`).

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.from_arrays(np.arange(100)).buffer(50, overflow="drop_oldest").batch(4)
        >>> stream.guarantee
        'at_most_once'
        """
        return self._then(Buffer(rows, overflow))

    @checked(".windows(length, stride=1, by=None, max_gap=None)")
    def windows(
        self,
        length: int,
        *,
        stride: int = 1,
        by: str | None = None,
        expire: int | None = EXPIRE,
        max_gap: Duration | None = None,
    ) -> Stream:
        """Sliding windows: each row becomes `length` consecutive rows, leaves of shape (windows, length, …).

        A window never spans a boundary: the end of a pass, or a gap.

        Args:
            length: rows in a window.
            stride: rows between the starts of two windows.
            by: the name of a column: windows hold the rows of one key each. Each key's last rows are then a part of the
                position.
            expire: with `by`, the rows of the whole stream after which a silent key is forgotten; if it comes again, it
                begins anew. Forgotten keys are counted in `stats.expired`. None keeps keys forever: if new keys keep
                coming, memory and checkpoints then grow without end.
            max_gap: the longest time between two rows that follow each other in a window (with `by`, of one key): a
                number of seconds, a text such as "5min" or "1h", or a timedelta. After a longer one, windows begin
                anew. The times are those of a column that `.time(column)` declares before.

        >>> import numpy as np, unbounded as ub
        >>> rows = {"id": np.array([7, 8, 7, 8, 7]), "x": np.arange(5)}
        >>> ub.from_arrays(rows, shuffle=False).windows(2, by="id").batch(3).peek()["x"]
        array([[0, 2],
               [1, 3],
               [2, 4]])
        """
        return self._then(Windows(length, stride, by, expire, max_gap))

    @checked(".normalize(*columns, by=None)")
    def normalize(self, *columns: Any, by: str | None = None, expire: int | None = EXPIRE) -> Stream:
        """Scale columns to mean 0 and variance 1, by the running statistics of all rows so far.

        NaN is not part of the statistics; it is counted (`stats.bad`) and passed on.

        Args:
            columns: names of columns of a dict, or positions in a tuple. None given: all floating-point columns.
            by: the name of a column: each key has its own statistics, which are a part of the position.
            expire: with `by`, the rows of the whole stream after which a silent key is forgotten; if it comes again,
                its statistics begin anew. Forgotten keys are counted in `stats.expired`. None keeps keys forever.

        >>> import numpy as np, unbounded as ub
        >>> values = np.random.default_rng(0).normal(20, 5, 1000)
        >>> batch = ub.from_arrays({"x": values}).normalize("x").batch(1000).peek()
        >>> bool(abs(batch["x"].mean()) < 0.1 and abs(batch["x"].std() - 1) < 0.1)
        True
        """
        return self._then(Normalize(columns, by, expire))

    @checked(".replay(capacity, reuse=4.0, half_life=None, seed=0, start_after=0)")
    def replay(
        self,
        capacity: int,
        *,
        reuse: float = 4.0,
        half_life: float | None = None,
        seed: int = 0,
        start_after: int = 0,
    ) -> Stream:
        """Repeat recent rows, each about `reuse` times.

        For each input row, `reuse` rows come out, drawn from the `capacity` newest. The ratio is exact from the first
        row on; so the first rows, which are alone in the buffer, are used far more often than later ones, unless
        `start_after` lets the buffer fill.

        Args:
            capacity: the number of rows in the buffer.
            reuse: output rows for each input row; may be a fraction.
            half_life: in rows: a row this much older is half as likely to be drawn. None draws uniformly.
            seed: of the draws, together with the stage's place in the stream.
            start_after: the rows that must have arrived before the first comes out, `capacity` at most. The ratio
                counts from there: earlier rows are drawn like others while they are in the buffer, but less often.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.from_arrays(np.arange(1000), shuffle=False).replay(100, reuse=16, start_after=100).batch(50)
        >>> uses = np.bincount(np.concatenate([stream.batch_at(step) for step in range(100)]))
        >>> int(uses[0]), int(uses.max())
        (0, 18)
        """
        return self._then(Replay(capacity, reuse, half_life, seed, start_after))

    @checked(".join(labels, on='id', within=100_000, time=None, unmatched='drop')")
    def join(
        self,
        labels: Stream,
        *,
        on: str,
        within: float | None = WITHIN,
        time: str | None = None,
        unmatched: Unmatched = "drop",
    ) -> Stream:
        """Join rows with labels that come later: the output has the rows' and the labels' columns, in the order in
        which the later of the two came.

        Rows and labels of one key are matched in order: the first with the first, the second with the second. A row
        waits for its label, and an early label for its row. Those that wait are a part of the position. Ends of passes
        are absorbed. Both streams are read in one order that is the same in each run: with `time`, that of a column;
        else row 0, label 0, row 1, label 1, and so on. Give `time` if labels are far fewer than rows, or live. A silent
        stream is waited for: before the next label has come, it is not known whether it precedes the next row.

        Args:
            labels: a stream of dicts with the column `on`; its other columns must have names that the rows have not.
            on: the name of the column by which rows and labels are matched.
            within: how long a row or a label waits: until more than this many rows or labels have followed it; with
                `time`, until more than this many seconds have passed in that column. None lets them wait forever: what
                is never matched stays in memory and in each checkpoint, and both grow with it without a limit.
            time: the name of a column that both have and are sorted by: seconds, or datetime64. A row precedes a label
                of the same time. A time earlier than the one before it, infinite or missing counts as equal to it.
            unmatched: what to do with a row without a label: "drop" leaves it out, since nothing can be learnt from it;
                "keep" returns it when its time is over, with missing values (NaN, NaT, "") in the labels' columns; a
                function receives such rows, a dict of arrays, and may receive them again after a restart. They are
                counted in `stats.unmatched` in any case, and labels without a row in `stats.unmatched_labels`. With
                "drop", the stream ends when the labels have ended and none of them waits; later rows are not read.

        >>> import numpy as np, unbounded as ub
        >>> rows = ub.from_arrays({"id": np.arange(6), "x": np.arange(6) * 10.0}, shuffle=False)
        >>> labels = {"id": np.array([2, 0, 1, 5]), "y": np.array([1, 0, 0, 1])}
        >>> labels = ub.from_arrays(labels, shuffle=False, passes=1)
        >>> batch = rows.join(labels, on="id", within=10).batch(4).peek()
        >>> batch["id"].tolist(), batch["y"].tolist()
        ([0, 2, 1, 5], [0, 1, 0, 1])
        """
        return Stream(join_of(self, labels, on, within, time, unmatched))

    @checked(".take(rows)")
    def take(self, rows: int) -> Stream:
        """The first `rows` rows, followed by a declared end.

        >>> import numpy as np, unbounded as ub
        >>> with ub.Feed(ub.from_arrays(np.arange(9), shuffle=False).take(5).batch(3)) as feed:
        ...     [batch.tolist() for batch in feed.batches()]
        [[0, 1, 2], [3, 4]]
        """
        return self._then(Take(rows))

    @checked(".batch(rows, bucket=None)")
    def batch(self, rows: int, *, bucket: Sequence[int] | Buckets | None = None) -> Stream:
        """Combine rows to batches of `rows` each. Only the last batch before a declared end may have fewer; it is not
        padded.

        Args:
            rows: in a batch.
            bucket: for rows of several lengths (see `ragged`): lengths in ascending order, such as [32, 64, 128]. Rows
                are put together with others of about their length, and padded to the smallest of the lengths that is
                enough. Batches come in the order in which they are full; at a declared end, the rest of each bucket is
                a smaller one. `Buckets` has further options.

        >>> import numpy as np, unbounded as ub
        >>> x, y = ub.from_arrays((np.zeros((10, 3)), np.ones(10))).batch(4).peek()
        >>> x.shape, y.shape
        ((4, 3), (4,))
        """
        if bucket is None:
            return self._then(Batch(rows))
        return self._then(BucketBatch(rows, bucket if isinstance(bucket, Buckets) else Buckets(bucket)))

    @checked(".prefetch(batches)")
    def prefetch(self, batches: int) -> Stream:
        """Work ahead in a thread: queue at least `batches` batches, so that training does not wait.

        The position counts what was trained on: batches in the queue are read again after a resume.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays(np.arange(9), shuffle=False).batch(3).prefetch(4).batch_at(1)
        array([3, 4, 5])
        """
        return self._then(Prefetch(batches))

    @checked(".exclude(rows, source=None)")
    def exclude(self, rows: Any, *, source: str | None = None) -> Stream:
        """Give rows the weight 0 from here on, such as those of a broken sensor; a run may resume with this change.

        The rows keep their numbers and their places in batches, and their sample weight is 0: batches `(x, y)` become
        `(x, y, sample_weight)`, other batches `(x, None, sample_weight)`, and dicts have a column `sample_weight`. A
        window has weight 0 if one of its rows has. Checkpoints record which rows are excluded from which step on. The
        weights are set on finished batches, wherever this stage stands. `Prequential` does not test excluded rows.

        Args:
            rows: row numbers, and ranges of them, as `Feed.rows_at` returns them: for arrays the index of each row, for
                other sources counted from the run's beginning.
            source: the source's name, in a mix.

        Raises:
            ValueError: for a row that arrays do not have; in `Feed`, if the rows of a batch are not known beforehand,
                as after a filter or a join. There, `.map()` can give them weights.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.from_arrays((np.arange(6), np.arange(6)), shuffle=False).batch(3).exclude([1, range(4, 6)])
        >>> with ub.Feed(stream) as feed:
        ...     feed.peek()[2]
        array([1., 0., 1.], dtype=float32)
        """
        names = list(self.leaves)
        if (source is None and len(names) > 1) or (source is not None and source not in names):
            raise ValueError(
                f"exclude(source={source!r}): expected the name of a source, {', '.join(map(repr, names))}."
            )
        part = dict(zip(names, self.sources, strict=True))[names[0] if source is None else source]
        ranges = ranges_of(rows, part.rows_per_pass())
        return self._then(Exclude(ranges, source))

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
        if isinstance(self._head, Mix) and isinstance(stage, Windows):
            raise ValueError(
                ".windows() stands after ub.mix(), where rows that follow each other are of different streams. "
                "Put .windows() before the mix, in each of its streams."
            )
        if isinstance(stage, Windows) and stage.max_gap is not None and not self._has_time:
            raise ValueError(
                ".windows(max_gap=…) counts by the time of rows, and no column was declared to be that. Put "
                '.time("at") before it, with the name of the column.'
            )
        stream = self._with((*self._stages, stage))
        if isinstance(stage, Batch):
            rows = stream.declared_rows()
            if rows is not None and stage.rows > rows:
                raise ValueError(
                    f".batch({stage.rows:,}) is larger than the {rows:,} rows that come before the declared end. Use "
                    f".batch({rows}) or fewer, or declare a later end."
                )
        return stream

    def peek(self) -> Tree:
        """The first batch; without `batch`, the source's first block. No feed is changed.

        A source that can't seek is read from its beginning for it, and these rows are lost: for a running live stream,
        use `Feed.peek`.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays({"x": np.arange(6.0)}, shuffle=False).batch(3).peek()
        {'x': array([0., 1., 2.])}
        """
        with closing(batches_of(self)) as batches:
            return next(batches)

    def read(self) -> Tree:
        """All rows up to the declared end, as one tree of arrays, in memory. No feed is changed.

        For what takes nothing but arrays, such as `Normalization.adapt` of Keras where TensorFlow is not installed. A
        source that can't seek is read from its beginning for it, and these rows are lost.

        Raises:
            TypeError: the stream has no declared end.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays({"x": np.arange(9.0)}, shuffle=False).take(5).read()
        {'x': array([0., 1., 2., 3., 4.])}
        """
        return trees.join(list(self))

    def shapes(self) -> Tree:
        """The shapes and dtypes of the first batch; reads like `peek`.

        >>> import numpy as np, unbounded as ub
        >>> ub.from_arrays({"x": np.zeros((6, 2)), "y": np.arange(6)}).columns("x", "y").batch(3).shapes()
        (float64[3, 2], int64[3])
        """
        return trees.map_leaves(lambda leaf: LeafShape(leaf.shape, leaf.dtype), self.peek())

    def describe(self) -> str:
        """A table with a line for each source and stage: the rows of a pass, and a guarantee that is not exact.

        "known by type alone" names objects that a function reads and the fingerprint can't compare, such as a model.

        >>> import numpy as np, unbounded as ub
        >>> print(ub.from_arrays(np.arange(100)).shuffle(10).batch(4).describe())  # doctest: +ELLIPSIS
        from_arrays(100 rows)                       100 rows a pass
        .shuffle(10)                                100 rows a pass
        .batch(4)                                   100 rows a pass
        guarantee: exact; fingerprint ...
        """
        lines = []
        for text, part, rows in self.lines():
            notes = [] if rows is None else [f"{rows:,} rows a pass"]
            if part.promise != "exact":
                notes.append(part.promise)
            if (fn := getattr(part, "fn", None)) is not None and (unread := not_compared(fn)):
                notes.append(f"known by type alone: {', '.join(unread)}")
            lines.append(f"{text:<43} {', '.join(notes)}".rstrip())
        lines.append(f"guarantee: {self.guarantee.replace('_', ' ')}; fingerprint {self.fingerprint}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return show.stream(self.lines(), self.batch_size, self.guarantee)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"Stream has no {name!r}.", name=name, obj=self)
        raise AttributeError(unknown("Stream", name, STREAM, dir(type(self))), name=name, obj=self)

    def __iter__(self) -> Iterator[Tree]:
        """The batches from the beginning to the declared end, read anew each time; without `batch`, blocks of rows.

        It is for a look at a part of the stream, and for code that iterates over data, such as `adapt` of Keras's
        preprocessing layers: `layer.adapt(stream.columns("x").take(10_000))`. (On every backend Keras asks TensorFlow
        what can be iterated over; where that is not installed, append `.read()`.) Nothing counts as trained on:
        training has a feed. A source that can't seek is read from its beginning for it, and these rows are lost.

        Raises:
            TypeError: the stream has no declared end.

        >>> import numpy as np, unbounded as ub
        >>> [batch.tolist() for batch in ub.from_arrays(np.arange(9), shuffle=False).take(5).batch(3)]
        [[0, 1, 2], [3, 4]]
        """
        if not self.has_end:
            raise TypeError(
                "A stream is a description: nothing runs yet, and it never ends. Batches come from a feed: "
                "for batch in ub.Feed(stream, epoch=ub.Epoch(steps=1000)). stream.peek() gives the first one, and "
                "stream.take(1000) has an end: it can be iterated over, as by layer.adapt(stream.take(1000))."
            )
        return batches_of(self)

    def __len__(self) -> int:
        raise TypeError(
            "A stream has no length: it may never end. stream.rows_per_pass says how many rows a pass has; "
            "len(feed) how many batches an epoch has: ub.Feed(stream, epoch=ub.Epoch(steps=1000))."
        )

    def __bool__(self) -> bool:
        return True

    def __array__(self, *args: Any, **given: Any) -> Any:
        # `fit` of Keras calls this for unknown objects.
        raise TypeError(
            "A stream is no array. Keras takes a feed of it: model.fit(ub.keras.Feed(stream, ub.Epoch(steps=1000))). "
            "stream.peek() gives the first batch."
        )

    def __getitem__(self, step: int) -> Tree:
        raise TypeError(f"A stream has no items. stream.batch_at({step!r}) gives what that batch contains.")
