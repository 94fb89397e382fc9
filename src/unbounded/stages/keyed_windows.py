"""Sliding windows over each key's own rows, all keys at once.

A block is sorted by key once, and what its windows and its keys' last rows are is then arithmetic on arrays with one
entry a key: no step is taken key by key, or row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Node
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.stage import Holding

if TYPE_CHECKING:
    from unbounded.stages.windows import Windows

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tails:
    """What later windows need of each key, in arrays with one entry a key.

    `keys` are sorted. A key's rows are those of `pool` from `at` on, `held` of them; `over` says how many of its next
    rows to pass over first (where the stride is longer than the window), and `seen` the number of its last row.

    The first `used` rows of the pool are never written again, so that a cursor can refer to them: new rows go behind
    them, and into a new pool where there is no room.
    """

    keys: Array
    at: Ints
    held: Ints
    over: Ints
    seen: Ints
    pool: Tree
    used: int

    def find(self, keys: Array) -> tuple[Ints, NDArray[np.bool_]]:
        """Where each of `keys` is, and whether it is there at all; where it is not, the place means nothing."""
        place = np.searchsorted(self.keys, keys)
        place[place == len(self.keys)] = 0
        return place, _same(self.keys[place], keys)

    def only(self, which: NDArray[np.bool_]) -> Tails:
        """Some of the keys."""
        if which.all():
            return self
        keys, at, held, over, seen = (array[which] for array in (self.keys, self.at, self.held, self.over, self.seen))
        return Tails(keys, at, held, over, seen, self.pool, self.used)

    def cursor(self) -> dict[str, Any]:
        """As part of a cursor."""
        arrays = {"keys": self.keys, "at": self.at, "held": self.held, "over": self.over, "seen": self.seen}
        return {**arrays, "rows": trees.cut(self.pool, 0, self.used)}


def _tails(cursor: Mapping[str, Any] | None) -> Tails | None:
    if cursor is None:
        return None
    keys, at, held, over, seen, pool = (cursor[name] for name in ("keys", "at", "held", "over", "seen", "rows"))
    return Tails(keys, at, held, over, seen, pool, trees.count(pool))


def _joined(before: Tails | None, after: Tails) -> Tails | None:
    """The keys of `before` and of `after`, which share none; the pool of `after` has its own rows alone."""
    needed = (after.held > 0) | (after.over > 0)  # any other key is in the state of a new one
    after = after.only(needed)
    if before is None or not len(before.keys):
        return after if len(after.keys) else None
    if after.used:
        if before.used + after.used > trees.count(before.pool) or not _fits(after.pool, before.pool):
            before = _moved(before, 2 * (int(before.held.sum()) + after.used), after.pool)
        _write(before.pool, before.used, after.pool)
    pairs = (
        (before.keys, after.keys),
        (before.at, after.at + before.used),
        (before.held, after.held),
        (before.over, after.over),
        (before.seen, after.seen),
    )
    order = np.argsort(np.concatenate(pairs[0]), kind="stable")
    keys, at, held, over, seen = (np.concatenate(pair)[order] for pair in pairs)
    return Tails(keys, at, held, over, seen, before.pool, before.used + after.used)


def _fits(rows: Tree, pool: Tree) -> bool:
    """Whether a pool holds such values whole: text may have become wider."""
    pairs = zip(trees.leaves(rows), trees.leaves(pool), strict=True)
    return all(np.can_cast(leaf.dtype, wide.dtype) for (_, leaf), (_, wide) in pairs)


def _moved(tails: Tails, size: int, others: Tree) -> Tails:
    """The same in a new pool for `size` rows, such as `others`, and without the rows that no key needs.

    Where the size is twice what is needed, a row is moved once or twice before it is not needed any more.
    """
    rows = trees.gather(tails.pool, _ranges(tails.at, tails.held))

    def new(leaf: Array, other: Array) -> Array:
        return trees.empty((size, *leaf.shape[1:]), np.result_type(leaf.dtype, other.dtype))

    pool = trees.map_leaves(new, rows, others)
    _write(pool, 0, rows)
    return replace(tails, at=np.cumsum(tails.held) - tails.held, pool=pool, used=int(tails.held.sum()))


def _write(pool: Tree, at: int, rows: Tree) -> None:
    def write(into: Array, leaf: Array) -> None:
        into[at : at + len(leaf)] = leaf

    trees.map_leaves(write, pool, rows)


def _same(one: Array, other: Array) -> NDArray[np.bool_]:
    """Which keys are equal; NaN is a key like any other."""
    same: NDArray[np.bool_] = one == other
    return same | ((one != one) & (other != other)) if one.dtype.kind in "fcmM" else same


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """The numbers from each of `starts` on, so many as `counts` says, one range after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


class KeyedWindows(Holding):
    """Windows over each key's own rows, in the order of their last rows.

    The cursor carries the rows of every key that a later window needs, at most `length - 1` each: a key that
    has been silent for long would else tie the cursor to the distant past.
    """

    def __init__(self, upstream: Node, windows: Windows) -> None:
        super().__init__(upstream)
        self._windows = windows
        self._begin(0, None)

    def _begin(self, row: int, tails: Tails | None) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._row = row  # the number of the next row
        self._tails = tails

    def pull(self, timeout: float | None) -> Block | None:
        held = self._held
        while True:
            if not held.run and not held.closed:
                if not held.pull(timeout):
                    return None
                continue
            block = held.peek(min(held.run, self._most()))
            out, tails = self._windows_of(block) if block.count else (Block(None, 0), self._tails)
            # All that can fail is done: now the cursor moves.
            held.drop(block.count)
            held.keep(held.head)
            self._row += block.count
            self._tails = None if block.boundary else tails
            if out.count or block.boundary:
                return replace(out, boundary=block.boundary)

    def _most(self) -> int:
        """How many rows to take at once: each is in up to `length` windows."""
        rows = self._held.peek(1).rows
        return 0 if rows is None else trees.block_rows(trees.row_bytes(rows) * self._windows.length, 1)

    def _windows_of(self, block: Block) -> tuple[Block, Tails | None]:
        """The windows whose last row is in the block, and what of each key later ones need."""
        length, stride, expire = self._windows.length, self._windows.stride, self._windows.expire
        keys = self._keys(block.rows)
        # The block's rows by key, each key's in their order. A stretch is a key's rows without a long silence.
        order: Ints = np.argsort(keys, kind="stable")
        keys = keys[order]
        begins = np.ones(len(keys), bool)
        begins[1:] = ~_same(keys[1:], keys[:-1])
        first = np.flatnonzero(begins)
        if expire is not None:
            begins[1:] |= np.diff(order) > expire
        start = np.flatnonzero(begins)
        fresh = np.diff(start, append=len(keys))  # rows in each stretch
        keys = keys[first]
        seen = self._row + order[np.append(first[1:], len(order)) - 1]
        leads = np.searchsorted(start, first)  # each key's first stretch, which goes on with what was held of it
        ends = np.append(leads[1:], len(start)) - 1  # and its last one, of which rows will be held

        before, joined = self._tails, block.rows
        held, over, at = (np.zeros(len(start), np.int64) for _ in range(3))
        if before is not None:
            place, known = before.find(keys)
            touched = np.zeros(len(before.keys), bool)
            touched[place[known]] = True
            if expire is not None:
                known &= self._row + order[first] - before.seen[place] <= expire
            place, into = place[known], leads[known]
            held[into], over[into], at[into] = before.held[place], before.over[place], before.at[place]
            if held.any():
                joined = trees.join([trees.gather(before.pool, _ranges(at, held)), block.rows])
            before = before.only(~touched)
            if expire is not None:
                before = before.only(self._row + block.count - before.seen <= expire)

        # Of each stretch: its rows, those to pass over, and its windows.
        count = held + fresh
        skip = np.minimum(over, count)
        base = np.cumsum(count) - count + skip
        made = np.maximum(0, (count - skip - length) // stride + 1)
        gone = np.minimum(made * stride, count - skip)
        keep = count - skip - gone
        over += made * stride - gone - skip
        # Where each row lies in `joined`, stretch by stretch: those held, and then those of the block.
        lies = np.empty(int(count.sum()), np.int64)
        lies[_ranges(base - skip, held)] = np.arange(int(held.sum()))
        lies[_ranges(base - skip + held, fresh)] = order + int(held.sum())

        rest = keep[ends]
        kept = trees.gather(joined, lies[_ranges(base[ends] + gone[ends], rest)])
        tails = Tails(keys, np.cumsum(rest) - rest, rest, over[ends], seen, kept, int(rest.sum()))
        windows = np.repeat(base, made) + stride * _ranges(np.zeros_like(made), made)
        # A row is the last one of one window at most, so that in the order of their last rows needs no sorting.
        at_last = np.full(block.count, -1)
        at_last[lies[windows + length - 1] - int(held.sum())] = windows
        last = np.flatnonzero(at_last >= 0)
        rows = trees.gather(joined, lies[at_last[last][:, None] + np.arange(length)])
        times = None if block.times is None else block.times[last]
        return Block(rows if len(last) else None, len(last), None, times), _joined(before, tails)

    def _keys(self, rows: Tree) -> Array:
        by = self._windows.by
        if not isinstance(rows, dict) or by not in rows:
            raise RowsError(
                f"windows(by={by!r}) was given rows without that column. Expected a dict of columns with it; the rows "
                f"have {trees.columns(rows)}."
            )
        keys: Array = rows[by]
        if keys.ndim != 1:
            raise RowsError(
                f"windows(by={by!r}): the column has rows of shape {keys.shape[1:]}. Expected one key in each row."
            )
        return keys

    def own(self) -> Mapping[str, Any]:
        return {"row": self._row, "tails": None if self._tails is None else self._tails.cursor()}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["row"], _tails(own["tails"]))
