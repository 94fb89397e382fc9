"""MemoryLog: the row log of a run without a directory: in memory, from the oldest row that is still needed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

from unbounded.core import row_spec, trees
from unbounded.core.block import Block, Boundary, Offset, join_from
from unbounded.core.locked import locked
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.sources.log_counts import LogCounts
from unbounded.sources.record_log import Full
from unbounded.sources.row_log import RowLog
from unbounded.sources.row_stage import RowStage


class _Kept(NamedTuple):
    first: Offset
    end: Offset
    block: Block | None  # None if these rows were dropped or released
    position: Any  # the reader's position after them
    may_be_cut: bool = False  # its rows may be passed on in smaller blocks


class MemoryLog:
    """Rows in memory, numbered from the beginning of the stream; with the methods of `RowLog`. Safe between threads."""

    where = "memory"
    is_closed = False
    counts = LogCounts()
    """The counts up to the end of the log."""

    def __init__(self, runtime: Runtime, *, max_bytes: int | None = None) -> None:
        self.id = runtime.unique()
        self._lock = runtime.lock()
        self._blocks: list[_Kept] = []
        self._max_bytes = max_bytes
        # The block to which more rows of a stage may be added while it is the last, and the stage. The reader's thread
        # alone changes them: the other one may be interrupted at any line, by a signal's handler.
        self._staged: tuple[_Kept | None, RowStage | None] = None, None
        self.size = 0
        """The bytes of the rows."""
        self._gone = 0  # the number of released items at the front; they are removed when they are the larger part
        self.start = self.stop = Offset(0)

    @property
    def form(self) -> Tree:
        """See `RowLog.form`."""
        rows = (each.block.rows for each in reversed(self._blocks) if each.block is not None and each.block.count)
        return row_spec.spec(next(rows, None))

    @locked
    def append(self, block: Block, position: Any = None, *, beyond: bool = False, may_be_cut: bool = False) -> None:
        """Append a block; `position` is the reader's position after it. With `beyond`, it may exceed the limit; with
        `may_be_cut`, `read` returns no more of it than it is asked for.

        Raises:
            Full: the log has reached its limit.
        """
        size = block.nbytes
        self._check_room(0 if beyond else size)
        view = block.with_rows(trees.read_only(block.rows)) if block.count else block
        self._add(_Kept(self.stop, self.stop.after(block), view, position, may_be_cut))
        self.size += size
        self.counts = self.counts.after(block, position)

    @locked
    def append_staged(self, stage: RowStage, rows: int) -> None:
        """Append rows that were put into a stage, which count there from then on. Their reader has no positions.

        Raises:
            Full: the log has reached its limit.
        """
        size = rows * stage.row_bytes
        self._check_room(size)
        first, begin = self.stop, stage.count
        stage.count += rows
        last, of = self._staged
        if of is stage and last is not None and self._blocks and self._blocks[-1] is last:
            del self._blocks[-1]
            first, begin = last.first, begin - (first.rows - last.first.rows)
        kept = _Kept(first, Offset(self.stop.rows + rows), stage.block(begin, stage.count), None, True)
        self._staged = kept, stage
        self._add(kept)
        self.size += size
        self.counts = self.counts.staged(stage.time(stage.count - 1))

    def _check_room(self, size: int) -> None:
        most = self._max_bytes
        if most is not None and self.size and self.size + size > most:
            raise Full(self.where, most)

    def _add(self, kept: _Kept) -> None:
        self._blocks.append(kept)
        self.stop = kept.end

    @locked
    def skip(self, rows: int) -> None:
        """Append a gap of `rows` dropped rows."""
        self._add(_Kept(self.stop, Offset(self.stop.rows + rows), None, None))

    @locked
    def drop(self, since: Offset, block: Block) -> int:
        """Replace the oldest blocks from `since` on by a gap, to make room for a block. Return the number of dropped
        rows; 0 if there would be no room even so."""
        most = self._max_bytes
        first = i = bisect_left(self._blocks, since, self._gone, key=lambda each: each.first)
        need = 0 if most is None else self.size + block.nbytes - most
        while i < len(self._blocks) and need > 0:
            need -= _size(self._blocks[i])
            i += 1
        if need > 0 or i == first:
            return 0
        gone = self._blocks[first:i]
        self.size -= sum(map(_size, gone))
        self._blocks[first:i] = [_Kept(gone[0].first, gone[-1].end, None, None)]
        rows = sum(each.block.count for each in gone if each.block is not None)
        self.counts = self.counts.drop(rows)
        return rows

    @locked
    def read(self, at: Offset, rows: int = 0, nbytes: int | None = None) -> tuple[Block, Offset] | None:
        """The rows after `at`, and their end; None if there are none. See `RowLog.read`."""
        # The first block that ends after `at`: the last that begins at or before it, or one that follows.
        i = max(self._gone, bisect_right(self._blocks, at, key=lambda each: each.first) - 1)
        while i < len(self._blocks) and self._blocks[i].end <= at:
            i += 1
        if i == len(self._blocks):
            return None
        first, end, block, *_ = self._blocks[i]
        if first.rows > at.rows:
            return Block(None, 0, Boundary("gap", first.rows - at.rows)), Offset(first.rows, 0)
        if block is None:
            return Block(None, 0, Boundary("gap", end.rows - at.rows)), end
        return join_from(self._up_to_gap(i), at, rows, nbytes)

    def _up_to_gap(self, i: int) -> Iterator[tuple[Offset, Offset, Block, bool]]:
        """The blocks from number `i` on, up to rows that were dropped."""
        while i < len(self._blocks):
            first, end, block, _, may_be_cut = self._blocks[i]
            if block is None:
                return
            yield first, end, block, may_be_cut
            i += 1

    @locked
    def release(self, at: Offset) -> None:
        """Remove the blocks that end before `at`."""
        while self._gone < len(self._blocks):
            kept = self._blocks[self._gone]
            if kept.end > at:
                break
            self.start = kept.end
            self.size -= _size(kept)
            self._blocks[self._gone] = _Kept(kept.first, kept.end, None, None)
            self._gone += 1
        if self._gone > 64 and self._gone > len(self._blocks) // 2:
            gone, self._gone = self._gone, 0
            del self._blocks[:gone]

    @locked
    def position_at(self, at: Offset) -> Any:
        """The reader's position at `at`; None unless a block ends there."""
        if at == self.stop:
            return self.counts.position
        i = bisect_right(self._blocks, at, key=lambda each: each.first)
        return self._blocks[i - 2].position if i > self._gone + 1 and self._blocks[i - 1].first == at else None

    @locked
    def begin_at(self, at: Offset, counts: LogCounts) -> None:
        """Begin an empty log at an offset other than 0."""
        self.start = self.stop = at
        self.counts = counts

    def spill(self, to: RowLog) -> None:
        """Write all rows to an empty log on the disk.

        Raises:
            OSError: they could not be written. They stay in memory.
        """
        blocks, counts = self._all()
        boundaries = [each.block.boundary for each in blocks if each.block and each.block.boundary is not None]
        passed = counts.passed - sum(each.kind == "pass" for each in boundaries)
        missed = counts.missed - sum(each.missed for each in boundaries if each.kind == "gap")
        to.begin_at(self.start, LogCounts(passed, missed, counts.dropped, counts.last_time))
        for first, end, block, position, _ in blocks:
            if block is None:
                to.skip(end.rows - first.rows)
            else:
                to.append(block, position)

    @locked
    def _all(self) -> tuple[list[_Kept], LogCounts]:
        return self._blocks[self._gone :], self.counts

    def sync(self) -> None:
        """No-op: there is no disk."""

    def close(self) -> None:
        """No-op."""


def _size(kept: _Kept) -> int:
    return 0 if kept.block is None else kept.block.nbytes
