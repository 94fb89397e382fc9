"""Snapshot and Keeper: a feed's part of a checkpoint: cut in the training thread, written in another, and read back.

It consists of the position, as plain data, and of the pages of keyed stages that no checkpoint on the disk has yet. The
rows of a source that can't seek are in their log, and the decisions that depended on arrival in the arrival log, in one
directory; a checkpoint in another directory contains what it needs of both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbounded.core.block import Offset
from unbounded.core.cursor import from_plain, input_cursors, leaf_cursors
from unbounded.core.node import Cursor, DataLoss
from unbounded.core.pages import write_pages
from unbounded.core.trees import Tree
from unbounded.feed.releases import KeptCheckpoint
from unbounded.feed.run_logs import RunLogs
from unbounded.sources.arrival_file import ArrivalFile
from unbounded.sources.log_dump import dump_rows, load_rows
from unbounded.sources.logged import Logged
from unbounded.sources.row_log import RowLog
from unbounded.store.checkpoints import CheckpointError, Checkpoints, Saved, Segment

if TYPE_CHECKING:
    from unbounded.feed.feed import Feed

States = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Returns a feed's state from the plain data of a checkpoint's manifest."""


class Keeper:
    """The feed's part of one directory's checkpoints.

    Args:
        feed: the feed to save.
        directory: where its logs go, unless they are elsewhere already.
        name: distinguishes feeds that are saved in the directory.
        find: returns this feed's state from a manifest's plain data.
    """

    def __init__(self, feed: Feed, directory: Path, *, name: str, find: States) -> None:
        self._feed = feed
        self.directory = str(directory)
        """The directory of its logs."""
        self._find = find
        self._logs = RunLogs(feed, directory, name)
        self.pages: list[Segment] = []
        """The segments with pages of keyed stages that are on the disk: those of the newest checkpoint."""
        self._loaded: Saved | None = None  # the checkpoint that the run resumed, until the next save

    def begin(self) -> None:
        """Begin a run that has no checkpoint here: with the first row ever read of each source, if a killed process had
        begun to read.

        Raises:
            OSError: the logs can't be opened.
        """
        self._logs.begin()
        self._feed.releases.begin(self.directory, self._feed.needed())

    def cut(self) -> Snapshot:
        """The feed's part of a checkpoint of this moment. Called in the training thread."""
        self._logs.attach()
        return Snapshot(self, self._feed, self._logs)

    def take_up(self, store: Checkpoints) -> None:
        """All writes from now on belong to this run."""
        if self._loaded is not None:
            store.resume(self._loaded)
            self._loaded = None
        elif store.run is None:
            store.run = self._feed.runtime.unique()  # a new run; writes are refused if the directory is another run's

    def load(self, state: Mapping[str, Any], saved: Saved, store: Checkpoints, *, accept_changes: bool = False) -> None:
        """Restore the feed to a saved state.

        Raises:
            ValueError: it belongs to another stream.
            DataLoss: rows that it needs are not in the logs.
        """
        rows = {name: saved.read_segment(segment) for name, segment in state["carried"].items()}
        if not rows:
            self._logs.attach(loading=True)
            check_logs(self._feed, state.get("logs", {}))
        with self._logs.arrivals.decided(state["arrivals"]) as decided:
            self._feed.restore_state(
                state, rows, decided=decided, load_page=saved.read_segment, accept_changes=accept_changes
            )
        checksums = {segment.name: segment.sha256 for segment in saved.segments}
        self._logs.attach(carried={name: checksums[segment] for name, segment in state["carried"].items()})
        self._loaded = saved
        self.pages = list(saved.segments)
        # Older checkpoints that are kept need older rows: hold what they need. One that is newer was damaged, or this
        # one would not have been loaded: it is not one of those that are kept.
        older = itertools.takewhile(lambda one: one.name != saved.name, store.all())
        kept: dict[int, KeptCheckpoint] = {}
        for one in (*older, saved):
            found = self._find(one.info) if one.run == saved.run else None
            if found is not None:
                kept.pop(one.number, None)  # a step that was saved again is as old as its last checkpoint
                (needed,) = input_cursors(from_plain(found["position"]))
                kept[one.number] = KeptCheckpoint(needed, self.has_rows(found))
        self._feed.releases.hold(self.directory, kept)

    def has_rows(self, info: Mapping[str, Any]) -> bool:
        """Whether a checkpoint has itself what the logs of a run have, which lie elsewhere."""
        decides = self._feed.opened.arrivals.is_used
        return bool(info["carried"]) or (decides and "stop" not in info["arrivals"])


class Snapshot:
    """A feed's part of one checkpoint: cut in the training thread, written in the thread that writes the checkpoint."""

    def __init__(self, keeper: Keeper, feed: Feed, logs: RunLogs) -> None:
        self._keeper = keeper
        self._feed = feed
        feed.releases.hold()  # training goes on while it is written
        self._needed = feed.needed()
        self._synced: list[RowLog | ArrivalFile] = [*logs.here(), *logs.arrivals.here()]
        self._carried = {
            name: (node, cursor) for name, node, cursor in logged(feed, self._needed) if node.log not in self._synced
        }
        self._pages: dict[str, Tree] = {}
        self.info: dict[str, Any] = {
            **feed.plain_state(self._pages),
            "arrivals": logs.arrivals.saved(),
            "carried": {},
            "logs": logs_of(feed),
        }
        """Plain data for the manifest; complete once `write` has returned."""

    def write(self, store: Checkpoints) -> list[Segment]:
        """Write the files that the checkpoint refers to, before its own; return the segments."""
        self._keeper.take_up(store)
        for log in self._synced:
            try:
                log.sync()
            except OSError as error:
                raise CheckpointError(
                    f"Nothing was saved: the log in {log.where} can't be synced: {error.strerror or error}. The next "
                    "checkpoint syncs it again."
                ) from error
        self._keeper.pages = write_pages(store, self._pages, self._keeper.pages)
        segments = list(self._keeper.pages)
        for name, (node, cursor) in self._carried.items():
            segment = store.add_segment(f"rows-{name.replace('/', '.')}", dump_rows(node, cursor))
            self.info["carried"][name] = segment.name
            segments.append(segment)
        return segments

    def posted(self, number: int, there: Set[int] | None) -> None:
        """The checkpoint was written, and checkpoints of these numbers are in its directory; None if the write failed.
        The sources may forget what none of them needs."""
        kept = KeptCheckpoint(self._needed, self._keeper.has_rows(self.info))
        self._feed.releases.post(self._keeper.directory, number, kept, there)


def write_checkpoint(
    store: Checkpoints, number: int, state: Tree, info: Mapping[str, Any], snapshots: Sequence[Snapshot]
) -> Path | str:
    """Write a checkpoint of several feeds after their parts of it, and tell the feeds. See `Checkpoints.write`."""
    segments = [segment for snapshot in snapshots for segment in snapshot.write(store)]
    there: Set[int] | None = None
    try:
        path = store.write(number, state, info, segments=segments)
        there = store.numbers()
    finally:
        for snapshot in snapshots:
            snapshot.posted(number, there)
    return path


def logged(feed: Feed, cursor: Cursor) -> Iterator[tuple[str, Logged, Cursor]]:
    """The feed's sources that have a row log: name, node, and the part of `cursor` that belongs to it."""
    leaves = dict(zip(feed.opened.names, leaf_cursors(cursor), strict=True))
    for name, node in feed.opened.logged():
        yield name, node, leaves[name]


def logs_of(feed: Feed) -> dict[str, Any]:
    """For each source its row log and the log's end, which is on the disk when the checkpoint is."""
    return {name: {"id": node.log.id, "stop": list(node.log.stop)} for name, node in feed.opened.logged()}


def check_logs(feed: Feed, logs: Mapping[str, Any]) -> None:
    """Raise DataLoss if a source's log is not the one that a position was saved with, or lacks rows."""
    for name, node in feed.opened.logged():
        log, saved = node.log, logs.get(name)
        if saved is None:
            continue
        back = "Put the run's directory back as it was, with its log; or begin a new run in another directory."
        stop = Offset(*saved["stop"])
        if log.stop < stop:
            raise DataLoss(
                f"The checkpoint was saved when {stop.rows:,} rows of {node.name} were in the row log, and the log in "
                f"{log.where} has rows {log.start.rows:,} to {log.stop.rows:,}. The source can't seek. {back}"
            )
        if stop == Offset(0) and log.start == stop:
            continue  # it was empty, and a log has its id from its first row on: the next process has given it another
        if log.id != saved["id"] and log.stop > Offset(0):
            raise DataLoss(f"The row log in {log.where} is another run's than the checkpoint's. {back}")


def rows_of(feed: Feed) -> dict[str, Any]:
    """For each source that can't seek, the rows that were read and not trained on."""
    return {name: dump_rows(node, cursor) for name, node, cursor in logged(feed, feed.needed())}


def put_rows(feed: Feed, rows: Mapping[str, Any]) -> None:
    """Give sources that can't seek the rows from a saved state."""
    for name, node in feed.opened.logged():
        if name in rows:
            load_rows(node, rows[name], feed.runtime)
