"""LastValues: the last value that was there, of each column of a stream, or of each key's own rows.

A missing value gets the one of the row before it, which may have got it in the same way. So the state is one row, of
the stream or of each key. The keyed state changes in place: the changelog has, for each block, the new rows of the keys
in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.pages import Page, as_page
from unbounded.core.trees import Array, Tree
from unbounded.stages.changelog import SETTLED, Changelog
from unbounded.stages.keys import Expired, Ints, Slots, keys_of, sequences
from unbounded.stages.missing import missing, missing_value

_PER_SNAPSHOT = 4  # keys for each key of the last snapshot


class LastValues:
    """The last row of a stream.

    Args:
        unique: the prefix of its page ids.
    """

    expired = 0

    def __init__(self, unique: str) -> None:
        self._unique = unique
        self._pages_made = 0
        self._page: Page | None = None

    def begin(self) -> None:
        """Forget the last row."""
        self._page = None

    def advance(self, rows: Tree, columns: Mapping[Any, Array]) -> tuple[dict[Any, Array], Callable[[], None]]:
        """The columns without the missing values that have a value before them, and a function that makes the state
        advance."""
        last = {} if self._page is None else self._page.tree
        filled = {name: _carried(column, last.get(name)) for name, column in columns.items()}
        # Copies: a view would keep the block in memory.
        page = Page(f"{self._unique}-{self._pages_made + 1}", {name: each[-1:].copy() for name, each in filled.items()})

        def accept() -> None:
            self._page, self._pages_made = page, self._pages_made + 1

        return filled, accept

    def own(self) -> Mapping[str, Any]:
        """The node's own part of its cursor."""
        return {"last": self._page}

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Restore from `own`."""
        self._page = as_page(own["last"])


def _carried(column: Array, last: Array | None) -> Array:
    """The column with each missing value replaced by the last one before it, in `last` (of shape (1, …)) at first."""
    mask = missing(column)
    if mask is None or not mask.any():
        return column
    starts = np.zeros(1, np.int64)
    return _carried_over(column, mask, starts, np.array([len(column)]), last)


def _carried_over(values: Array, mask: NDArray[np.bool_], start: Ints, fresh: Ints, before: Array | None) -> Array:
    """The same for several sequences, one after the other.

    Args:
        values: of shape (rows, …), sequence by sequence.
        mask: the missing ones.
        start: the place of each sequence.
        fresh: its rows.
        before: for each sequence the value before its first row; None if there are none.
    """
    count = len(values)
    flat, lacks = values.reshape(count, -1), mask.reshape(count, -1)
    # The place of the last value that is there, for each row; it is of an earlier sequence if this one has none.
    place = np.where(lacks, np.int64(-1), np.arange(count)[:, None])
    np.maximum.accumulate(place, axis=0, out=place)
    none = place < np.repeat(start, fresh)[:, None]
    dtype = values.dtype if before is None else np.result_type(values.dtype, before.dtype)
    out = np.take_along_axis(flat, np.maximum(place, 0), axis=0).astype(dtype, copy=False)
    if none.any():
        if before is None:
            out[none] = missing_value(values.dtype)
        else:
            rows, columns = np.nonzero(none)
            sequence = np.repeat(np.arange(len(start)), fresh)
            out[rows, columns] = before.reshape(len(before), -1)[sequence[rows], columns]
    return out.reshape(values.shape)


class LastValuesByKey:
    """The last row of each key.

    Args:
        by: the column of keys.
        expire: rows of the whole stream after which a silent key is forgotten; None for never.
        unique: the prefix of its page ids.
    """

    def __init__(self, by: str, expire: int | None, unique: str) -> None:
        self._by = by
        self._expire = expire
        self._changes = Changelog(unique)
        self._expired = Expired("fill", by, expire)
        self._take(0, None)

    @property
    def expired(self) -> int:
        """The number of keys forgotten so far."""
        return self._expired.count

    def begin(self) -> None:
        """Forget all keys."""
        self._changes.begin(self._row)
        self._take(self._row, None)

    def _take(self, row: int, snapshot: Tree | None) -> None:
        empty = np.empty(0, np.int64)
        state = snapshot or {"keys": empty, "seen": empty, "values": {}}
        slots = Slots(state["keys"])
        seen = np.array(state["seen"], np.int64)
        values = {name: np.array(each) for name, each in state["values"].items()}
        # Nothing fails from here on.
        self._row = row  # the number of the next row
        self._slots = slots
        self._settled = len(slots)  # keys in the last snapshot
        # For the key in each slot: the number of its last row, or -1, and the values of that row, missing ones filled.
        self._seen: Ints = seen
        self._values: dict[Any, Array] = values

    def advance(self, rows: Tree, columns: Mapping[Any, Array]) -> tuple[dict[Any, Array], Callable[[], None]]:
        """See `LastValues.advance`."""
        keys = keys_of(rows, self._by, f"fill(by={self._by!r})")
        slots = self._slots.of(keys)
        self._grow(len(self._slots))
        order, start, fresh, mine, first, final, leads, ends = sequences(slots, self._expire)
        seen = self._seen[mine]
        known = seen >= 0
        forgotten = mine[:0]
        if self._expire is not None:
            silent = known & (self._row + first - seen > self._expire)
            forgotten = mine[silent]
            known &= ~silent
        if len(fresh) > len(mine):  # a key was silent for too long within this block
            lost = np.ones(len(fresh), bool)
            lost[ends] = False
            forgotten = np.append(forgotten, slots[order[start[lost]]])
        filled, after = {}, {}
        for name, column in columns.items():
            before = self._before(name, column, mine[known], known)
            if len(fresh) > len(mine):
                wide = _lacking(len(fresh), column, before.dtype)
                wide[leads] = before
                before = wide
            mask = missing(column)
            made = column[order]
            if mask is not None and mask.any():
                made = _carried_over(made, mask[order], start, fresh, before)
                filled[name] = np.empty_like(made)
                filled[name][order] = made
            else:
                filled[name] = column
            after[name] = made[(start + fresh - 1)[ends]]
        now = self._row + final
        self._changes.put({"keys": self._slots.names[mine], "seen": now, "values": after}, len(mine))

        def accept() -> None:
            self._changes.accept(len(mine))
            self._write(mine, now, after)
            self._row += len(keys)
            if len(forgotten):
                self._expired.add(len(forgotten), self._slots.names[forgotten[0]])
            if self._changes.excess > 0 or len(self._slots) > _PER_SNAPSHOT * self._settled + SETTLED:
                with suppress(MemoryError):  # the block was processed; the snapshot is retried after the next one
                    self._settle()

        return filled, accept

    def _grow(self, have: int) -> None:
        if have > len(self._seen):
            size = max(have, 2 * len(self._seen))
            seen = np.full(size, -1)
            seen[: len(self._seen)] = self._seen
            self._seen = seen

    def _before(self, name: Any, column: Array, slots: Ints, known: NDArray[np.bool_]) -> Array:
        """The last value of each of the block's keys; missing where there is none."""
        values = self._values.get(name)
        if values is None or not len(slots):
            return _lacking(len(known), column, column.dtype)
        out = _lacking(len(known), column, values.dtype)
        out[known] = values[slots]
        return out

    def _write(self, slots: Ints, seen: Array, values: Mapping[Any, Array]) -> None:
        """Set the state of some keys."""
        self._seen[slots] = seen
        for name, each in values.items():
            there = self._values.get(name)
            dtype = each.dtype if there is None else np.result_type(there.dtype, each.dtype)
            if there is None or len(there) < len(self._seen) or dtype != there.dtype:
                larger = np.zeros((len(self._seen), *each.shape[1:]), dtype)
                if there is not None:
                    larger[: len(there)] = there
                self._values[name] = there = larger
            there[slots] = each

    def _settle(self) -> None:
        """Take a snapshot without expired keys."""
        have = len(self._slots)
        needed = self._seen[:have] >= 0
        if self._expire is not None:
            silent = needed & (self._row - self._seen[:have] > self._expire)
            if silent.any():
                self._expired.add(int(silent.sum()), self._slots.names[silent.argmax()])
            self._seen[:have][silent] = -1
            needed &= ~silent
        slots = np.flatnonzero(needed)
        values = {name: each[slots] for name, each in self._values.items()}
        state = {"keys": self._slots.names[slots], "seen": self._seen[slots], "values": values}
        begin = self._changes.snapshot(self._row, state)
        if have > 2 * len(slots):
            self._take(self._row, state)
        begin()
        self._settled = len(self._slots)

    def own(self) -> Mapping[str, Any]:
        """The node's own part of its cursor."""
        return {**self._changes.own(), "now": self._row, "expired": self._expired.count}

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Restore from `own`."""
        changes = self._changes
        self._take(changes.row, changes.take_up(own))
        if changes.used > changes.snapshot_rows:
            rows = trees.cut(changes.rows, changes.snapshot_rows, changes.used)
            slots = self._slots.of(rows["keys"])
            self._grow(len(self._slots))
            # Of several rows of one key the last one counts.
            latest, place = np.unique(slots[::-1], return_index=True)
            at = len(slots) - 1 - place
            self._write(latest, rows["seen"][at], {name: each[at] for name, each in rows["values"].items()})
        self._row = own["now"]
        self._expired.count = own["expired"]


def _lacking(count: int, column: Array, dtype: np.dtype[Any]) -> Array:
    """Missing values, of the shape of the column's rows."""
    out = np.empty((count, *column.shape[1:]), dtype)
    out[...] = missing_value(column.dtype)
    return out
