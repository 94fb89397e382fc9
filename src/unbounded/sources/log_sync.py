"""LogSync: syncs a log within a second of each append, which bounds what a power cut can lose.

It has a thread of its own, since the reading thread may stay inside a user's function.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from unbounded.core.runtime import Runtime

_log = logging.getLogger("unbounded")
_SECONDS = 1.0


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
        self._closed = runtime.event()
        self._thread: Any = None
        self._said = False

    def appended(self) -> None:
        """Something was appended. Called by one thread at a time."""
        if not self._appended.is_set():
            self._appended.set()
            if self._thread is None:
                self._thread = self._runtime.thread(self._run, name="unbounded-log-sync")
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._appended.wait()
            self._closed.wait(_SECONDS)
            self._appended.clear()  # before the sync: rows appended during it are for the next one
            try:
                self._log.sync()
                self._said = False
            except OSError as error:
                # The next checkpoint raises the error, if the disk still refuses.
                if not self._said:
                    _log.warning("The %s in %s could not be synced: %s.", self._name, self._log.where, error)
                self._said = True
            if self._closed.is_set():
                return

    def close(self) -> None:
        """Sync, and end the thread."""
        self._closed.set()
        self._appended.set()
        if self._thread is not None:
            self._thread.join(5.0)
