"""Turn: says when a pull is to return None though there may be rows, so that the feed gets control back."""

from __future__ import annotations

from unbounded.core.runtime import Runtime

_TURN = 0.05  # seconds


class Turn:
    """When it is due that a pull gives None.

    A stage pulls until it has what it needs, which may take it for ever: a shuffle of a slow source, or a filter that
    keeps nothing. So each source, and each stage that works ahead, gives None now and then; and the feed, or the
    thread that pulls, can look whether it is to stop, and say what it waits for.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._last: float | None = None

    def is_due(self) -> bool:
        """Whether it is time; if so, the next one is due a while later."""
        now = self._runtime.monotonic()
        if self._last is not None and now - self._last > _TURN:
            self._last = None  # never twice in a row: however slow the machine is, rows come between two turns
            return True
        if self._last is None:
            self._last = now
        return False
