"""RunLogs: a run's logs in its directory: opened with the run, moved there from memory, and set aside if another run's.

runs/first/log/feed/
  origin.json             each source's identity, its opening position, and its log
  source/                 the row log of a source that can't seek
  source/indexes/         of a source that can seek: what its reader can make again
  arrival_log/            the decisions that depended on arrival
"""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbounded.core.block import Offset
from unbounded.core.identity import comparable
from unbounded.core.node import Node, StreamError
from unbounded.feed.run_arrivals import RunArrivals, opened, refuse_taken, set_log_aside
from unbounded.sources.log_dump import refuse_moving
from unbounded.sources.logged import Logged
from unbounded.sources.replayed import Replayed
from unbounded.sources.row_log import RowLog
from unbounded.store.origin import SourceOrigin, read_origin, write_origin
from unbounded.waiting import LONG, waiting_sentence

if TYPE_CHECKING:
    from unbounded.feed.feed import Feed

_log = logging.getLogger("unbounded")


class RunLogs:
    """The logs of one feed in one directory.

    Args:
        feed: the feed whose sources have the logs.
        directory: the run's.
        name: distinguishes feeds that have logs in the directory.
    """

    def __init__(self, feed: Feed, directory: Path, name: str) -> None:
        self._feed = weakref.proxy(feed)
        self._runtime = feed.runtime
        self._run = directory
        self._directory = directory / "log" / name
        self._is_written = False  # the origin
        self.arrivals = RunArrivals(feed, self._directory, directory)
        """The part of them that has what was decided by what had arrived."""
        self._opened: dict[str, tuple[Logged, RowLog]] = {}  # by source, the logs to which nodes are to be moved

    def _nodes(self) -> Iterator[tuple[str, Node, Any]]:
        """Name, node and identity of each source that is read by a thread."""
        opened = self._feed.opened
        for name, node, identity in zip(
            opened.names, opened.sources, self._feed.stream.source_identities(), strict=True
        ):
            if not getattr(node, "is_inline", False):
                yield name, node, json.loads(json.dumps(comparable(identity)))

    def here(self) -> list[RowLog]:
        """The row logs in this directory."""
        return [log for _, node in self._feed.opened.logged() if (log := self._log_here(node)) is not None]

    def _log_here(self, node: Logged) -> RowLog | None:
        """A source's row log, if it is in this directory."""
        log = node.log
        return log if isinstance(log, RowLog) and Path(log.where).is_relative_to(self._directory) else None

    def begin(self) -> None:
        """Begin a run that has no checkpoint here: anew, or with the rows that a killed process had logged.

        Raises:
            CheckpointError: the logs can't be opened.
        """
        origins = self._sentence(lambda: read_origin(self._directory, self._runtime)) or {}
        goes_on: list[bool] = []
        for name, node, identity in self._nodes():
            origin = origins.get(name)
            if origin is not None and origin.identity != identity:
                self._set_aside(name, "another source's")
                origin = None
            goes_on.append(origin is not None)
            if not isinstance(node, Logged):
                self._keep(name, node)
                if origin is not None and not node.counts()["fetched"]:
                    node.restore({"position": origin.position, "row": 0, "missed": 0})
            elif not isinstance(node.log, RowLog):
                id_ = "" if origin is None or node.has_begun else origin.log
                self._sentence(lambda node=node, name=name, id_=id_: self._open(node, name, id_))
            if isinstance(node, Logged):
                log = self._opened[name][1] if name in self._opened else node.log
                goes_on.append(origin is not None and log.start == Offset(0))
        # Before anything is read. What was decided holds for the very rows for which it was.
        self.arrivals.begin(known=all(goes_on))
        for node, log in self._sentence(self._move_logs):
            if log.stop > Offset(0) and not node.has_read:
                _log.warning(
                    "The run in %s was ended before its first checkpoint. It begins again with the first row of %s; %s "
                    "rows of it are in the row log.",
                    self._run,
                    node.name,
                    f"{log.stop.rows - log.start.rows:,}",
                )

    def attach(self, *, loading: bool = False, carried: Mapping[str, str] | None = None) -> None:
        """Open the logs of a run that is saved, or gone on with.

        Args:
            loading: nothing was read yet, and the logs have all rows.
            carried: by source, the checksum of the rows that the checkpoint has, and the node in memory.

        Raises:
            CheckpointError: they can't be opened, or another feed of this process writes to them.
            StreamError: with `loading`, a source is being read already.
        """
        origins = self._sentence(lambda: read_origin(self._directory, self._runtime)) or {}
        for name, source, _ in self._nodes():
            self._keep(name, source)
        for name, node in self._feed.opened.logged():
            if isinstance(node.log, RowLog):
                continue
            if loading and node.has_read:
                refuse_moving()
            rows, origin = (carried or {}).get(name), origins.get(name)
            goes_on = rows is not None and origin is not None and origin.carried == rows and not node.has_read
            id_ = origin.log if goes_on and origin is not None else "" if node.has_begun else None
            self._sentence(lambda node=node, name=name, id_=id_: self._open(node, name, id_))
        if not loading:
            self.arrivals.attach()
        self._sentence(lambda: self._move_logs(carried or {}))

    def _keep(self, name: str, node: Node) -> None:
        """Give a source that can seek a place for what its reader keeps."""
        if isinstance(node, Replayed):
            node.keep_in(self._directory / name)

    def _open(self, node: Logged, name: str, expected: str | None) -> None:
        """Open a source's log, to which it is moved later. One that is there and has another id than `expected` (None:
        whichever it has) is set aside."""
        path = self._directory / name
        self._refuse_taken(node, path)
        log = RowLog(path, self._runtime)
        if log.stop > Offset(0) and expected is not None:
            # Rows that a checkpoint carried were perhaps not all written when the process was killed.
            is_whole = log.start <= node.log.start and node.log.stop <= log.stop
            if log.id != expected or (node.has_begun and not is_whole):
                log.close()
                self._set_aside(name, "another run's" if log.id != expected else "not whole")
                log = RowLog(path, self._runtime)
        self._opened[name] = (node, log)

    def _move_logs(self, carried: Mapping[str, str] | None = None) -> list[tuple[Logged, RowLog]]:
        """Let the nodes have the logs that were opened, with the rows that they had in memory.

        The origin is on the disk first: killed in between, the next process finds rows of its own run.
        """
        try:
            self._write_origin(carried or {})
            moved = []
            while self._opened:
                name = next(iter(self._opened))
                node, log = self._opened[name]
                self._move(node, log)
                del self._opened[name]
                moved.append((node, log))
            return moved
        finally:
            while self._opened:
                _, (_, log) = self._opened.popitem()
                is_empty = log.stop == Offset(0)
                log.close()
                if is_empty:
                    self._remove(log)

    def _write_origin(self, carried: Mapping[str, str]) -> None:
        if self._is_written and not self._opened:
            return
        known = read_origin(self._directory, self._runtime) or {}
        origins: dict[str, SourceOrigin] = {}
        for name, node, identity in self._nodes():
            before = known.get(name)
            if isinstance(node, Logged):
                _, log = self._opened.get(name, (node, self._log_here(node)))
                id_ = None if log is None else log.id
                same = before.carried if before is not None and before.log == id_ else None
                origins[name] = SourceOrigin(identity, None, id_, carried.get(name, same))
            elif before is not None and before.identity == identity:
                origins[name] = before
            else:
                if isinstance(node, Replayed):
                    self._await_open(node)
                position = node.opening_position if isinstance(node, Replayed) else None
                origins[name] = SourceOrigin(identity, position)
        if origins and origins != known:
            write_origin(self._directory, origins, self._runtime)
        self._is_written = True

    def _await_open(self, node: Replayed) -> None:
        """Wait until a source is open, and its position is known, or the feed is to stop."""
        begun, said = self._runtime.monotonic(), False
        while not node.await_open():
            self._feed.check_usable()
            if self._feed.interrupted:
                raise StreamError(
                    f"The feed was interrupted while {node.name} was being opened, so where the run in {self._run} "
                    "begins is not known yet, and nothing was saved or loaded. Once the source can be reached, "
                    "feed.resume() and the same call once more go on."
                )
            waited = self._runtime.monotonic() - begun
            if not said and waited >= LONG:
                said = True
                _log.warning("%s", waiting_sentence(node.name, waited))
        if said:
            _log.warning("%s is open, after %s seconds.", node.name, f"{self._runtime.monotonic() - begun:,.0f}")

    def _refuse_taken(self, node: Logged, path: Path) -> None:
        # A feed that has not read yet may take the log of one that was never closed; one that has read has other rows.
        if node.has_read:
            refuse_taken("keeps the rows of its source", path, self._runtime)

    def _move(self, node: Logged, log: RowLog) -> None:
        if log.stop > Offset(0) and node.has_begun:
            node.take_log(log)
            return
        is_empty = log.stop == Offset(0)
        try:
            node.move_log(log)
        except BaseException:
            log.close()
            if is_empty:
                self._remove(log)
            raise

    def _remove(self, log: RowLog) -> None:
        """What was written of the rows is in memory as before, and not the run's."""
        with suppress(OSError):
            self._runtime.files.remove(Path(log.where))

    def _set_aside(self, name: str, whose: str) -> None:
        set_log_aside("row log", self._directory / name, whose, self._runtime)

    def _sentence(self, action: Any) -> Any:
        return opened("row log, of a source that can't seek,", self._run, action)
