"""LogChain: the segments of a log in order: finds the segment of a record, and walks over records across segments.

Files that are written, or wait for a sync, are open, and a few of those read last. The others are opened when they are
read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from unbounded.core.block import Offset
from unbounded.core.files import Files
from unbounded.core.locked import locked
from unbounded.core.node import DataLoss
from unbounded.sources.log_segment import LogSegment, Record, RecordEdge

BEGIN = RecordEdge(Offset(0), 0, 0, 0)
_MOST_OPEN = 8  # open files, besides those that are written or wait for a sync


class LogChain:
    """The segments of one log. `lock` guards the list and the tail; methods are called with it held, unless their
    docstring says otherwise.

    Args:
        files: for reading segments.
        lock: the log's; not held while files are read.
    """

    def __init__(self, files: Files, lock: Any) -> None:
        self._files = files
        self._lock = lock
        self.segments: list[LogSegment] = []
        self.tail = BEGIN
        """The end of the last record."""
        self.unsynced: list[LogSegment] = []
        """The segments, in order; the last one is written."""
        self.gone: list[LogSegment] = []
        """Removed segments, which are closed when no sync can be using them."""
        self.last_read: tuple[LogSegment, RecordEdge] | None = None
        self._idle: list[LogSegment] = []  # open files to close when many others were read since; guarded by `reading`

    @property
    def start(self) -> Offset:
        """The beginning of the oldest record."""
        return self.segments[0].begin.at if self.segments else self.tail.at

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(segment.size for segment in self.segments)

    # -- reading -------------------------------------------------------------------------------------------------------

    def find(self, at: Offset) -> tuple[LogSegment, RecordEdge, int] | None:
        """The segment in which to begin reading, a place in it at or before `at`, and the number of all records."""
        if at >= self.tail.at or not self.segments:
            return None
        stop = self.tail.number
        if self.last_read is not None and self.last_read[1].at == at and self.last_read[0] in self.segments:
            return (*self.last_read, stop)
        segment = self.segments[max(0, bisect_right(self.segments, at, key=lambda each: each.begin.at) - 1)]
        return segment, segment.index[max(0, bisect_right(segment.index, at, key=lambda place: place.at) - 1)], stop

    def since(self, place: RecordEdge) -> tuple[LogSegment, RecordEdge]:
        """The segment that holds a place, and the place as one of that segment; of a gap, its beginning."""
        i = bisect_right(self.segments, place.number, key=lambda each: each.begin.number) - 1
        segment = self.segments[max(0, i)]  # what came before was perhaps let go of meanwhile
        is_own = segment.begin.number < place.number and not segment.is_gap
        return segment, place if is_own else segment.begin

    def walk(
        self, segment: LogSegment, place: RecordEdge, stop: int
    ) -> Iterator[tuple[Record, tuple[LogSegment, RecordEdge]]]:
        """The records from a place up to number `stop`, each with the place after it. Called with `reading` held, not
        `lock`.

        Raises:
            DataLoss: a record is torn, changed or missing.
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
        """The open file of a segment; called with `reading` held."""
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
            self._rest([segment])  # the last in the order of closing
        return fd

    def close_idle(self) -> None:
        """Close files that are not needed; called with `reading` held, not `lock`."""
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
        """Close all files; called with `reading` held."""
        for segment in (*self.segments, *self.gone):
            self._close(segment)

    # -- writing -------------------------------------------------------------------------------------------------------

    def add(self, segment: LogSegment, replaced: Sequence[LogSegment]) -> None:
        """Add a new last segment, which may replace one without records."""
        for each in replaced:
            self.segments.remove(each)
            self.gone.append(each)
        self.unsynced += [*replaced, *self.segments[-1:]]
        self.segments.append(segment)
        self.tail = segment.begin

    def droppable(self, since: Offset, need: int) -> tuple[int, int] | None:
        """Which segments to drop to be rid of so many bytes: the oldest that begin at `since` or later; None where
        they are not enough."""
        first = last = bisect_left(self.segments, since, key=lambda each: each.begin.at)
        while need > 0 and last < len(self.segments):
            need -= 0 if self.segments[last].is_gap else self.segments[last].size
            last += 1
        return None if need > 0 or first == last else (first, last)

    def stretch(self, first: int, last: int) -> tuple[RecordEdge, RecordEdge, int]:
        """Where some segments begin and end, and how many rows they have that were not dropped before."""
        segments, following = self.segments[first:last], self.segments[last : last + 1]
        begin, end = segments[0].begin, following[0].begin if following else self.tail
        return begin, end, end.at.rows - begin.at.rows - sum(each.skipped for each in segments)

    def put_gap(self, segment: LogSegment, first: int, last: int) -> None:
        """A gap takes the place of some segments, and no sync is at work on them."""
        replaced = self.segments[first:last]
        self.gone += replaced
        self.unsynced = [each for each in self.unsynced if each not in replaced]
        if last == len(self.segments):
            self.tail = RecordEdge(self.tail.at, segment.size, self.tail.crc, self.tail.number)
        self.segments[first:last] = [segment]
        self.last_read = None

    def replace(self, segment: LogSegment, replaced: Sequence[LogSegment]) -> None:
        """Add a last segment that has the records of all that it replaces, and is synced."""
        self.gone += replaced
        self.segments = [*(each for each in self.segments if each not in replaced), segment]
        self.unsynced = []
        self.tail = RecordEdge(self.tail.at, segment.size, self.tail.crc, self.tail.number)
        self.last_read = None

    def forget(self, segment: LogSegment) -> None:
        """The oldest segment was removed, unless a sync has written it again since."""
        if self.segments[0] is segment:
            self.gone.append(self.segments.pop(0))

    def forget_closed(self) -> int:
        """Forget the segments before those that are open, up to the last; return the number of their rows. Called with
        `reading` held as well."""
        first = max((i for i, each in enumerate(self.segments, 1) if each.fd is None), default=0)
        before = self.start.rows
        self.gone += self.segments[:first]
        del self.segments[:first]
        return self.start.rows - before
