"""Parquet files: a piece is a row group; the footer is the index."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from unbounded.sources.files.arrow_columns import ArrowColumns, Wanted
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import Piece, PieceAt, reading
from unbounded.sources.reader import JSON


class ParquetFormat:
    """Parquet, by pyarrow.

    Args:
        first: the first file, whose columns all files must have.
        source: the first file, open.
        wanted: names of columns, or names with dtypes; None for all.
    """

    def __init__(self, first: FoundFile, source: Any, wanted: Wanted) -> None:
        self._columns = ArrowColumns(_parquet(first, source).schema_arrow, first, wanted)

    def may_grow(self, file: FoundFile) -> bool:
        return False

    def columns(self) -> Mapping[str, str]:
        return self._columns.described()

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> _ParquetPieces:
        return _ParquetPieces(file, source, self._columns)


def _parquet(file: FoundFile, source: Any) -> Any:
    import pyarrow.parquet as pq

    with reading(file, "the footer"):
        return pq.ParquetFile(source)


class _ParquetPieces:
    """The place of a piece is the number of the row group."""

    def __init__(self, file: FoundFile, source: Any, columns: ArrowColumns) -> None:
        self._name, self._source, self._columns = file, source, columns
        self._file = _parquet(file, source)
        self._meta = self._file.metadata
        columns.check(self._file.schema_arrow, file)

    def first(self) -> JSON | None:
        return 0 if self._meta.num_row_groups else None

    def read(self, place: JSON) -> Piece:
        with reading(self._name, f"row group {place}"):
            # Without threads of its own: the machine's cores belong to the training.
            table = self._file.read_row_group(place, columns=self._columns.names, use_threads=False)
        group = self._meta.row_group(place)
        rows = self._columns.rows(table, self._name, 0 if not place else self._rows_before(place))
        # The group's statistics and sizes: they differ if its values do, and its bytes are not read twice.
        check = f"{zlib.crc32(repr(group.to_dict()).encode()):08x}"
        after = place + 1 if place + 1 < self._meta.num_row_groups else None
        return Piece(rows, table.num_rows, after, check)

    def _rows_before(self, group: int) -> int:
        return sum(self._meta.row_group(i).num_rows for i in range(group))

    def index(self) -> list[PieceAt]:
        wanted, entries = set(self._columns.names), []
        for place in range(self._meta.num_row_groups):
            group = self._meta.row_group(place)
            chunks = (group.column(i) for i in range(group.num_columns))
            size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in wanted)
            # Repeated values are short in the file, and not in memory.
            entries.append(PieceAt(place, group.num_rows, max(size, 8 * group.num_rows * len(wanted))))
        return entries

    def close(self) -> None:
        self._file.close()
        self._source.close()
