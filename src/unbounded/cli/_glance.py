"""This computer's vitals in the display from the first second on, before there is a stream of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from unbounded.cli._view import Event
from unbounded.detect._columns import VITALS


class Glance:
    """The vitals, shown from the first second on, while the frameworks are still being loaded.

    What it reads is not trained on: the stream takes its own readings.
    """

    def __init__(self, show: Callable[[Event], None] | None, rate: float) -> None:
        self._show, self._pause = show, 1.0 / rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="glance", daemon=True)

    def _read(self) -> None:
        from unbounded.sources.vitals import read_vitals

        assert self._show is not None
        _, counters = read_vitals(None)
        while not self._stopped.wait(self._pause):
            rows, counters = read_vitals(counters)
            if len(rows["time"]):
                values = [float(rows[column.name][0]) for column in VITALS]
                self._show({"event": "reading", "values": values, "time": float(rows["time"][0])})

    def stop(self) -> None:
        """The stream's own readings have begun."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Glance:
        if self._show is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
