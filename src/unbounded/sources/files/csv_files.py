"""CSV files: a piece is a block of lines; the header and the first block of the first file give names and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbounded.core.trees import RowsError
from unbounded.sources.files.arrow_columns import ArrowColumns, Wanted, inferred_schema
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import NoRows
from unbounded.sources.files.line_pieces import LinePieces
from unbounded.sources.files.line_rows import rows_of
from unbounded.sources.files.records import CsvRecords
from unbounded.sources.files.text_blocks import TextBlocks, codec_of


class CsvFormat:
    """CSV with a header, by pyarrow; `.tsv` files have tabs in place of commas.

    Args:
        first: the first file.
        source: the first file, open.
        wanted: the columns that the user asked for.
    """

    def __init__(self, first: FoundFile, source: Any, wanted: Wanted) -> None:
        import pyarrow as pa

        records = _records(first)
        blocks = TextBlocks(first, source, records)
        names, place = _header(first, blocks)
        block = blocks.read(*place)

        def parse(data: bytes) -> Any:
            return _table(data, first, names, None, None)

        tables, _ = rows_of(block.data, block.line, parse, first_bad=False, records=records)
        if not sum(table.num_rows for table in tables):
            raise NoRows(f"{first.name!r} has a header and no row. Expected rows, which tell the types of columns.")
        if len(set(names)) < len(names):
            raise RowsError(f"The header of {first.name!r} has a name twice: {', '.join(names)}. Expected each once.")
        empty = pa.table({name: pa.nulls(0) for name in names})
        self._columns = ArrowColumns(inferred_schema([empty, *tables]), first, wanted)

    def may_grow(self, file: FoundFile) -> bool:
        return codec_of(file.name) is None

    def columns(self) -> Mapping[str, str]:
        return self._columns.described()

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> LinePieces:
        blocks = TextBlocks(file, source, _records(file))
        # A file that was only created, by a writer that has not begun, has no header yet.
        names, place = _header(file, blocks) if file.size else (self._columns.names, [0, 2])
        self._columns.check_names(names, file)
        types = {name: self._columns.read_type(name, reads_text=True) for name in self._columns.names}

        def parse(data: bytes) -> Any:
            return _table(data, file, names, self._columns.names, types)

        return LinePieces(file, blocks, place, self._columns, parse, bad)


def _header(file: FoundFile, blocks: TextBlocks) -> tuple[list[str], list[int]]:
    """The names of the columns, and the place of the first row: its offset and its line."""
    import pyarrow as pa
    import pyarrow.csv as pc

    data = blocks.read(0, 1).data
    ends = blocks.records.ends(data)
    line = data[: ends[0]] if len(ends) else data
    if not line:
        raise NoRows(f"{file.name!r} is empty. Expected a header, and rows.")
    try:
        table = pc.read_csv(
            pa.BufferReader(line if len(ends) else line + b"\n"),
            read_options=pc.ReadOptions(use_threads=False, block_size=len(line) + 2),
            parse_options=_parsing(file, None),
        )
    except pa.ArrowException as error:
        raise RowsError(f"Line 1 of {file.name!r} is no header: {error}. Expected the names of columns.") from None
    return table.column_names, [len(line), 1 + max(1, line.count(b"\n"))]


def _parsing(file: FoundFile, on_invalid: Any) -> Any:
    import pyarrow.csv as pc

    return pc.ParseOptions(delimiter=_delimiter(file), invalid_row_handler=on_invalid, newlines_in_values=True)


def _records(file: FoundFile) -> CsvRecords:
    return CsvRecords(_delimiter(file).encode())


def _delimiter(file: FoundFile) -> str:
    return "\t" if ".tsv" in file.name.lower() else ","


def _table(
    data: bytes,
    file: FoundFile,
    names: list[str],
    wanted: list[str] | None,
    types: dict[str, Any] | None,
) -> tuple[Any, list[tuple[int, str]]]:
    """See `line_rows.Parse`."""
    import pyarrow as pa
    import pyarrow.csv as pc

    if _records(file).unclosed(data) is not None:
        raise pa.ArrowInvalid("a quote is not closed")  # pyarrow takes the rest of the data for one value
    left_out: list[tuple[int, str]] = []

    def leave_out(row: Any) -> str:
        left_out.append((row.number - 1, f"expected {row.expected_columns} columns, got {row.actual_columns}"))
        return "skip"

    table = pc.read_csv(
        pa.BufferReader(data),
        # Without threads of its own: the machine's cores belong to the training. With them, rows have no numbers.
        read_options=pc.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 1),
        parse_options=_parsing(file, leave_out),
        convert_options=pc.ConvertOptions(include_columns=wanted, column_types=types),
    )
    return table, left_out
