"""Columns of tables as NumPy arrays: of pandas and polars frames, and of pyarrow Tables.

Numbers, truth values and times keep their dtype, text becomes `U`, lists of one length become rows of an array. Missing
values are NaN in columns of floats, and an error in any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.sources.datasets.tensors import missing, to_array
from unbounded.sources.datasets.tensors import ragged as is_ragged_error
from unbounded.sources.ragged_columns import as_column, as_row, of_arrow


def first_value(column: Any, what: str) -> Any:
    """An empty row of the dtype of the rows of a ragged column."""
    for value in column:
        if len(row := as_row(value, what)):
            return row[:0]
    return None


def pandas_columns(frame: Any, what: str, ragged: Mapping[Any, Any] | None = None) -> Tree:
    """A dict of the columns of a pandas DataFrame; `ragged` have rows of several lengths, each with an empty row."""
    columns = {}
    for at, name in enumerate(map(str, frame.columns)):
        column, path = frame.iloc[:, at], f"[{name!r}]"
        if ragged and name in ragged:
            rows = [row if len(row) else ragged[name] for row in column]
            columns[name] = as_column(rows, f"{what}: column {name!r}")
        else:
            columns[name] = _pandas(column, what, path)
    return columns


def _pandas(column: Any, what: str, path: str) -> Array:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return column.to_numpy()  # type: ignore[no-any-return]
    if hasattr(column, "cat"):
        return _pandas(column.astype(dtype.categories.dtype), what, path)
    if getattr(dtype, "tz", None) is not None:
        return column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()  # type: ignore[no-any-return]
    if getattr(dtype, "kind", "O") == "f":  # Float32, Float64
        return column.to_numpy(dtype=f"f{dtype.itemsize}", na_value=np.nan)  # type: ignore[no-any-return]
    if column.isna().any():
        raise missing(what, path)
    if getattr(dtype, "kind", "O") in "iub":
        numpy_dtype = getattr(dtype, "numpy_dtype", None)
        return column.to_numpy(dtype=numpy_dtype)  # type: ignore[no-any-return]
    return to_array(column.to_numpy(dtype=object), what, path)


def polars_columns(frame: Any, what: str, ragged: tuple[Any, ...] = ()) -> Tree:
    """A dict of the columns of a polars DataFrame; `ragged` have rows of several lengths."""
    return {
        column.name: _polars_ragged(column, what)
        if column.name in ragged
        else _polars(column, what, f"[{column.name!r}]")
        for column in frame.get_columns()
    }


def _polars_ragged(column: Any, what: str) -> Array:
    if column.null_count():
        raise missing(what, f"[{column.name!r}]")
    return _arrow_ragged(column.to_arrow(), what, f"[{column.name!r}]")


def _polars(column: Any, what: str, path: str) -> Array | Tree:
    dtype = str(column.dtype)
    if dtype.startswith("Struct"):
        return {part.name: _polars(part, what, f"{path}[{part.name!r}]") for part in column.struct.unnest()}
    if column.null_count() and not dtype.startswith("Float"):
        raise missing(what, path)
    if dtype.startswith("List"):
        lengths = column.list.len().unique()
        if len(lengths) != 1:
            raise is_ragged_error(what, path)
        inner = _polars(column.explode(), what, path)
        return inner.reshape(len(column), lengths[0], *inner.shape[1:])
    if dtype.startswith("Array"):
        array: Array = column.to_numpy()
        return array
    if dtype.startswith(("String", "Categorical", "Enum")):
        return np.array(column.to_list(), dtype=np.str_)
    if dtype.startswith(("Decimal", "Object", "Binary")):
        raise _unknown(dtype, what, path)
    return to_array(column.to_numpy(), what, path)


def arrow_columns(table: Any, what: str, ragged: tuple[Any, ...] = ()) -> Tree:
    """A dict of the columns of a pyarrow Table; `ragged` have rows of several lengths."""
    return {
        name: (_arrow_ragged if name in ragged else _arrow)(column.combine_chunks(), what, f"[{name!r}]")
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _arrow_ragged(column: Any, what: str, path: str) -> Array:
    """A column of lists of several lengths, or of bytes."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if column.null_count:
        raise missing(what, path)
    return of_arrow(column, lambda values: _arrow(values, what, path))


def _arrow(column: Any, what: str, path: str) -> Array | Tree:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):  # `combine_chunks` of a column that one array can't hold
        column = pa.concat_arrays(column.chunks)
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _arrow(column.storage, what, path)
    if pa.types.is_dictionary(kind):
        return _arrow(column.dictionary_decode(), what, path)
    if column.null_count and not pa.types.is_floating(kind):
        raise missing(what, path)
    if pa.types.is_struct(kind):
        fields = [kind.field(at).name for at in range(kind.num_fields)]
        parts = zip(fields, column.flatten(), strict=True)
        return {name: _arrow(part, what, f"{path}[{name!r}]") for name, part in parts}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = set(column.value_lengths().to_pylist())
        if len(lengths) != 1:
            raise is_ragged_error(what, path)
        inner = _arrow(column.flatten(), what, path)
        if isinstance(inner, dict):
            raise _unknown(str(kind), what, path)
        return inner.reshape(len(column), lengths.pop(), *inner.shape[1:])
    if (
        pa.types.is_decimal(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_null(kind)
    ):
        raise _unknown(str(kind), what, path)
    return to_array(column.to_numpy(zero_copy_only=False), what, path)


def _unknown(kind: str, what: str, path: str) -> RowsError:
    return RowsError(
        f"{what}: {trees.name(path)} is of type {kind}. Expected numbers, truth values, times, text, and lists of one "
        "length: convert the column, or leave it out."
    )
