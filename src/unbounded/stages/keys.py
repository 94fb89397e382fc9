"""Keys of rows: each key has a slot in the arrays of a keyed stage, and the rows of a block are grouped by slot.

The cost of a block depends on its own rows and keys, not on the number of all keys: a table or a dict finds the slots,
and all else is arithmetic on arrays with one entry for each key of the block.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree

Ints = NDArray[np.int64]

EXPIRE = 1_000_000
"""The default of `expire`: rows of the whole stream after which a silent key is forgotten."""

_TABLE = 1 << 20
_INT64 = 1 << 63

_log = logging.getLogger("unbounded")


class Slots:
    """The slot of each key: 0, 1, 2, … in the order of first appearance.

    Integers that are close to each other are found in a table, which is much faster than a dict; the dict is made when
    there are other keys.

    Args:
        keys: the keys that have a slot already, each once.
    """

    def __init__(self, keys: Array) -> None:
        self._names = keys[:0]
        self._count = 0
        # For integer keys: -1 if not looked up yet. While there is no dict, the table has all keys.
        self._table: Ints = np.empty(0, np.int64)
        self._low = 0  # the integer of the table's first entry
        self._dict: dict[Any, int] | None = None
        if len(keys):
            self.of(keys)

    def __len__(self) -> int:
        return self._count

    @property
    def names(self) -> Array:
        """The key in each slot."""
        return self._names[: self._count]

    def of(self, keys: Array) -> Ints:
        """The slot of each row's key; new keys get one."""
        if keys.dtype.kind not in "iu" or not self._fits_table(int(keys.min()), int(keys.max())):
            return self._look_up(keys)
        at = keys.astype(np.int64) - self._low
        slots = self._table[at]
        if (new := slots < 0).any():
            slots[new] = self._number(keys[new], at[new]) if self._dict is None else self._look_up(keys[new])
            self._table[at[new]] = slots[new]
        return slots

    def _fits_table(self, low: int, high: int) -> bool:
        """True if the table covers these integers; it is enlarged if the limit allows."""
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

    def _number(self, keys: Array, at: Ints) -> Ints:
        """New slots for keys without one, which are entries `at` of the table."""
        # Of several assignments to one entry the last one counts: assign in reverse, so that the first row of a key
        # does.
        rows = np.arange(len(at))
        first = np.empty(int(at.max()) + 1 - (low := int(at.min())), np.int64)
        first[at[::-1] - low] = rows[::-1]
        leader = first[at - low]
        leads = leader == rows
        slots: Ints = (np.cumsum(leads) - 1 + self._count)[leader]
        self._add(keys[leads])
        return slots

    def _look_up(self, keys: Array) -> Ints:
        if self._dict is None or len(self._dict) != self._count:  # rebuild it after an interrupted update
            self._dict = defaultdict(itertools.count(self._count).__next__)
            self._dict.update(zip(hashable(self.names), range(self._count), strict=True))
        slots = np.fromiter(map(self._dict.__getitem__, hashable(keys)), np.int64, len(keys))
        if len(self._dict) > self._count:
            fresh = np.empty(len(self._dict) - self._count, keys.dtype)
            new = slots >= self._count
            fresh[slots[new] - self._count] = keys[new]
            self._add(fresh)
        return slots

    def _add(self, keys: Array) -> None:
        """Give these keys the next slots."""
        count = self._count + len(keys)
        dtype = np.result_type(self._names.dtype, keys.dtype) if self._count else keys.dtype
        if count > len(self._names) or dtype != self._names.dtype:
            names = np.empty(2 * count, dtype)
            names[: self._count] = self.names
            self._names = names
        self._names[self._count : count] = keys
        self._count = count


def hashable(keys: Array) -> list[Any]:
    """The keys as objects that a dict can compare. All NaNs are one key."""
    if keys.dtype.kind in "mM":
        keys = keys.astype(np.int64)  # NaT becomes a number
    names: list[Any] = keys.tolist()
    if keys.dtype.kind in "fc":
        for i in np.flatnonzero(keys != keys):
            names[i] = None
    return names


def check_by(by: Any, word: str) -> None:
    """Raise TypeError for a key of several columns."""
    if isinstance(by, (tuple, list)):
        raise TypeError(
            f"{word}(by={by!r}): expected the name of one column. Make one of several first, for example "
            '.map(lambda rows: {**rows, "key": rows["a"] * 1000 + rows["b"]}).'
        )


def keys_of(rows: Tree, by: str, what: str) -> Array:
    """The column of keys.

    Raises:
        RowsError: the rows have no such column; the message begins with `what`.
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


class Sequences(NamedTuple):
    """A block's rows by key. A sequence is rows of one key between which the key did not expire.

    Attributes:
        order: the rows' numbers in the block, sequence by sequence.
        start: the place in `order` where each sequence begins.
        fresh: the number of rows of each sequence.
        slots: the slots of the block's keys, each once.
        first: the first row of each key, as a number in the block.
        last: the last row of each key.
        leads: each key's first sequence, which continues the key's state from before the block. `leads` and `ends` are
            indices, or a slice if each key has one sequence.
        ends: each key's last sequence.
    """

    order: Ints
    start: Ints
    fresh: Ints
    slots: Ints
    first: Ints
    last: Ints
    leads: Ints | slice
    ends: Ints | slice


def sequences(
    slots: Ints, expire: int | None, times: NDArray[np.float64] | None = None, max_gap: float = np.inf
) -> Sequences:
    """Group a block's rows by slot.

    Args:
        slots: of each row.
        expire: rows of the stream after which a silent key expires.
        times: of each row, in seconds; None if they don't count.
        max_gap: seconds between two rows of a key, in either direction, above which a new sequence begins.
    """
    order = _sorted(slots)
    by_key = slots[order]
    begins = np.empty(len(slots), bool)
    begins[0] = True
    np.not_equal(by_key[1:], by_key[:-1], out=begins[1:])
    bounds = np.append(np.flatnonzero(begins), len(slots))
    first, last = bounds[:-1], order[bounds[1:] - 1]
    leads: Ints | slice = slice(None)
    ends: Ints | slice = slice(None)
    several = expire is not None and expire < len(slots)
    if several:
        begins[1:] |= np.diff(order) > expire
    if times is not None:
        begins[1:] |= np.abs(np.diff(times[order])) > max_gap
        several = True
    if several:
        bounds = np.append(np.flatnonzero(begins), len(slots))
        leads = np.searchsorted(bounds, first)
        ends = np.append(leads[1:], len(bounds) - 1) - 1
    start = bounds[:-1]
    return Sequences(order, start, bounds[1:] - start, by_key[first], order[first], last, leads, ends)


def _sorted(slots: Ints) -> Ints:
    """The stable order of slots. NumPy sorts 16-bit integers by radix, which is much faster."""
    order = np.argsort(slots.astype(np.uint16), kind="stable")
    if int(slots.max()) >= 1 << 16:
        order = order[np.argsort((slots >> 16).astype(np.uint16)[order], kind="stable")]
    return order


def ranges(starts: Ints, counts: Ints) -> Ints:
    """The integers of several ranges, one after the other: `counts` integers from each of `starts` on."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def grown(array: Array, size: int, room: int = 0) -> Array:
    """An array with at least `size` entries: the same, or a copy of twice the length or of `room`, with zeros at its
    end."""
    if len(array) >= size:
        return array
    out = np.zeros((max(size, room or 2 * len(array)), *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


class Expired:
    """Counts the keys that have expired, and logs the first one."""

    def __init__(self, word: str, by: str, expire: int | None) -> None:
        self._word = word
        self._by = by
        self._expire = expire
        self._said = False
        self.count = 0

    def add(self, count: int, key: Any) -> None:
        """Count `count` expired keys, of which `key` is one."""
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
