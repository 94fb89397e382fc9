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

_STREAM = "stream"  # in the first record: the fingerprint of the stream that has the nodes


class ArrivalFile:
    """The arrival log of one run on the disk. One thread at a time appends.

    Args:
        directory: for this log alone.
        runtime: gives files, locks and ids.
        segment_bytes: the size from which on another file is begun.

    Raises:
        BlockingIOError: another process writes to it.
        OSError: it can't be read or written.
    """

    def __init__(self, directory: Path, runtime: Runtime, *, segment_bytes: int = SEGMENT) -> None:
        self._open: Callable[[], RecordLog] = partial(RecordLog, directory, runtime, segment_bytes=segment_bytes)
        self._log = self._open()
        self._interrupted = False  # True if an exception may have come during an append
        self._sync = LogSync(self, runtime, "arrival log")

    @property
    def id(self) -> str:
        """Differs from that of other logs; a copy has the same."""
        return self._log.id

    @property
    def where(self) -> str:
        """Its directory."""
        return self._log.where

    @property
    def start(self) -> int:
        """The number of records that were released."""
        return self._log.start.rows

    @property
    def stop(self) -> int:
        """The number of records, with those that were released."""
        return self._log.stop.rows

    def begin(self, log: str, stream: str) -> None:
        """Begin an empty log.

        Args:
            log: its id.
            stream: the fingerprint of the stream.

        Raises:
            OSError: it could not be written.
        """
        self._log.id = log
        self._log.begin_at(Offset(0))  # there may be a segment of another id, without a record
        self._append({_STREAM: stream})

    def append(self, entries: Entries) -> int:
        """Append decisions as one record; return the number of records with it.

        Raises:
            OSError: it could not be written. Nothing of it is in the log.
        """
        self._append(entries)
        return self._log.stop.rows

    def _append(self, content: Any) -> None:
        text = json.dumps(content, separators=(",", ":"), default=_as_number)
        if self._interrupted:
            # The thread that pulls appends, and in it a signal's handler may raise at any line. So it is unknown
            # whether the last record is in the file: open it again, as the next process would.
            self._log = self._open()
        self._interrupted = True
        try:
            # Each record counts as one row of the record log, so a number of records is an offset in it.
            self._log.append(1, 0, text.encode(), [])
        except OSError:
            self._interrupted = False
            raise
        self._interrupted = False
        self._sync.appended(0)

    def read(self, start: int) -> tuple[list[tuple[int, Entries]], str | None]:
        """The records from number `start` on, each with the number of records up to it; and the fingerprint of the
        stream, if the first record of the log is among them.

        Raises:
            DataLoss: a record is damaged or missing.
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
        """Sync: when it returns, what was appended before the call survives a loss of power.

        Raises:
            OSError: the sync failed.
        """
        self._log.sync()

    def release(self, records: int) -> None:
        """The first `records` records are not needed again: segments that have no others are removed."""
        self._log.release(Offset(records))

    def close(self) -> None:
        """Close the files, and release the lock on the directory."""
        self._sync.close()
        self._log.close()


def _as_number(value: Any) -> Any:
    """For JSON: a partition may be a NumPy integer."""
    return value.item()


def _ranges(entries: list[list[Any]]) -> list[DecidedRange]:
    return [DecidedRange(first, stop, as_decision(decision)) for first, stop, decision in entries]
