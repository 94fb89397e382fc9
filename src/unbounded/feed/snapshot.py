"""A feed's part of the checkpoints in a directory: cut in the thread that trains, written in another, and read back.

It is the position, as plain data, and the pages of keyed stages, of which those are written that no checkpoint has yet.
The rows of a source that can't go back are in their log, which lies in one directory; a checkpoint in any other carries
those that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbounded.core.block import Offset
from unbounded.core.cursor import from_plain, input_cursors, leaf_cursors
from unbounded.core.node import Cursor, DataLoss
from unbounded.core.pages import write_pages
from unbounded.core.trees import Tree
from unbounded.feed.run_logs import RunLogs
from unbounded.sources.log_dump import dump_rows, load_rows
from unbounded.sources.logged import Logged
from unbounded.store.checkpoints import Checkpoints, Saved, Segment

if TYPE_CHECKING:
    from unbounded.feed.feed import Feed

States = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Finds a feed's state in what a checkpoint's manifest says."""


class Keeper:
    """The feed's part of one directory's checkpoints.

    Args:
        feed: what is saved.
        directory: where its logs are to lie, unless they lie elsewhere already.
        name: tells the feed from others that are saved there.
        find: finds this feed's state in a manifest's plain data.
    """

    def __init__(self, feed: Feed, directory: Path, *, name: str, find: States) -> None:
        self._feed = feed
        self._find = find
        self._logs = RunLogs(feed, directory, name)
        self.pages: list[Segment] = []
        """The pages of keyed stages that are on the disk: those of the newest checkpoint."""
        self._loaded: Saved | None = None  # what the run goes on from, until it is saved again

    def begin(self) -> None:
        """A run begins here that has no checkpoint yet: with the first row that was ever read of each source, where a
        process that was killed had begun to read.

        Raises:
            OSError: the logs can't be opened.
        """
        self._logs.begin()

    def cut(self) -> Snapshot:
        """The feed's part of a checkpoint of this moment. In the thread that trains."""
        self._logs.attach()
        return Snapshot(self, self._feed, self._logs)

    def take_up(self, store: Checkpoints) -> None:
        """What is written from now on is of this run."""
        if self._loaded is not None:
            store.resume(self._loaded)
            self._loaded = None
        elif store.run is None:
            store.run = self._feed.runtime.unique()  # a run begins, and the directory had better be its own

    def load(self, state: Mapping[str, Any], saved: Saved, store: Checkpoints, *, accept_changes: bool = False) -> None:
        """Go to where the state was saved.

        Raises:
            ValueError: it is of another stream.
            DataLoss: rows that it needs are not in the logs.
        """
        rows = {name: saved.read_segment(segment) for name, segment in state["carried"].items()}
        if not rows:
            self._logs.attach(loading=True)
            check_logs(self._feed, state.get("logs", {}))
        self._feed.restore_state(state, rows, load_page=saved.read_segment, accept_changes=accept_changes)
        self._logs.attach()
        self._loaded = saved
        self.pages = list(saved.segments)
        # Older checkpoints that are kept need older rows: nothing that one of them needs may go.
        kept = [(one.number, self._find(one.info)) for one in store.all() if one.run == saved.run]
        needed = [input_cursors(from_plain(state["position"]))[0] for _, state in kept if state is not None]
        self._feed.hold(needed)


class Snapshot:
    """A feed's part of one checkpoint: cut in the thread that trains, written in whichever writes the checkpoint."""

    def __init__(self, keeper: Keeper, feed: Feed, logs: RunLogs) -> None:
        self._keeper = keeper
        self._feed = feed
        feed.hold()  # until it is on the disk, and training goes on meanwhile
        self._needed = feed.needed()
        self._synced = logs.here()
        self._carried = {
            name: (node, cursor) for name, node, cursor in logged(feed, self._needed) if node.log not in self._synced
        }
        self._pages: dict[str, Tree] = {}
        self.info: dict[str, Any] = {**feed.plain_state(self._pages), "carried": {}, "logs": logs_of(feed)}
        """Plain data for the manifest; whole once `write` has returned."""

    def write(self, store: Checkpoints) -> list[Segment]:
        """Write what the checkpoint refers to, before its own files; gives the segments."""
        self._keeper.take_up(store)
        for log in self._synced:
            log.sync()
        self._keeper.pages = write_pages(store, self._pages, self._keeper.pages)
        segments = list(self._keeper.pages)
        for name, (node, cursor) in self._carried.items():
            segment = store.add_segment(f"rows-{name.replace('/', '.')}", dump_rows(node, cursor))
            self.info["carried"][name] = segment.name
            segments.append(segment)
        return segments

    def posted(self, keep: int) -> None:
        """The checkpoint is on the disk: the sources may forget what no kept one needs."""
        self._feed.post(self._needed, keep)


def logged(feed: Feed, cursor: Cursor) -> Iterator[tuple[str, Logged, Cursor]]:
    """The feed's sources that have a row log: name, node, and what of it a cursor needs."""
    leaves = dict(zip(feed.opened.names, leaf_cursors(cursor), strict=True))
    for name, node in feed.opened.logged():
        yield name, node, leaves[name]


def logs_of(feed: Feed) -> dict[str, Any]:
    """By source, which row log has its rows, and where it ends: that is on the disk when the checkpoint is."""
    return {name: {"id": node.log.id, "stop": list(node.log.stop)} for name, node in feed.opened.logged()}


def check_logs(feed: Feed, logs: Mapping[str, Any]) -> None:
    """Raise DataLoss where a source has another log than the one that a position was saved with, or only a part."""
    for name, node in feed.opened.logged():
        log, saved = node.log, logs.get(name)
        if saved is None:
            continue
        back = "Put the run's directory back as it was, with its log; or begin a new run in another directory."
        stop = Offset(*saved["stop"])
        if log.stop < stop:
            raise DataLoss(
                f"The checkpoint was saved when {stop.rows:,} rows of {node.name} were in the row log, and the log in "
                f"{log.where} has rows {log.start.rows:,} to {log.stop.rows:,}. The source can't go back. {back}"
            )
        if stop == Offset(0) and log.start == stop:
            continue  # it was empty, and a log has its id from its first row on: the next process has given it another
        if log.id != saved["id"] and log.stop > Offset(0):
            raise DataLoss(f"The row log in {log.where} is another run's than the checkpoint's. {back}")


def rows_of(feed: Feed) -> dict[str, Any]:
    """By source, the rows that were read and not trained on, of those that can't go back."""
    return {name: dump_rows(node, cursor) for name, node, cursor in logged(feed, feed.needed())}


def put_rows(feed: Feed, rows: Mapping[str, Any]) -> None:
    """Give sources that can't go back the rows that were saved with a position."""
    for name, node in feed.opened.logged():
        if name in rows:
            load_rows(node, rows[name], feed.runtime)
