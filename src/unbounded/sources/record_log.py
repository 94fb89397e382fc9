"""A log of records on the disk: appended by one process, read from any of them on, cut at the first that is not whole.

    000000000000.log        a segment, named by the number of its first record
    000000004711.log
    000000004711-1.log      of the next generation, which a sync that failed began: it takes the place of all records
                            from its first on
    000000008000.log.new    a segment that was being made when the process was killed
    000000008000.log.cut    what could not be read, and was set aside
    .lock                   held by the process that writes

What a segment and a record look like is in `log_segment.py`; what the records mean is left to others.

A plain write survives the death of the process; only what was synced survives a loss of power. A sync that failed is
not repeated on that file: the kernel may have dropped what it could not write. The records since the last good one are
written again, into a new segment, which takes their place once it is whole and on the disk.
"""

from __future__ import annotations

import errno
import logging
import re
import weakref
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from unbounded.core.block import Offset
from unbounded.core.locked import locked
from unbounded.core.node import DataLoss
from unbounded.core.runtime import Runtime
from unbounded.sources.log_segment import LogSegment, Record, RecordEdge, encode, write
from unbounded.store.lock import Lock

_log = logging.getLogger("unbounded")
_NAME = re.compile(r"(\d{12,})(?:-(\d+))?\.log")
_BEFORE = RecordEdge(Offset(0), 0, 0, 0)
SEGMENT = 1 << 26  # bytes after which a new segment begins
_SEGMENTS = 8  # at least, where there is a bound: only whole segments go


class Full(OSError):
    """The log has as many bytes as it may have."""

    def __init__(self, where: str, most: int) -> None:
        super().__init__(errno.EDQUOT, f"the log has the {most:,} bytes that max_bytes allows", where)


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

    # The logs of this process, by their directories: its lock keeps out other processes alone.
    _open: ClassVar[weakref.WeakValueDictionary[str, RecordLog]] = weakref.WeakValueDictionary()

    def __init__(
        self, directory: Path, runtime: Runtime, *, segment_bytes: int = SEGMENT, max_bytes: int | None = None
    ) -> None:
        self.directory = directory
        self.where = str(directory)
        self.id = runtime.unique()
        self._runtime = runtime
        self._files = files = runtime.files
        self._segment_bytes = segment_bytes
        self._max_bytes: int | None = None
        self.limit(max_bytes)
        # Taken in this order, none of them while one further down is held.
        self._syncing = runtime.lock()  # held by who syncs
        self._writing = runtime.lock()  # held by who writes: the thread that appends, or a sync that writes again
        self.reading = runtime.lock()  # held while records are read, and while files that can be read are closed
        self._lock = runtime.lock()  # guards what threads share; not held while files are read or written
        self._segments: list[LogSegment] = []
        self._tail = _BEFORE  # after the last record
        self._synced = _BEFORE
        self._unsynced: list[LogSegment] = []  # before the last one
        self._gone: list[LogSegment] = []  # of these, removed: they are closed when no sync can be at work on them
        self._stale: list[Path] = []  # files whose records have been written again
        self._new_names = False  # the directory is to be synced
        self._refused = False  # by the disk, which was to sync: what is not synced must be written again
        self._torn = False  # the last segment ends with bytes that could not be cut off
        self._generation = 0
        self._let_go = Offset(0)  # nothing before it will be read again
        self._last_read: tuple[LogSegment, RecordEdge] | None = None
        self._is_closed = False
        self.last: Record | None = None
        """The newest record when the log was opened."""
        files.make_directory(directory)
        self._held: Lock | None = Lock.of(directory, self, runtime)
        key = str(files.resolve(directory))
        before, self._open[key] = self._open.get(key), self
        try:
            if before is not None:
                before.close()  # of a feed that nobody has closed: it gives way
            self._recover()
        except BaseException:
            self.close()
            raise

    @classmethod
    def is_written_here(cls, directory: Path, runtime: Runtime) -> bool:
        """Whether a log of this process writes to a directory."""
        log = cls._open.get(str(runtime.files.resolve(directory)))
        return log is not None and not log._is_closed

    def limit(self, max_bytes: int | None) -> None:
        """How large it may become from now on; None: as large as it takes."""
        self._max_bytes = max_bytes
        if max_bytes is not None:
            self._segment_bytes = min(self._segment_bytes, max_bytes // _SEGMENTS)

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
        for name in sorted(self._files.list(self.directory)):
            if match := _NAME.fullmatch(name):
                found.append((int(match[2] or 0), int(match[1]), self.directory / name))
            elif _NAME.fullmatch(name.removesuffix(".new")):
                self._files.unlink(self.directory / name)
        for generation, number, path in sorted(found):
            segment = LogSegment.open(self._files, path)
            if segment is None or segment.begin.number != number:
                self._set_aside(path, segment)
                continue
            if self._segments and self._segments[0].log != segment.log:
                self._files.close(segment.fd)
                raise DataLoss(
                    f"{path} and {self._segments[0].path} are of two logs, and can't be read as one. Put back a copy "
                    "of the run's directory, or begin a new run in another."
                )
            # It takes the place of the same records in an older generation, and was whole when it got its name.
            while self._segments and self._segments[-1].begin.number >= number:
                replaced = self._segments.pop()
                self._files.close(replaced.fd)
                self._files.unlink(replaced.path)
            self._segments.append(segment)
            self._generation = generation
        if not self._segments:
            return
        self.id = self._segments[0].log
        # What was on the disk is read when it is needed. The rest was perhaps not when the power failed: it ends at the
        # first record that is not whole, in whichever segment that is.
        synced = self._segments[-1].synced
        k = max(0, bisect_right(self._segments, synced, key=lambda each: each.begin.number) - 1)
        self._synced = self._segments[k].begin
        self._tail = self._synced
        for i, segment in enumerate(self._segments[k:], k):
            if segment.begin[2:] != self._tail[2:]:
                for after in self._segments[i:]:
                    self._set_aside(after.path, after)
                del self._segments[i:]
                break
            self._tail = segment.begin
            # What it has after the beginning of the one that follows was written again there.
            until = self._segments[i + 1].begin.number if i + 1 < len(self._segments) else None
            for record, place in segment.records(self._files, segment.begin, until):
                self._tail, self.last = place, record
        last = self._segments[-1]
        for record, place in last.records(self._files, self._tail):  # where the one that followed was set aside
            self._tail, self.last = place, record
        if self._tail.byte < last.size:
            _log.warning(
                "%s ended with %s bytes that are no whole record: it was being written when the process was killed or "
                "the power failed, or it was damaged. They are cut off; the log ends with row %s.",
                last.path,
                f"{last.size - self._tail.byte:,}",
                f"{self._tail.at.rows:,}",
            )
            self._files.truncate(last.fd, self._tail.byte)
            last.size = self._tail.byte
        self._unsynced = self._segments[k:-1]
        self._new_names = True
        for segment in reversed(self._segments[:k]):
            for record, _ in segment.records(self._files, segment.begin) if self.last is None else ():
                self.last = record

    def _set_aside(self, path: Path, segment: LogSegment | None) -> None:
        """Give what can't be read another name: nothing is written over it."""
        there = path.with_name(path.name + ".cut")
        number = 0
        while self._files.exists(there):
            number += 1
            there = path.with_name(f"{path.name}.cut-{number}")
        self._files.rename(path, there)
        if segment is not None:
            self._files.close(segment.fd)
        _log.warning("%s can't be read as a part of the row log. It was set aside, as %s.", path, there.name)

    # -- reading -------------------------------------------------------------------------------------------------------

    def records(self, at: Offset) -> Iterator[Record]:
        """The records that end after `at`, in order, up to those that were there when it began. To be called, and used
        up, with `reading` held.

        Raises:
            DataLoss: a record that was there is torn, changed or missing.
        """
        found = self._find(at)
        if found is None:
            return
        for record, place in self._walk(*found):
            if record.end > at:
                self._last_read = place
                yield record

    def _walk(
        self, segment: LogSegment, place: RecordEdge, stop: int
    ) -> Iterator[tuple[Record, tuple[LogSegment, RecordEdge]]]:
        """The records from a place up to number `stop`, each with the place after it."""
        while True:
            following = self._following(segment)
            until = stop if following is None else min(stop, following.begin.number)
            for record, after in segment.records(self._files, place, until):
                place = after
                yield record, (segment, after)
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
    def _find(self, at: Offset) -> tuple[LogSegment, RecordEdge, int] | None:
        """The segment to begin to read in, a place there at or before `at`, and the number of records in all."""
        self._check_open()
        if at >= self._tail.at or not self._segments:
            return None
        stop = self._tail.number
        if self._last_read is not None and self._last_read[1].at == at and self._last_read[0] in self._segments:
            return (*self._last_read, stop)
        i = max(0, bisect_right(self._segments, at, key=lambda segment: segment.begin.at) - 1)
        segment = self._segments[i]
        j = max(0, bisect_right(segment.index, at, key=lambda place: place.at) - 1)
        return segment, segment.index[j], stop

    @locked
    def _following(self, segment: LogSegment) -> LogSegment | None:
        i = self._segments.index(segment) + 1
        return self._segments[i] if i < len(self._segments) else None

    def _check_open(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBUSY, "it was closed, or another feed of this process goes on with it", self.where)

    # -- writing -------------------------------------------------------------------------------------------------------

    def begin_at(self, at: Offset) -> None:
        """Begin, empty, at a point other than 0."""
        with self._writing:
            self._tail = self._synced = RecordEdge(at, 0, 0, 0)
            self._new_segment()

    def append(self, rows: int, seams: int, meta: bytes, parts: Sequence[Any]) -> None:
        """Append a record: `rows` rows, and `seams` boundaries after the last of them.

        Raises:
            Full: there is no room for it.
            OSError: it could not be written. Nothing of it is in the log.
        """
        with self._writing:
            self._check_open()
            self._make_room(len(meta) + sum(part.nbytes for part in parts))
            segment = self._segments[-1]
            record, after = encode(self._tail, rows, seams, meta, parts)
            try:
                write(self._files, segment.fd, record)
            except BaseException:
                self._cut_off(segment)
                raise
            self._move_tail(segment, after)

    def _make_room(self, size: int) -> None:
        if self._max_bytes is not None:
            held = sum(segment.size for segment in self._segments)
            # One record always fits, however large: else nothing would ever come.
            if held + size > self._max_bytes and self._tail.at > self.start:
                if self._let_go < self._tail.at:
                    raise Full(self.where, self._max_bytes)
                self._new_segment()
                self.release(self._let_go)
        if not self._segments or self._torn or self._segments[-1].size >= self._segment_bytes:
            self._new_segment()

    def _cut_off(self, segment: LogSegment) -> None:
        """Remove what was written of a record; where that can't be done either, the next one begins a new segment."""
        try:
            self._files.truncate(segment.fd, segment.size)
        except OSError:
            self._torn = True

    @locked
    def _move_tail(self, segment: LogSegment, tail: RecordEdge) -> None:
        self._tail = tail
        segment.size = tail.byte
        segment.note(tail)

    def _new_segment(self) -> None:
        self._files.make_directory(self.directory)
        path = self._path(self._tail.number, self._generation)
        segment = self._make(path, self._tail, self._synced.number)
        # It may take the place of one without records, at the end of which are bytes that could not be cut off.
        self._take_up(segment, [each for each in self._segments[-1:] if each.path == path])

    def _make(self, path: Path, tail: RecordEdge, synced: int, records: Iterator[Record] | None = None) -> LogSegment:
        """A new segment, which has its name once it is whole."""
        unfinished = path.with_name(path.name + ".new")
        try:
            segment = LogSegment.create(self._files, unfinished, self.id, tail, synced)
            try:
                if records is not None:
                    for record in records:
                        write(self._files, segment.fd, [record.whole])
                        segment.size += len(record.whole)
                    self._files.fsync(segment.fd)
                self._files.rename(unfinished, path)
            except BaseException:
                self._files.close(segment.fd)
                raise
        except BaseException:
            with suppress(OSError):
                self._files.unlink(unfinished)
            raise
        segment.path = path
        return segment

    def _path(self, number: int, generation: int) -> Path:
        return self.directory / (f"{number:012}" + (f"-{generation}" if generation else "") + ".log")

    @locked
    def _take_up(self, segment: LogSegment, replaced: Sequence[LogSegment]) -> None:
        for each in replaced:
            self._segments.remove(each)
            self._gone.append(each)
        self._unsynced += [*replaced, *self._segments[-1:]]
        self._segments.append(segment)
        self._tail = segment.begin
        self._torn, self._new_names = False, True

    # -- the disk ------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """What was appended before this call survives a loss of power when it returns. Where the directory was removed
        meanwhile, all records that it had are written again.

        Raises:
            OSError: the disk refused, and refused again when the records were written to a new segment.
            DataLoss: it refused, and what it had been given can't be read back.
        """
        with self._syncing:
            self._sync()
        self._close_gone()

    def _sync(self) -> None:
        self._check_open()
        if not self._segments:
            return
        if self._was_removed():
            self._synced, self._refused = self._segments[0].begin, True
        tail, segments, names = self._to_sync()
        if tail == self._synced and not names and not self._refused:
            return
        if not self._refused:
            try:
                for segment in segments:
                    self._files.fsync(segment.fd)
                if names:
                    self._files.sync_directory(self.directory)
                self._check_open()  # else the number may have become another file's
                self._done(tail, segments)
                return
            except OSError:
                self._check_open()
                self._refused = True
        with self._writing, self.reading:
            self._write_again()

    def _was_removed(self) -> bool:
        # By the lock, which lies there too: segments that were begun since then are there.
        last = self._segments[-1]
        return self._held is None or not self._held.holds() or not self._files.exists(last.path)

    @locked
    def _to_sync(self) -> tuple[RecordEdge, list[LogSegment], bool]:
        names, self._new_names = self._new_names, False
        return self._tail, [*self._unsynced, *self._segments[-1:]], names

    @locked
    def _done(self, tail: RecordEdge, segments: Sequence[LogSegment]) -> None:
        """Segments were synced as they were when the log ended at `tail`, in the last of them."""
        self._synced = tail
        grown = segments[-1] if segments[-1].size > tail.byte else None
        self._unsynced = [each for each in self._unsynced if each not in segments or each is grown]

    def _write_again(self) -> None:
        """Write what is not known to be on the disk into a segment of a new generation, which is synced before it takes
        the place of what there was."""
        self._check_open()
        if self._held is None or not self._held.holds():
            self._files.make_directory(self.directory)
            self._held = Lock.of(self.directory, self, self._runtime)
        synced, tail, generation = self._synced, self._tail, self._generation + 1
        if synced.number < self._segments[0].begin.number:
            synced = self._segments[0].begin  # what came before was let go of meanwhile
        path = self._path(synced.number, generation)
        try:
            segment = self._make(path, synced, synced.number, self._since(synced))
        except DataLoss as loss:
            raise DataLoss(f"The disk can't sync {self.where}, nor give back what it was given. {loss}") from loss
        # From here on it is what the next process reads, whatever the disk says of the directory.
        replaced = [each for each in self._segments if each.begin.number >= synced.number]
        self._replace(segment, replaced, tail, generation)
        self._files.sync_directory(self.directory)
        self._synced, self._refused, self._new_names = self._tail, False, False
        self._remove_stale()

    def _remove_stale(self) -> None:
        """Remove the files that others have taken the place of: before those go, or the next process reads these."""
        for path in list(self._stale):
            self._files.remove(path)
            with suppress(ValueError):  # a sync and a release may be at it at once
                self._stale.remove(path)

    def _since(self, synced: RecordEdge) -> Iterator[Record]:
        i = bisect_right(self._segments, synced.number, key=lambda each: each.begin.number) - 1
        segment = self._segments[i]
        begin = segment.begin if segment.begin.number == synced.number else synced
        return (record for record, _ in self._walk(segment, begin, self._tail.number))

    @locked
    def _replace(self, segment: LogSegment, replaced: Sequence[LogSegment], tail: RecordEdge, generation: int) -> None:
        self._gone += replaced
        self._stale += [each.path for each in replaced]
        self._segments = [*(each for each in self._segments if each not in replaced), segment]
        self._unsynced = []
        self._tail = tail._replace(byte=segment.size)
        self._generation, self._last_read = generation, None
        self._torn, self._new_names = False, True

    def release(self, at: Offset) -> None:
        """Nothing before `at` will be read again: whole segments go."""
        self._remove_stale()
        while (segment := self._released(at)) is not None:
            # The oldest first, and none after one that can't be removed: the next process finds files that follow each
            # other, or takes what comes after a hole for lost.
            self._files.remove(segment.path)
            # With the lock, since a sync that writes again walks over all segments.
            with self.reading: self._forget(segment)  # fmt: skip  # noqa: E701 - see `locked`
        self._close_gone()

    @locked
    def _released(self, at: Offset) -> LogSegment | None:
        """The oldest segment, where it lies before `at` and the newest record is in another: that says what came
        before."""
        self._let_go = max(self._let_go, at)
        if len(self._segments) < 2:
            return None
        oldest, following = self._segments[:2]
        return oldest if following.begin.at <= at and following.begin.number < self._tail.number else None

    @locked
    def _forget(self, segment: LogSegment) -> None:
        if self._segments[0] is segment:  # no sync has written it again meanwhile
            self._gone.append(self._segments.pop(0))

    def _close_gone(self) -> None:
        with self.reading:
            for segment in self._closable():
                self._files.close(segment.fd)

    @locked
    def _closable(self) -> list[LogSegment]:
        found = [each for each in self._gone if each not in self._unsynced]
        self._gone = [each for each in self._gone if each in self._unsynced]
        return found

    def close(self) -> None:
        """Let go of the files and of the lock. What was appended stays, whether it was synced or not."""
        with self._writing, self.reading:
            if self._is_closed:
                return
            self._is_closed = True
            for segment in {*self._segments, *self._gone}:
                self._files.close(segment.fd)
        held, self._held = self._held, None
        if held is not None:
            held.let_go(self)
