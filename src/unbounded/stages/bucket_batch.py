"""BucketBatch: batches of rows of about one length, each padded to the bound of its bucket.

Each bucket is a queue: its oldest rows become a batch once it is full, so that a batch's place is that of the row which
filled it. The rows that are held are therefore the last ones of their buckets, and a cursor needs the number of rows in
each bucket: a restore reads the input again from the oldest row held, and keeps so many of the last rows of each.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from unbounded.core import check, trees
from unbounded.core.block import Block, Boundary, Offset, Run
from unbounded.core.block import join as join_blocks
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import CannotTell, Context, Cursor, EndOfStream, Node
from unbounded.core.trees import RowsError
from unbounded.stages.batch import Batch, all_joined, greatest, mean_time
from unbounded.stages.pad import Pad, chosen_leaves, padded_rows
from unbounded.stages.stage import Holding

_WITHIN = 100
"""The default of `within`, in batches."""


@dataclass(frozen=True)
class Buckets:
    """The buckets of `batch(n, bucket=…)`: each has a bound, and rows of up to that length.

    Args:
        bounds: the lengths to which rows are padded: each row to the smallest that is enough.
        columns: the name of a column of rows of several lengths, or several names: the longest of them counts. None:
            all such columns.
        value: what stands behind shorter rows; behind text it is "".
        lengths: the name of a new column, of the length that each row had, int64 of shape (rows,).
        truncate: True cuts rows that are longer than the last bound, and counts them in `stats.cut`; False raises an
            error for them.
        within: the rows of the stream after which a row that still waits for others of its bucket is put in a batch
            with rows of other lengths, shorter ones if there are enough; the batch is padded to the longest. None: 100
            batches. So rare lengths wait, but not for ever. It counts rows and no seconds: in a live stream a row waits
            as long as these need to come.

    >>> import numpy as np, unbounded as ub
    >>> rows = {"tokens": ub.ragged([[1], [1, 2, 3, 4], [2], [5, 6, 7]])}
    >>> buckets = ub.Buckets([2, 4], lengths="length")
    >>> with ub.Feed(ub.from_arrays(rows, shuffle=False).batch(2, bucket=buckets)) as feed:
    ...     for _, batch in zip(range(2), feed.batches()):
    ...         print(batch["tokens"].tolist(), batch["length"].tolist())
    [[1, 0], [2, 0]] [1, 1]
    [[1, 2, 3, 4], [5, 6, 7, 0]] [4, 3]
    """

    bounds: Any
    columns: Any = None
    value: Any = field(default=0, kw_only=True)
    lengths: str | None = field(default=None, kw_only=True)
    truncate: bool = field(default=False, kw_only=True)
    within: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        try:
            bounds = tuple(check.positive(bound, "Buckets(bounds)") for bound in self.bounds)
        except TypeError:
            raise TypeError(
                f"bucket={self.bounds!r}: expected a list of lengths, such as [32, 64, 128], or ub.Buckets([…], …)."
            ) from None
        if not bounds or any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"bucket={list(bounds)}: expected lengths in ascending order, such as [32, 64, 128].")
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "columns", self.pad(bounds[0]).columns)
        if self.within is not None:
            check.positive(self.within, "Buckets(within=n)")

    def pad(self, length: int) -> Pad:
        """The stage that pads the rows of one bucket."""
        return Pad(length, self.columns, self.value, self.lengths, self.truncate)


@dataclass(frozen=True)
class BucketBatch(Batch):
    """See `Stream.batch`, with `bucket`."""

    bucket: Buckets | None = None

    @property
    def buckets(self) -> Buckets:
        """The buckets."""
        assert self.bucket is not None
        return self.bucket

    def arguments(self) -> dict[str, Any]:
        given = self.buckets
        return {"rows": self.rows, "bucket": list(given.bounds) if given == Buckets(given.bounds) else given}

    def identity(self) -> dict[str, Any]:
        given = self.buckets
        names = [None if given.columns is None else list(given.columns), repr(given.value), given.lengths]
        return {"rows": self.rows, "bounds": list(given.bounds), "given": [*names, given.truncate, self.within]}

    @property
    def within(self) -> int:
        """The rows after which a row waits no longer for others of its bucket."""
        within = self.buckets.within
        return _WITHIN * self.rows if within is None else within

    def open(self, upstream: Node, context: Context) -> Node:
        return _BucketNode(upstream, self)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        raise CannotTell("which rows batch(bucket=…) puts together depends on the lengths of all rows before them")

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        raise CannotTell("where a row comes out of batch(bucket=…) depends on the lengths of all rows before it")


class _QueuedRows(NamedTuple):
    """Rows that wait in a bucket, with their ordinals in the input."""

    ordinals: list[int]
    block: Block


class _BucketQueue:
    """The rows of one bucket, oldest first: those of earlier blocks, and the numbers of those in the block at hand."""

    def __init__(self, other: _BucketQueue | None = None) -> None:
        self._parts: deque[_QueuedRows] = deque(() if other is None else other._parts)
        self.fresh: list[int] = []
        self.count: int = 0 if other is None else other.count

    def oldest(self, first: int) -> int | None:
        """The ordinal of the oldest row; `first` is that of the first row of the block at hand."""
        if self._parts:
            return self._parts[0].ordinals[0]
        return first + self.fresh[0] if self.fresh else None

    def put(self, row: int) -> None:
        """Add a row of the block at hand, by its number there."""
        self.fresh.append(row)
        self.count += 1

    def take(self, rows: int, first: int, at_hand: Block | None) -> list[_QueuedRows]:
        """Remove the oldest rows."""
        taken: list[_QueuedRows] = []
        self.count -= rows
        while rows and self._parts:
            ordinals, block = self._parts.popleft()
            if len(ordinals) > rows:
                self._parts.appendleft(_QueuedRows(ordinals[rows:], block.part(rows, block.count)))
                ordinals, block = ordinals[:rows], block.part(0, rows)
            taken.append(_QueuedRows(ordinals, block))
            rows -= len(ordinals)
        if rows:
            assert at_hand is not None
            index, self.fresh = self.fresh[:rows], self.fresh[rows:]
            taken.append(_QueuedRows([first + i for i in index], at_hand.gather(np.array(index))))
        return taken

    def hold(self, first: int, at_hand: Block) -> None:
        """Keep copies of the rows of the block at hand that wait: rows of a ragged column may be views of the memory
        of thousands."""
        if self.fresh:
            kept = at_hand.gather(np.array(self.fresh))
            kept = kept.with_rows(trees.map_leaves(trees.copied, kept.rows))
            self._parts.append(_QueuedRows([first + i for i in self.fresh], kept))
            self.fresh = []


class _BucketNode(Holding):
    """`head` is the offset of the oldest row held, `done` that after the last row that was put into a bucket, and `at`
    the same while rows are read again: then it is before `done`."""

    def __init__(self, upstream: Node, batch: BucketBatch) -> None:
        super().__init__(upstream)
        self._size = batch.rows
        self._within = batch.within
        self._buckets = batch.buckets
        self._bounds = np.array(batch.buckets.bounds)
        self._begin({})

    def _begin(self, own: Mapping[str, Any]) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._pending: Block | None = None  # a block that was read, and is in no bucket yet
        self._queues = [_BucketQueue() for _ in self._bounds]
        self._kept: list[int] = own.get("held", [0] * len(self._bounds))  # the rows in each bucket
        self._head = self._at = Offset(0)
        self._done = Offset(own.get("rows", 0), own.get("boundaries", 0))
        self._seen: int = own.get("seen", 0)
        self._cut: int = own.get("cut", 0)

    def pull(self, timeout: float | None) -> Run | None:
        while True:
            if self._pending is None:
                try:
                    self._pending = self._held.read(timeout)
                except EndOfStream:
                    return self._last()
                if self._pending is None:
                    return None
            block = self._pending
            if self._at < self._done:
                self._read_again(block)
                continue
            run = self._run(block)
            self._pending = None
            self._done = self._at = self._at.after(block)
            self._settle()
            if run is not None:
                return run

    def _settle(self) -> None:
        """Let go of what lies before the oldest row held."""
        oldest = self._oldest(0)
        self._head = self._done if oldest is None else Offset(oldest)
        self._kept = [queue.count for queue in self._queues]
        self._held.keep(self._head)

    def _oldest(self, first: int) -> int | None:
        found = [oldest for queue in self._queues if (oldest := queue.oldest(first)) is not None]
        return min(found, default=None)

    # -- reading again -------------------------------------------------------------------------------------------------

    def _read_again(self, block: Block) -> None:
        """Put rows that were read before the cursor was taken into buckets, and drop those that were in batches."""
        missing = self._done.rows - self._at.rows
        if not missing:
            # After the last row: boundaries that were passed on. Where rows come first, there are none this time.
            if block.count:
                self._at = self._done
            else:
                self._at, self._pending = Offset(self._at.rows, self._at.boundaries + 1), None
            return
        part = block.part(0, missing)
        first = self._at.rows
        for row, bucket in enumerate(self._buckets_of(part) if part.count else ()):
            self._queues[bucket].put(row)
        for queue, kept in zip(self._queues, self._kept, strict=True):
            queue.take(max(0, queue.count - kept), first, part)
            queue.hold(first, part)
        self._at = Offset(first + part.count)
        # A boundary after the last row is looked at by itself; those between the rows were passed on.
        rest = block.part(part.count, block.count) if part.count == missing else Block(None, 0)
        self._pending = rest if rest.count or rest.boundary else None

    # -- batches -------------------------------------------------------------------------------------------------------

    def _run(self, block: Block) -> Run | None:
        """The batches that the rows of a block fill."""
        before, made = [_BucketQueue(queue) for queue in self._queues], _MadeBatches(self._size)
        cut = self._cut
        try:
            if block.count:
                self._fill(block, made)
        except BaseException:
            # Such as rows that can't be padded: the next pull begins with this block again.
            self._queues, self._cut = before, cut
            raise
        self._seen += block.count
        return made.run(block.boundary)

    def _fill(self, block: Block, made: _MadeBatches) -> None:
        first, size, within = self._at.rows, self._size, self._within
        queues, total, oldest = self._queues, sum(queue.count for queue in self._queues), self._oldest(0)
        for row, bucket in enumerate(self._buckets_of(block)):
            queue = queues[bucket]
            queue.put(row)
            total += 1
            if oldest is None:
                oldest = first + row
            if queue.count == size:
                self._add(made, queue.take(size, first, block), bucket)
            elif first + row - oldest >= within and total >= size:
                self._add(made, *self._mixed(oldest, first, block))
            else:
                continue
            total -= size
            oldest = self._oldest(first)
        for queue in queues:
            queue.hold(first, block)

    def _mixed(self, oldest: int, first: int, block: Block) -> tuple[list[_QueuedRows], int]:
        """The rows of the bucket whose oldest row has waited too long, and others to make a batch: shorter ones, as
        long as possible, or else longer ones. Also the longest bucket among them."""
        late = next(i for i, queue in enumerate(self._queues) if queue.oldest(first) == oldest)
        taken: list[_QueuedRows] = []
        longest, left = late, self._size
        for bucket in (*range(late, -1, -1), *range(late + 1, len(self._queues))):
            rows = min(left, self._queues[bucket].count)
            if rows:
                taken += self._queues[bucket].take(rows, first, block)
                longest, left = max(longest, bucket), left - rows
        return taken, longest

    def _add(self, made: _MadeBatches, taken: list[_QueuedRows], bucket: int) -> None:
        ordinals = [ordinal for each in taken for ordinal in each.ordinals]
        whole = join_blocks([each.block for each in taken])
        if any(a > b for a, b in itertools.pairwise(ordinals)):
            whole = whole.gather(np.argsort(ordinals))
        rows, cut = padded_rows(whole.rows, self._buckets.pad(int(self._bounds[bucket])), self._seen)
        self._cut += cut
        made.add(whole.with_rows(rows))

    def _last(self) -> Run:
        """The rows of one bucket at a declared end, as a shorter batch."""
        for bucket, queue in enumerate(self._queues):
            if queue.count:
                made, before = _MadeBatches(self._size), _BucketQueue(queue)
                try:
                    self._add(made, queue.take(queue.count, 0, None), bucket)
                except BaseException:
                    self._queues[bucket] = before
                    raise
                self._settle()
                run = made.run(None)
                assert run is not None
                return run
        raise EndOfStream

    def _buckets_of(self, block: Block) -> list[int]:
        """The bucket of each row.

        Raises:
            RowsError: a row is longer than the last bound, or there is no column of several lengths.
        """
        longest = np.zeros(block.count, np.int64)
        leaves = chosen_leaves(block.rows, self._buckets.columns, f"batch(bucket={self._bounds.tolist()})")
        for path, leaf in leaves.items():
            lengths = np.fromiter(map(len, leaf), np.int64, block.count)
            longest = np.maximum(longest, lengths)
            longer = np.flatnonzero(lengths > self._bounds[-1])
            if len(longer) and not self._buckets.truncate:
                row, most = int(longer[0]), int(self._bounds[-1])
                raise RowsError(
                    f"batch(bucket={self._bounds.tolist()}): {trees.name(path)} has {lengths[row]:,} values in row "
                    f"{self._seen + row:,} of the stream. Expected at most {most:,}: add a larger length, or "
                    "ub.Buckets([…], truncate=True), which cuts such rows and counts them."
                )
        found: list[int] = np.minimum(np.searchsorted(self._bounds, longest), len(self._bounds) - 1).tolist()
        return found

    # -- cursors -------------------------------------------------------------------------------------------------------

    def needed(self) -> Offset:
        return self._head

    def own(self) -> Mapping[str, Any]:
        rows = self._done.rows - self._head.rows
        again = {"rows": rows, "boundaries": self._done.boundaries} if rows else {}
        return {"held": self._kept, **again, "seen": self._seen, "cut": self._cut}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own)

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "cut": counts.get("cut", 0) + self._cut}


class _MadeBatches:
    """Batches that were made, with the metadata of their rows."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._made: list[Block] = []

    def add(self, batch: Block) -> None:
        """Add a batch."""
        self._made.append(batch)

    def run(self, boundary: Boundary | None) -> Run | None:
        """The batches, with the boundary after them; None if there is neither."""
        made = self._made
        boundaries = () if boundary is None else ((len(made), boundary),)
        if not made:
            return Run([], self._size, 0, boundaries) if boundary else None
        items = [batch.rows for batch in made]
        provenance, seen = (all_joined([getattr(batch, name) for batch in made]) for name in ("provenance", "seen"))
        beside = (mean_time([batch.times for batch in made]), provenance, greatest(seen, self._size))
        return Run(items, self._size, sum(batch.count for batch in made), boundaries, tuple(items), *beside)
