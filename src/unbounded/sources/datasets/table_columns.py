"""Columns of tables as NumPy arrays: of pandas and polars frames, and of pyarrow Tables.

Numbers, bools and times keep their dtype, text becomes `U`, lists of one length become rows of an array. A missing
value is NaN among floats, NaT among times, "" among text, and an error in any other column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unbounded.core.trees import Array, RowsError, Tree
from unbounded.sources.arrow_arrays import (
    ColumnPlace,
    arrow_array,
    arrow_type,
    converted,
    lists_of_several_lengths,
    no_array,
    no_list,
    no_value,
    ragged_array,
)
from unbounded.sources.datasets.tensors import to_array
from unbounded.sources.ragged_columns import RAGGED, as_column, as_row

LEAVE_OUT = "leave the column out of the table"


class TableColumns:
    """The columns of blocks of one table.

    Args:
        what: the table in words, such as "DataFrame".
        dtypes: by column, those to which columns are converted.
    """

    def __init__(self, what: str, dtypes: Mapping[str, str]) -> None:
        self._what = what
        self._dtypes = {name: dtype for name, dtype in dtypes.items() if dtype != RAGGED}
        self._ragged = frozenset(dtypes) - frozenset(self._dtypes)
        self._empty: dict[str, Any] = {}  # by ragged column, an empty row of the dtype of the others

    def look(self, frame: Any) -> None:
        """Look at a pandas DataFrame for the dtype of its ragged columns, whose empty lists have none."""
        for name in self._ragged:
            rows = (as_row(value, f"Column {name!r} of {self._what}") for value in frame[name])
            row = next((row for row in rows if len(row)), None)
            if row is not None:
                self._empty[name] = row[:0]

    def _place(self, name: str, index: Array) -> ColumnPlace:
        def row(at: int) -> str:
            return f"row {int(index[at]):,}"

        return ColumnPlace(f"Column {name!r} of {self._what}", name, row, LEAVE_OUT)

    def of_arrow(self, table: Any, index: Array) -> Tree:
        """A dict of the columns of a pyarrow Table; `index` has the numbers of its rows, for messages."""
        rows = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            place = self._place(name, index)
            if name in self._ragged:
                rows[name] = ragged_array(column, place)
                continue
            if name in self._dtypes:
                column = converted(column, arrow_type(name, self._dtypes[name], "from_dataset(dtypes"), place)
            rows[name] = arrow_array(column, place)
        return rows

    def of_pandas(self, frame: Any, index: Array) -> Tree:
        """The same of a pandas DataFrame."""
        rows = {}
        for at, given in enumerate(frame.columns):
            name = str(given)
            column, place = frame.iloc[:, at], self._place(name, index)
            dtype = self._dtypes.get(name)
            if name in self._ragged:
                rows[name] = as_column([self._row(name, value) for value in column], place.what)
                continue
            rows[name] = _pandas(column, place) if dtype is None else _cast(column, dtype, place, _pandas_as)
        return rows

    def _row(self, name: str, value: Any) -> Any:
        """A row of a ragged column; an empty one with the dtype of the others."""
        return value if hasattr(value, "__len__") and len(value) else self._empty.get(name, value)

    def of_polars(self, frame: Any, index: Array) -> Tree:
        """The same of a polars DataFrame."""
        rows = {}
        for column in frame.get_columns():
            place = self._place(column.name, index)
            dtype = self._dtypes.get(column.name)
            if column.name in self._ragged:
                rows[column.name] = ragged_array(column.to_arrow(), place)
                continue
            rows[column.name] = _polars(column, place) if dtype is None else _cast(column, dtype, place, _polars_as)
        return rows


def _cast(column: Any, dtype: str, place: ColumnPlace, convert: Callable[[Any, np.dtype[Any]], Any]) -> Array:
    """A column with a dtype that the user asked for."""
    to = np.dtype(dtype)
    lacks = np.asarray(column.isna() if hasattr(column, "isna") else column.is_null())
    if lacks.any() and to.kind in "biu":
        raise no_value(place, to, lacks)
    try:
        return np.asarray(convert(column, to)).astype(to, copy=False)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # polars raises errors of its own
        raise _not_converted(column, to, place, error) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "polars":
            raise
        raise _not_converted(column, to, place, error) from None


def _not_converted(column: Any, to: Any, place: ColumnPlace, error: Exception) -> RowsError:
    reason = " ".join(str(error).split())
    return place.error(f"is {column.dtype}, and is not converted to {to}: {reason:.200}.")


def _pandas_as(column: Any, to: np.dtype[Any]) -> Any:
    if to.kind == "U":
        texts = column.astype(object).where(column.notna(), "")
        return np.array([str(value) for value in texts], dtype=np.str_)
    if to.kind in "mM":
        return column.to_numpy(dtype=to)
    return column.to_numpy(dtype=to, na_value=np.nan) if to.kind in "fc" else column.to_numpy(dtype=to)


def _polars_as(column: Any, to: np.dtype[Any]) -> Any:
    import polars as pl

    if to.kind == "U":
        return np.array(column.cast(pl.String).fill_null("").to_list(), dtype=np.str_)
    if to.kind in "fc":
        return column.cast(pl.Float64).to_numpy()
    return column.to_numpy()


def _pandas(column: Any, place: ColumnPlace) -> Array:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return column.to_numpy()  # type: ignore[no-any-return]
    if hasattr(dtype, "pyarrow_dtype"):
        found: Array = arrow_array(column.array.__arrow_array__(), place)
        return found
    if hasattr(column, "cat"):
        if dtype.categories.dtype.kind in "iub" and column.isna().any():
            raise no_value(place, dtype.categories.dtype, np.asarray(column.isna()))
        return _pandas(column.astype(dtype.categories.dtype), place)
    if getattr(dtype, "tz", None) is not None:
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()  # type: ignore[no-any-return]
    kind = getattr(dtype, "kind", "O")
    if kind == "f":  # Float32, Float64
        return column.to_numpy(dtype=f"f{dtype.itemsize}", na_value=np.nan)  # type: ignore[no-any-return]
    lacks = np.asarray(column.isna())
    values = column.to_numpy(dtype=object)
    if lacks.any():
        # A column of objects without any value is one of text: the others have a dtype that says so.
        if kind in "iub" or not all(isinstance(value, str) for value in values[~lacks]):
            raise no_value(place, dtype, lacks)
        values = np.where(lacks, "", values)
    if kind in "iub":
        return column.to_numpy(dtype=getattr(dtype, "numpy_dtype", None))  # type: ignore[no-any-return]
    return to_array(values, place.what, f"[{place.name!r}]")


def _polars(column: Any, place: ColumnPlace) -> Array | Tree:
    dtype = str(column.dtype)
    if dtype.startswith("Struct"):
        return {
            part.name: _polars(part, ColumnPlace(f"{place.what}[{part.name!r}]", place.name, place.row, LEAVE_OUT))
            for part in column.struct.unnest()
        }
    if dtype.startswith(("String", "Categorical", "Enum")):
        return np.array(column.to_list() if not column.null_count() else _filled(column), dtype=np.str_)
    if dtype == "Null":
        return np.full(len(column), np.nan)
    if column.null_count() and not dtype.startswith(("Float", "Date", "Duration")):
        lacks = column.is_null().to_numpy()
        raise no_list(place, lacks) if dtype.startswith(("List", "Array")) else no_value(place, column.dtype, lacks)
    if dtype.startswith("List"):
        lengths = column.list.len().to_numpy()
        if len(set(lengths.tolist())) != 1:
            raise lists_of_several_lengths(place, lengths)
        inner = _polars(column.explode(), place)
        return inner.reshape(len(column), int(lengths[0]), *inner.shape[1:])
    if dtype.startswith("Array"):
        array: Array = column.to_numpy()
        return array
    if dtype.startswith("Datetime") and "time_zone='" in dtype.replace('"', "'"):
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if dtype.startswith(("Decimal", "Object", "Binary", "Time")):
        raise no_array(place, dtype)
    return to_array(column.to_numpy(), place.what)


def _filled(column: Any) -> list[str]:
    return [value or "" for value in column.to_list()]
