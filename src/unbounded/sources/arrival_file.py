"""ArrivalFile: the arrival log on disk, a record log in the run's directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from unbounded.core.arrival_log import Entries
from unbounded.core.block import Offset
from unbounded.core.decisions import DecidedRange, as_decision
from unbounded.core.runtime import Runtime
from unbounded.sources.log_sync import LogSync
from unbounded.sources.record_log import SEGMENT, RecordLog

_STREAM = "stream"  # in the first record: the fingerprint of the stream whose nodes they are


class ArrivalFile:
    """The arrival log of one run on the disk. One thread at a time appends.

    Args:
        directory: of this log alone.
        runtime: files, locks and ids.
        segment_bytes: how large a file becomes.

    Raises:
        BlockingIOError: another process writes to it.
        OSError: it can't be read or written.
    """

    def __init__(self, directory: Path, runtime: Runtime, *, segment_bytes: int = SEGMENT) -> None:
        self._open: Callable[[], RecordLog] = partial(RecordLog, directory, runtime, segment_bytes=segment_bytes)
        self._log = self._open()
        self._interrupted = False  # while it was appended to
        self._sync = LogSync(self, runtime, "arrival log")

    @property
    def id(self) -> str:
        """Tells it from other logs; a copy has the same."""
        return self._log.id

    @property
    def where(self) -> str:
        """Its directory."""
        return self._log.where

    @property
    def start(self) -> int:
        """How many records were let go of."""
        return self._log.start.rows

    @property
    def stop(self) -> int:
        """How many records there are, with those that were let go of."""
        return self._log.stop.rows

    def begin(self, log: str, stream: str) -> None:
        """Begin an empty one.

        Args:
            log: its id from now on.
            stream: the fingerprint of the stream.

        Raises:
            OSError: it could not be written.
        """
        self._log.id = log
        self._log.begin_at(Offset(0))  # there may be a segment of another id, without a record
        self._append({_STREAM: stream})

    def append(self, entries: Entries) -> int:
        """Append what was decided, as one record; gives how many records there are with it.

        Raises:
            OSError: it could not be written. Nothing of it is in the log.
        """
        self._append(entries)
        return self._log.stop.rows

    def _append(self, content: Any) -> None:
        text = json.dumps(content, separators=(",", ":"), default=_as_number)
        if self._interrupted:
            # It is appended to by whoever pulls, in whose thread a signal's handler may raise at any line: whether the
            # record before is there is found out as the next process would.
            self._log = self._open()
        self._interrupted = True
        try:
            # A record is a row of the log: so a count of records is a place in it.
            self._log.append(1, 0, text.encode(), [])
        except OSError:
            self._interrupted = False
            raise
        self._interrupted = False
        self._sync.appended()

    def read(self, start: int) -> tuple[list[tuple[int, Entries]], str | None]:
        """The records from number `start` on, each with how many there are up to it; and the fingerprint of the stream,
        where the first of all is among them.

        Raises:
            DataLoss: a record that was there is torn, changed or missing.
        """
        with self._log.reading: return self._read(start)  # fmt: skip  # noqa: E701 - see `locked`

    def _read(self, start: int) -> tuple[list[tuple[int, Entries]], str | None]:
        found: list[tuple[int, Entries]] = []
        stream: str | None = None
        for record in self._log.records(Offset(start)):
            content = json.loads(record.meta)
            stream = content.pop(_STREAM, stream)
            if content:
                found.append((record.end.rows, {name: _ranges(each) for name, each in content.items()}))
        return found, stream

    def sync(self) -> None:
        """What was appended before this call survives a loss of power when it returns.

        Raises:
            OSError: the disk refused.
        """
        self._log.sync()

    def release(self, records: int) -> None:
        """The first `records` records will not be read again: whole segments go."""
        self._log.release(Offset(records))

    def close(self) -> None:
        """Let go of the files, and of the lock on the directory. What was appended stays."""
        self._sync.close()
        self._log.close()


def _as_number(value: Any) -> Any:
    """A partition may be numbered by NumPy's integers."""
    return value.item()


def _ranges(entries: list[list[Any]]) -> list[DecidedRange]:
    return [DecidedRange(first, stop, as_decision(decision)) for first, stop, decision in entries]
