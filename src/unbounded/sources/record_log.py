"""A log of records on the disk: appended by one process, read from any of them on, cut at the first that is not whole.

    000000000000.log        a segment, named by the number of its first record
    000000004711.log
    000000004711-1.log      of the next generation, which a sync that failed began: it takes the place of all records
                            from its first on
    .lock                   held by the process that writes

A segment begins with a head: the log's id, the number of its first record, and the checksum of the record before that.
Each record has its number, the offset at which it begins, and a CRC that is chained to the one before: so a record that
was torn, changed, or is another log's, ends what can be read. What the records mean is left to others.

A plain write survives the death of the process; only what was synced survives a loss of power. A sync that failed is
not repeated on that file: the kernel may have dropped what it could not write. The records since the last good one are
written again, into a new segment.
"""

from __future__ import annotations

import errno
import re
import struct
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from unbounded.core.block import Offset
from unbounded.core.locked import locked
from unbounded.core.node import DataLoss
from unbounded.core.runtime import Runtime
from unbounded.store.lock import Lock

_MAGIC = b"UBLOG1\0\0"
# Magic, the log's id, the first record's number, row and boundaries, the checksum before it; and the head's own.
_HEAD = struct.Struct("<8s16sQQIII")
# Checksum; bytes that follow this head, number, row and boundaries, rows in it, boundaries after them, bytes of meta.
_RECORD = struct.Struct("<IIQQIIII")
_NAME = re.compile(r"(\d{12,})(?:-(\d+))?\.log")
_INDEX = 1 << 16  # bytes between two entries of a segment's index
_PIECE = 1 << 18  # bytes that are read at once
_MOST_PARTS = 64  # that are written in one call
SEGMENT = 1 << 26  # bytes after which a new segment begins


class Record(NamedTuple):
    """A record that was read: what it was appended with, and where it lies."""

    number: int
    first: Offset
    end: Offset
    rows: int
    meta: bytes
    data: memoryview
    segment: int
    """The number of its segment's first record."""


class Full(OSError):
    """The log has as many bytes as it may have."""

    def __init__(self, where: str, most: int) -> None:
        super().__init__(errno.EDQUOT, f"the log has the {most:,} bytes that max_bytes allows", where)


class _RecordEdge(NamedTuple):
    """A point between two records of a segment."""

    at: Offset
    byte: int
    crc: int  # of the record before
    number: int  # of the next one


@dataclass(slots=True)
class _LogSegment:
    path: Path
    begin: _RecordEdge  # of its first record
    size: int
    fd: int  # for reading: what was removed under our hands can still be read
    index: list[_RecordEdge] = field(default_factory=list)  # some places, as far as it was read or written


class RecordLog:
    """A directory of segments. One thread appends; any reads, releases and syncs meanwhile.

    Args:
        directory: of this log alone.
        runtime: files, locks and ids.
        segment_bytes: how large a segment becomes.
        max_bytes: how large all of them together may become.

    Raises:
        BlockingIOError: another process writes to it.
        OSError: it can't be read or written.
    """

    def __init__(
        self, directory: Path, runtime: Runtime, *, segment_bytes: int = SEGMENT, max_bytes: int | None = None
    ) -> None:
        self.directory = directory
        self.where = str(directory)
        self.id = runtime.unique()
        self._runtime = runtime
        self._files = files = runtime.files
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._lock = runtime.lock()  # guards what threads share; not held while files are written
        self._writing = runtime.lock()  # held by who writes: the thread that appends, or a sync that writes again
        self._segments: list[_LogSegment] = []
        self._fd: int | None = None  # of the last segment, for writing
        self._tail = _RecordEdge(Offset(0), 0, 0, 0)  # after the last record
        self._synced = self._tail
        self._torn = False  # the last segment ends with bytes that could not be cut off
        self._syncing = runtime.lock()  # held by who syncs
        self._unsynced: list[int] = []  # files of segments before the last one
        self._new_names = False  # the directory is to be synced
        self._generation = 0
        self._last_read: tuple[_LogSegment, _RecordEdge] | None = None
        self._superseded: list[_LogSegment] = []
        self.last: Record | None = None
        """The newest record of the last segment when the log was opened."""
        self.last_with_rows: Record | None = None
        """The newest there that has rows."""
        files.make_directory(directory)
        self._held: Lock | None = None
        self._is_closed = False
        self._take()
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    # The logs of this process, by their directories: its lock keeps out other processes alone.
    _open: ClassVar[weakref.WeakValueDictionary[str, RecordLog]] = weakref.WeakValueDictionary()

    def _take(self) -> None:
        """Take the lock; another log of this process on this directory, of a feed that nobody has closed, gives way."""
        self._held = Lock.of(self.directory, self, self._runtime)
        before = self._open.get(self.where)
        self._open[self.where] = self
        if before is not None:
            with before._writing:
                before.close()

    @property
    def start(self) -> Offset:
        """Where the oldest record begins."""
        return self._segments[0].begin.at if self._segments else self._tail.at

    @property
    def stop(self) -> Offset:
        """Where the newest record ends."""
        return self._tail.at

    @property
    def synced(self) -> Offset:
        """Up to where a loss of power takes nothing."""
        return self._synced.at

    # -- opening -------------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        found = []
        for name in self._files.list(self.directory):
            if match := _NAME.fullmatch(name):
                found.append((int(match[2] or 0), int(match[1]), self.directory / name))
        for generation, number, path in sorted(found):
            segment = self._read_head(path, number)
            if segment is not None:
                # It takes the place of the same records in an older generation.
                while self._segments and self._segments[-1].begin.number >= number:
                    self._segments.pop()
                self._segments.append(segment)
                self._generation = generation
        if not self._segments:
            return
        last = self._segments[-1]
        self._fd = fd = last.fd
        last.size = self._files.size(fd)
        self._tail = last.begin
        for record, place in self._records(last, last.begin):
            self._tail, self.last = place, record
            self.last_with_rows = record if record.rows else self.last_with_rows
        if self._tail.byte < last.size:
            self._files.truncate(fd, self._tail.byte)
            last.size = self._tail.byte
        # Written by a process that may have been killed before it synced.
        self._synced = last.begin

    def _read_head(self, path: Path, number: int) -> _LogSegment | None:
        fd = self._files.open_append(path)
        head = self._files.pread(fd, _HEAD.size, 0)
        # Too short where it was being made when the process was killed: then there is nothing in it.
        whole = len(head) == _HEAD.size and zlib.crc32(head[:-4]) == _HEAD.unpack(head)[-1]
        magic, log_id, first, row, boundaries, before, _ = _HEAD.unpack(head) if whole else (b"", b"", 0, 0, 0, 0, 0)
        if magic != _MAGIC or first != number or (self._segments and log_id.hex() != self.id):
            self._files.close(fd)
            return None
        self.id = log_id.hex()
        begin = _RecordEdge(Offset(row, boundaries), _HEAD.size, before, number)
        return _LogSegment(path, begin, self._files.size(fd), fd, [begin])

    # -- reading -------------------------------------------------------------------------------------------------------

    def _records(
        self, segment: _LogSegment, place: _RecordEdge, stop: int | None = None
    ) -> Iterator[tuple[Record, _RecordEdge]]:
        """The whole records of a segment from a place on, each with the place after it; ends at the first that is not
        whole, or before record number `stop`."""
        _, byte, crc, number = place
        buffer, begin = b"", byte
        head, size, fd = _RECORD, segment.size, segment.fd
        while byte + head.size <= size and (stop is None or number < stop):
            if byte + head.size > begin + len(buffer):
                buffer, begin = self._files.pread(fd, _PIECE, byte), byte
            at = byte - begin
            if len(buffer) - at < head.size:
                return
            checksum, length, n, row, boundaries, rows, seams, meta = head.unpack_from(buffer, at)
            if n != number or length > size - byte - head.size or meta > length:
                return
            if at + head.size + length > len(buffer):
                buffer, begin, at = self._files.pread(fd, max(_PIECE, head.size + length), byte), byte, 0
                if len(buffer) < head.size + length:
                    return
            view = memoryview(buffer)[at + 4 : at + head.size + length]
            if zlib.crc32(view, crc) != checksum:
                return
            body = view[head.size - 4 :]
            first = Offset(row, boundaries)
            end = Offset(row + rows, seams + (0 if rows else boundaries))
            byte, crc, number = byte + head.size + length, checksum, number + 1
            after = _RecordEdge(end, byte, crc, number)
            if byte - segment.index[-1].byte >= _INDEX and end > segment.index[-1].at:
                segment.index.append(after)
            yield Record(n, first, end, rows, bytes(body[:meta]), body[meta:], segment.begin.number), after

    def records(self, at: Offset) -> Iterator[Record]:
        """The records that end after `at`, in order, up to those that were there when it began.

        Raises:
            DataLoss: a record that was there is torn, changed or missing.
        """
        found = self._find(at)
        if found is None:
            return
        segment, place, stop = found
        while True:
            following = self._following(segment)
            until = stop if following is None else min(stop, following.begin.number)
            for record, after in self._records(segment, place, until):
                place = after
                if record.end > at:
                    self._last_read = (segment, after)
                    yield record
            if place.number < until:
                raise DataLoss(
                    f"{segment.path} is damaged: record {place.number:,} is not what was written, and "
                    f"{until - place.number:,} records from there on can't be read. Put back a copy of the run's "
                    "directory, or begin a new run in another."
                )
            if following is None or place.number >= stop:
                return
            if following.begin.crc != place.crc:
                raise DataLoss(
                    f"{following.path} does not go on where the records before it end. Put back a copy of the run's "
                    "directory, or begin a new run in another."
                )
            segment, place = following, following.begin

    @locked
    def _find(self, at: Offset) -> tuple[_LogSegment, _RecordEdge, int] | None:
        """The segment to begin to read in, a place there at or before `at`, and the number of records in all."""
        if at >= self._tail.at or not self._segments:
            return None
        stop = self._tail.number
        if self._last_read is not None and self._last_read[1].at == at and self._last_read[0] in self._segments:
            return (*self._last_read, stop)
        # The last that begins before `at`, or at it: records of other segments may end there, and are passed over.
        i = max(0, bisect_right(self._segments, at, key=lambda segment: segment.begin.at) - 1)
        while i and self._segments[i].begin.at == at:
            i -= 1
        segment = self._segments[i]
        j = max(0, bisect_right(segment.index, at, key=lambda place: place.at) - 1)
        return segment, segment.index[j], stop

    @locked
    def _following(self, segment: _LogSegment) -> _LogSegment | None:
        following = False
        for each in self._segments:
            if following:
                return each
            following = each is segment
        return None

    # -- writing -------------------------------------------------------------------------------------------------------

    def begin_at(self, at: Offset) -> None:
        """Begin, empty, at a point other than 0."""
        with self._writing:
            self._synced = _RecordEdge(at, 0, 0, 0)
            self._new_segment(self._synced)

    def begin_segment(self, size: int) -> bool:
        """Begin a new segment where one is due before the next record, of some `size` bytes; says whether it did.

        Raises:
            Full: there is no room for that many bytes.
        """
        with self._writing:
            self._check_room(size)
            last = self._segments[-1] if self._segments else None
            if last is not None and self._fd is not None and not self._torn and last.size < self._segment_bytes:
                return False
            self._new_segment(self._tail)
            return True

    def _check_room(self, size: int) -> None:
        if self._max_bytes is not None:
            held = sum(segment.size for segment in self._segments)
            # One record always fits, however large: else nothing would ever come.
            if held + size > self._max_bytes and self._tail.at > self.start:
                raise Full(self.where, self._max_bytes)

    def append(self, rows: int, seams: int, meta: bytes, parts: Sequence[Any], *, jump: int = 0) -> None:
        """Append a record: `rows` rows, and `seams` boundaries after the last of them; `jump` rows before it are not
        there and never will be.

        Raises:
            OSError: it could not be written. Nothing of it is in the log.
        """
        with self._writing:
            self._append(rows, seams, meta, parts, jump)

    def _append(self, rows: int, seams: int, meta: bytes, parts: Sequence[Any], jump: int) -> None:
        if self._is_closed:
            raise OSError(errno.EBUSY, "another feed of this process goes on with it, or it is closed", self.where)
        if self._fd is None or self._torn:
            self._new_segment(self._tail)
        assert self._fd is not None
        at, byte, crc, number = self._tail
        if jump:
            at = Offset(at.rows + jump, 0)
        views = [memoryview(part).cast("B") for part in parts]
        length = len(meta) + sum(map(len, views))
        head = _RECORD.pack(0, length, number, at.rows, at.boundaries, rows, seams, len(meta))
        crc = zlib.crc32(meta, zlib.crc32(head[4:], crc))
        for view in views:
            crc = zlib.crc32(view, crc)
        try:
            self._write(self._fd, [crc.to_bytes(4, "little") + head[4:] + meta, *views])
        except BaseException:
            self._cut_off(byte)
            raise
        end = Offset(at.rows + rows, seams + (0 if rows else at.boundaries))
        self._move_tail(_RecordEdge(end, byte + _RECORD.size + length, crc, number + 1))

    def _write(self, fd: int, parts: list[Any]) -> None:
        left = parts
        while left:
            done = self._files.writev(fd, left[:_MOST_PARTS])
            while left and done >= len(left[0]):
                done -= len(left[0])
                left = left[1:]
            if done:
                left = [memoryview(left[0])[done:], *left[1:]]

    def _cut_off(self, byte: int) -> None:
        """Remove what was written of a record; where that can't be done either, the next one begins a new segment."""
        assert self._fd is not None
        try:
            self._files.truncate(self._fd, byte)
        except OSError:
            self._torn = True

    @locked
    def _move_tail(self, tail: _RecordEdge) -> None:
        self._tail = tail
        last = self._segments[-1]
        last.size = tail.byte
        if tail.byte - last.index[-1].byte >= _INDEX and tail.at > last.index[-1].at:
            last.index.append(tail)

    def _new_segment(self, tail: _RecordEdge) -> None:
        at, _, crc, number = tail
        path = self._path(number)
        self._files.make_directory(self.directory)
        if self._files.exists(path):
            self._files.unlink(path)  # it was being made when a process was killed, or a disk refused
        fd = self._files.create(path)
        try:
            head = _HEAD.pack(_MAGIC, bytes.fromhex(self.id), number, at.rows, at.boundaries, crc, 0)[:-4]
            self._write(fd, [head + zlib.crc32(head).to_bytes(4, "little")])
        except BaseException:
            self._files.close(fd)
            with suppress(OSError):
                self._files.unlink(path)
            raise
        begin = _RecordEdge(at, _HEAD.size, crc, number)
        self._add_segment(_LogSegment(path, begin, _HEAD.size, fd, [begin]))

    def _path(self, number: int) -> Path:
        return self.directory / (f"{number:012}" + (f"-{self._generation}" if self._generation else "") + ".log")

    @locked
    def _add_segment(self, segment: _LogSegment) -> None:
        while self._segments and self._segments[-1].begin.number >= segment.begin.number:
            self._superseded.append(self._segments.pop())
        self._segments.append(segment)
        if self._fd is not None:
            self._unsynced.append(self._fd)
        self._fd, self._tail = segment.fd, segment.begin
        self._torn, self._new_names = False, True

    # -- the disk ------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """What was appended before this call survives a loss of power when it returns.

        Raises:
            OSError: the disk refused, and refused again when the records were written to a new segment.
            DataLoss: it refused, and what it had been given can't be read back.
        """
        with self._syncing:
            tail, fds, names = self._to_sync()
            if not fds or (tail == self._synced and not names and not self._was_removed()):
                return
            try:
                if self._was_removed():
                    self._synced = self._segments[0].begin
                    raise FileNotFoundError(errno.ENOENT, "its directory was removed", self.where)
                self._sync(fds, names)
            except OSError:
                with self._writing:
                    tail = self._write_again()
            self._done(tail)

    def _was_removed(self) -> bool:
        last = self._segments[-1]
        try:
            return self._files.stat(last.path).st_ino != self._files.inode(last.fd)
        except FileNotFoundError:
            return True

    @locked
    def _to_sync(self) -> tuple[_RecordEdge, list[int], bool]:
        fds = [*self._unsynced, *([] if self._fd is None else [self._fd])]
        names, self._new_names = self._new_names, False
        return self._tail, fds, names

    def _sync(self, fds: Sequence[int], names: bool) -> None:
        for fd in fds:
            self._files.fsync(fd)
        if names:
            self._files.sync_directory(self.directory)

    def _write_again(self) -> _RecordEdge:
        """Write what is not known to be on the disk into a segment of a new generation, and sync that."""
        synced, tail = self._synced, self._tail
        records = [record for record in self.records(synced.at) if record.number >= synced.number]
        if len(records) != tail.number - synced.number:
            raise DataLoss(f"The disk refused to sync {self.where}, and what it was given can't be read back.")
        self._generation += 1
        if self._held is None or not self._held.holds():
            self._files.make_directory(self.directory)
            self._held = Lock.of(self.directory, self, self._runtime)
        self._new_segment(synced)
        for record in records:
            jump = record.first.rows - self._tail.at.rows
            self._append(record.rows, self._seams(record), record.meta, [record.data], jump)
        assert self._fd is not None
        self._sync([self._fd], True)
        while self._superseded:
            self._remove(self._superseded.pop())
        return self._tail

    @staticmethod
    def _seams(record: Record) -> int:
        return record.end.boundaries - (0 if record.rows else record.first.boundaries)

    @locked
    def _done(self, tail: _RecordEdge) -> None:
        self._synced = tail
        first = next((s.begin.number for s in self._segments if s.fd == self._fd), 0)
        if tail.number >= first:
            self._unsynced.clear()

    def release(self, at: Offset) -> None:
        """Nothing before `at` will be read again: whole segments go."""
        for segment in self._released(at):
            self._remove(segment)

    def _remove(self, segment: _LogSegment) -> None:
        if segment.fd not in self._unsynced:
            self._files.close(segment.fd)
        self._files.remove(segment.path)

    @locked
    def _released(self, at: Offset) -> list[_LogSegment]:
        gone = []
        while len(self._segments) > 1 and self._segments[1].begin.at <= at:
            gone.append(self._segments.pop(0))
        return gone

    def close(self) -> None:
        """Let go of the files and of the lock. What was appended stays, whether it was synced or not."""
        if self._is_closed:
            return
        self._is_closed = True
        self._fd = None
        self._unsynced.clear()
        for segment in [*self._segments, *self._superseded]:
            self._files.close(segment.fd)
        held, self._held = self._held, None
        if held is not None:
            held.let_go(self)
