"""AheadBound and ReadAhead: blocks that a reader's thread has read and that were not pulled yet, and their limit."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from unbounded.core.block import Block, Offset, join_from
from unbounded.sources.row_stage import RowStage, StagedRows


class AheadBound:
    """The limit of reading ahead: `blocks` blocks that have `rows` rows, or `nbytes` bytes in two blocks or more.

    Once it is reached, reading goes on when half of it was pulled, since waking a thread is slow.

    Args:
        blocks: the number of blocks.
        nbytes: the number of bytes.
        rows: the least number of rows that so many blocks must have.
    """

    def __init__(self, blocks: int, nbytes: int, rows: int = 0) -> None:
        self._most = blocks, nbytes, rows
        self.clear()

    def clear(self) -> None:
        """Start again with nothing read ahead."""
        self._blocks = self._bytes = self._rows = 0
        self.is_full = False
        """True if there was no room at the last call of `has_room`."""

    def add(self, block: Block, size: int) -> None:
        """A block was read."""
        self._blocks += 1
        self._bytes += size
        self._rows += block.count

    def take(self, block: Block, size: int) -> None:
        """A block was pulled."""
        self._blocks -= 1
        self._bytes -= size
        self._rows -= block.count

    def has_room(self) -> bool:
        """True if more may be read."""
        blocks, nbytes, rows = self._most
        share = 2 if self.is_full else 1
        many = self._blocks * share >= blocks and self._rows * share >= rows
        self.is_full = many or (self._blocks > 1 and self._bytes * share >= nbytes)
        return not self.is_full


class _ReadBlock(NamedTuple):
    first: Offset
    end: Offset
    block: Block
    size: int


class ReadAhead:
    """Blocks that follow each other in a log, and were not pulled yet; the newest rows may still be in a stage.

    Args:
        bound: the limit.
    """

    def __init__(self, bound: AheadBound) -> None:
        self._bound = bound
        self._blocks: deque[_ReadBlock] = deque()
        self._end: Offset | None = None  # of the newest row; None: nothing was read ahead
        self._staged = StagedRows()

    @property
    def is_full(self) -> bool:
        """True if there was no room at the last call of `has_room`."""
        return self._bound.is_full

    def has_room(self) -> bool:
        """True if more may be read."""
        self._make_block()
        return self._bound.has_room()

    def follows(self, at: Offset) -> bool:
        """True if a block that begins at `at` follows the others."""
        return self._end is None or self._end == at

    def add(self, first: Offset, end: Offset, block: Block, size: int) -> None:
        """Append a block from `first` to `end`."""
        self._make_block()
        self._blocks.append(_ReadBlock(first, end, block, size))
        self._bound.add(block, size)
        self._end = end

    def add_staged(self, first: Offset, end: Offset, stage: RowStage) -> None:
        """Append the newest rows of a stage, from `first` to `end`."""
        if not self._staged.is_of(stage):
            self._make_block()
        self._staged.add(first, stage, end.rows - first.rows)
        self._end = end

    def _make_block(self) -> None:
        """Make a block of the rows in the stage: one for all rows that came since the last time."""
        if self._staged:
            first, block, size = self._staged.take()
            self.add(first, first.after(block), block, size)

    def joined(self, at: Offset, rows: int, nbytes: int | None = None) -> tuple[Block, Offset] | None:
        """The rows after `at`, and their end; None if they are not here. See `RowLog.read`."""
        self._make_block()
        if not self._blocks or at < self._blocks[0].first:
            return None
        return join_from(((each.first, each.end, each.block) for each in self._blocks), at, rows, nbytes)

    def drop_before(self, at: Offset) -> None:
        """Remove the blocks that end before `at`: they were pulled."""
        while self._blocks and self._blocks[0].end <= at:
            _, _, block, size = self._blocks.popleft()
            self._bound.take(block, size)
        if not (self._blocks or self._staged):
            self._end = None

    def clear(self) -> None:
        """Remove all blocks: they will be read from the log."""
        self._blocks.clear()
        self._staged, self._end = StagedRows(), None
        self._bound.clear()
