"""windows: sliding windows over consecutive rows, over all rows or over each key's own.

A window never spans a break. The windows are views of the rows, which are copied once where two blocks meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from unbounded import _check, _rows
from unbounded._block import Block
from unbounded._held import Held
from unbounded._node import CannotTell, Context, Mark, Node
from unbounded._rows import Array, RowsError, Tree
from unbounded.stages._base import Holding, Stage


@dataclass(frozen=True)
class Windows(Stage):
    """See `Stream.windows`."""

    length: int
    stride: int = 1
    by: str | None = None
    expire: int | None = None
    word = "windows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", _check.positive(self.length, "windows(length)"))
        object.__setattr__(self, "stride", _check.positive(self.stride, "windows(stride=…)"))
        if self.expire is not None:
            if self.by is None:
                raise ValueError(
                    "windows(expire=…) was given without by=. Expected the column that tells the keys apart."
                )
            _check.positive(self.expire, "windows(expire=…)")

    def rows_per_pass(self, rows: int | None) -> int | None:
        if rows is None or self.by is not None:
            return None
        return max(0, (rows - self.length) // self.stride + 1)

    def open(self, upstream: Node, context: Context) -> Node:
        return _Windows(upstream, self) if self.by is None else _KeyedWindows(upstream, self)

    def mark_at(self, ordinal: int, upstream: Callable[[int], Mark], rows: int | None, place: int) -> Mark:
        if self.by is not None:
            raise CannotTell("which windows windows(by=…) gives depends on all rows before them")
        passed, within = divmod(ordinal, self.rows_per_pass(rows) or 1) if rows else (0, ordinal)
        start = passed * (rows or 0) + within * self.stride
        return {"from": upstream(start), "rows": 0, "breaks": 0, "over": 0}


def slide(rows: Tree, length: int, stride: int) -> Tree:
    """Windows of `length` rows, one starting at each `stride`-th row: views, of shape (windows, length,
    …)."""

    def each(leaf: Array) -> Array:
        wide = np.lib.stride_tricks.sliding_window_view(leaf, length, axis=0)[::stride]
        return np.moveaxis(wide, -1, 1)

    return _rows.map_leaves(each, rows)


class _Windows(Holding):
    """Windows over all rows. The rows held begin with the next window's first: a mark needs nothing more."""

    def __init__(self, upstream: Node, windows: Windows) -> None:
        self._upstream = upstream
        self._length = windows.length
        self._stride = windows.stride
        self._begin(0)

    def _begin(self, over: int) -> None:
        self._held: Held[Block] = Held(self._upstream)
        self._over = over  # rows still to come before the next window's first: where stride > length

    def pull(self, timeout: float | None) -> Block | None:
        held, length, stride = self._held, self._length, self._stride
        while True:
            if self._over and held.run:
                over = min(self._over, held.run)
                closes = held.closed and over == held.run
                self._over = 0 if closes else self._over - over
                if closes:
                    return self._closed(held.pop(over))
                held.drop(over)
                held.keep(held.head)
            if held.run >= length and not self._over:
                block = held.peek(held.run)
                made = (block.count - length) // stride + 1
                rows = slide(block.rows, length, stride)
                times = None if block.times is None else block.times[length - 1 :: stride]
                out = Block(rows, made, block.ends, times)
                if block.ends:
                    held.drop(block.count)
                else:
                    gone = min(made * stride, block.count)
                    self._over = made * stride - gone
                    held.drop(gone)
                held.keep(held.head)
                return out
            if held.closed:
                self._over = 0
                return self._closed(held.pop(held.run))
            if not held.pull(timeout):
                return None

    def _closed(self, block: Block) -> Block:
        """Too few rows before a break: they make no window, and the break goes on."""
        self._held.keep(self._held.head)
        return Block(None, 0, block.ends)

    def mark(self) -> Mark:
        return {**self._held.address(self._held.head), "over": self._over}

    def restore(self, mark: Mapping[str, Any]) -> None:
        self._begin(mark["over"])
        self._held.restore(mark)


class _Tail(NamedTuple):
    """A key's rows that a later window needs, how many of its rows to pass over first, and when it was last
    seen."""

    rows: Tree
    held: int
    over: int
    seen: int


class _KeyedWindows(Holding):
    """Windows over each key's own rows, in the order of their last rows.

    The mark carries the rows of every key that a later window needs, at most `length - 1` each: a key that
    has been silent for long would else tie the mark to the distant past.
    """

    def __init__(self, upstream: Node, windows: Windows) -> None:
        self._upstream = upstream
        self._windows = windows
        self._tails: Mapping[Any, _Tail] = {}
        self._row = 0
        self._before: tuple[Mark, Block] | None = None

    def pull(self, timeout: float | None) -> Block | None:
        while True:
            if self._before is None:
                before = self.mark()
                block = self._upstream.pull(timeout)
                if block is None:
                    return None
                assert isinstance(block, Block)
                self._before = (before, block)
            block = self._before[1]
            out = self._windows_of(block) if block.count else Block(None, 0)
            self._row += block.count
            self._before = None
            if block.ends:
                self._tails = {}
            if out.count or block.ends:
                return Block(out.rows, out.count, block.ends, out.times)

    def _windows_of(self, block: Block) -> Block:
        by, length, stride = self._windows.by, self._windows.length, self._windows.stride
        if not isinstance(block.rows, dict) or by not in block.rows:
            raise RowsError(
                f"windows(by={by!r}) was given rows without that column. Expected a dict of columns with it."
            )
        keys, inverse = np.unique(block.rows[by], return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[order], np.arange(len(keys) + 1))
        tails = dict(self._tails)
        made: list[Tree] = []
        last: list[Array] = []
        for i, key in enumerate(keys.tolist()):
            index = order[bounds[i] : bounds[i + 1]]
            for part in self._unexpired(index, tails.get(key)):
                tail = tails.get(key) if part is index or part[0] == index[0] else None
                if tail is not None and self._expired(tail.seen, int(part[0]) + self._row):
                    tail = None
                rows, count, over = _rows.gather(block.rows, part), len(part), 0
                if tail is not None:
                    rows = _rows.join([tail.rows, rows]) if tail.held else rows
                    count, over = count + tail.held, tail.over
                skip = min(over, count)
                rows, count, over = _rows.cut(rows, skip, count), count - skip, over - skip
                windows = max(0, (count - length) // stride + 1)
                if windows:
                    made.append(slide(rows, length, stride))
                    ends = len(part) - count + length - 1 + np.arange(windows) * stride
                    last.append(part[ends])
                gone = min(windows * stride, count)
                keep = _rows.map_leaves(np.copy, _rows.cut(rows, gone, count))
                tails[key] = _Tail(keep, count - gone, over + windows * stride - gone, int(part[-1]) + self._row)
        if self._windows.expire is not None:
            now = self._row + block.count
            tails = {k: t for k, t in tails.items() if not self._expired(t.seen, now)}
        self._tails = tails
        if not made:
            return Block(None, 0)
        ends = np.concatenate(last)
        sort = np.argsort(ends, kind="stable")
        times = None if block.times is None else block.times[ends[sort]]
        return Block(_rows.gather(_rows.join(made), sort), len(sort), None, times)

    def _expired(self, seen: int, now: int) -> bool:
        return self._windows.expire is not None and now - seen > self._windows.expire

    def _unexpired(self, index: Array, tail: _Tail | None) -> list[Array]:
        """A key's rows in this block, split where it had been silent for longer than `expire`."""
        if self._windows.expire is None:
            return [index]
        return np.split(index, np.flatnonzero(np.diff(index) > self._windows.expire) + 1)

    def mark(self) -> Mark:
        if self._before is not None:
            return self._before[0]
        return {"from": self._upstream.mark(), "row": self._row, "tails": self._tails}

    def restore(self, mark: Mapping[str, Any]) -> None:
        self._before = None
        self._upstream.restore(mark["from"])
        self._row = mark["row"]
        self._tails = {key: _Tail(*tail) for key, tail in mark["tails"].items()}
