"""Fill: puts a constant, or the last value that was there, in the place of missing values.

What `"last"` carries from row to row is kept by `last_values`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core import check
from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.trees import Array, RowsError
from unbounded.stages.keys import EXPIRE, check_by
from unbounded.stages.last_values import LastValues, LastValuesByKey
from unbounded.stages.missing import missing, missing_rows
from unbounded.stages.named_columns import check_name, column_of, with_columns
from unbounded.stages.stage import OneToOne, Through

LAST = "last"


@dataclass(frozen=True)
class Fill(OneToOne):
    """See `Stream.fill`."""

    value: Any
    by: str | None = None
    expire: int | None = EXPIRE
    word = "fill"

    def __post_init__(self) -> None:
        check_by(self.by, "fill")
        values = self.value.items() if isinstance(self.value, Mapping) else [(None, self.value)]
        if not values:
            raise ValueError(
                'fill({}) names no column. Expected a value for each, such as {"temp": "last", "room": "none"}.'
            )
        for name, value in values:
            if name is not None:
                check_name(name, "fill({column: value})")
            if not isinstance(value, _VALUES):
                raise TypeError(
                    f'fill() was given {value!r}. Expected a number, a text or a time; "last" for the last value that '
                    "was there; or a dict of columns and these."
                )
        if self.by is not None and not self.carries:
            raise ValueError(f'fill(by={self.by!r}) was given without "last". A constant is the same for each key.')
        if self.expire is not None:
            if self.by is None and self.expire != EXPIRE:
                raise ValueError("fill(expire=…) was given without by=. Expected the column that tells the keys apart.")
            check.positive(self.expire, "fill(expire=…)")

    @property
    def carries(self) -> bool:
        """True if a row's output depends on the rows before it."""
        return LAST in self.values()

    def values(self) -> list[Any]:
        """The values that are put in."""
        return list(self.value.values()) if isinstance(self.value, Mapping) else [self.value]

    def arguments(self) -> dict[str, Any]:
        given = {"": dict(self.value) if isinstance(self.value, Mapping) else repr(self.value)}
        # `expire` is shown even at its default, since it changes the result.
        return given if self.by is None else {**given, "by": self.by, "expire": self.expire}

    def identity(self) -> dict[str, Any]:
        shown = self.value if isinstance(self.value, Mapping) else {None: self.value}
        return {"value": [[name, repr(value)] for name, value in shown.items()], "by": self.by, "expire": self.expire}

    def open(self, upstream: Node, context: Context) -> Node:
        if not self.carries:
            return _FillNode(upstream, self)
        unique = context.runtime.unique()
        if self.by is None:
            return _LastNode(upstream, self, LastValues(unique))
        return _LastNode(upstream, self, LastValuesByKey(self.by, self.expire, unique))

    def cursor_at(self, ordinal: int, upstream: Any, rows: int | None, place: int) -> Any:
        if self.carries:
            return super(OneToOne, self).cursor_at(ordinal, upstream, rows, place)
        return upstream(ordinal)


_VALUES = (int, float, complex, str, bytes, datetime.date, datetime.timedelta, np.generic)


class _FillNode(Through):
    """Fills constants in, and finds the columns to which the last values are carried."""

    def __init__(self, upstream: Node, fill: Fill) -> None:
        super().__init__(upstream)
        self._fill = fill

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        chosen = self._chosen(block.rows)
        changed = {name: _filled(column, value, name) for name, (column, value) in chosen.items()}
        return block.with_rows(with_columns(block.rows, changed))

    def _chosen(self, rows: Any) -> dict[Any, tuple[Array, Any]]:
        """The columns that may have missing values, each with what is put in."""
        value = self._fill.value
        if isinstance(value, Mapping):
            named = {name: (column_of(rows, name, f"fill({{{name!r}: …}})"), each) for name, each in value.items()}
            return {name: found for name, found in named.items() if found[0].dtype.kind in _MAY_LACK}
        if not isinstance(rows, dict):
            raise RowsError(
                "fill() was given rows without names of columns. Expected a dict of columns; .map() can make one, such "
                'as lambda rows: {"x": rows}.'
            )
        kinds = _MAY_LACK if value == LAST else _kinds_of(value)
        found = {
            name: (column, value)
            for name, column in rows.items()
            if isinstance(column, np.ndarray) and column.dtype.kind in kinds and name != self._fill.by
        }
        if not found:
            raise RowsError(
                f"fill({value!r}) found no column that it fits. Expected one of "
                f"{' or '.join(_WORDS[kind] for kind in kinds if kind in _WORDS)}: whole numbers and bools have no "
                "missing values."
            )
        return found


class _LastNode(_FillNode):
    """Also carries the last values over; the boundary after a row ends what is carried."""

    def __init__(self, upstream: Node, fill: Fill, last: LastValues | LastValuesByKey) -> None:
        super().__init__(upstream, fill)
        self._last = last
        self._unfilled = 0

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        chosen = self._chosen(block.rows)
        carried = {name: column for name, (column, value) in chosen.items() if value == LAST}
        changed = {name: _filled(column, value, name) for name, (column, value) in chosen.items() if value != LAST}
        filled, accept = self._last.advance(block.rows, carried)
        left: Any = np.zeros(block.count, bool)
        for column in filled.values():
            found = missing_rows(column)
            left = left if found is None else left | found
        out = block.with_rows(with_columns(block.rows, {**changed, **filled}))
        # All that can fail is done.
        accept()
        if block.boundary:
            self._last.begin()
        self._unfilled += int(left.sum())
        return out

    def apply_boundary(self, block: Block | Run) -> Block | Run:
        self._last.begin()
        return block

    def own(self) -> Mapping[str, Any]:
        return {**self._last.own(), "unfilled": self._unfilled}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._last.take_up(own)
        self._unfilled = own["unfilled"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        ours = {"unfilled": self._unfilled, "expired": self._last.expired}
        return {**counts, **{name: counts.get(name, 0) + count for name, count in ours.items()}}


_MAY_LACK = "fcMmUS"
_WORDS = {"f": "floats", "M": "times", "m": "durations", "U": "text"}


def _kinds_of(value: Any) -> str:
    """The kinds of dtypes that take a constant."""
    if isinstance(value, (str, bytes)):
        return "US"
    if isinstance(value, (datetime.timedelta, np.timedelta64)):
        return "m"
    return "M" if isinstance(value, (datetime.date, np.datetime64)) else "fc"


def _filled(column: Array, value: Any, name: Any) -> Array:
    """The column with a constant in the place of missing values."""
    mask = missing(column)
    if column.dtype.kind not in _kinds_of(value):
        words = _WORDS.get(column.dtype.kind, str(column.dtype))
        raise RowsError(
            f"fill({{{name!r}: {value!r}}}): the column is {column.dtype}, and takes no such value. Expected one for "
            f"{words}."
        )
    if mask is None or not mask.any():
        return column
    put = np.asarray(value, "S" if column.dtype.kind == "S" else None)
    # Text may be wider than all that is there; times keep their unit.
    out = column.astype(np.result_type(column.dtype, put.dtype) if column.dtype.kind in "US" else column.dtype)
    out[mask] = put.astype(out.dtype)
    return out
