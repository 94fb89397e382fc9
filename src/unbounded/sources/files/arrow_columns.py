"""ArrowColumns: which columns of Arrow tables are read, of which types, and their conversion to NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from unbounded.core.trees import Array, RowsError
from unbounded.sources.arrow_arrays import ColumnPlace, arrow_array, arrow_type, check_dtypes, converted, ragged_array
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import check_wanted
from unbounded.sources.ragged_columns import RAGGED

LEAVE_OUT = "leave the column out by columns=[…]"


class Wanted(NamedTuple):
    """What a user asked for.

    Attributes:
        names: of columns; None for all.
        dtypes: by name, those to which columns are converted.
    """

    names: tuple[str, ...] | None
    dtypes: Mapping[str, str]


class ArrowColumns:
    """The columns of all files, which must have those of the first file.

    Args:
        schema: the first file's `pyarrow.Schema`.
        file: the first file.
        wanted: the columns that the user asked for.
    """

    def __init__(self, schema: Any, file: FoundFile, wanted: Wanted) -> None:
        self._first = file
        self._is_chosen = wanted.names is not None
        self.names: list[str] = list(schema.names if wanted.names is None else wanted.names)
        """The names, in the order of rows."""
        check_wanted(self.names, schema.names, file)
        if not self.names or len(set(self.names)) < len(self.names):
            raise RowsError(
                f"{file.name!r} has {'columns of one name' if self.names else 'no column'}. Expected columns with "
                "names of their own."
            )
        check_dtypes(wanted.dtypes, self.names, "from_files")
        self._ragged = {name for name, dtype in wanted.dtypes.items() if dtype == RAGGED}
        dtypes = {name: dtype for name, dtype in wanted.dtypes.items() if name not in self._ragged}
        self.casts = {name: arrow_type(name, dtype, "from_files(dtypes") for name, dtype in dtypes.items()}
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
                    f"in all files: dtypes={{{name!r}: 'float64'}} converts it to one dtype."
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

    def read_type(self, name: str, *, reads_text: bool) -> Any:
        """The type as which a parser reads a column; `reads_text` is True if it reads numbers as text, too."""
        import pyarrow as pa

        cast, found = self.casts.get(name), self.types[name]
        if cast is None:
            return found
        if pa.types.is_string(cast):
            # Else numbers lose what is no part of their value: the zeros before "0815".
            is_number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_boolean(found)
            return found if is_number and not reads_text else cast
        # Of the other types, parsers read no number from "true".
        return found if pa.types.is_boolean(found) else cast

    def rows(self, table: Any, file: FoundFile, first: int, unit: str = "row") -> dict[str, Array]:
        """The columns as arrays of shape (rows,), or (rows, k) for lists of k.

        Args:
            table: a `pyarrow.Table` or `RecordBatch` with at least these columns.
            file: the file that it is of, for messages.
            first: the number of its first row, for messages.
            unit: what `first` counts.
        """
        rows = {}
        for name in self.names:
            place = ColumnPlace(f"Column {name!r} of {file.name!r}", name, _row_in(first, unit), LEAVE_OUT)
            if name in self._ragged:
                rows[name] = ragged_array(table.column(name), place)
                continue
            column = converted(table.column(name), self.casts.get(name, self.types[name]), place)
            array = arrow_array(column, place, objects=True)
            if isinstance(array, dict):
                raise place.error(
                    f"is {column.type}, and a column of a file is one array. Expected numbers, bools, text, times or "
                    f"lists of these: write its parts as columns of their own, or {LEAVE_OUT}."
                )
            rows[name] = array
        return rows


def _row_in(first: int, unit: str) -> Callable[[int], str]:
    """The words for a row of a block that begins at `first`."""
    if unit == "row":
        return lambda at: f"row {first + at:,}"
    # Blank lines have no row.
    return lambda at: f"row {at + 1:,} from {unit} {first:,} on"


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
