"""Arrow IPC files, also named Feather: a piece is a record batch; the footer is the index."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from unbounded.sources.files.arrow_columns import ArrowColumns, Wanted
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import Piece, PieceAt, reading
from unbounded.sources.reader import JSON


class IpcFormat:
    """Arrow IPC files, by pyarrow; arguments as for `ParquetFormat`."""

    def __init__(self, first: FoundFile, source: Any, wanted: Wanted) -> None:
        self._columns = ArrowColumns(_ipc(first, source, None).schema, first, wanted)

    def may_grow(self, file: FoundFile) -> bool:
        return False

    def columns(self) -> Mapping[str, str]:
        return self._columns.described()

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> _IpcPieces:
        return _IpcPieces(file, source, self._columns)


def _ipc(file: FoundFile, source: Any, fields: list[int] | None) -> Any:
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    with reading(file, "the footer"):
        return pa.ipc.open_file(source, options=options)


class _IpcPieces:
    """The place of a piece is the number of the record batch."""

    def __init__(self, file: FoundFile, source: Any, columns: ArrowColumns) -> None:
        self._name, self._source, self._columns = file, source, columns
        schema = _ipc(file, source, None).schema
        columns.check(schema, file)
        self._fields = [schema.get_field_index(name) for name in columns.names]
        self._file = _ipc(file, source, sorted(self._fields))

    def first(self) -> JSON | None:
        return 0 if self._file.num_record_batches else None

    def read(self, place: JSON) -> Piece:
        batch = self._batch(self._file, place)
        rows = self._columns.rows(batch, self._name, 0)
        crc = batch.num_rows
        for column in batch.columns:
            for buffer in column.buffers():
                crc = zlib.crc32(buffer, crc) if buffer is not None else crc
        after = place + 1 if place + 1 < self._file.num_record_batches else None
        return Piece(rows, batch.num_rows, after, f"{crc:08x}")

    def _batch(self, file: Any, place: int) -> Any:
        with reading(self._name, f"record batch {place}"):
            return file.get_batch(place)

    def index(self) -> list[PieceAt]:
        # The footer has no row counts: one column of each batch is read for them.
        thin = _ipc(self._name, self._source, self._fields[:1])
        counts = [self._batch(thin, place).num_rows for place in range(thin.num_record_batches)]
        return [PieceAt(place, count, 8 * count * len(self._fields)) for place, count in enumerate(counts)]

    def close(self) -> None:
        self._source.close()
