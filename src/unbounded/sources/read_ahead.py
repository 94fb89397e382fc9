"""AheadBound and ReadAhead: blocks that a reader's thread has read and that were not pulled yet, and their limit."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from unbounded.core.block import Block, Offset, join_from
from unbounded.sources.row_stage import RowStage


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

    def add(self, rows: int, size: int, blocks: int = 1) -> None:
        """A block was read, or more rows of the last one: then `blocks` is 0."""
        self._blocks += blocks
        self._bytes += size
        self._rows += rows

    def take(self, rows: int, size: int) -> None:
        """A block was pulled."""
        self._blocks -= 1
        self._bytes -= size
        self._rows -= rows

    def has_room(self) -> bool:
        """True if more may be read."""
        blocks, nbytes, rows = self._most
        share = 2 if self.is_full else 1
        many = self._blocks * share >= blocks and self._rows * share >= rows
        self.is_full = many or (self._blocks > 1 and self._bytes * share >= nbytes)
        return not self.is_full


class _ReadBlock(NamedTuple):
    """A block; or rows of a stage from its row `begin` on, of which a block is made when they are pulled."""

    first: Offset
    end: Offset
    rows: int
    size: int
    held: Block | RowStage
    begin: int = 0

    def block(self) -> Block:
        held = self.held
        return held if isinstance(held, Block) else held.block(self.begin, self.begin + self.rows)

    @property
    def may_be_cut(self) -> bool:
        """True for rows of a stage, which came one by one, or a few at a time."""
        return not isinstance(self.held, Block)


class ReadAhead:
    """Blocks that follow each other in a log, and were not pulled yet.

    A reader's thread adds, and is not interrupted. The thread that pulls may be, at any line, by a signal's handler: it
    removes blocks, and changes nothing else.

    Args:
        bound: the limit.
    """

    def __init__(self, bound: AheadBound) -> None:
        self.bound = bound
        self._blocks: deque[_ReadBlock] = deque()

    def follows(self, at: Offset) -> bool:
        """True if a block that begins at `at` follows the others."""
        return not self._blocks or self._blocks[-1].end == at

    def add(self, first: Offset, end: Offset, block: Block, size: int) -> None:
        """Append a block from `first` to `end`."""
        self._blocks.append(_ReadBlock(first, end, block.count, size, block))
        self.bound.add(block.count, size)

    def add_staged(self, first: Offset, end: Offset, stage: RowStage) -> None:
        """Append the newest rows of a stage, from `first` to `end`; to its rows before them, if they are still here."""
        count = end.rows - first.rows
        size = count * stage.row_bytes
        last = self._blocks[-1] if self._blocks else None
        if last is not None and last.held is stage:
            self._blocks[-1] = _ReadBlock(last.first, end, last.rows + count, last.size + size, stage, last.begin)
            self.bound.add(count, size, blocks=0)
        else:
            self._blocks.append(_ReadBlock(first, end, count, size, stage, stage.count - count))
            self.bound.add(count, size)

    def joined(self, at: Offset, rows: int, nbytes: int | None = None) -> tuple[Block, Offset] | None:
        """The rows after `at`, and their end; None if they are not here. See `RowLog.read`."""
        if not self._blocks or at < self._blocks[0].first:
            return None
        blocks = ((each.first, each.end, each.block(), each.may_be_cut) for each in self._blocks)
        return join_from(blocks, at, rows, nbytes)

    def drop_before(self, at: Offset) -> None:
        """Remove the blocks that end before `at`: they were pulled."""
        while self._blocks and self._blocks[0].end <= at:
            block = self._blocks.popleft()
            self.bound.take(block.rows, block.size)

    def clear(self) -> None:
        """Remove all blocks: they will be read from the log."""
        self._blocks.clear()
        self.bound.clear()
