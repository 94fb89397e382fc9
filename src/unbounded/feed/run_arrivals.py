"""RunArrivals: a run's arrival log in its directory: begun, moved there from memory, continued, and set aside."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unbounded.core.arrival_log import ArrivalLog, Entries
from unbounded.core.cursor import to_plain
from unbounded.core.node import DataLoss
from unbounded.core.runtime import Runtime
from unbounded.sources.arrival_file import ArrivalFile
from unbounded.sources.record_log import RecordLog
from unbounded.store.checkpoints import CheckpointError
from unbounded.store.origin import set_aside

if TYPE_CHECKING:
    from unbounded.feed.feed import Feed

_log = logging.getLogger("unbounded")
_NAME = "arrival_log"
T = TypeVar("T")


class RunArrivals:
    """The arrival log of one feed in one directory; a stream of which no node decides by arrival has none.

    Args:
        feed: the feed.
        directory: the directory of the feed's logs.
        run: the run's directory, for messages.
    """

    def __init__(self, feed: Feed, directory: Path, run: Path) -> None:
        self._feed = weakref.proxy(feed)
        self._runtime = feed.runtime
        self._path = directory / _NAME
        self._run = run

    @property
    def _log(self) -> ArrivalLog:
        log: ArrivalLog = self._feed.opened.arrivals
        return log

    def here(self) -> list[ArrivalFile]:
        """The log's file, in a list; empty if it is in another directory or there is none."""
        file = self._log.file
        return [file] if isinstance(file, ArrivalFile) and Path(file.where) == self._path else []

    def saved(self) -> Any:
        """The arrival log's part of a checkpoint, as plain data: its place in the file, or all needed decisions if the
        file is not in this directory."""
        for file in self.here():
            return {"log": file.id, "start": self._log.first_record, "stop": file.stop}
        return to_plain(self._log.state())

    def begin(self, *, known: bool) -> None:
        """Begin a run without a checkpoint: with no decisions, or with those of a process that was killed.

        Args:
            known: True if the rows that come are those that the decisions are for.

        Raises:
            CheckpointError: the file can't be opened.
        """
        if self._log.is_used and self._log.file is None:
            self._opened(lambda: self._begin(known))

    def _begin(self, known: bool) -> None:
        log, file = self._log, self._open()
        try:
            records, stream = file.read(0) if file.stop else ([], None)
            if file.stop and known and not (log.has_begun or file.start) and stream == self._feed.stream.fingerprint:
                log.go_on(file, 0, records, at_start=True)
                return
        except BaseException:
            file.close()
            raise
        self._move(file, "of another stream or run")

    def attach(self) -> None:
        """Write all decisions to a file here, unless they are written to another directory.

        Raises:
            CheckpointError: the file can't be opened, or another feed of this process writes it.
        """
        if self._log.is_used and self._log.file is None:
            self._opened(lambda: self._move(self._open(), "another run's"))

    def _open(self) -> ArrivalFile:
        # A feed without decisions of its own takes the log over from one that was not closed.
        if self._log.has_decided:
            refuse_taken("writes the arrival log", self._path, self._runtime)
        return ArrivalFile(self._path, self._runtime)

    def _move(self, file: ArrivalFile, whose: str) -> None:
        """Write all decisions, and the later ones, to a file. One that is not empty is renamed first."""
        if file.stop:
            file.close()
            set_log_aside("arrival log", self._path, whose, self._runtime)
            file = self._open()
        try:
            file.begin(self._log.id, self._feed.stream.fingerprint)
            self._log.move(file)
        except BaseException:
            file.close()
            with suppress(OSError):
                self._runtime.files.remove(self._path)  # all decisions are still in memory
            raise

    @contextmanager
    def decided(self, saved: Mapping[str, Any]) -> Iterator[Callable[[], None] | None]:
        """A function that continues with the file here; None if the checkpoint contains the decisions itself.

        Args:
            saved: the arrival log's part of the checkpoint.

        Raises:
            CheckpointError: the file can't be opened.
            DataLoss: the file is another log, or ends before the checkpoint's place.
        """
        log = self._log
        if "stop" not in saved or not log.is_used:
            yield None
            return
        file = next(iter(self.here()), None) or self._opened(lambda: ArrivalFile(self._path, self._runtime))
        try:
            records = _needed(file, saved)
            yield lambda: log.go_on(file, saved["start"], records)
        finally:
            if log.file is not file:
                file.close()

    def _opened(self, action: Callable[[], T]) -> T:
        return opened("arrival log", self._run, action)


def _needed(file: ArrivalFile, saved: Mapping[str, Any]) -> list[tuple[int, Entries]]:
    """The records that a checkpoint needs, and those after it."""
    back = "Put the run's directory back as it was, with its log; or begin a new run in another directory."
    # The file may begin after `start`, which is a lower bound: records are released with the checkpoints before.
    if not file.start <= saved["stop"] <= file.stop:
        raise DataLoss(
            f"The checkpoint needs records {saved['start']:,} to {saved['stop']:,} of the arrival log, and the log in "
            f"{file.where} has records {file.start:,} to {file.stop:,}. {back}"
        )
    if file.id != saved["log"]:
        raise DataLoss(f"The arrival log in {file.where} is another run's than the checkpoint's. {back}")
    return file.read(max(file.start, saved["start"]))[0]


def opened(what: str, run: Path, action: Callable[[], T]) -> T:
    """Open a log; an error of the disk becomes a sentence.

    Raises:
        CheckpointError: the log can't be opened.
    """
    try:
        return action()
    except OSError as error:
        raise CheckpointError(
            f"Nothing can be saved in {run}: its {what} can't be opened: {error.strerror or error}. Make room there, "
            "or use another directory."
        ) from error


def refuse_taken(does: str, path: Path, runtime: Runtime) -> None:
    """Raise CheckpointError if another feed of this process writes to a log; `does` is part of the message."""
    if RecordLog.is_written_here(path, runtime):
        raise CheckpointError(
            f"Another feed of this process {does} in {path}, and is not closed. Nothing was saved. Close it, or save "
            "this one to another directory."
        )


def set_log_aside(what: str, path: Path, whose: str, runtime: Runtime) -> None:
    """Rename the log of another run, and say so.

    Raises:
        OSError: it can't be renamed.
    """
    if runtime.files.exists(path):
        there = set_aside(path, runtime)
        _log.warning("The %s in %s is %s. It was set aside, as %s, and a new one begins.", what, path, whose, there)
