"""Time, as sources and feeds see it: one small object, so that a test can move it by hand
(`ub.testing.Clock`)."""

from __future__ import annotations

import threading
import time


class Clock:
    """The machine's own time."""

    def time(self) -> float:
        """Seconds since 1970: for when rows arrived."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump: for how long something took."""
        return time.perf_counter()

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Until the event is set, `timeout` seconds at most; says whether it is."""
        return event.wait(timeout)


SYSTEM = Clock()
