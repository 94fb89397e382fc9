"""Spool: the rows of a source that can't go back, numbered, and kept from the oldest cursor still needed.

It is the one place in a stream where rows are saved. `sources/live.py` fills it; a checkpoint takes from it
what it needs.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unbounded.core import trees
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.block import join as join_blocks
from unbounded.core.locked import locked


class Spool:
    """Blocks from point `start` up to point `stop`, numbered from the stream's beginning. Safe between
    threads.

    Its rows are read-only: what is read may be read again, whatever was done to it in between.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[Block] = []
        self._firsts: list[Offset] = []  # where each of them begins
        self._gone = 0  # how many of them, from the front, are let go: removed when they are the greater part
        self.start = Offset(0)
        self.stop = Offset(0)
        self.passed = 0
        """How many passes ended before `stop`, from the stream's beginning."""

    @property
    def last_time(self) -> float | None:
        """When the last row that is kept arrived."""
        return self._last_time()

    @locked
    def _last_time(self) -> float | None:
        for block in reversed(self._blocks[self._gone :]):
            if block.count and block.times is not None:
                return float(block.times[-1])
        return None

    @locked
    def append(self, block: Block) -> None:
        """Keep a new block."""
        self._append(block)

    def _append(self, block: Block) -> None:
        self._blocks.append(block.with_rows(trees.read_only(block.rows)) if block.count else block)
        self._firsts.append(self.stop)
        self.stop = self.stop.after(block)
        self.passed += 1 if block.boundary and block.boundary.kind == "pass" else 0

    @locked
    def read(self, at: Offset) -> Block | None:
        """What is kept from `at` on, up to the end of one block; None where that is nothing."""
        # The first block that ends after `at`: the last that begins at or before it, or one that follows.
        for i in range(max(self._gone, bisect_right(self._firsts, at) - 1), len(self._blocks)):
            first, block = self._firsts[i], self._blocks[i]
            if first.after(block) > at:
                return block.part(max(0, at.rows - first.rows), block.count)
        return None

    @locked
    def release(self, at: Offset) -> None:
        """Forget what lies before `at`."""
        while self._gone < len(self._blocks):
            end = self._firsts[self._gone].after(self._blocks[self._gone])
            if end > at:
                break
            self.start = end
            self._gone += 1
            self._blocks[self._gone - 1] = _NOTHING
        if self._gone > 64 and self._gone > len(self._blocks) // 2:
            gone, self._gone = self._gone, 0
            del self._blocks[:gone], self._firsts[:gone]

    @locked
    def dump(self, start: int, stop: int) -> dict[str, Any]:
        """The rows from number `start` up to `stop`, with their times and the breaks after them: arrays and
        plain data."""
        kept = [
            (f, b)
            for f, b in zip(self._firsts[self._gone :], self._blocks[self._gone :], strict=True)
            if f.rows <= stop and f.rows + b.count >= start
        ]
        parts, boundaries = [], []
        cuts: list[list[int]] = []  # rows in a block, and how many such blocks follow each other
        for first, block in kept:
            part = block.part(max(0, start - first.rows), min(block.count, stop - first.rows))
            if part.boundary:
                boundaries.append([first.rows + block.count, part.boundary.kind, part.boundary.missed])
            if part.count:
                parts.append(replace(part, boundary=None))
                if cuts and cuts[-1][0] == part.count:
                    cuts[-1][1] += 1
                else:
                    cuts.append([part.count, 1])
        whole = join_blocks(parts) if parts else Block(None, 0)
        return {
            "first": start,
            "count": whole.count,
            "rows": whole.rows,
            "times": whole.times,
            "breaks": boundaries,
            # Without `batch`, the blocks are the batches: they come back as they were.
            "cuts": cuts,
            "passed": self.passed,
        }

    @locked
    def load(self, dumps: Sequence[Mapping[str, Any]]) -> None:
        """Begin again with what `dump` gave, in order and without holes."""
        self._blocks, self._firsts, self._gone = [], [], 0
        if dumps:
            self.start = self.stop = Offset(dumps[0]["first"])
        for dump in dumps:
            whole = Block(dump["rows"], dump["count"], None, dump["times"])
            first = at = dump["first"]
            boundaries: dict[int, list[Boundary]] = {}
            for row, kind, missed in dump["breaks"]:
                boundaries.setdefault(row, []).append(Boundary(kind, missed))
            # A break where two dumps meet may be in both.
            for ends in boundaries.get(first, [])[self.stop.boundaries if self.stop.rows == first else 0 :]:
                self._append(Block(None, 0, ends))
            for rows in (rows for rows, times in dump["cuts"] for _ in range(times)):
                part, at = whole.part(at - first, at - first + rows), at + rows
                here = boundaries.get(at, [])
                self._append(replace(part, boundary=here[0] if here else None))
                for ends in here[1:]:
                    self._append(Block(None, 0, ends))
            self.passed = dump["passed"]


_NOTHING = Block(None, 0)  # in the place of what was let go
