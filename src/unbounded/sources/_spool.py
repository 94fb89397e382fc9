"""Spool: the rows of a source that can't go back, numbered, and kept from the oldest mark still needed.

It is the one place in a stream where rows are saved. `sources/live.py` fills it; a checkpoint takes from it
what it needs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unbounded import _block
from unbounded._block import At, Block, Break


class Spool:
    """Blocks from point `start` up to point `stop`, numbered from the stream's beginning. Safe between
    threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: deque[tuple[At, Block]] = deque()
        self.start = At(0)
        self.stop = At(0)
        self.passed = 0
        """How many passes ended before `stop`, from the stream's beginning."""

    @property
    def last_time(self) -> float | None:
        """When the last row that is kept arrived."""
        with self._lock:
            times = [block.times[-1] for _, block in self._blocks if block.count and block.times is not None]
        return float(times[-1]) if times else None

    def append(self, block: Block) -> None:
        """Keep a new block."""
        with self._lock:
            self._append(block)

    def _append(self, block: Block) -> None:
        self._blocks.append((self.stop, block))
        self.stop = self.stop.after(block)
        self.passed += 1 if block.ends and block.ends.kind == "pass" else 0

    def read(self, at: At) -> Block | None:
        """What is kept from `at` on, up to the end of one block; None where that is nothing."""
        with self._lock:
            for first, block in self._blocks:
                if first.after(block) > at:
                    return block.part(max(0, at.rows - first.rows), block.count)
        return None

    def release(self, at: At) -> None:
        """Forget what lies before `at`."""
        with self._lock:
            while self._blocks and (end := self._blocks[0][0].after(self._blocks[0][1])) <= at:
                self._blocks.popleft()
                self.start = end

    def dump(self, start: int, stop: int) -> dict[str, Any]:
        """The rows from number `start` up to `stop`, with their times and the breaks after them: arrays and
        plain data."""
        with self._lock:
            kept = [(f, b) for f, b in self._blocks if f.rows <= stop and f.rows + b.count >= start]
        parts, breaks = [], []
        cuts: list[list[int]] = []  # rows in a block, and how many such blocks follow each other
        for first, block in kept:
            part = block.part(max(0, start - first.rows), min(block.count, stop - first.rows))
            if part.ends:
                breaks.append([first.rows + block.count, part.ends.kind, part.ends.missed])
            if part.count:
                parts.append(replace(part, ends=None))
                if cuts and cuts[-1][0] == part.count:
                    cuts[-1][1] += 1
                else:
                    cuts.append([part.count, 1])
        whole = _block.join(parts) if parts else Block(None, 0)
        return {
            "first": start,
            "count": whole.count,
            "rows": whole.rows,
            "times": whole.times,
            "breaks": breaks,
            # Without `batch`, the blocks are the batches: they come back as they were.
            "cuts": cuts,
            "passed": self.passed,
        }

    def load(self, dumps: Sequence[Mapping[str, Any]]) -> None:
        """Begin again with what `dump` gave, in order and without holes."""
        with self._lock:
            self._blocks.clear()
            if dumps:
                self.start = self.stop = At(dumps[0]["first"])
            for dump in dumps:
                whole = Block(dump["rows"], dump["count"], None, dump["times"])
                first = at = dump["first"]
                breaks: dict[int, list[Break]] = {}
                for row, kind, missed in dump["breaks"]:
                    breaks.setdefault(row, []).append(Break(kind, missed))
                # A break where two dumps meet may be in both.
                for ends in breaks.get(first, [])[self.stop.breaks if self.stop.rows == first else 0 :]:
                    self._append(Block(None, 0, ends))
                for rows in (rows for rows, times in dump["cuts"] for _ in range(times)):
                    part, at = whole.part(at - first, at - first + rows), at + rows
                    here = breaks.get(at, [])
                    self._append(replace(part, ends=here[0] if here else None))
                    for ends in here[1:]:
                        self._append(Block(None, 0, ends))
                self.passed = dump["passed"]
