"""KeyedWindows: sliding windows over each key's own rows, for all keys of a block at once.

Rows are in a changelog in their order of arrival. Each has a link to the previous row of its key, and a window is
gathered by following the links from its last row, for all windows of a block at once. So the cost of a block depends on
its own rows: there is no loop over keys, and none over keys without a row in the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Context, Node
from unbounded.core.trees import Array, Tree
from unbounded.stages.changelog import SETTLED, Changelog
from unbounded.stages.keys import Expired, Ints, Slots, grown, keys_of, ranges, sequences
from unbounded.stages.stage import Holding

if TYPE_CHECKING:
    from unbounded.stages.windows import Windows


class KeyedWindows(Holding):
    """Windows over each key's own rows, in the order of their last rows.

    The cursor refers to the rows of each key that later windows need, at most `length - 1` each. An address in the
    input would not do: a key that was silent for long would need rows from far back.
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
        """Begin without keys; `row` is the number of the next row."""
        self._changes.begin(row)
        self._take(row, None)

    def _take(self, row: int, snapshot: Tree | None) -> None:
        empty = np.empty(0, np.int64)
        state = snapshot or {"keys": empty, "ahead": empty, "seen": empty, "times": np.empty(0)}
        slots = Slots(state["keys"])
        ahead, seen = np.array(state["ahead"], np.int64), np.array(state["seen"], np.int64)
        # Absent from checkpoints of streams without `max_gap`.
        times = np.array(state.get("times", np.zeros(len(ahead))), np.float64)
        last, before = _links(ahead)
        # Nothing fails from here on.
        self._row = row
        self._slots = slots
        # For the key in each slot: the number of its rows from the first of its next window on (negative if rows have
        # to be skipped, since the stride is longer than the window), the number of its last row, and that row's place.
        self._ahead: Ints = ahead
        self._seen: Ints = seen
        self._last: Ints = last
        self._times: NDArray[np.float64] = times  # of the key's last row, with `max_gap`
        # The place of the previous row of the same key, for each row; undefined for a key's first row.
        self._before: Ints = before

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
            # Nothing fails from here on: advance the cursor.
            if accept is not None:
                accept()
            held.drop(block.count)
            held.keep(held.head)
            if block.boundary:
                self._begin(self._row)
            elif self._changes.excess > 0:
                with suppress(MemoryError):  # the block was processed; the snapshot is retried after the next one
                    self._settle()
            if out.count or block.boundary:
                return replace(out, boundary=block.boundary)

    def _most(self) -> int:
        """The most rows to take at once: each is in about `length / stride` windows."""
        rows = self._held.peek(1).rows
        if rows is None:
            return 0
        return trees.block_rows(trees.row_bytes(rows) * -(-self._windows.length // self._windows.stride), 1)

    def _windows_of(self, block: Block) -> tuple[Block, Callable[[], None]]:
        """The windows whose last row is in the block, and a function that makes the state advance."""
        keys = keys_of(block.rows, self._by, f"windows(by={self._by!r})")
        # With a window length of 1 no row is held: only the keys are needed.
        holds = self._windows.length > 1
        kept = block.rows if holds else {self._by: keys}
        at = self._changes.put(self._with_times(kept, block.times), block.count)
        last, advance = self._advance(keys, block.times, at)
        rows = None
        if len(last):
            index = self._back(at + last, self._windows.length)
            rows = trees.gather(*((self._log()[0], index) if holds else (block.rows, index - at)))
        times = None if block.times is None else block.times[last]
        seen = None if block.seen is None else block.seen[last]

        def accept() -> None:
            self._changes.accept(block.count)
            advance()

        return Block(rows, len(last), None, times, seen=seen), accept

    def _with_times(self, rows: Tree, times: Any) -> Tree:
        """What the changelog has of rows: with their times, if these decide what a window may span."""
        return rows if self._windows.max_gap is None else {"rows": rows, "times": times}

    def _log(self) -> tuple[Tree, Any]:
        """The rows of the changelog, and their times if it has these."""
        found = self._changes.rows
        return (found, None) if self._windows.max_gap is None else (found["rows"], found["times"])

    def _back(self, last: Ints, length: int) -> Ints:
        """The places of `length` rows of a key up to each of `last`, of shape (len(last), length)."""
        index = np.empty((length, len(last)), np.int64)
        for i in range(length - 1, -1, -1):
            index[i] = last
            if i:
                last = self._before[last]
        return np.ascontiguousarray(index.T)

    def _advance(self, keys: Array, times: Any, at: int) -> tuple[Ints, Callable[[], None]]:
        """Advance by some rows, given their keys and times and the place of the first in the changelog.

        Returns:
            The rows that end a window, as ascending numbers of those given; and a function that makes the state
            advance.
        """
        length, stride, expire = self._windows.length, self._windows.stride, self._windows.expire
        slots = self._slots.of(keys)
        have = len(self._slots)
        self._ahead, self._seen, self._last = (grown(each, have) for each in (self._ahead, self._seen, self._last))
        self._times = grown(self._times, have)
        max_gap = self._windows.max_gap
        if max_gap is None:
            times = None
        order, start, fresh, mine, first, final, leads, ends = sequences(slots, expire, times, max_gap or np.inf)
        had = self._ahead[mine]
        forgotten = mine[:0]
        if expire is not None and (silent := self._row + first - self._seen[mine] > expire).any():
            forgotten = mine[silent & (had != 0)]
            had[silent] = 0
        if times is not None:
            had[np.abs(times[first] - self._times[mine]) > max_gap] = 0
        # For each sequence: the rows of its key from the first of the next window on, before it, with it and after it;
        # and its windows.
        if len(fresh) > len(mine):
            before = np.zeros(len(fresh), np.int64)
            before[leads] = had
        else:
            before = had
        ahead = before + fresh
        made = np.maximum((ahead - length) // stride + 1, 0)
        after = ahead - made * stride
        # The links of the new rows. No other row refers to them before the rows are accepted.
        self._before = grown(self._before, at + len(keys), trees.count(self._changes.rows))
        places = order + at
        links = np.empty(len(keys), np.int64)
        links[1:] = places[:-1]
        links[start[leads]] = self._last[mine]
        self._before[places] = links
        # A row is the last row of at most one window.
        some = np.flatnonzero(made)
        windows = made[some]
        ending = ranges(np.zeros(len(some), np.int64), windows) * stride
        ending += np.repeat((start - before + (length - 1))[some], windows)
        is_last = np.zeros(len(keys), bool)
        is_last[order[ending]] = True

        if len(fresh) > len(mine):  # a key was silent for too long within this block
            lost = after != 0
            lost[ends] = False
            if times is not None:  # not one after which only a gap in time begins a new sequence
                stops = order[np.minimum(start + fresh, len(keys) - 1)]
                lost &= (stops - order[start + fresh - 1] > expire) if expire is not None else False
            forgotten = np.append(forgotten, slots[order[start[lost]]])

        def advance() -> None:
            self._ahead[mine], self._seen[mine], self._last[mine] = after[ends], self._row + final, at + final
            if times is not None:
                self._times[mine] = times[final]
            self._row += len(keys)
            if len(forgotten):
                self._expired.add(len(forgotten), self._slots.names[forgotten[0]])

        return np.flatnonzero(is_last), advance

    def _settle(self) -> None:
        """Take a snapshot without keys in their initial state and without expired keys."""
        have = len(self._slots)
        ahead = self._ahead[:have]
        if (expire := self._windows.expire) is not None:
            silent = (self._row - self._seen[:have] > expire) & (ahead != 0)
            if silent.any():
                self._expired.add(int(silent.sum()), self._slots.names[silent.argmax()])
            ahead[silent] = 0
        slots = np.flatnonzero(ahead)
        ahead = ahead[slots]
        places = self._places(self._last[slots], np.maximum(ahead, 0))
        state = {"keys": self._slots.names[slots], "ahead": ahead, "seen": self._seen[slots]}
        if self._windows.max_gap is not None:
            state["times"] = self._times[slots]
        begin = self._changes.snapshot(self._row, state, places)
        if have > 2 * len(slots) + SETTLED:
            self._take(self._row, state)
        else:
            last, before = _links(ahead)
            self._last[:] = 0
            self._last[slots], self._before = last, before
        begin()

    def _places(self, last: Ints, held: Ints) -> Ints:
        """The places of the rows held, key by key, given the last row of each key and the number of its rows."""
        stops = np.cumsum(held)
        places = np.empty(int(held.sum()), np.int64)
        which = np.flatnonzero(held)
        last, left, at = last[which], held[which], stops[which]
        while len(last):
            at = at - 1
            places[at] = last
            left = left - 1
            more = np.flatnonzero(left)
            last, left, at = self._before[last[more]], left[more], at[more]
        return places

    def own(self) -> Mapping[str, Any]:
        return {**self._changes.own(), "expired": self._expired.count}

    def take_up(self, own: Mapping[str, Any]) -> None:
        snapshot = self._changes.take_up(own)
        changes = self._changes
        self._take(changes.row, snapshot)
        for start in range(changes.snapshot_rows, changes.used, trees.BLOCK_ROWS):
            rows, times = trees.cut(self._log(), start, min(start + trees.BLOCK_ROWS, changes.used))
            self._advance(rows[self._by], times, start)[1]()
        self._expired.count = own["expired"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "expired": counts.get("expired", 0) + self._expired.count}


def _links(ahead: Ints) -> tuple[Ints, Ints]:
    """The place of each key's last row, and the row before each row, if rows are stored key by key; `ahead` has the
    number of rows of each key."""
    held = np.maximum(ahead, 0)
    return np.maximum(np.cumsum(held) - 1, 0), np.arange(-1, int(held.sum()) - 1)
