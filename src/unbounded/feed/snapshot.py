"""What of a feed goes into a checkpoint, and back: the position, and the rows of a source that can't go back.

Such rows are written in segments: files that are written once and that several checkpoints share. A segment
holds the rows that were read since the last one; small ones are written again together, so that there are
few.
"""

from __future__ import annotations

import os
import struct
import uuid
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbounded.core.cursor import from_plain, input_cursors, leaf_cursors, to_plain
from unbounded.core.node import Cursor, Node
from unbounded.core.runtime import SYSTEM
from unbounded.sources.live import Live
from unbounded.store.checkpoints import Checkpoints, Saved, Segment

if TYPE_CHECKING:
    from unbounded.feed.feed import Feed

_SETTLE = 0.5  # seconds
_SMALL = 1 << 18  # bytes: a segment smaller than this is written again with the next rows


def dump(sources: Sequence[Node], cursor: Cursor) -> list[Any]:
    """The rows that each source read and that were not trained on; None for one that can go back."""
    return [
        source.dump(leaf["row"], source.spool.stop.rows) if isinstance(source, Live) else None
        for source, leaf in zip(sources, leaf_cursors(cursor), strict=True)
    ]


def load(sources: Sequence[Node], dumps: Sequence[list[Mapping[str, Any]]]) -> None:
    """Give sources that can't go back the rows that were saved with a position."""
    for source, each in zip(sources, dumps, strict=False):
        if isinstance(source, Live):
            source.load(each)


class Keeper:
    """Writes a feed's part of each checkpoint, and reads it back. One for each feed and directory."""

    def __init__(self, feed: Feed, directory: Path, *, name: str = "feed") -> None:
        self._feed = feed
        self._name = name
        self._segments: list[tuple[int, int, int, Segment]] = []  # first row, one past the last, bytes, file
        self._counter = _Counter(directory / f"{name}.rows") if isinstance(self._source, Live) else None
        self._said = ""  # of a counter that could not be written
        self._watching = False
        self._loaded: Saved | None = None  # what the run goes on from, until it is saved again

    @property
    def _source(self) -> Node:
        sources = self._feed._opened.sources
        return next((source for source in sources if isinstance(source, Live)), sources[0])

    @property
    def is_live(self) -> bool:
        """Whether the source can't go back."""
        return isinstance(self._source, Live)

    def cut(self, *, last: bool = False) -> Snapshot:
        """The feed's part of a checkpoint of this moment. In the thread that trains.

        `last` says that the run is about to stop: what a source is in the middle of reading is then to come along, and
        it rests until `Feed.resume`.
        """
        source = self._source
        if isinstance(source, Live) and (last or self._feed.interrupted):
            source.settle(_SETTLE)
        return Snapshot(self, self._feed)

    def _write(self, store: Checkpoints, state: dict[str, Any], first: int, stop: int) -> list[Segment]:
        if self._loaded is not None:
            store.resume(self._loaded)
            self._loaded = None
        elif store.run is None:
            store.run = uuid.uuid4().hex  # a run begins, and the directory had better be its own
        source = self._source
        if isinstance(source, Live):
            store.prepare(writing=True)  # the rows' counter lies in the directory, and there may be no segment
            self._write_rows(store, source, first, stop)
            state["segments"] = [[low, high, size, segment.name] for low, high, size, segment in self._segments]
            # Boundaries after the last row; and where no row is left, the number of the next one.
            state["tail"] = to_plain(source.dump(stop, stop))
            self._watch(source)
        return [segment for *_, segment in self._segments]

    def _write_rows(self, store: Checkpoints, source: Live, first: int, stop: int) -> None:
        self._segments = [entry for entry in self._segments if entry[1] > first]
        if not all(store.has(segment) for *_, segment in self._segments):
            self._segments = []  # the directory was removed; the rows are still in memory, from `first` on
        start = max(first, self._segments[-1][1] if self._segments else 0)
        if start >= stop and self._segments:
            return
        while self._segments and self._segments[-1][2] < _SMALL and self._segments[-1][0] >= source.spool.start.rows:
            start = self._segments.pop()[0]
        rows = source.dump(start, stop)
        if rows["count"]:
            segment = store.add_segment(f"{self._name}-{start}-{stop}", rows)
            self._segments.append((start, stop, segment.size, segment))

    def _warn(self) -> None:
        problem = None if self._counter is None else self._counter.problem
        said, self._said = self._said, "" if problem is None else problem.strerror or str(problem)
        if self._said != said and self._said and self._counter is not None:
            warnings.warn(
                f"How many rows were read could not be noted in {self._counter.path}: {self._said}. Should the process "
                "be killed, those lost then would not all be counted.",
                stacklevel=3,
            )

    def load(self, state: Mapping[str, Any], saved: Saved, *, accept_changes: bool = False) -> None:
        """Go to where the state was saved."""
        source = self._source
        dumps = []
        if isinstance(source, Live):
            files = {segment.name: segment for segment in saved.segments}
            self._segments = [(low, high, size, files[name]) for low, high, size, name in state["segments"]]
            dumps = [saved.read_segment(name) for *_, name in state["segments"]]
            dumps.append(from_plain(state["tail"]))
        sources = self._feed._opened.sources
        self._feed._restore(state, [dumps if each is source else [] for each in sources], accept_changes=accept_changes)
        self._loaded = saved
        self.begin()

    def begin(self) -> None:
        """A run begins here, or goes on: count what a killed one had read, and keep count from now on."""
        source = self._source
        if isinstance(source, Live) and self._counter is not None:
            source.lost += max(0, self._counter.read() - source.spool.stop.rows - source.lost)
            self._watch(source)

    def _watch(self, source: Live) -> None:
        counter = self._counter
        assert counter is not None
        with source._state:  # the thread that reads notes rows under this lock: an older count must not follow a newer
            if not self._watching:
                self._watching, others = True, source.on_rows  # those of other directories

                def note(rows: int) -> None:
                    if others is not None:
                        others(rows)
                    # With those lost before: killed again before it saves, a run must not forget them.
                    counter.write(rows + source.lost)

                source.on_rows = note
            counter.renew(source.spool.stop.rows + source.lost)


class Snapshot:
    """A feed's part of one checkpoint: cut in the thread that trains, written in whichever writes the checkpoint."""

    def __init__(self, keeper: Keeper, feed: Feed) -> None:
        self._keeper = keeper
        self._feed = feed
        feed.hold()  # until it is on the disk, and training goes on meanwhile
        (self._needed,) = input_cursors(feed._cursor())
        source = keeper._source
        leaf = leaf_cursors(self._needed)[feed._opened.sources.index(source)]
        self._first = leaf["row"] if isinstance(source, Live) else 0
        self._stop = source.spool.stop.rows if isinstance(source, Live) else 0
        self.info: dict[str, Any] = feed._state()
        """Plain data for the manifest; whole once `write` has returned."""

    def write(self, store: Checkpoints) -> list[Segment]:
        """Write what the checkpoint refers to, before its own files; gives the segments."""
        return self._keeper._write(store, self.info, self._first, self._stop)

    def posted(self, keep: int) -> None:
        """The checkpoint is on the disk: the sources may forget what no kept one needs.

        Warns:
            UserWarning: the number of rows read could not be noted beside it.
        """
        self._feed.post(self._needed, keep)
        self._keeper._warn()


class _Counter:
    """How many rows were read in all, in a file of eight bytes: what was written outlives a process that is killed.

    The thread that reads writes it. Where the disk refuses, reading goes on, and `problem` says so at the next save.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._close: Callable[[], object] = lambda: None
        self.problem: OSError | None = None

    def read(self) -> int:
        """What was last written; 0 where nothing was."""
        try:
            (rows,) = struct.unpack("<q", self.path.read_bytes())
        except (OSError, struct.error):
            return 0
        return int(rows)

    def write(self, rows: int) -> None:
        """Note a number of rows."""
        try:
            if self._fd is None:
                # Never emptied: a kill between that and the next line would forget all that was lost.
                self._fd = SYSTEM.files.open_write(self.path)
                self._close = weakref.finalize(self, os.close, self._fd)
            # Not through mapped memory: where a full disk has no page for it, that is SIGBUS and no error.
            SYSTEM.files.pwrite(self._fd, struct.pack("<q", rows), 0)
            self.problem = None
        except OSError as error:
            self.problem = error

    def renew(self, rows: int) -> None:
        """Note it again where the file was removed, or the disk refused."""
        try:
            there = self._fd is not None and os.stat(self.path).st_ino == os.fstat(self._fd).st_ino
        except OSError:
            there = False
        if not there:
            self._close()
            self._fd = None
        if not there or self.problem is not None:
            self.write(rows)
