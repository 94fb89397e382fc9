"""LinePieces: the pieces of a file of lines, which are blocks of lines; its index is made by a scan."""

from __future__ import annotations

import zlib

from unbounded.core import trees
from unbounded.core.trees import Array
from unbounded.sources.files.arrow_columns import ArrowColumns
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import Piece, PieceAt
from unbounded.sources.files.line_rows import Parse, rows_of
from unbounded.sources.files.text_blocks import TextBlocks
from unbounded.sources.reader import JSON


class LinePieces:
    """The place of a piece is a list of the offset of its first byte and the number of its first line.

    Args:
        file: the file.
        blocks: its lines.
        first: the place of the first row.
        columns: the columns that are read.
        parse: makes a table of lines.
        bad: receives broken lines.
    """

    def __init__(
        self,
        file: FoundFile,
        blocks: TextBlocks,
        first: list[int],
        columns: ArrowColumns,
        parse: Parse,
        bad: BadRows,
    ) -> None:
        self._file, self._blocks, self._first = file, blocks, first
        self._columns, self._parse, self._bad = columns, parse, bad

    def first(self) -> JSON | None:
        return self._first

    def read(self, place: JSON) -> Piece:
        block = self._blocks.read(*place)
        tables, bad = rows_of(
            block.data, block.line, self._parse, first_bad=self._bad.is_error, records=self._blocks.records
        )
        for line in bad:
            self._bad.add(self._file, *line)
        parts = [self._columns.rows(table, self._file, block.line, "line") for table in tables]
        rows: dict[str, Array] = trees.join(parts) if parts else {}
        count = sum(table.num_rows for table in tables)
        return Piece(rows if count else {}, count, block.after, f"{zlib.crc32(block.data):08x}")

    def index(self) -> list[PieceAt]:
        entries = []
        for place, block in self._blocks.all(*self._first):
            # Blank lines are among them: they are no rows, which shows when the piece is read.
            count = self._blocks.records.count(block.data)
            count += block.after is None and block.data[-1:] not in (b"\n", b"")
            entries.append(PieceAt(place, count, 8 * count * len(self._columns.names)))
        return entries

    def close(self) -> None:
        self._blocks.close()
