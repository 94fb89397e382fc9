"""Batch: cuts rows into batches of one size.

A block is cut into many batches at once. Only a batch across two blocks is copied; all others are views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core import check, trees
from unbounded.core.block import Block, Boundary, Offset, Run
from unbounded.core.block import join as join_blocks
from unbounded.core.input_buffer import Address, InputBuffer, compose_held
from unbounded.core.node import Context, Cursor, EndOfStream, Node
from unbounded.core.trees import Tree
from unbounded.stages.stage import Holding, Stage, Through


@dataclass(frozen=True)
class Batch(Stage):
    """See `Stream.batch`."""

    rows: int
    word = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", check.positive(self.rows, "batch(n)"))

    def open(self, upstream: Node, context: Context) -> Node:
        return _BatchNode(upstream, self.rows)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        return compose_held([Address(upstream(ordinal * self.rows))], {})

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        return ordinal // self.rows


class _BatchNode(Holding):
    def __init__(self, upstream: Node, size: int) -> None:
        super().__init__(upstream)
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        # Fewer than a batch of rows, in their original blocks, each with the boundary after it.
        self._rest: list[Block] = []
        self._count = 0
        self._pending: Block | None = None  # was read, and is not in `_rest` yet
        self._at = Offset(0)

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
            if block.boundary:
                # The boundary belongs to the last batch, which was returned already: it follows by itself.
                self._at = self._held.tail
                return Run([], self._size, 0, ((0, block.boundary),))

    def _run(self, block: Block) -> Run:
        size = self._size
        items: list[Tree] = []
        parts: list[Tree] = []
        boundaries: list[tuple[int, Boundary]] = []
        used = 0
        times, provenance, seen = [], [], []
        if self._rest:
            used = size - self._count
            first = join_blocks([*self._rest, block.part(0, used)])
            items.append(first.rows)
            parts.append(first.rows)
            times.append(first.times)
            provenance.append(first.provenance)
            seen.append(first.seen)
            boundaries += [(1, b.boundary) for b in self._rest if b.boundary]
        stop = used + (block.count - used) // size * size
        if stop > used:
            whole = block.part(used, stop)
            items += trees.cut_all(whole.rows, size)
            parts.append(whole.rows)
            times.append(whole.times)
            provenance.append(whole.provenance)
            seen.append(whole.seen)
        rest = block.part(stop, block.count)
        if block.boundary and not rest.count:
            boundaries.append((len(items), block.boundary))
        beside = (mean_time(times), all_joined(provenance), greatest(all_joined(seen), size))
        run = Run(items, size, len(items) * size, tuple(boundaries), tuple(parts), *beside)
        self._rest = [rest] if rest.count else []
        self._count = rest.count
        self._pending = None
        self._at = Offset(self._held.tail.rows - rest.count) if rest.count else self._held.tail
        self._held.keep(self._at)
        return run

    def _last(self) -> Run:
        """The rows left at a declared end, as a shorter batch."""
        last = join_blocks(self._rest)
        boundaries = tuple((1, b.boundary) for b in self._rest if b.boundary)
        beside = (mean_time([last.times]), last.provenance, greatest(last.seen, last.count))
        run = Run([last.rows], self._size, last.count, boundaries, (last.rows,), *beside)
        self._rest, self._count = [], 0
        self._at = self._held.tail
        return run

    def needed(self) -> Offset:
        return self._at

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin()


def mean_time(times: list[Any]) -> float | None:
    """The mean of the finite times; None if there are none."""
    if any(t is None for t in times):
        return None
    joined = np.concatenate(times)
    mean = float(joined.mean())
    if mean != mean:  # rows of a mix without arrival times are NaN
        joined = joined[~np.isnan(joined)]
        mean = float(joined.mean()) if len(joined) else mean
    return None if mean != mean else mean


def all_joined(parts: list[Any]) -> Any:
    """The arrays one after the other; None if one is None."""
    if any(part is None for part in parts):
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def greatest(seen: Any, size: int) -> Any:
    """The maximum over the rows of each batch."""
    return None if seen is None else np.maximum.reduceat(seen, np.arange(0, len(seen), size))


class BlocksAsBatches(Through):
    """Makes each block of a stream without `batch` one batch."""

    def apply(self, block: Block | Run) -> Run:
        assert isinstance(block, Block)
        boundaries = ((1, block.boundary),) if block.boundary else ()
        beside = (mean_time([block.times]), block.provenance, greatest(block.seen, block.count))
        return Run([block.rows], block.count, block.count, boundaries, (block.rows,), *beside)

    def pull(self, timeout: float | None) -> Run | None:
        out = super().pull(timeout)
        if isinstance(out, Block):
            return Run([], 1, 0, ((0, out.boundary),) if out.boundary else ())
        return out
