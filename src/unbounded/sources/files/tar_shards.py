"""Tar shards as WebDataset writes them: a row is the members of one name; a piece is some of these in a row.

The layout is WebDataset's (https://github.com/webdataset/webdataset, "The WebDataset Format"): members of one sample
follow each other, and their names are the sample's key, a dot, and the column's name.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
import zlib
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import numpy as np

from unbounded.core.trees import RowsError
from unbounded.sources.files.arrow_columns import Wanted
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import NoRows, Piece, PieceAt, broken
from unbounded.sources.files.record_columns import RecordColumns
from unbounded.sources.reader import JSON

PIECE_BYTES = 1 << 22
"""A piece ends with the sample with which its members have so many bytes, headers included."""
KEY = "__key__"

_TEXTS = ("txt", "text", "transcript", "json")
_NUMBERS = ("cls", "cls2", "class", "count", "index", "inx", "id")


class TarFormat:
    """Tar archives.

    Args:
        first: the first file.
        source: the first file, open.
        wanted: the columns that the user asked for.
    """

    def __init__(self, first: FoundFile, source: Any, wanted: Wanted) -> None:
        samples = _samples(first, source, 0)
        sample = next(samples, None)
        samples.close()
        if sample is None:
            raise NoRows(f"{first.name!r} has no sample. Expected members such as 'a/0001.jpg' and 'a/0001.cls'.")
        self._columns = RecordColumns(sample.record(first, source, None), first, wanted)

    def may_grow(self, file: FoundFile) -> bool:
        return False

    def columns(self) -> Mapping[str, str]:
        return self._columns.described()

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> _TarPieces:
        return _TarPieces(file, source, self._columns)


class _Sample(NamedTuple):
    """The members of one key; each has the offset of its bytes and their number."""

    key: str
    begin: int
    end: int
    members: dict[str, tuple[int, int]]

    def record(self, file: FoundFile, source: Any, names: list[str] | None) -> dict[str, Any]:
        """The values of these columns; None for all."""
        record: dict[str, Any] = {KEY: self.key}
        for name, (offset, size) in self.members.items():
            if names is None or name in names:
                source.seek(offset)
                record[name] = _decoded(name, source.read(size), f"{self.key}.{name} in {file.name!r}")
        return record


def _decoded(name: str, data: bytes, what: str) -> Any:
    """The value of a member, by the last part of its column's name."""
    kind = name.rpartition(".")[2]
    try:
        if kind in _TEXTS:
            return data.decode()
        if kind in _NUMBERS:
            return np.array(int(data), np.int64)
        if kind == "npy":
            return np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise RowsError(f"The member {what} is no {kind}: {error}. Mend it, or leave it out by columns=[…].") from None
    return data


def _samples(file: FoundFile, source: Any, offset: int) -> Generator[_Sample, None, None]:
    """The samples from an offset on, without their bytes."""
    source.seek(offset)
    begin, end = offset, offset
    key, members = None, {}
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            while (member := archive.next()) is not None:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, base = posixpath.split(member.name)
                stem, _, name = base.partition(".")
                if not member.isfile() or not stem or not name:
                    continue
                if key is not None and key != posixpath.join(folder, stem):
                    yield _Sample(key, begin, member.offset, members)
                    key, begin, members = None, member.offset, {}
                key = posixpath.join(folder, stem)
                if name.lower() in members:
                    raise RowsError(f"{file.name!r} has two members {key}.{name}. Expected one of each name.")
                members[name.lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        if not (offset or file.size):
            return
        raise broken(file, f"the archive after byte {end:,}", error) from error
    # tarfile takes an archive that was cut at a member's edge for a whole one.
    source.seek(end)
    if end + tarfile.BLOCKSIZE > file.size or source.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise broken(file, f"the archive after byte {end:,}", ValueError("it has no end mark, so it was cut"))
    if key is not None:
        yield _Sample(key, begin, end, members)


class _TarPieces:
    """The place of a piece is a list of the offset of its first member and the number of its first sample."""

    def __init__(self, file: FoundFile, source: Any, columns: RecordColumns) -> None:
        self._file, self._source, self._columns = file, source, columns

    def first(self) -> JSON | None:
        return [0, 0]

    def _piece(self, place: JSON) -> tuple[list[_Sample], list[int] | None]:
        """The samples of a piece, and the place of the next one."""
        offset, number = place
        found: list[_Sample] = []
        samples = _samples(self._file, self._source, offset)
        for sample in samples:
            if found and found[-1].end - offset >= PIECE_BYTES:
                samples.close()
                return found, [sample.begin, number + len(found)]
            found.append(sample)
        return found, None

    def read(self, place: JSON) -> Piece:
        samples, after = self._piece(place)
        crc, records = 0, []
        for number, sample in enumerate(samples, place[1]):
            record = sample.record(self._file, self._source, self._columns.names)
            self._columns.check(record, f"Sample {number:,} of {self._file.name!r}, {sample.key!r},")
            records.append(record)
            crc = zlib.crc32(repr(sample).encode(), crc)
            for value in record.values():
                crc = zlib.crc32(value.encode() if isinstance(value, str) else value, crc)
        rows = self._columns.rows(records, f"Samples from {place[1]:,} on of {self._file.name!r}") if records else {}
        return Piece(rows, len(records), after, f"{crc:08x}")

    def index(self) -> list[PieceAt]:
        entries, place = [], self.first()
        while place is not None:
            samples, after = self._piece(place)
            if samples:
                entries.append(PieceAt(place, len(samples), samples[-1].end - samples[0].begin))
            place = after
        return entries

    def close(self) -> None:
        self._source.close()
