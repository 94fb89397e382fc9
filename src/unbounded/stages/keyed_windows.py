"""Sliding windows over each key's own rows, all keys of a block at once.

Rows lie in a changelog's memory as they came. Each is linked to the row of its key before it, and a window is found by
going back from its last row, all windows of a block at once. So a block costs what its own rows cost: no step is taken
key by key, and none over keys that have no row in the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Context, Node
from unbounded.core.trees import Array, Tree
from unbounded.stages.changelog import SETTLED, Changelog
from unbounded.stages.keys import Expired, Ints, Slots, grown, keys_of, ranges, stretches
from unbounded.stages.stage import Holding

if TYPE_CHECKING:
    from unbounded.stages.windows import Windows


class KeyedWindows(Holding):
    """Windows over each key's own rows, in the order of their last rows.

    The cursor refers to the rows of every key that a later window needs, at most `length - 1` each: a key that
    has been silent for long would else tie the cursor to the distant past.
    """

    def __init__(self, upstream: Node, windows: Windows, context: Context) -> None:
        super().__init__(upstream)
        assert windows.by is not None
        self._windows = windows
        self._by = windows.by
        self._changes = Changelog(context.runtime.unique())
        self._expired = Expired("windows", windows.by, windows.expire)
        self._held: InputBuffer[Block] = InputBuffer(upstream)
        self._begin(0)

    def _begin(self, row: int) -> None:
        """No key has a row yet, and the next row has this number."""
        self._changes.begin(row)
        self._take(row, None)

    def _take(self, row: int, snapshot: Tree | None) -> None:
        self._row = row
        state = snapshot or {"keys": np.empty(0, np.int64), **dict.fromkeys(("held", "over", "seen"), np.empty(0, int))}
        self._slots = Slots(state["keys"])
        # Of the key in each slot: how many rows it holds, how many of its next ones to pass over first (where the
        # stride is longer than the window), the number of its last row, and where that lies.
        self._count: Ints = np.array(state["held"], np.int64)
        self._over: Ints = np.array(state["over"], np.int64)
        self._seen: Ints = np.array(state["seen"], np.int64)
        self._last: Ints = np.cumsum(self._count) - 1
        # Where the row of the same key before each row lies; of the first that a key holds, it means nothing.
        self._before: Ints = np.arange(int(self._count.sum())) - 1

    def pull(self, timeout: float | None) -> Block | None:
        held = self._held
        while True:
            if not held.run and not held.closed:
                if not held.pull(timeout):
                    return None
                continue
            block = held.peek(min(held.run, self._most()))
            out, accept = Block(None, 0), None
            if block.count:
                out, accept = self._windows_of(block)
            # All that can fail is done: now the cursor moves.
            if accept is not None:
                accept()
            held.drop(block.count)
            held.keep(held.head)
            if block.boundary:
                self._begin(self._row)
            elif self._changes.is_due:
                with suppress(MemoryError):  # tried again after the next block: this one's windows must not be lost
                    self._settle()
            if out.count or block.boundary:
                return replace(out, boundary=block.boundary)

    def _most(self) -> int:
        """How many rows to take at once: each is in up to `length` windows."""
        rows = self._held.peek(1).rows
        return 0 if rows is None else trees.block_rows(trees.row_bytes(rows) * self._windows.length, 1)

    def _windows_of(self, block: Block) -> tuple[Block, Callable[[], None]]:
        """The windows whose last row is in the block, and what to call for the block to be accepted."""
        keys = keys_of(block.rows, self._by, f"windows(by={self._by!r})")
        # Where no row is held there is no need of any but its key.
        kept = block.rows if self._windows.length > 1 else {self._by: keys}
        at = self._changes.put(kept, block.count)
        last, advance = self._advance(keys, at)
        rows = None
        if len(last):
            index = self._back(at + last, self._windows.length)
            rows = trees.gather(*((self._changes.rows, index) if kept is block.rows else (block.rows, index - at)))
        times = None if block.times is None else block.times[last]
        seen = None if block.seen is None else block.seen[last]

        def accept() -> None:
            self._changes.accept(block.count)
            advance()

        return Block(rows, len(last), None, times, seen=seen), accept

    def _back(self, last: Ints, length: int) -> Ints:
        """Where `length` rows of a key lie, the last of them given: of shape (rows given, length)."""
        index = np.empty((length, len(last)), np.int64)
        for i in range(length - 1, -1, -1):
            index[i] = last
            if i:
                last = self._before[last]
        return np.ascontiguousarray(index.T)

    def _advance(self, keys: Array, at: int) -> tuple[Ints, Callable[[], None]]:
        """What becomes of some rows, given their keys and where the first lies in the changelog.

        Returns:
            The rows with which a window ends, as numbers of those given, in order; and what to call to go on to after
            these rows.
        """
        length, stride, expire = self._windows.length, self._windows.stride, self._windows.expire
        slots = self._slots.of(keys)
        self._slots.name(keys, slots)
        self._count, self._over, self._seen, self._last = (
            grown(each, len(self._slots)) for each in (self._count, self._over, self._seen, self._last)
        )
        order, start, fresh, mine, first, final, leads, ends = stretches(slots, expire)
        held, over = np.zeros(len(fresh), np.int64), np.zeros(len(fresh), np.int64)
        had, passes = self._count[mine], self._over[mine]
        gone_on: Any = np.ones(len(mine), bool)
        if expire is not None:
            gone_on = self._row + first - self._seen[mine] <= expire
        held[leads], over[leads] = np.where(gone_on, had, 0), np.where(gone_on, passes, 0)

        # Of each stretch: its rows, those to pass over, and its windows.
        count = held + fresh
        skip = np.minimum(over, count)
        made = np.maximum(0, (count - skip - length) // stride + 1)
        gone = np.minimum(made * stride, count - skip)
        keep = count - skip - gone
        over += made * stride - gone - skip
        # The links of these rows. Nothing refers to them before the rows are accepted.
        self._before = grown(self._before, at + len(keys))
        before = np.empty(len(keys), np.int64)
        before[1:] = order[:-1] + at
        before[start[leads]] = np.where(held[leads] > 0, self._last[mine], 0)
        self._before[order + at] = before
        # A row is the last one of one window at most.
        some = np.flatnonzero(made)
        ending = ranges(np.zeros(len(some), np.int64), made[some]) * stride
        ending += np.repeat((start + skip + length - 1 - held)[some], made[some])
        is_last = np.zeros(len(keys), bool)
        is_last[order[ending]] = True

        forgotten = mine[~gone_on & (had + passes > 0)]
        if len(fresh) > len(mine):  # silent within these rows
            lost = keep + over > 0
            lost[ends] = False
            forgotten = np.append(forgotten, slots[order[start[lost]]])

        def advance() -> None:
            self._count[mine], self._over[mine], self._seen[mine] = keep[ends], over[ends], self._row + final
            self._last[mine] = at + final
            self._row += len(keys)
            if len(forgotten):
                self._expired.add(len(forgotten), self._slots.names[forgotten[0]])

        return np.flatnonzero(is_last), advance

    def _settle(self) -> None:
        """Take a snapshot, without the keys that are in the state of a new one, or silent for too long."""
        have = len(self._slots)
        needed = self._count[:have] + self._over[:have] > 0
        if (expire := self._windows.expire) is not None:
            silent = needed & (self._row - self._seen[:have] > expire)
            if silent.any():
                self._expired.add(int(silent.sum()), self._slots.names[silent.argmax()])
            self._count[:have][silent] = 0
            self._over[:have][silent] = 0
            needed &= ~silent
        slots = np.flatnonzero(needed)
        held = self._count[slots]
        # Their rows, key by key: the first of a key that holds fewer rows than others are left out.
        length = int(held.max(initial=0))
        there = np.arange(length) >= length - held[:, None]
        places = self._back(self._last[slots], length)[there]
        rows = trees.gather(self._changes.rows, places) if len(places) else None
        state = {"keys": self._slots.names[slots], "held": held, "over": self._over[slots], "seen": self._seen[slots]}
        self._changes.begin(self._row, state, rows, entries=len(slots) + len(places))
        if have > 2 * len(slots) + SETTLED:
            self._take(self._row, state)
        else:
            self._last[slots] = np.cumsum(held) - 1
            self._before = np.arange(len(places)) - 1

    def own(self) -> Mapping[str, Any]:
        return {**self._changes.own(), "expired": self._expired.count}

    def take_up(self, own: Mapping[str, Any]) -> None:
        snapshot = self._changes.take_up(own)
        changes = self._changes
        self._take(changes.row, snapshot)
        for start in range(changes.snapshot_rows, changes.used, trees.BLOCK_ROWS):
            rows = trees.cut(changes.rows, start, min(start + trees.BLOCK_ROWS, changes.used))
            self._advance(rows[self._by], start)[1]()
        self._expired.count = own["expired"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "expired": counts.get("expired", 0) + self._expired.count}
