"""MemoryLog: the row log of a run without a directory: in memory, from the oldest row that is still needed."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from unbounded.core import trees
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.block import join as join_blocks
from unbounded.core.locked import locked
from unbounded.core.runtime import Runtime
from unbounded.sources.record_log import Full
from unbounded.sources.row_log import RowLog


class MemoryLog:
    """Rows in memory, numbered from the beginning of the stream, with the methods of `RowLog`. Thread-safe."""

    where = "memory"

    def __init__(self, runtime: Runtime, *, max_bytes: int | None = None) -> None:
        self.id = runtime.unique()
        self._lock = runtime.lock()
        self._blocks: list[Block] = []
        self._firsts: list[Offset] = []  # the beginning of each block
        self._positions: list[Any] = []  # the reader's position after each block
        self._max_bytes = max_bytes
        self._bytes = 0  # of the rows
        self._gone = 0  # released blocks at the front: removed when they are the majority
        self.start = self.stop = Offset(0)
        self.position: Any = None
        self.passed = self.missed = 0
        self.last_time: float | None = None

    @locked
    def append(self, block: Block, position: Any = None) -> None:
        """Append a block; `position` is the reader's position after it.

        Raises:
            Full: there is no room for it.
        """
        size = block.nbytes
        if self._max_bytes is not None and self._bytes and self._bytes + size > self._max_bytes:
            raise Full(self.where, self._max_bytes)
        self._bytes += size
        self._blocks.append(block.with_rows(trees.read_only(block.rows)) if block.count else block)
        self._firsts.append(self.stop)
        self._positions.append(position)
        self.position = position
        self.stop = self.stop.after(block)
        if block.count and block.times is not None:
            self.last_time = float(block.times[-1])
        if block.boundary is not None:
            self.passed += block.boundary.kind == "pass"
            self.missed += block.boundary.missed if block.boundary.kind == "gap" else 0

    @locked
    def read(self, at: Offset, rows: int = 0) -> tuple[Block, Offset] | None:
        """What follows `at`, and its end: up to the end of a block, or the first boundary from `rows` rows on; None if
        there is nothing. If `at` is before the oldest row, the result is a gap."""
        parts: list[Block] = []
        end = at
        count = 0
        # The first block that ends after `at`: the last one that begins at or before it, or a later one.
        for i in range(max(self._gone, bisect_right(self._firsts, at) - 1), len(self._blocks)):
            first, block = self._firsts[i], self._blocks[i]
            if first.after(block) <= at:
                continue
            if not parts and first.rows > at.rows:
                return Block(None, 0, Boundary("gap", first.rows - at.rows)), Offset(first.rows, 0)
            part = block.part(max(0, at.rows - first.rows), block.count)
            parts.append(part)
            end = first.after(block)
            count += part.count
            if count >= rows or part.boundary is not None:
                break
        return (join_blocks(parts), end) if parts else None

    @locked
    def release(self, at: Offset) -> None:
        """Forget what lies before `at`."""
        while self._gone < len(self._blocks):
            end = self._firsts[self._gone].after(self._blocks[self._gone])
            if end > at:
                break
            self.start = end
            self._bytes -= self._blocks[self._gone].nbytes
            self._gone += 1
            self._blocks[self._gone - 1] = _NOTHING
        if self._gone > 64 and self._gone > len(self._blocks) // 2:
            gone, self._gone = self._gone, 0
            del self._blocks[:gone], self._firsts[:gone], self._positions[:gone]

    @locked
    def position_at(self, at: Offset) -> Any:
        """The reader's position at `at`; None unless a block ends there."""
        if at == self.stop:
            return self.position
        i = bisect_right(self._firsts, at)
        return self._positions[i - 2] if i > self._gone + 1 and self._firsts[i - 1] == at else None

    @locked
    def begin_at(self, at: Offset, *, passed: int = 0, missed: int = 0, last_time: float | None = None) -> None:
        """Begin, empty, after rows that were released."""
        self.start = self.stop = at
        self.passed, self.missed, self.last_time = passed, missed, last_time

    def spill(self, to: RowLog) -> None:
        """Write all rows to an empty log on the disk.

        Raises:
            OSError: it could not be written. The rows stay in memory.
        """
        blocks = self._all()
        boundaries = [block.boundary for block, _ in blocks if block.boundary is not None]
        passed = self.passed - sum(each.kind == "pass" for each in boundaries)
        missed = self.missed - sum(each.missed for each in boundaries if each.kind == "gap")
        to.begin_at(self.start, passed=passed, missed=missed, last_time=self.last_time)
        for block, position in blocks:
            to.append(block, position)

    @locked
    def _all(self) -> list[tuple[Block, Any]]:
        return list(zip(self._blocks[self._gone :], self._positions[self._gone :], strict=True))

    def sync(self) -> None:
        """No-op: there is no disk."""

    def close(self) -> None:
        """No-op."""


_NOTHING = Block(None, 0)
