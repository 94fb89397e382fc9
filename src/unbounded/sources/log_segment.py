"""LogSegment: a file of records with chained checksums, read up to the first record that is not whole.

Its head has the log's id, the number and offset of its first record, the checksum of the record before it, and the
number up to which the log was on the disk when the segment was begun. A record has its number, the offset at which it
begins, and a CRC chained to that of the record before: reading ends at a record that is torn, changed, or of another
log.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from unbounded.core.block import Offset
from unbounded.core.files import Files
from unbounded.sources.log_checksum import checksum

_MAGIC = b"UBLOG1\0\0"
# Magic, the log's id, the number of the first record, the number up to which the log was on the disk, row and
# boundaries of the first record, the checksum before it; then the head's own checksum.
_HEAD = struct.Struct("<8s16sQQQIII")
# Checksum; the number of bytes after this head, number, row and boundaries, rows in it, boundaries after them, bytes of
# meta, number of parts with a checksum of their own. Then come the parts' sizes, the meta, and the data.
_RECORD = struct.Struct("<IIQQIIIII")
_CRC, _AFTER_CRC = struct.Struct("<I"), struct.Struct("<IQQIIIII")  # of this head
_PART = struct.Struct("<Q")
# Of a gap, in place of parts: the number, row, boundaries and checksum that the record after it follows, and the number
# of the record that came next when it was made.
_GAP = struct.Struct("<QQIIQ")
_IS_GAP = 0xFFFFFFFF
HEAD_BYTES = _HEAD.size
_INDEX = 1 << 16  # bytes between two entries of a segment's index
_PIECE = 1 << 18  # bytes read at once
_MOST_PARTS = 64  # written in one call
_SMALL = 1 << 14  # bytes: the parts of a smaller record are joined before they are written


class Record(NamedTuple):
    """A record that was read: what it was appended with, where it lies, and the whole of it as bytes.

    One that says that the records from it to its end were dropped is a gap: `made_at` is the number of the record that
    came next when it was made, and None for any other."""

    number: int
    first: Offset
    end: Offset
    rows: int
    meta: bytes
    data: memoryview
    whole: memoryview
    made_at: int | None = None

    @property
    def is_gap(self) -> bool:
        """Whether what it stands for was dropped."""
        return self.made_at is not None


class RecordEdge(NamedTuple):
    """A point between two records of a log."""

    at: Offset
    byte: int
    crc: int  # of the record before
    number: int  # of the record after


@dataclass(slots=True, eq=False)
class LogSegment:
    """A segment's file. An open file can be read and appended to even after it was removed.

    Args:
        path: of the file.
        log: the log's id.
        begin: the place of its first record.
        synced: the records before this number were on the disk when it was begun.
        fd: the open file; None while it is closed.
        size: in bytes, of the whole records.
        index: some of the places in it, in order, as far as it was read or written.
        is_gap: whether it holds a single record, a gap, in place of segments that were dropped.
        skipped: rows of gaps in it, as far as this process has written them.
    """

    path: Path
    log: str
    begin: RecordEdge
    synced: int
    fd: int | None
    size: int
    index: list[RecordEdge] = field(default_factory=list)
    is_gap: bool = False
    skipped: int = 0

    @classmethod
    def create(cls, files: Files, path: Path, log: str, tail: RecordEdge, synced: int) -> LogSegment:
        """Create a file whose first record will follow `tail`.

        Raises:
            OSError: it can't be created; an incomplete file may be left.
        """
        at, _, crc, number = tail
        fd = files.open_log(path)
        try:
            if files.size(fd):
                files.truncate(fd, 0)
            head = _HEAD.pack(_MAGIC, bytes.fromhex(log), number, synced, at.rows, at.boundaries, crc, 0)[:-4]
            write(files, fd, [head + zlib.crc32(head).to_bytes(4, "little")])
        except BaseException:
            files.close(fd)
            raise
        begin = RecordEdge(at, _HEAD.size, crc, number)
        return cls(path, log, begin, synced, fd, _HEAD.size, [begin])

    @classmethod
    def open(cls, files: Files, path: Path) -> LogSegment | None:
        """Open an existing file; None if its head is not whole."""
        fd = files.open_append(path)
        try:
            head = files.pread(fd, _HEAD.size, 0)
            if len(head) == _HEAD.size:
                magic, log, number, synced, row, boundaries, crc, own = _HEAD.unpack(head)
                if magic == _MAGIC and own == zlib.crc32(head[:-4]):
                    begin = RecordEdge(Offset(row, boundaries), _HEAD.size, crc, number)
                    return cls(path, log.hex(), begin, synced, fd, files.size(fd), [begin])
        except BaseException:
            files.close(fd)
            raise
        files.close(fd)
        return None

    def open_again(self, files: Files) -> int:
        """The open file; opened if it is closed.

        Raises:
            FileNotFoundError: it was removed.
        """
        if self.fd is None:
            self.fd = files.open_append(self.path)
        return self.fd

    def close(self, files: Files) -> None:
        """Close the file."""
        fd, self.fd = self.fd, None
        if fd is not None:
            files.close(fd)

    def renew(self, files: Files) -> None:
        """Write the bytes of the file again, each in its place, so that the next sync writes them to the disk."""
        fd = files.open_write(self.path)  # with a file that is open for appending, a write at an offset appends
        try:
            at = 0
            while data := files.pread(fd, min(_PIECE, self.size - at), at):
                done = 0
                while done < len(data):
                    done += files.pwrite(fd, data[done:], at + done)
                at += done
        finally:
            files.close(fd)

    def records(
        self, files: Files, fd: int, place: RecordEdge, stop: int | None = None
    ) -> Iterator[tuple[Record, RecordEdge]]:
        """The whole records from a place on, each with the place after it; ends at the first that is not whole, or
        before record number `stop`. `fd` is the open file."""
        _, byte, crc, number = place
        buffer, begin = b"", byte
        head, size = _RECORD, self.size
        while byte + head.size <= size and (stop is None or number < stop):
            if byte + head.size > begin + len(buffer):
                buffer, begin = files.pread(fd, _PIECE, byte), byte
            at = byte - begin
            if len(buffer) - at < head.size:
                return
            crc_there, length, n, row, boundaries, rows, seams, meta, parts = head.unpack_from(buffer, at)
            sizes = 0 if parts == _IS_GAP else parts * _PART.size
            if n != number or length > size - byte - head.size or sizes + meta > length:
                return
            if at + head.size + length > len(buffer):
                buffer, begin, at = files.pread(fd, max(_PIECE, head.size + length), byte), byte, 0
                if len(buffer) < head.size + length:
                    return
            whole = memoryview(buffer)[at : at + head.size + length]
            body = whole[head.size + sizes :]
            if (
                _checksum(whole[4:], head.size - 4 + sizes + meta, whole[head.size : head.size + sizes], crc)
                != crc_there
            ):
                return
            first = Offset(row, boundaries)
            byte += head.size + length
            if parts == _IS_GAP:
                number, row, boundaries, crc, made_at = _GAP.unpack_from(body, meta)
                end = Offset(row, boundaries)
            else:
                end = Offset(row + rows, seams + (0 if rows else boundaries))
                crc, number, made_at = crc_there, number + 1, None
            after = RecordEdge(end, byte, crc, number)
            self.note(after)
            yield Record(n, first, end, rows, bytes(body[:meta]), body[meta:], whole, made_at), after

    def note(self, place: RecordEdge) -> None:
        """Add a place to the index, if the last one there is far before it."""
        # The index of the segment that is written is complete up to its end, so readers add nothing.
        last = self.index[-1]
        if place.byte - last.byte >= _INDEX and place.at > last.at:
            self.index.append(place)


def size_of(meta: bytes, parts: Sequence[bytes | memoryview]) -> int:
    """How many bytes a record has."""
    length = len(meta) + sum(map(len, parts))
    return _RECORD.size + length + (_PART.size * len(parts) if length >= _SMALL else 0)


def encode(
    tail: RecordEdge, rows: int, seams: int, meta: bytes, parts: Sequence[bytes | memoryview]
) -> tuple[list[bytes | memoryview], RecordEdge]:
    """The bytes of a record that follows `tail`, in parts, and the place after it. `parts` are bytes, or memory that is
    seen as bytes."""
    (row, boundaries), byte, crc, number = tail
    length = len(meta) + sum(map(len, parts))
    if length < _SMALL:
        large = parts[:0]
        head = _AFTER_CRC.pack(length, number, row, boundaries, rows, seams, len(meta), 0)
        head = b"".join((head, meta, *parts))
    else:
        large = parts
        sizes = b"".join([_PART.pack(len(part)) for part in parts])
        length += len(sizes)
        head = _AFTER_CRC.pack(length, number, row, boundaries, rows, seams, len(meta), len(parts))
        head = b"".join((head, sizes, meta))
    crc = zlib.crc32(head, crc)
    for part in large:
        crc = checksum(part, crc)
    end = Offset(row + rows, seams if rows else seams + boundaries)
    after = RecordEdge(end, byte + _RECORD.size + length, crc, number + 1)
    return [_CRC.pack(crc) + head, *large], after


def encode_gap(tail: RecordEdge, to: RecordEdge, made_at: int, meta: bytes) -> tuple[list[Any], RecordEdge]:
    """The bytes of a gap that follows `tail` and ends where the record after `to` begins, and the place after it."""
    data = meta + _GAP.pack(to.number, *to.at, to.crc, made_at)
    content = _AFTER_CRC.pack(len(data), tail.number, *tail.at, 0, 0, len(meta), _IS_GAP) + data
    record = _CRC.pack(zlib.crc32(content, tail.crc)) + content
    return [record], RecordEdge(to.at, tail.byte + len(record), to.crc, to.number)


def _checksum(record: memoryview, at: int, sizes: memoryview, crc: int) -> int:
    """The checksum of a record that was read, chained to the one before; its data begins at byte `at`."""
    if not sizes:
        return zlib.crc32(record, crc)
    crc = zlib.crc32(record[:at], crc)
    for (size,) in _PART.iter_unpack(sizes):
        crc = checksum(record[at : at + size], crc)
        at += size
    return zlib.crc32(record[at:], crc)


def write(files: Files, fd: int, parts: list[Any]) -> None:
    """Append all parts to a file."""
    left = parts
    while left:
        done = files.writev(fd, left if len(left) <= _MOST_PARTS else left[:_MOST_PARTS])
        if done == len(left[0]) and len(left) == 1:
            return
        while left and done >= len(left[0]):
            done -= len(left[0])
            left = left[1:]
        if done:
            left = [memoryview(left[0])[done:], *left[1:]]
