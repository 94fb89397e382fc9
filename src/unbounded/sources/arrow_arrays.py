"""Columns of Arrow tables as NumPy arrays: one conversion for files and for tables in memory.

Numbers, bools and times keep their dtypes, text becomes `U`, and lists of one length the rows of an array. A missing
value is NaN among floats, NaT among times, "" among text, and an error among whole numbers and bools. Times with a zone
become UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core.ragged import column_of, cut
from unbounded.core.trees import Array, RowsError, Tree


@dataclass(frozen=True, slots=True)
class ColumnPlace:
    """Where a column comes from, for messages.

    Args:
        what: the column in words, such as "Column 'x' of 'a.parquet'".
        name: the name of the column.
        row: takes a row's number in the array, and returns where that row is, such as "row 1,204".
        leave_out: what to write to leave the column out.
    """

    what: str
    name: str
    row: Callable[[int], str]
    leave_out: str

    def error(self, problem: str) -> RowsError:
        """The error for a column."""
        return RowsError(f"{self.what} {problem}")


def no_value(place: ColumnPlace, dtype: Any, lacks: Array) -> RowsError:
    """The error for whole numbers and others that have no missing value; `lacks` is a mask of the rows."""
    count, at = int(np.sum(lacks)), int(np.argmax(lacks))
    others = "" if count == 1 else f", nor in {count - 1:,} more rows"
    return place.error(
        f"has no value in {place.row(at)}{others}, and {dtype} has none for that. Expected a value in each row: "
        f"dtypes={{{place.name!r}: 'float64'}} reads it as floats, with NaN where there is none; or {place.leave_out}."
    )


def no_array(place: ColumnPlace, kind: Any) -> RowsError:
    """The error for a column of a type that NumPy lacks."""
    return place.error(
        f"is {kind}, which has no column in NumPy. Expected numbers, bools, text, times or lists of these. If it is a "
        f"number, dtypes={{{place.name!r}: 'float64'}} converts it; else {place.leave_out}."
    )


def no_list(place: ColumnPlace, lacks: Array) -> RowsError:
    """The error for a list, or another structure, that is missing; `lacks` is a mask of the rows."""
    return place.error(
        f"has no value in {place.row(int(np.argmax(lacks)))}, and lists and structures have none for that. Fill it in "
        f"where it is made, or {place.leave_out}."
    )


def lists_of_several_lengths(place: ColumnPlace, lengths: Array) -> RowsError:
    """The error for ragged lists."""
    return place.error(
        f"is ragged: its lists have {lengths.min():,} to {lengths.max():,} values. Rows of a batch have one shape. "
        f"Write ragged=[{place.name!r}] beside it, and .pad(length) or .batch(n, bucket=[…]) in the stream; or "
        f"{place.leave_out}."
    )


def ragged_array(column: Any, place: ColumnPlace) -> Array:
    """Lists of several lengths, or bytes, as a ragged column.

    Args:
        column: a `pyarrow.Array` or `ChunkedArray`.
        place: for messages.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    column = _combined(column)
    kind = column.type
    is_list = types.is_list(kind) or types.is_large_list(kind)
    if not is_list and not (types.is_binary(kind) or types.is_large_binary(kind)):
        raise place.error(f"is {kind}, and was asked for as ragged. Expected lists of several lengths, or bytes.")
    if column.null_count:
        raise place.error(
            f"has no value in {place.row(int(np.argmax(_values(pc.is_null(column)))))}. Fill it in where it is made, "
            f"or {place.leave_out}."
        )
    if not is_list:
        return column_of(column.to_pylist())
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = arrow_array(column.flatten(), ColumnPlace(place.what, place.name, lambda at: "a list", place.leave_out))
    if isinstance(values, dict):
        raise place.error(f"has lists of structures. Expected numbers, text or times in lists: {place.leave_out}.")
    return cut(np.ascontiguousarray(values), lengths)


def arrow_array(column: Any, place: ColumnPlace, *, objects: bool = False) -> Tree:
    """A column as an array of shape (rows, …); a column of structures as a dict of arrays.

    Args:
        column: a `pyarrow.Array` or `ChunkedArray`.
        place: for messages.
        objects: True allows bytes, in an array of objects.

    Raises:
        RowsError: NumPy has no such column; the message says what to do.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, column.type
    if isinstance(kind, pa.BaseExtensionType):
        return arrow_array(column.cast(kind.storage_type), place, objects=objects)
    if types.is_dictionary(kind):
        return arrow_array(column.cast(kind.value_type), place, objects=objects)
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_struct(kind):
        return _structure(column, place, objects)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _matrix(column, place, objects)
    if types.is_floating(kind) or types.is_date(kind) or types.is_timestamp(kind) or types.is_duration(kind):
        return _values(column)  # nulls become NaN and NaT
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        texts = _values(pc.fill_null(column, "") if column.null_count else column)
        return texts.astype("U") if len(texts) else np.empty(0, "U1")
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    if not (types.is_integer(kind) or types.is_boolean(kind) or (is_bytes and objects)):
        raise no_array(place, kind)
    if column.null_count:
        raise no_value(place, kind, _values(pc.is_null(column)))
    return _values(column)


def _values(column: Any) -> Array:
    """The values of a column of a table, or of a record batch, whose method has another default."""
    import pyarrow as pa

    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return np.asarray(values)


def _combined(column: Any) -> Any:
    """A column as one `pyarrow.Array`."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no rows, or of more than one array can hold
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _structure(column: Any, place: ColumnPlace, objects: bool) -> Tree:
    import pyarrow.compute as pc

    if column.null_count:
        raise no_list(place, _values(pc.is_null(column)))
    column = _combined(column)
    fields = [column.type.field(at).name for at in range(column.type.num_fields)]
    return {
        name: arrow_array(
            part, ColumnPlace(f"{place.what}[{name!r}]", place.name, place.row, place.leave_out), objects=objects
        )
        for name, part in zip(fields, column.flatten(), strict=True)
    }


def _matrix(column: Any, place: ColumnPlace, objects: bool) -> Array:
    """Lists of one length as an array of two dimensions."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _combined(column)
    if column.null_count:
        raise no_list(place, _values(pc.is_null(column)))
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(lengths) and lengths.min() != lengths.max():
        raise lists_of_several_lengths(place, lengths)
    if len(lengths):
        width = int(lengths[0])
    else:
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0
    inner = ColumnPlace(place.what, place.name, lambda at: place.row(at // max(1, width)), place.leave_out)
    values = arrow_array(column.flatten(), inner, objects=objects)
    if isinstance(values, dict):
        raise place.error(f"has lists of structures. Expected numbers, text or times in lists: {place.leave_out}.")
    return values.reshape(len(lengths), width, *values.shape[1:])  # type: ignore[no-any-return]


# -- dtypes that users ask for -----------------------------------------------------------------------------------------


def as_dtypes(dtypes: Any, what: str, argument: str = "dtypes") -> dict[str, str]:
    """The argument `dtypes` of the constructor `what` as a dict of names and names of dtypes."""
    expected = "Expected a dict of names of columns and dtypes, such as {'count': 'float64'}."
    if dtypes is None:
        return {}
    if not isinstance(dtypes, Mapping):
        raise TypeError(f"{what}({argument}={dtypes!r}): {expected}")
    found = {}
    for name, dtype in dtypes.items():
        if not isinstance(name, str):
            raise TypeError(f"{what}({argument}=…) has {name!r}. {expected}")
        found[name] = dtype_name(name, dtype, f"{what}({argument}")
    return found


def dtype_name(name: str, dtype: Any, what: str) -> str:
    """The name of a dtype, "str" for text; `what` is the argument, such as "from_files(columns"."""
    try:
        found = np.dtype(object if dtype is None else dtype)  # None would be float64
    except TypeError:
        found = np.dtype(object)
    if found.hasobject or found.kind not in "biufcMmU":
        raise ValueError(
            f"{what}={{{name!r}: {dtype!r}}}): expected a dtype, such as 'float64', 'int64', 'str' or 'datetime64[us]'."
        )
    return "str" if found.kind == "U" else str(found)


def check_dtypes(dtypes: Mapping[str, str], names: Any, what: str) -> None:
    """Raise RowsError if a dtype is given for a column that is not there, or not read."""
    for name in dtypes:
        if name not in names:
            raise RowsError(
                f"{what}(dtypes=…) names the column {name!r}, and the columns are {', '.join(map(repr, names))}. Name "
                "columns that are read."
            )


def arrow_type(name: str, dtype: str, what: str) -> Any:
    """The Arrow type of a dtype from `dtype_name`."""
    import pyarrow as pa

    try:
        return pa.string() if dtype == "str" else pa.from_numpy_dtype(np.dtype(dtype))
    except (TypeError, pa.ArrowException):
        raise ValueError(
            f"{what}={{{name!r}: {dtype!r}}}): Arrow has no such type. Expected a dtype such as 'float64', 'int64', "
            "'str' or 'datetime64[us]'."
        ) from None


def converted(column: Any, to: Any, place: ColumnPlace) -> Any:
    """A column converted to an Arrow type; as it is, if it is of that type."""
    import pyarrow as pa

    if column.type == to:
        return column
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(to)
    except pa.ArrowException as error:
        raise place.error(f"is {column.type}, and is not converted to {to}: {error}.") from None
