"""The segments of a log, one after the other: which of them holds a place, and the records across their edges.

A file is open while it is written or not synced, and so are a few of those that were read last. The others are opened
when they are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from unbounded.core.block import Offset
from unbounded.core.files import Files
from unbounded.core.locked import locked
from unbounded.core.node import DataLoss
from unbounded.sources.log_segment import LogSegment, Record, RecordEdge

BEGIN = RecordEdge(Offset(0), 0, 0, 0)
_MOST_OPEN = 8  # files that are neither written nor waiting for a sync


class LogChain:
    """The segments of one log. `lock` guards the list and the tail; methods are called with it held, unless they say
    otherwise.

    Args:
        files: what the segments are read with.
        lock: the log's; not held while files are read.
    """

    def __init__(self, files: Files, lock: Any) -> None:
        self._files = files
        self._lock = lock
        self.segments: list[LogSegment] = []
        self.tail = BEGIN
        """After the last record."""
        self.unsynced: list[LogSegment] = []
        """Those before the last one."""
        self.gone: list[LogSegment] = []
        """Those that are removed, and closed when no sync can be at work on them."""
        self.last_read: tuple[LogSegment, RecordEdge] | None = None
        self._idle: list[LogSegment] = []  # open, and closed when many others were read since; guarded by `reading`

    @property
    def start(self) -> Offset:
        """Where the oldest record begins."""
        return self.segments[0].begin.at if self.segments else self.tail.at

    @property
    def size(self) -> int:
        """In bytes, of all files."""
        return sum(segment.size for segment in self.segments)

    # -- reading -------------------------------------------------------------------------------------------------------

    def find(self, at: Offset) -> tuple[LogSegment, RecordEdge, int] | None:
        """The segment to begin to read in, a place there at or before `at`, and the number of records in all."""
        if at >= self.tail.at or not self.segments:
            return None
        stop = self.tail.number
        if self.last_read is not None and self.last_read[1].at == at and self.last_read[0] in self.segments:
            return (*self.last_read, stop)
        segment = self.segments[max(0, bisect_right(self.segments, at, key=lambda each: each.begin.at) - 1)]
        return segment, segment.index[max(0, bisect_right(segment.index, at, key=lambda place: place.at) - 1)], stop

    def since(self, place: RecordEdge) -> tuple[LogSegment, RecordEdge]:
        """The segment that holds a place, and the place as one of that segment."""
        segment = self.segments[bisect_right(self.segments, place.number, key=lambda each: each.begin.number) - 1]
        return segment, segment.begin if segment.begin.number == place.number else place

    def walk(
        self, segment: LogSegment, place: RecordEdge, stop: int
    ) -> Iterator[tuple[Record, tuple[LogSegment, RecordEdge]]]:
        """The records from a place up to number `stop`, each with the place after it. With `reading` held, not `lock`.

        Raises:
            DataLoss: a record that was there is torn, changed or missing.
        """
        while True:
            following = self._following(segment)
            until = stop if following is None else min(stop, following.begin.number)
            for record, after in segment.records(self._files, self._opened(segment), place, until):
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
    def _following(self, segment: LogSegment) -> LogSegment | None:
        i = self.segments.index(segment) + 1
        return self.segments[i] if i < len(self.segments) else None

    # -- open files ----------------------------------------------------------------------------------------------------

    def _opened(self, segment: LogSegment) -> int:
        """The file of a segment that is to be read; with `reading` held."""
        was_open = segment.fd is not None
        try:
            fd = segment.open_again(self._files)
        except FileNotFoundError as error:
            raise DataLoss(
                f"{segment.path} is missing: it was removed while the log was in use. Put back a copy of the run's "
                "directory, or begin a new run in another."
            ) from error
        if not was_open or segment in self._idle:
            with suppress(ValueError):
                self._idle.remove(segment)
            self._rest([segment])  # as the last to be closed
        return fd

    def close_idle(self) -> None:
        """Close the files of what is gone, and of what needs none; with `reading` held, not `lock`."""
        gone, synced = self._closable()
        for segment in gone:
            self._close(segment)
        self._rest(synced)

    @locked
    def _closable(self) -> tuple[list[LogSegment], list[LogSegment]]:
        gone = [each for each in self.gone if each not in self.unsynced]
        self.gone = [each for each in self.gone if each in self.unsynced]
        busy = {*self.unsynced, *self.segments[-1:], *self._idle}
        return gone, [each for each in self.segments if each.fd is not None and each not in busy]

    def _rest(self, segments: Sequence[LogSegment]) -> None:
        self._idle += segments
        for segment in self._idle[:-_MOST_OPEN]:
            self._close(segment)

    def _close(self, segment: LogSegment) -> None:
        with suppress(ValueError):
            self._idle.remove(segment)
        segment.close(self._files)

    def close(self) -> None:
        """Close all files; with `reading` held."""
        for segment in (*self.segments, *self.gone):
            self._close(segment)

    # -- writing -------------------------------------------------------------------------------------------------------

    def add(self, segment: LogSegment, replaced: Sequence[LogSegment]) -> None:
        """A new last segment, which may take the place of another that has no records."""
        for each in replaced:
            self.segments.remove(each)
            self.gone.append(each)
        self.unsynced += [*replaced, *self.segments[-1:]]
        self.segments.append(segment)
        self.tail = segment.begin

    def replace(self, segment: LogSegment, replaced: Sequence[LogSegment]) -> None:
        """A last segment that has the records of all that it takes the place of, and is synced."""
        self.gone += replaced
        self.segments = [*(each for each in self.segments if each not in replaced), segment]
        self.unsynced = []
        self.tail = RecordEdge(self.tail.at, segment.size, self.tail.crc, self.tail.number)
        self.last_read = None

    def forget(self, segment: LogSegment) -> None:
        """The oldest segment was removed, unless a sync has written it again meanwhile."""
        if self.segments[0] is segment:
            self.gone.append(self.segments.pop(0))

    def forget_closed(self) -> int:
        """Let go of what lies before the segments that are open, up to the last; gives how many rows that were. With
        `reading` held as well."""
        first = max((i for i, each in enumerate(self.segments, 1) if each.fd is None), default=0)
        before = self.start.rows
        self.gone += self.segments[:first]
        del self.segments[:first]
        return self.start.rows - before
