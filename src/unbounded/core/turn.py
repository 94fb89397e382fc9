"""Turn: a timer that makes a waiting pull return None from time to time, so that the feed regains control."""

from __future__ import annotations

from unbounded.core.runtime import Runtime

_TURN = 0.05  # seconds


class Turn:
    """A timer of a pull that may wait.

    A stage pulls until it has what it needs, which may take forever: a shuffle of a slow source, or a filter that keeps
    nothing. So each source, and each stage with threads, returns None some times a second. The feed, or the thread that
    pulls, then checks whether it is to stop, and reports what it waits for.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._last: float | None = None

    def is_due(self) -> bool:
        """True if the pull is to return None now; this starts the next interval."""
        now = self._runtime.monotonic()
        if self._last is not None and now - self._last > _TURN:
            self._last = None  # never twice in a row: some rows are read between two turns, however slow the machine
            return True
        if self._last is None:
            self._last = now
        return False
