"""batch: rows into batches of one size.

The cut is made for many batches at once. Only a batch that straddles two blocks is copied; all others are
views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded import _block, _check, _rows
from unbounded._block import At, Block, Break, Run
from unbounded._held import Held
from unbounded._node import Context, EndOfStream, Mark, Node
from unbounded._rows import Tree
from unbounded.stages._base import Holding, Stage, Through


@dataclass(frozen=True)
class Batch(Stage):
    """See `Stream.batch`."""

    rows: int
    word = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _check.positive(self.rows, "batch(n)"))

    def open(self, upstream: Node, context: Context) -> Node:
        return _Batch(upstream, self.rows)

    def mark_at(self, ordinal: int, upstream: Callable[[int], Mark], rows: int | None, place: int) -> Mark:
        return {"from": upstream(ordinal * self.rows), "rows": 0, "breaks": 0}

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        return ordinal // self.rows


class _Batch(Holding):
    def __init__(self, upstream: Node, size: int) -> None:
        self._upstream = upstream
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._held: Held[Block] = Held(self._upstream)
        # Fewer than a batch of rows, in the blocks they came in, each with the break after it.
        self._rest: list[Block] = []
        self._count = 0
        self._pending: Block | None = None  # was read, and is not among them yet
        self._at = At(0)

    def pull(self, timeout: float | None) -> Run | None:
        while True:
            if self._pending is None:
                try:
                    self._pending = self._held.read(timeout)
                except EndOfStream:
                    if not self._rest:
                        raise
                    return self._last()
            block = self._pending
            if block is None:
                return None
            if self._count + block.count >= self._size:
                return self._run(block)
            if self._rest or block.count:
                self._rest.append(block)
                self._count += block.count
                self._pending = None
                continue
            self._pending = None
            if block.ends:
                # It belongs to the batch before, which is gone already: it follows alone.
                self._at = self._held.tail
                return Run([], self._size, 0, ((0, block.ends),))

    def _run(self, block: Block) -> Run:
        size = self._size
        items: list[Tree] = []
        parts: list[Tree] = []
        breaks: list[tuple[int, Break]] = []
        used = 0
        times = []
        if self._rest:
            used = size - self._count
            first = _block.join([*self._rest, block.part(0, used)])
            items.append(first.rows)
            parts.append(first.rows)
            times.append(first.times)
            breaks += [(1, b.ends) for b in self._rest if b.ends]
        stop = used + (block.count - used) // size * size
        if stop > used:
            whole = block.part(used, stop)
            items += _rows.cut_all(whole.rows, size)
            parts.append(whole.rows)
            times.append(whole.times)
        rest = block.part(stop, block.count)
        if block.ends and not rest.count:
            breaks.append((len(items), block.ends))
        run = Run(items, size, len(items) * size, tuple(breaks), tuple(parts), _mean(times))
        self._rest = [rest] if rest.count else []
        self._count = rest.count
        self._pending = None
        self._at = At(self._held.tail.rows - rest.count) if rest.count else self._held.tail
        self._held.keep(self._at)
        return run

    def _last(self) -> Run:
        """What is left at a declared end: a short batch, neither padded nor mixed with other rows."""
        last = _block.join(self._rest)
        breaks = tuple((1, b.ends) for b in self._rest if b.ends)
        run = Run([last.rows], self._size, last.count, breaks, (last.rows,), _mean([last.times]))
        self._rest, self._count = [], 0
        self._at = self._held.tail
        return run

    def mark(self) -> Mark:
        return self._held.address(self._at)

    def restore(self, mark: Mapping[str, Any]) -> None:
        self._begin()
        self._held.restore(mark)


def _mean(times: list[Any]) -> float | None:
    if any(t is None for t in times):
        return None
    return float(np.mean(np.concatenate(times)))


class BlocksAsBatches(Through):
    """Without `batch`, a source's own blocks are the batches."""

    def apply(self, block: Block | Run) -> Run:
        assert isinstance(block, Block)
        breaks = ((1, block.ends),) if block.ends else ()
        arrived = None if block.times is None else float(block.times.mean())
        return Run([block.rows], block.count, block.count, breaks, (block.rows,), arrived)

    def pull(self, timeout: float | None) -> Run | None:
        out = super().pull(timeout)
        if isinstance(out, Block):
            return Run([], 1, 0, ((0, out.ends),) if out.ends else ())
        return out
