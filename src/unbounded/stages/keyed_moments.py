"""Running mean and variance of each key's own rows, all keys of a block at once.

A block is put together by key. Keys with about as many rows each are normalised together, one step for the first row of
each, one for the second, and so on: the same additions in the same order as key by key, so they come out bit-equal.
Keys with many rows in the block are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, Tree
from unbounded.stages.changelog import Changelog
from unbounded.stages.keys import Expired, Ints, Slots, grown, keys_of, stretches
from unbounded.stages.moments import GROUP, Floats, State, flat, normalized, running

_TOGETHER = 128  # rows of a key in a block


class KeyedMoments:
    """The statistics of each key's rows, leaf by leaf.

    Args:
        by: the column of keys.
        expire: rows of the whole stream after which a silent key is forgotten, or None.
        unique: begins the ids of its pages.
    """

    def __init__(self, by: str, expire: int | None, unique: str) -> None:
        self._by = by
        self._expire = expire
        self._changes = Changelog(unique)
        self._expired = Expired("normalize", by, expire)
        self._take(0, None)

    def _take(self, row: int, snapshot: Tree | None) -> None:
        empty = np.empty(0, np.int64)
        state = snapshot or {"keys": empty, "rows": empty, "seen": empty, "moments": {}}
        self._row = row  # the number of the next row
        self._slots = Slots(state["keys"])
        # Of the key in each slot: how many rows it had, the number of the last one, and for each leaf the six arrays of
        # `State`.
        self._rows: Ints = np.array(state["rows"], np.int64)
        self._seen: Ints = np.array(state["seen"], np.int64)
        self._moments: dict[str, Floats] = {path: np.array(each) for path, each in state["moments"].items()}

    def advance(self, rows: Tree, leaves: Mapping[str, Array]) -> tuple[dict[str, Floats], Callable[[], None]]:
        """Leaves normalised, of shape (rows, width), and what to call for the statistics to go on after them."""
        keys = keys_of(rows, self._by, f"normalize(by={self._by!r})")
        self._changes.put({"keys": keys, "leaves": dict(leaves)}, len(keys))
        out, accept = self._normalized(keys, leaves)

        def accept_all() -> None:
            self._changes.accept(len(keys))
            accept()
            if self._changes.is_due:
                with suppress(MemoryError):  # tried again after the next block: this one must not be lost
                    self._settle()

        return out, accept_all

    def _normalized(self, keys: Array, leaves: Mapping[str, Array]) -> tuple[dict[str, Floats], Callable[[], None]]:
        slots = self._slots.of(keys)
        self._slots.name(keys, slots)
        have = len(self._slots)
        self._rows, self._seen = grown(self._rows, have), grown(self._seen, have)
        order, start, fresh, mine, first, final, leads, ends = stretches(slots, self._expire)
        had = self._rows[mine]
        gone_on = had > 0
        if self._expire is not None:
            gone_on &= self._row + first - self._seen[mine] <= self._expire
        before = np.zeros(len(fresh), np.int64)  # rows of each stretch that came before the block
        before[leads] = np.where(gone_on, had, 0)
        together = _together(before, fresh)
        alone = np.flatnonzero((fresh > _TOGETHER) | (before % GROUP + fresh >= GROUP))

        out, after = {}, {}
        for path, leaf in leaves.items():
            values = flat(leaf)[order]
            made = np.empty_like(values)
            known = self._moments.get(path)
            if known is None:
                known = np.zeros((0, 6, values.shape[1]))
            self._moments[path] = known = grown(known, have)
            states = np.zeros((len(fresh), *known.shape[1:]))
            states[leads] = np.where(gone_on[:, None, None], known[mine], 0.0)
            for size, which in together:
                _step(size, values, made, states, which, start[which], fresh[which])
            for i in alone:
                part = slice(start[i], start[i] + fresh[i])
                made[part], state = normalized(values[part], State(int(before[i]), *states[i]))
                states[i] = state[1:]
            out[path] = np.empty_like(made)
            out[path][order] = made
            after[path] = states[ends]

        forgotten = mine[~gone_on & (had > 0)]
        if len(fresh) > len(mine):  # silent within these rows
            lost = np.ones(len(fresh), bool)
            lost[ends] = False
            forgotten = np.append(forgotten, slots[order[start[lost]]])

        def accept() -> None:
            self._rows[mine] = (before + fresh)[ends]
            self._seen[mine] = self._row + final
            for path, states in after.items():
                self._moments[path][mine] = states
            self._row += len(keys)
            if len(forgotten):
                self._expired.add(len(forgotten), self._slots.names[forgotten[0]])

        return out, accept

    def _settle(self) -> None:
        """Take a snapshot, without keys that were silent for too long."""
        have = len(self._slots)
        needed = self._rows[:have] > 0
        if self._expire is not None:
            silent = needed & (self._row - self._seen[:have] > self._expire)
            if silent.any():
                self._expired.add(int(silent.sum()), self._slots.names[silent.argmax()])
            self._rows[:have][silent] = 0
            needed &= ~silent
        slots = np.flatnonzero(needed)
        state = {
            "keys": self._slots.names[slots],
            "rows": self._rows[slots],
            "seen": self._seen[slots],
            "moments": {path: each[slots] for path, each in self._moments.items()},
        }
        self._changes.begin(self._row, state, entries=len(slots))
        if have > 2 * len(slots):
            self._take(self._row, state)

    def own(self) -> Mapping[str, Any]:
        """As part of a cursor."""
        return {**self._changes.own(), "expired": self._expired.count}

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Go to where `own` was taken."""
        changes = self._changes
        snapshot = changes.take_up(own)
        self._take(changes.row, snapshot)
        for begin in range(changes.snapshot_rows, changes.used, trees.BLOCK_ROWS):
            rows = trees.cut(changes.rows, begin, min(begin + trees.BLOCK_ROWS, changes.used))
            self._normalized(rows["keys"], rows["leaves"])[1]()
        self._expired.count = own["expired"]

    @property
    def expired(self) -> int:
        """Keys that were forgotten, as far as that was noticed."""
        return self._expired.count


def _together(before: Ints, fresh: Ints) -> list[tuple[int, Ints]]:
    """Stretches that end before the next multiple of `GROUP`, by their length: up to 1 row, 2, 4, …"""
    may = (fresh <= _TOGETHER) & (before % GROUP + fresh < GROUP)
    found = []
    size = 1
    while size <= _TOGETHER:
        which = np.flatnonzero(may & (fresh <= size) & (fresh > size // 2))
        if len(which):
            found.append((size, which))
        size *= 2
    return found


def _step(size: int, values: Floats, made: Floats, states: Floats, which: Ints, start: Ints, fresh: Ints) -> None:
    """Normalise stretches of up to `size` rows, and bring their states up to date.

    Args:
        values: all values, stretch by stretch; those of these stretches are written to `made`.
        states: of all stretches, of shape (stretches, 6, width).
        which: the numbers of these stretches.
        start: where each begins in `values`.
        fresh: how many rows each has.
    """
    step = np.arange(size)[:, None]
    there = step < fresh
    place = start + np.minimum(step, fresh - 1)  # of shape (size, stretches)
    given = values[place]
    parts = np.moveaxis(states[which], 1, 0)
    result = running(given, np.isfinite(given) & there[:, :, None], *parts)
    made[place[there]] = result.out[there]
    at = (fresh - 1, np.arange(len(which)))
    states[which, 1] = result.mean
    for i, each in ((3, result.more), (4, result.sum), (5, result.squares)):
        states[which, i] = each[at]
