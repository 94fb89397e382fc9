"""LogSync: syncs a log within a second of each append, and sooner after many bytes.

The time bounds what a power cut can lose. The bytes keep the disk at work while more rows are made: a sync at the end
would wait for all of them.

It has a thread of its own, since the reading thread may stay inside a user's function.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from unbounded.core.runtime import Runtime

_log = logging.getLogger("unbounded")
_SECONDS = 1.0
_BYTES = 1 << 23


class _Synced(Protocol):
    @property
    def where(self) -> str: ...
    def sync(self) -> None: ...


class LogSync:
    """The syncing thread of one log; it starts with the first row.

    A log that is not synced survives a kill of the process: the kernel has what was written.

    Args:
        log: the log to sync.
        runtime: the thread and the time.
        name: the log's name in messages.
    """

    def __init__(self, log: _Synced, runtime: Runtime, name: str = "row log") -> None:
        self._log = log
        self._name = name
        self._runtime = runtime
        self._appended = runtime.event()
        self._due = runtime.event()  # the sync is not to wait any longer
        self._closed = False
        self._bytes = 0  # appended since a sync was due
        self._thread: Any = None
        self._said = False

    def appended(self, nbytes: int) -> None:
        """So many bytes were appended. Called by one thread at a time."""
        self._bytes += nbytes
        if self._bytes >= _BYTES:
            self._bytes = 0
            self._due.set()
        if not self._appended.is_set():
            self._appended.set()
            if self._thread is None:
                self._thread = self._runtime.thread(self._run, name="unbounded-log-sync")
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._appended.wait()
            self._due.wait(_SECONDS)
            # Before the sync: rows appended during it are for the next one. And before `_closed` is read, since `close`
            # sets the events after it.
            self._due.clear()
            self._appended.clear()
            closed = self._closed
            try:
                self._log.sync()
                self._said = False
            except OSError as error:
                # The next checkpoint raises the error, if the disk still refuses.
                if not self._said:
                    _log.warning("The %s in %s could not be synced: %s.", self._name, self._log.where, error)
                self._said = True
            if closed:
                return

    def close(self) -> None:
        """Sync, and end the thread."""
        self._closed = True
        self._due.set()
        self._appended.set()
        if self._thread is not None:
            self._thread.join(5.0)
