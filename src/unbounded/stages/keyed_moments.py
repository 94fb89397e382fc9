"""KeyedMoments: running mean and variance of each key's own rows, for all keys of a block at once.

The rows of a block are grouped by key. Keys with about equally many rows are normalised together, in one step for the
first row of each, one for the second, and so on. These are the same additions in the same order as key by key, so the
results are bit-equal. Keys with many rows in the block are processed singly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, Tree
from unbounded.stages.changelog import SETTLED, Changelog
from unbounded.stages.keys import Expired, Ints, Slots, grown, keys_of, sequences
from unbounded.stages.moments import GROUP, Floats, State, flat, normalized, running

_EXACT = 4
_SIZES = (*range(1, _EXACT + 1), 8, 16, 32, 64, 128)  # rows of a key in a block that are processed together
_TOGETHER = _SIZES[-1]
_PER_SNAPSHOT = 4  # keys for each key of the last snapshot
_ARRAYS = 6  # the number of arrays in `State`


class KeyedMoments:
    """The statistics of each key's rows, leaf by leaf.

    Args:
        by: the column of keys.
        expire: rows of the whole stream after which a silent key is forgotten; None for never.
        unique: the prefix of its page ids.
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
        slots = Slots(state["keys"])
        rows, seen = np.array(state["rows"], np.int64), np.array(state["seen"], np.int64)
        moments = {path: [np.array(each) for each in arrays] for path, arrays in state["moments"].items()}
        # Nothing fails from here on.
        self._row = row  # the number of the next row
        self._slots = slots
        self._settled = len(slots)  # keys in the last snapshot
        # For the key in each slot: the number of its rows, the number of its last row, and for each leaf the six arrays
        # of `State`.
        self._rows: Ints = rows
        self._seen: Ints = seen
        self._moments: dict[str, list[Floats]] = moments

    def advance(self, rows: Tree, leaves: Mapping[str, Array]) -> tuple[dict[str, Floats], Callable[[], None]]:
        """The normalised leaves, of shape (rows, width), and a function that makes the statistics advance."""
        keys = keys_of(rows, self._by, f"normalize(by={self._by!r})")
        self._changes.put({"keys": keys, "leaves": dict(leaves)}, len(keys))
        out, accept = self._normalized(keys, leaves)

        def accept_all() -> None:
            self._changes.accept(len(keys))
            accept()
            # The statistics of a key may be many times the bytes of its rows: where keys come once, expired ones go.
            if self._changes.excess > 0 or len(self._slots) > _PER_SNAPSHOT * self._settled + SETTLED:
                with suppress(MemoryError):  # the block was processed; the snapshot is retried after the next one
                    self._settle()

        return out, accept_all

    def _normalized(self, keys: Array, leaves: Mapping[str, Array]) -> tuple[dict[str, Floats], Callable[[], None]]:
        slots = self._slots.of(keys)
        have = len(self._slots)
        self._rows, self._seen = grown(self._rows, have), grown(self._seen, have)
        order, start, fresh, mine, first, final, leads, ends = sequences(slots, self._expire)
        had = self._rows[mine]
        forgotten = mine[:0]
        new = had == 0
        if self._expire is not None and (silent := self._row + first - self._seen[mine] > self._expire).any():
            forgotten = mine[silent & ~new]
            new |= silent
            had[silent] = 0
        several = len(fresh) > len(mine)  # a key has several sequences
        before = had  # the key's rows before each sequence
        if several:
            before = np.zeros(len(fresh), np.int64)
            before[leads] = had
        together = _together(before, fresh)
        alone = np.flatnonzero((fresh > _TOGETHER) | (before % GROUP + fresh >= GROUP))

        out, after = {}, {}
        for path, leaf in leaves.items():
            values = flat(leaf)[order]
            made = np.empty_like(values)
            known = self._moments.get(path) or [np.zeros((0, values.shape[1]))] * _ARRAYS
            self._moments[path] = known = [grown(each, have) for each in known]
            states = []
            for each in known:
                taken = each.take(mine, axis=0)
                taken[new] = 0.0
                if several:
                    whole = np.zeros((len(fresh), values.shape[1]))
                    whole[leads] = taken
                    taken = whole
                states.append(taken)
            for size, which in together:
                _step(size, values, made, states, which, start[which], fresh[which])
            for i in alone:
                part = slice(start[i], start[i] + fresh[i])
                made[part], state = normalized(values[part], State(int(before[i]), *(each[i] for each in states)))
                for each, changed in zip(states, state[1:], strict=True):
                    each[i] = changed
            out[path] = np.empty_like(made)
            out[path][order] = made
            after[path] = [each[ends] for each in states]

        if several:  # a key was silent for too long within this block
            lost = np.ones(len(fresh), bool)
            lost[ends] = False
            forgotten = np.append(forgotten, slots[order[start[lost]]])

        def accept() -> None:
            self._rows[mine] = (before + fresh)[ends]
            self._seen[mine] = self._row + final
            for path, states in after.items():
                for each, changed in zip(self._moments[path], states, strict=True):
                    each[mine] = changed
            self._row += len(keys)
            if len(forgotten):
                self._expired.add(len(forgotten), self._slots.names[forgotten[0]])

        return out, accept

    def _settle(self) -> None:
        """Take a snapshot without expired keys."""
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
            "moments": {path: [each[slots] for each in arrays] for path, arrays in self._moments.items()},
        }
        begin = self._changes.snapshot(self._row, state)
        if have > 2 * len(slots):
            self._take(self._row, state)
        begin()
        self._settled = len(self._slots)

    def own(self) -> Mapping[str, Any]:
        """The node's own part of its cursor."""
        return {**self._changes.own(), "expired": self._expired.count}

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Restore from `own`."""
        changes = self._changes
        snapshot = changes.take_up(own)
        self._take(changes.row, snapshot)
        for begin in range(changes.snapshot_rows, changes.used, trees.BLOCK_ROWS):
            rows = trees.cut(changes.rows, begin, min(begin + trees.BLOCK_ROWS, changes.used))
            self._normalized(rows["keys"], rows["leaves"])[1]()
        self._expired.count = own["expired"]

    @property
    def expired(self) -> int:
        """The number of keys forgotten so far."""
        return self._expired.count


def _together(before: Ints, fresh: Ints) -> list[tuple[int, Ints]]:
    """Group sequences that end before the next multiple of `GROUP` by length: 1, 2, 3 or 4 rows, up to 8, 16, …"""
    may = (fresh <= _TOGETHER) & (before % GROUP + fresh < GROUP)
    found = []
    low = 0
    for size in _SIZES:
        which = np.flatnonzero(may & (fresh <= size) & (fresh > low))
        if len(which):
            found.append((size, which))
        low = size
    return found


def _step(
    size: int, values: Floats, made: Floats, states: Sequence[Floats], which: Ints, start: Ints, fresh: Ints
) -> None:
    """Normalise sequences of up to `size` rows, and update their states.

    Args:
        values: all values, sequence by sequence; the results go to `made`.
        states: the arrays of `State` of all sequences, each of shape (sequences, width).
        which: the numbers of these sequences.
        start: the place of each in `values`.
        fresh: the number of rows of each.
    """
    step = np.arange(size)[:, None]
    same = size <= _EXACT
    place = start + (step if same else np.minimum(step, fresh - 1))  # of shape (size, sequences)
    given = values.take(place, axis=0)
    finite = np.isfinite(given)
    if not same:
        there = step < fresh
        finite &= there[:, :, None]
    result = running(given, finite, *(each.take(which, axis=0) for each in states))
    if same:
        made[place] = result.out
    else:
        made[place[there]] = result.out[there]
    at = (fresh - 1, np.arange(len(which)))
    states[1][which] = result.mean
    for i, each in ((3, result.more), (4, result.sum), (5, result.squares)):
        states[i][which] = each[-1] if same else each[at]
