"""What a reader's thread has read, and nobody has pulled yet: how much of that there may be, and the rows."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from unbounded.core.block import Block, Offset
from unbounded.core.block import join as join_blocks


class AheadBound:
    """How far a thread reads ahead: so many blocks that have so many rows, or so many bytes in two blocks.

    Once that is reached, there is room when half of it is gone: waking a thread is slow.

    Args:
        blocks: how many.
        nbytes: how many.
        rows: how many, at the least.
    """

    def __init__(self, blocks: int, nbytes: int, rows: int = 0) -> None:
        self._most = blocks, nbytes, rows
        self.clear()

    def clear(self) -> None:
        """Nothing was read ahead."""
        self._blocks = self._bytes = self._rows = 0
        self.is_full = False
        """Whether there was no room when it was last asked."""

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
        """Whether more may be read."""
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
    """Blocks that follow each other in a log, and were not pulled yet.

    Args:
        bound: how much of them there may be.
    """

    def __init__(self, bound: AheadBound) -> None:
        self.bound = bound
        self._blocks: deque[_ReadBlock] = deque()

    def follows(self, at: Offset) -> bool:
        """Whether a block that begins there would follow the others."""
        return not self._blocks or self._blocks[-1].end == at

    def add(self, first: Offset, end: Offset, block: Block, size: int) -> None:
        """Take in a block from `first` to `end`, after the others."""
        self._blocks.append(_ReadBlock(first, end, block, size))
        self.bound.add(block, size)

    def joined(self, at: Offset, rows: int, nbytes: int | None = None) -> tuple[Block, Offset] | None:
        """What follows `at`, and where it ends: a block or more, up to the first boundary or the end of that with which
        there are so many rows, and no more than so many bytes in several; None where that is not here."""
        if not self._blocks or at < self._blocks[0].first:
            return None
        parts: list[Block] = []
        count, total, end = 0, 0, at
        for first, after, block, size in self._blocks:
            if after <= at:
                continue  # read from the log before, after a restore
            total += size
            if parts and nbytes is not None and total > nbytes:
                break
            end = after
            part = block.part(max(0, at.rows - first.rows), block.count)
            parts.append(part)
            count += part.count
            if count >= rows or part.boundary is not None:
                break
        if not parts:
            return None
        return (join_blocks(parts) if len(parts) > 1 else parts[0]), end

    def drop_before(self, at: Offset) -> None:
        """Let go of what was pulled."""
        while self._blocks and self._blocks[0].end <= at:
            _, _, block, size = self._blocks.popleft()
            self.bound.take(block, size)

    def clear(self) -> None:
        """Let go of all: it is read from the log."""
        self._blocks.clear()
        self.bound.clear()
