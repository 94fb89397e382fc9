"""JSON lines: a piece is a block of lines; the first block of the first file gives names and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbounded.sources.files.arrow_columns import ArrowColumns, Wanted, inferred_schema
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import NoRows
from unbounded.sources.files.line_pieces import LinePieces
from unbounded.sources.files.line_rows import rows_of
from unbounded.sources.files.records import LineRecords
from unbounded.sources.files.text_blocks import TextBlocks, codec_of


class JsonLinesFormat:
    """One JSON object in each line, by pyarrow.

    Args:
        first: the first file.
        source: the first file, open.
        wanted: the columns that the user asked for.
    """

    def __init__(self, first: FoundFile, source: Any, wanted: Wanted) -> None:
        block = TextBlocks(first, source, LineRecords()).read(0, 1)
        tables, bad = rows_of(
            block.data, block.line, lambda data: _table(data, None, "infer"), first_bad=False, records=LineRecords()
        )
        if not tables:
            why = f": {bad[0].why}" if bad else ""
            raise NoRows(
                f"The first block of {first.name!r} has no row{why}. Expected one JSON object in each line, such as "
                '{"x": 1.5}.'
            )
        self._columns = ArrowColumns(inferred_schema(tables), first, wanted)
        self._others = "error" if wanted.names is None else "ignore"

    def may_grow(self, file: FoundFile) -> bool:
        return codec_of(file.name) is None

    def columns(self) -> Mapping[str, str]:
        return self._columns.described()

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> LinePieces:
        import pyarrow as pa

        schema = pa.schema([(name, self._columns.read_type(name, reads_text=False)) for name in self._columns.names])

        def parse(data: bytes) -> Any:
            return _table(data, schema, self._others)

        return LinePieces(file, TextBlocks(file, source, LineRecords()), [0, 1], self._columns, parse, bad)


def _table(data: bytes, schema: Any, others: str) -> tuple[Any, list[tuple[int, str]]]:
    """See `line_rows.Parse`. Fields that are not in `schema` are an error, or ignored; or the schema is inferred."""
    import pyarrow as pa
    import pyarrow.json as pj

    table = pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others),
    )
    # An object that is not closed goes on in the next line, and two in one line are two rows, for pyarrow.
    if table.num_rows != sum(1 for line in data.split(b"\n") if line.strip()):
        raise pa.ArrowInvalid("it is not one JSON object")
    return table, []
