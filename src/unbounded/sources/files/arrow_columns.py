"""ArrowColumns: which columns of Arrow tables are read, of which types, and their conversion to NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from unbounded.core.trees import Array, RowsError
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import check_wanted
from unbounded.sources.ragged_columns import of_arrow

Wanted: TypeAlias = tuple[str, ...] | Mapping[str, str] | None
"""The columns that a user asked for: names, or names with dtypes to which they are converted; None for all."""


RAGGED, AS_IT_IS = "ragged", "as it is"
"""In place of a dtype: a column of rows of several lengths; a column that is not converted."""


class ArrowColumns:
    """The columns of all files, which must have those of the first file.

    Args:
        schema: the first file's `pyarrow.Schema`.
        file: the first file.
        wanted: the columns that the user asked for.
    """

    def __init__(self, schema: Any, file: FoundFile, wanted: Wanted) -> None:
        self._first = file
        self._is_chosen = wanted is not None
        self.names: list[str] = list(schema.names if wanted is None else wanted)
        """The names, in the order of rows."""
        check_wanted(self.names, schema.names, file)
        if not self.names or len(set(self.names)) < len(self.names):
            raise RowsError(
                f"{file.name!r} has {'columns of one name' if self.names else 'no column'}. Expected columns with "
                "names of their own."
            )
        with_dtypes = wanted if isinstance(wanted, Mapping) else {}
        self._ragged = {name for name, dtype in with_dtypes.items() if dtype == RAGGED}
        plain = {name: dtype for name, dtype in with_dtypes.items() if dtype not in (RAGGED, AS_IT_IS)}
        self.casts = {name: arrow_type(name, dtype) for name, dtype in plain.items()}
        """The types to which columns are converted."""
        self.types = {name: schema.field(name).type for name in self.names}
        """The types in the first file."""

    def described(self) -> dict[str, str]:
        """The types in words, after conversion."""
        words = {name: str(self.casts.get(name, self.types[name])) for name in self.names}
        return {name: f"{RAGGED} {kind}" if name in self._ragged else kind for name, kind in words.items()}

    def check(self, schema: Any, file: FoundFile) -> None:
        """Raise RowsError if a file's columns are not of the first file's types; one without any value fits."""
        import pyarrow as pa

        self.check_names(schema.names, file)
        for name in self.names:
            now, was = schema.field(name).type, self.types[name]
            if now != was and name not in self.casts and not pa.types.is_null(now):
                raise RowsError(
                    f"Column {name!r} is {now} in {file.name!r}, and {was} in {self._first.name!r}. Expected one type "
                    f"in all files: columns={{{name!r}: 'float64', …}} converts each to one dtype."
                )

    def check_names(self, names: list[str], file: FoundFile) -> None:
        """Raise RowsError if a file lacks a column, or has one that the first file lacks and nobody asked for."""
        check_wanted(self.names, names, file)
        others = [] if self._is_chosen else [name for name in names if name not in self.types]
        if others:
            raise RowsError(
                f"{file.name!r} has the column {others[0]!r}, and {self._first.name!r} has none of this name. Expected "
                f"the same columns in all files: columns={self.names!r} reads those of the first file."
            )

    def read_type(self, name: str) -> Any:
        """The type as which a parser of text reads a column."""
        import pyarrow as pa

        cast, found = self.casts.get(name), self.types[name]
        # A parser of JSON reads no numbers as text; they are converted afterwards.
        is_number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_boolean(found)
        return found if cast is None or (pa.types.is_string(cast) and is_number) else cast

    def rows(self, table: Any, file: FoundFile, first: int, unit: str = "from row") -> dict[str, Array]:
        """The columns as arrays of shape (rows,), or (rows, k) for lists of k.

        Args:
            table: a `pyarrow.Table` or `RecordBatch` with at least these columns.
            file: the file that it is of, for messages.
            first: the number of its first row, for messages.
            unit: what `first` counts.
        """
        rows = {}
        for name in self.names:
            column = table.column(name)
            where = f"Column {name!r} of {file.name!r}, {unit} {first:,} on"
            cast = self.casts.get(name, self.types[name])
            if column.type != cast:
                column = _converted(column, cast, where)
            rows[name] = (_ragged if name in self._ragged else as_array)(column, name, where)
        return rows


def inferred_schema(tables: list[Any]) -> Any:
    """The types of tables whose types were inferred from text: the wider one where two can be merged, the first where
    they can't; float64 for a column without any value."""
    import pyarrow as pa

    types: dict[str, Any] = {}
    for field in (field for table in tables for field in table.schema):
        try:
            both = [pa.schema([(field.name, kind)]) for kind in (types.get(field.name, pa.null()), field.type)]
            types[field.name] = pa.unify_schemas(both, promote_options="permissive").field(0).type
        except pa.ArrowException:
            continue
    return pa.schema([(name, pa.float64() if pa.types.is_null(kind) else kind) for name, kind in types.items()])


def arrow_type(name: str, dtype: Any) -> Any:
    """The Arrow type of a NumPy dtype."""
    import pyarrow as pa

    try:
        found = np.dtype(dtype)
        return pa.string() if found.kind == "U" else pa.from_numpy_dtype(found)
    except (TypeError, ValueError, pa.ArrowException):
        raise ValueError(
            f"from_files(columns={{{name!r}: {dtype!r}}}): expected a dtype, such as 'float64', 'int64', 'str' or "
            "'datetime64[us]'."
        ) from None


def as_array(column: Any, name: str, where: str) -> Array:
    """A column as an array; see `unbounded.from_files` for the types."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _matrix(column, name, where)
    if types.is_floating(kind) or (types.is_temporal(kind) and not types.is_time(kind)):
        return _values(column)  # nulls become NaN and NaT
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    if not (is_text or is_bytes or types.is_integer(kind) or types.is_boolean(kind)):
        raise RowsError(
            f"{where}: it is {kind}, which has no column in NumPy. Expected numbers, text, times or lists of these. "
            f"Convert it, by columns={{{name!r}: 'float64', …}} if it is a number, or leave it out by columns=[…]."
        )
    if column.null_count:
        _refuse_nulls(column, name, where)
    if is_text:
        texts = _values(column)
        return texts.astype("U") if len(texts) else np.empty(0, "U1")
    return _values(column)


def _values(column: Any) -> Array:
    """The values of a column of a table, or of a record batch, whose method has another default."""
    import pyarrow as pa

    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return np.asarray(values)


def _refuse_nulls(column: Any, name: str, where: str) -> None:
    way = (
        f"columns={{{name!r}: 'float64', …}} reads it as float64, with NaN where there is none"
        if not (str(column.type).endswith(("string", "binary", "view")))
        else "fill them where the file is written"
    )
    raise RowsError(
        f"{where}: {column.null_count:,} values are missing, and {column.type} has no value for that. Expected a value "
        f"in each row: {way}; or leave the column out by columns=[…]."
    )


def _ragged(column: Any, name: str, where: str) -> Array:
    """Lists of several lengths, or bytes, as a ragged column."""
    import pyarrow as pa

    kind = column.type
    if isinstance(column, pa.ChunkedArray):
        column = _joined(column)
    lists, binary = (pa.types.is_list(kind) or pa.types.is_large_list(kind)), "binary" in str(kind)
    if not lists and not binary:
        raise RowsError(
            f"{where}: it is {kind}, and was asked for as 'ragged'. Expected lists or bytes: columns={{{name!r}: None}}"
            " reads it as it is."
        )
    if column.null_count:
        raise RowsError(f"{where}: {column.null_count:,} rows are missing. Fill them where the file is written.")
    return of_arrow(column, lambda values: as_array(values, name, where))


def _joined(column: Any) -> Any:
    """A column of a table as one array."""
    import pyarrow as pa

    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _matrix(column: Any, name: str, where: str) -> Array:
    """Lists of one length as an array of two dimensions."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = _joined(column)
    if column.null_count:
        raise RowsError(f"{where}: {column.null_count:,} lists are missing. Fill them where the file is written.")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(lengths) and lengths.min() != lengths.max():
        raise RowsError(
            f"{where}: its lists have {lengths.min():,} to {lengths.max():,} values. Rows of a batch have one shape. "
            f"Write columns={{{name!r}: 'ragged', …}}, for .pad(length) or .batch(n, bucket=[…]) in the stream; None in"
            " place of 'ragged' reads a column as it is."
        )
    if len(lengths):
        width = int(lengths[0])
    else:
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0
    values = as_array(column.flatten(), name, where)
    return values.reshape(len(lengths), width, *values.shape[1:])


def _converted(column: Any, to: Any, where: str) -> Any:
    import pyarrow as pa

    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(to)
    except pa.ArrowException as error:
        raise RowsError(f"{where}: it is {column.type}, and is not converted to {to}: {error}.") from None
