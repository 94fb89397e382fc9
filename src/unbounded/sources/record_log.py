"""RecordLog: a log of records on the disk, appended to by one process, and cut at the first record that is not whole.

    000000000000.log        a segment, named by the number of its first record
    000000004711.log
    000000005100-000000006000.gap    stands for the records from 5,100 up to 6,000, which were dropped
    000000004711-1.log      of the next generation, which a sync that failed began: it takes the place of all records
                            from its first on
    000000008000.log.new    a segment that was being made when the process was killed
    000000008000.log.cut    what could not be read, and was set aside
    .lock                   held by the process that writes

The format of segments and records is in `log_segment.py`, their order in `log_chain.py`, and the opening of an existing
directory in `log_recovery.py`. The meaning of records is defined by the callers.

A plain write survives the death of the process; only a synced write survives a power cut. A failed sync is not repeated
on that file: the kernel may have dropped the data. The records since the last successful sync are written again, into a
new segment, which replaces them once it is whole and on the disk.
"""

from __future__ import annotations

import errno
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from unbounded.core.block import Offset
from unbounded.core.locked import locked
from unbounded.core.node import DataLoss
from unbounded.core.runtime import Runtime
from unbounded.sources.log_chain import LogChain
from unbounded.sources.log_recovery import recover, segment_path
from unbounded.sources.log_segment import (
    HEAD_BYTES,
    LogSegment,
    Record,
    RecordEdge,
    encode,
    encode_gap,
    size_of,
    write,
)
from unbounded.store.lock import Lock

_log = logging.getLogger("unbounded")
SEGMENT = 1 << 26  # bytes after which a new segment begins
SEGMENTS = 8  # the least number of segments of a log with a bound: only whole segments are removed
_GAP_BYTES = 400  # the size of a file with a gap, roughly


class Full(OSError):
    """The log has reached its size limit."""

    def __init__(self, where: str, most: int) -> None:
        super().__init__(errno.EDQUOT, f"the log has the {most:,} bytes that max_bytes allows", where)


class RecordLog:
    """A directory of segments. One thread appends; any thread reads, releases and syncs meanwhile.

    Args:
        directory: for this log alone.
        runtime: files, locks and ids.
        segment_bytes: the size of a segment.
        max_bytes: the limit for all segments together.

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
        # Locks, taken in this order: none is taken while one below it is held.
        self._syncing = runtime.lock()  # held during a sync
        self._writing = (
            runtime.lock()
        )  # held during a write: by the thread that appends, or by a sync that writes again
        self.reading = runtime.lock()  # held while records are read, and while files that can be read are closed
        self._lock = runtime.lock()  # guards what threads share; not held while files are read or written
        self._chain = LogChain(files, self._lock)
        self._stale: list[Path] = []  # files whose records have been written again
        self._new_names = False  # the directory is to be synced
        self._refused = False  # a sync failed: what is not synced must be written again
        self._torn = False  # the last segment ends with bytes that could not be cut off
        self._let_go = Offset(0)  # nothing before it is needed again
        self._is_closed = False
        self.before_segment: Callable[[], None] | None = None
        """Called before a segment gets its name: writes again what records need, if the directory was removed."""
        files.make_directory(directory)
        self._held: Lock | None = Lock.of(directory, self, runtime)
        key = str(files.resolve(directory))
        before, self._open[key] = self._open.get(key), self
        try:
            if before is not None:
                before.close()  # of a feed that was not closed
            found = recover(files, directory, self._chain)
        except BaseException:
            self.close()
            raise
        self.id = found.log or self.id
        self._generation = found.generation
        self._synced = found.synced
        self._refused = not found.renewed
        self._new_names = found.log is not None
        self.last: Record | None = found.last
        """The newest record when the log was opened."""

    @classmethod
    def is_written_here(cls, directory: Path, runtime: Runtime) -> bool:
        """True if a log of this process writes to a directory."""
        log = cls._open.get(str(runtime.files.resolve(directory)))
        return log is not None and not log._is_closed

    def limit(self, max_bytes: int | None) -> None:
        """Set the limit for all segments together; None for no limit."""
        self._max_bytes = max_bytes
        if max_bytes is not None:
            self._segment_bytes = min(self._segment_bytes, max_bytes // SEGMENTS)

    @property
    def is_closed(self) -> bool:
        """True after `close`, also by another log of this directory."""
        return self._is_closed

    @property
    def start(self) -> Offset:
        """Where the oldest record begins."""
        return self._chain.start

    @property
    def stop(self) -> Offset:
        """Where the newest record ends."""
        return self._chain.tail.at

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return self._chain.size

    @property
    def synced(self) -> Offset:
        """The offset up to which a power cut loses nothing."""
        return self._synced.at

    # -- reading -------------------------------------------------------------------------------------------------------

    def records(self, at: Offset) -> Iterator[Record]:
        """The records that end after `at`, in order, up to the newest at the time of the call. The caller holds
        `reading` until it has used them.

        Raises:
            DataLoss: a record is damaged or missing.
        """
        found = self._find(at)
        if found is None:
            return
        for record, place in self._chain.walk(*found):
            if record.end > at:
                self._chain.last_read = place
                yield record

    @locked
    def _find(self, at: Offset) -> tuple[LogSegment, RecordEdge, int] | None:
        self.check_open()
        return self._chain.find(at)

    def check_open(self) -> None:
        """Raise OSError if the log is closed, for example by another feed of this process that continues it."""
        if self._is_closed:
            raise OSError(errno.EBUSY, "it was closed, or another feed of this process goes on with it", self.where)

    # -- writing -------------------------------------------------------------------------------------------------------

    def begin_at(self, at: Offset) -> None:
        """Begin an empty log at an offset other than 0."""
        with self._writing:
            self._chain.tail = self._synced = RecordEdge(at, 0, 0, 0)
            self._new_segment()

    def append(
        self, rows: int, seams: int, meta: bytes, parts: Sequence[bytes | memoryview], *, beyond: bool = False
    ) -> None:
        """Append a record: `rows` rows, and `seams` boundaries after the last of them. With `beyond`, it may exceed the
        limit.

        Raises:
            Full: the log has reached its limit.
            OSError: it could not be written. Nothing of it is in the log.
        """
        with self._writing:
            self.check_open()
            if self._max_bytes is not None:
                self._make_room(0 if beyond else size_of(meta, parts), self._max_bytes)
            self._roll()
            self._write(*encode(self._chain.tail, rows, seams, meta, parts))

    def _write(self, record: list[Any], after: RecordEdge) -> None:
        segment = self._chain.segments[-1]
        try:
            write(self._files, segment.open_again(self._files), record)
        except BaseException:
            self._cut_off(segment)
            raise
        self._move_tail(segment, after)

    def skip(self, rows: int, meta: bytes) -> None:
        """Append a gap, which stands for `rows` dropped rows.

        Raises:
            OSError: it could not be written. Nothing of it is in the log.
        """
        with self._writing:
            self.check_open()
            self._roll()
            at, _, crc, number = self._chain.tail
            to = RecordEdge(Offset(at.rows + rows), 0, crc, number + 1)
            self._write(*encode_gap(self._chain.tail, to, number + 1, meta))
            self._chain.segments[-1].skipped += rows

    def drop(self, since: Offset, size: int, meta: Callable[[int], bytes]) -> int:
        """Drop the oldest records from `since` on, in whole segments, to make room for `size` more bytes. A gap with
        the metadata `meta(rows)` replaces them; it is on the disk before they are removed.

        Returns:
            The number of dropped rows; 0 if there would be no room even so: then nothing was dropped.

        Raises:
            OSError: it could not be written, and nothing was dropped.
        """
        with self._syncing, self._writing, self.reading:
            self.check_open()
            return 0 if self._max_bytes is None else self._drop(since, self.size + size - self._max_bytes, meta)

    def _drop(self, since: Offset, need: int, meta: Callable[[int], bytes]) -> int:
        chain = self._chain
        found = chain.droppable(since, need + _GAP_BYTES)
        if found is None:
            return 0
        first, last = found
        replaced = chain.segments[first:last]
        begin, end, rows = chain.stretch(first, last)
        path = segment_path(self.directory, begin.number, self._generation, end.number)
        gap, _ = encode_gap(begin, end, chain.tail.number, meta(rows))
        segment = self._make(path, begin, self._synced.number, gap)
        segment.is_gap, segment.skipped = True, end.at.rows - begin.at.rows
        self._put_gap(segment, first, last)
        self._stale += [each.path for each in replaced]
        with suppress(OSError):  # the gap is in place; what could not be removed is removed later
            self._remove_stale()
        chain.close_idle()
        return rows

    @locked
    def _put_gap(self, segment: LogSegment, first: int, last: int) -> None:
        self._chain.put_gap(segment, first, last)
        self._torn, self._new_names = self._torn and last < len(self._chain.segments), True

    def _make_room(self, size: int, most: int) -> None:
        size += HEAD_BYTES if self._rolls() and size else 0
        # An empty log accepts any record, however large: otherwise reading would never continue.
        if self.size + size > most and self.stop > self.start:
            if self._let_go < self.stop:
                raise Full(self.where, most)
            self._new_segment()
            self.release(self._let_go)

    def _rolls(self) -> bool:
        """True if the next record begins a new segment."""
        last = self._chain.segments[-1] if self._chain.segments else None
        return last is None or last.is_gap or self._torn or last.size >= self._segment_bytes

    def _roll(self) -> None:
        if self._rolls():
            self._new_segment()

    def _cut_off(self, segment: LogSegment) -> None:
        """Remove a partly written record; if that fails, the next record begins a new segment."""
        try:
            self._files.truncate(segment.open_again(self._files), segment.size)
        except OSError:
            self._torn = True

    @locked
    def _move_tail(self, segment: LogSegment, tail: RecordEdge) -> None:
        self._chain.tail = tail
        segment.size = tail.byte
        segment.note(tail)

    def _new_segment(self) -> None:
        self._files.make_directory(self.directory)
        tail = self._chain.tail
        path = segment_path(self.directory, tail.number, self._generation)
        segment = self._make(path, tail, self._synced.number)
        # It replaces a segment without records, if bytes at its end could not be cut off.
        self._take_up(segment, [each for each in self._chain.segments[-1:] if each.path == path])

    def _make(self, path: Path, tail: RecordEdge, synced: int, records: Iterable[Any] | None = None) -> LogSegment:
        """Make a segment under another name, and rename it when it is whole."""
        unfinished = path.with_name(path.name + ".new")
        try:
            segment = LogSegment.create(self._files, unfinished, self.id, tail, synced)
            try:
                if records is not None:
                    fd = segment.open_again(self._files)
                    for record in records:
                        write(self._files, fd, [record])
                        segment.size += len(record)
                    self._files.fsync(fd)
                # Now: should the directory be removed from here on, the file is gone with it, and can't be renamed.
                if self.before_segment is not None:
                    self.before_segment()
                self._files.rename(unfinished, path)
            except BaseException:
                segment.close(self._files)
                raise
        except BaseException:
            with suppress(OSError):
                self._files.unlink(unfinished)
            raise
        segment.path = path
        return segment

    @locked
    def _take_up(self, segment: LogSegment, replaced: Sequence[LogSegment]) -> None:
        self._chain.add(segment, replaced)
        self._torn, self._new_names = False, True

    # -- the disk ------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Sync: when it returns, what was appended before the call survives a power cut. If the directory was removed
        meanwhile, the records in open files are written again.

        Raises:
            OSError: the sync failed, and so did writing the records to a new segment.
            DataLoss: the sync failed, and the records can't be read back.
        """
        with self._syncing:
            self._sync()
        self._close_idle()

    def _sync(self) -> None:
        self.check_open()
        if not self._chain.segments:
            return
        if self._was_removed():
            with self.reading: self._keep_open()  # fmt: skip  # noqa: E701 - see `locked`
        tail, segments, names = self._to_sync()
        if tail == self._synced and not names and not self._refused:
            return
        if not self._refused:
            try:
                for segment in segments:
                    self._files.fsync(segment.open_again(self._files))
                if names:
                    self._files.sync_directory(self.directory)
                self.check_open()  # after a close, a descriptor may belong to another file
                self._done(tail, segments)
                return
            except OSError:
                self.check_open()
                self._refused = True
        with self._writing, self.reading:
            self._write_again()

    def _was_removed(self) -> bool:
        # Seen by the lock file: new segments of a directory that was made again do not show it.
        last = self._chain.segments[-1]
        return self._held is None or not self._held.holds() or not self._files.exists(last.path)

    @locked
    def _keep_open(self) -> None:
        """After the directory was removed: forget the closed files, and mark the open ones to be written again."""
        lost = self._chain.forget_closed()
        if lost:
            _log.warning(
                "%s was removed while it was in use, and with it %s rows that no open file has. The log begins with "
                "row %s now.",
                self.where,
                f"{lost:,}",
                f"{self.start.rows:,}",
            )
        self._synced, self._refused = self._chain.segments[0].begin, True

    @locked
    def _to_sync(self) -> tuple[RecordEdge, list[LogSegment], bool]:
        names, self._new_names = self._new_names, False
        return self._chain.tail, [*self._chain.unsynced, *self._chain.segments[-1:]], names

    @locked
    def _done(self, tail: RecordEdge, segments: Sequence[LogSegment]) -> None:
        """Segments were synced up to `tail`, the end of the log at that time, in the last of them."""
        self._synced = tail
        grown = segments[-1] if segments[-1].size > tail.byte else None
        unsynced = self._chain.unsynced
        self._chain.unsynced = [each for each in unsynced if each not in segments or each is grown]

    def _write_again(self) -> None:
        """Write the records that may not be on the disk to a segment of a new generation, which is synced before it
        replaces the old ones."""
        self.check_open()
        if self._held is None or not self._held.holds():
            self._files.make_directory(self.directory)
            self._held = Lock.of(self.directory, self, self._runtime)
        chain, generation = self._chain, self._generation + 1
        first, synced = chain.since(self._synced)
        path = segment_path(self.directory, synced.number, generation)
        skipped = 0

        def records() -> Iterator[memoryview]:
            nonlocal skipped
            for record, _ in chain.walk(first, synced, chain.tail.number):
                skipped += record.end.rows - record.first.rows if record.is_gap else 0
                yield record.whole

        try:
            segment = self._make(path, synced, synced.number, records())
        except DataLoss as loss:
            raise DataLoss(
                f"The disk can't sync {self.where}, and records that were written there can't be read back. {loss}"
            ) from loss
        segment.skipped = skipped
        # From here on the next process reads this segment, even if the sync of the directory fails.
        self._replace(segment, [each for each in chain.segments if each.begin.number >= synced.number], generation)
        self._files.sync_directory(self.directory)
        self._synced, self._refused, self._new_names = chain.tail, False, False
        self._remove_stale()

    def _remove_stale(self) -> None:
        """Remove the replaced files. Done before the files that replaced them are removed: otherwise the next process
        would read the old ones."""
        if self._stale:
            self._files.sync_directory(self.directory)  # the name of the file that replaced them
        for path in list(self._stale):
            self._files.remove(path)
            with suppress(ValueError):  # a sync and a release may run at the same time
                self._stale.remove(path)

    @locked
    def _replace(self, segment: LogSegment, replaced: Sequence[LogSegment], generation: int) -> None:
        self._stale += [each.path for each in replaced]
        self._chain.replace(segment, replaced)
        self._generation = generation
        self._torn, self._new_names = False, True

    def release(self, at: Offset) -> None:
        """Remove the segments that end before `at`. Nothing of a closed log is removed: its files may belong to
        another log, which needs earlier records."""
        more = True
        while more:
            # Under the lock: a sync that writes again reads all segments, and the log may be closed meanwhile.
            with self.reading: more = not self._is_closed and self._release(at)  # fmt: skip  # noqa: E701 - see `locked`
        self._close_idle()

    def _release(self, at: Offset) -> bool:
        """Remove the oldest segment if it ends before `at`. If it can't be removed, later ones are kept: the next
        process would take a missing segment for lost data."""
        self._remove_stale()
        segment = self._released(at)
        if segment is not None:
            self._files.remove(segment.path)
            self._forget(segment)
        return segment is not None

    @locked
    def _released(self, at: Offset) -> LogSegment | None:
        """The oldest segment, if it ends before `at` and does not have the newest record, which has the counts of all
        rows before it."""
        self._let_go = max(self._let_go, at)
        if len(self._chain.segments) < 2:
            return None
        oldest, following = self._chain.segments[:2]
        return oldest if following.begin.at <= at and following.begin.number < self._chain.tail.number else None

    @locked
    def _forget(self, segment: LogSegment) -> None:
        self._chain.forget(segment)

    def _close_idle(self) -> None:
        with self.reading: self._chain.close_idle()  # fmt: skip  # noqa: E701 - see `locked`

    def close(self) -> None:
        """Close the files and release the lock. What was appended stays in the files."""
        with self._writing, self.reading:
            if self._is_closed:
                return
            self._is_closed = True
            self._chain.close()
        held, self._held = self._held, None
        if held is not None:
            held.let_go(self)
