"""Windows: sliding windows over consecutive rows, over all rows or over each key's own rows.

A window never spans a boundary. Windows are views; rows are copied once where two blocks meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core import check, trees
from unbounded.core.block import Block
from unbounded.core.durations import seconds_of
from unbounded.core.input_buffer import Address, InputBuffer, compose_held
from unbounded.core.node import CannotTell, Context, Cursor, Node
from unbounded.core.trees import Array, Tree
from unbounded.stages.keyed_windows import KeyedWindows
from unbounded.stages.keys import EXPIRE, check_by
from unbounded.stages.stage import Holding, Stage
from unbounded.stages.time_gaps import TimeGaps


@dataclass(frozen=True)
class Windows(Stage):
    """See `Stream.windows`."""

    length: int
    stride: int = 1
    by: str | None = None
    expire: int | None = EXPIRE
    max_gap: Any = None
    word = "windows"
    ends_with_pass = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", check.positive(self.length, "windows(length)"))
        object.__setattr__(self, "stride", check.positive(self.stride, "windows(stride=…)"))
        check_by(self.by, "windows")
        if self.expire is not None:
            if self.by is None and self.expire != EXPIRE:
                raise ValueError(
                    "windows(expire=…) was given without by=. Expected the column that tells the keys apart."
                )
            check.positive(self.expire, "windows(expire=…)")
        if self.max_gap is not None:
            object.__setattr__(self, "max_gap", seconds_of(self.max_gap, "windows(max_gap=…)"))

    def arguments(self) -> dict[str, Any]:
        # `expire` is shown even at its default, since it changes the result.
        return super().arguments() | ({} if self.by is None else {"expire": self.expire})

    def rows_per_pass(self, rows: int | None) -> int | None:
        if rows is None or self.by is not None or self.max_gap is not None:
            return None
        return max(0, (rows - self.length) // self.stride + 1)

    def open(self, upstream: Node, context: Context) -> Node:
        if self.by is not None:
            return KeyedWindows(upstream, self, context)
        return _WindowsNode(upstream if self.max_gap is None else TimeGaps(upstream, self.max_gap), self)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        if self.by is not None:
            raise CannotTell("which windows windows(by=…) gives depends on all rows before them")
        if self.max_gap is not None:
            raise CannotTell("which windows windows(max_gap=…) gives depends on the times of all rows before them")
        passed, within = divmod(ordinal, self.rows_per_pass(rows) or 1) if rows else (0, ordinal)
        start = passed * (rows or 0) + within * self.stride
        return compose_held([Address(upstream(start))], {"over": 0})


def slide(rows: Tree, length: int, stride: int) -> Tree:
    """Windows of `length` rows, one from each `stride`-th row on: views, of shape (windows, length, …)."""

    def each(leaf: Array) -> Array:
        wide = np.lib.stride_tricks.sliding_window_view(leaf, length, axis=0)[::stride]
        return np.moveaxis(wide, -1, 1)

    return trees.map_leaves(each, rows)


class _WindowsNode(Holding):
    """Windows over all rows. The first row held is the next window's first, so the cursor needs nothing more."""

    def __init__(self, upstream: Node, windows: Windows) -> None:
        super().__init__(upstream)
        self._length = windows.length
        self._stride = windows.stride
        self._begin(0)

    def _begin(self, over: int) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._over = over  # rows to skip before the next window's first, if stride > length

    def pull(self, timeout: float | None) -> Block | None:
        held, length, stride = self._held, self._length, self._stride
        while True:
            if self._over and held.run:
                over = min(self._over, held.run)
                if held.closed and over == held.run:
                    return self._closed()
                self._over -= over
                held.drop(over)
                held.keep(held.head)
            if held.run >= length and not self._over:
                block = held.peek(held.run)
                made = (block.count - length) // stride + 1
                rows = slide(block.rows, length, stride)
                last = slice(length - 1, None, stride)
                times = None if block.times is None else block.times[last]
                seen = None if block.seen is None else block.seen[last]
                out = Block(rows, made, block.boundary, times, seen=seen)
                if block.boundary:
                    held.drop(block.count)
                else:
                    gone = min(made * stride, block.count)
                    self._over = made * stride - gone
                    held.drop(gone)
                held.keep(held.head)
                return out
            if held.closed:
                return self._closed()
            if not held.pull(timeout):
                return None

    def _closed(self) -> Block:
        """Too few rows before a boundary make no window; the boundary is passed on."""
        block = self._held.pop(self._held.run)
        self._over = 0
        self._held.keep(self._held.head)
        return Block(None, 0, block.boundary)

    def own(self) -> Mapping[str, Any]:
        return {"over": self._over}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["over"])
