"""Keys of rows: each has a slot in the arrays of a keyed stage, and a block's rows are put together by slots.

What a block costs is a matter of its own rows and keys, not of all keys that there are: a dict knows the slots, and
everything else is arithmetic on arrays with one entry for each of the block's keys.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree

Ints = NDArray[np.int64]

EXPIRE = 1_000_000
"""Rows of the whole stream after which a silent key is forgotten, where a user does not say otherwise."""

_TABLE = 1 << 20
_INT64 = 1 << 63

_log = logging.getLogger("unbounded")


class Slots(dict[Any, int]):
    """The slot of each key: 0, 1, 2, … in the order in which they were seen."""

    def __init__(self, keys: Array) -> None:
        super().__init__(zip(hashable(keys), range(len(keys)), strict=True))
        self.names = keys
        """The key in each slot, once `name` was called."""
        # Of integers that lie close to each other, the slots in a table, which is far quicker than the dict: -1 for
        # those that were not looked up yet.
        self._table: Ints = np.empty(0, np.int64)
        self._low = 0  # the integer of its first entry

    def __missing__(self, key: Any) -> int:
        slot = self[key] = len(self)
        return slot

    def of(self, keys: Array) -> Ints:
        """The slot of each row's key; new keys get one."""
        if keys.dtype.kind not in "iu" or not self._fits_table(int(keys.min()), int(keys.max())):
            return self._look_up(keys)
        at = keys.astype(np.int64) - self._low
        slots = self._table[at]
        if (new := slots < 0).any():
            slots[new] = self._look_up(keys[new])
            self._table[at[new]] = slots[new]
        return slots

    def _fits_table(self, low: int, high: int) -> bool:
        """Whether the table has entries for these integers; it is made larger where it may be."""
        have = len(self._table)
        if have and self._low <= low and high < self._low + have:
            return True
        if have:
            low, high = min(low, self._low), max(high, self._low + have - 1)
        if high - low >= _TABLE or not -_INT64 <= low <= high < _INT64:
            return False
        table = np.full(min(_TABLE, 2 * (high - low + 1)), -1)
        if have:
            table[self._low - low : self._low - low + have] = self._table
        self._table, self._low = table, low
        return True

    def _look_up(self, keys: Array) -> Ints:
        return np.fromiter(map(self.__getitem__, hashable(keys)), np.int64, len(keys))

    def name(self, keys: Array, slots: Ints) -> None:
        """Note the keys of slots that were given since this was called last."""
        known = len(self.names)
        if len(self) > known:
            fresh = np.empty(len(self) - known, keys.dtype)
            new = slots >= known
            fresh[slots[new] - known] = keys[new]
            self.names = np.concatenate([self.names, fresh]) if known else fresh


def hashable(keys: Array) -> list[Any]:
    """Each key as Python's dict can tell it from others. NaN is a key like any other."""
    if keys.dtype.kind in "mM":
        keys = keys.astype(np.int64)  # NaT is a number here
    names: list[Any] = keys.tolist()
    if keys.dtype.kind in "fc":
        for i in np.flatnonzero(keys != keys):
            names[i] = None
    return names


def keys_of(rows: Tree, by: str, what: str) -> Array:
    """The column of keys.

    Raises:
        RowsError: there is none; the sentence begins with `what`.
    """
    if not isinstance(rows, dict) or by not in rows:
        raise RowsError(
            f"{what} was given rows without that column. Expected a dict of columns with it; the rows have "
            f"{trees.columns(rows)}."
        )
    keys: Array = rows[by]
    if keys.ndim != 1:
        raise RowsError(f"{what}: the column has rows of shape {keys.shape[1:]}. Expected one key in each row.")
    return keys


class Stretches(NamedTuple):
    """A block's rows by key. A stretch is some of a key's rows between which the key was never silent for too long.

    Attributes:
        order: the rows' numbers within the block, stretch by stretch.
        start: where in `order` each stretch begins.
        fresh: how many rows each stretch has.
        slots: the slots of the block's keys, each once.
        first: the first row of each key, as a number within the block.
        last: the last one.
        leads: each key's first stretch, which goes on with what the key had before.
        ends: each key's last stretch.
    """

    order: Ints
    start: Ints
    fresh: Ints
    slots: Ints
    first: Ints
    last: Ints
    leads: Ints
    ends: Ints


def stretches(slots: Ints, expire: int | None) -> Stretches:
    """Put a block's rows together by slots.

    Args:
        slots: of each row.
        expire: rows of the stream after which a silent key begins anew.
    """
    # NumPy sorts 16 bits by radix.
    order = np.argsort(slots.astype(np.uint16) if slots.max() < 1 << 16 else slots, kind="stable")
    by_key = slots[order]
    begins = np.ones(len(slots), bool)
    begins[1:] = by_key[1:] != by_key[:-1]
    first = np.flatnonzero(begins)
    start = first
    leads = ends = np.arange(len(first))
    if expire is not None and expire < len(slots):
        begins[1:] |= np.diff(order) > expire
        start = np.flatnonzero(begins)
        leads = np.searchsorted(start, first)
        ends = np.append(leads[1:], len(start)) - 1
    last = order[np.append(first[1:], len(slots)) - 1]
    return Stretches(order, start, np.diff(start, append=len(slots)), by_key[first], order[first], last, leads, ends)


def ranges(starts: Ints, counts: Ints) -> Ints:
    """The numbers from each of `starts` on, so many as `counts` says, one range after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def grown(array: Array, size: int) -> Array:
    """An array with at least `size` entries: itself, or a copy of twice the length with zeros behind."""
    if len(array) >= size:
        return array
    out = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


class Expired:
    """How many keys were forgotten since they had been silent for long. The first one is said."""

    def __init__(self, word: str, by: str, expire: int | None) -> None:
        self._word = word
        self._by = by
        self._expire = expire
        self._said = False
        self.count = 0

    def add(self, count: int, key: Any) -> None:
        """So many more, `key` among them."""
        self.count += count
        if count and not self._said:
            self._said = True
            _log.warning(
                "%s(by=%r) forgets the key %r, which had no row among %s rows of the stream: should it come again, it "
                "begins anew. A larger expire= keeps keys for longer, expire=None for ever. Keys forgotten are counted "
                "in stats.expired; this is said once.",
                self._word,
                self._by,
                key.item() if isinstance(key, np.generic) else key,
                f"{self._expire:,}",
            )
