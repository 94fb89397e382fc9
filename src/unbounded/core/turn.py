"""Turn: says when a pull is to return None though there may be rows, so that the feed gets control back."""

from __future__ import annotations

import time

_TURN = 0.05  # seconds


class Turn:
    """When it is due that a pull gives None.

    A stage pulls until it has what it needs, which may take it for ever: a shuffle of a slow source, or a filter that
    keeps nothing. So each source, and each stage that works ahead, gives None now and then; and the feed, or the
    thread that pulls, can look whether it is to stop, and say what it waits for.
    """

    def __init__(self) -> None:
        self._last: float | None = None

    def is_due(self) -> bool:
        """Whether it is time; if so, the next one is due a while later."""
        now = time.perf_counter()
        if self._last is not None and now - self._last <= _TURN:
            return False
        first, self._last = self._last is None, now
        return not first
