"""Glance: this computer's vitals in the display from the first second on, before the stream is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable

import unbounded as ub
from unbounded.cli._view import Event
from unbounded.detect._columns import VITALS


class Glance:
    """Shows the vitals while the frameworks are being imported.

    Its readings are not trained on: the stream takes its own.
    """

    def __init__(self, show: Callable[[Event], None] | None, rate: float) -> None:
        self._show = show
        self._feed = None if show is None else ub.Feed(ub.from_machine(rate=rate))
        self._thread = threading.Thread(target=self._read, name="glance", daemon=True)

    def _read(self) -> None:
        assert self._feed is not None
        assert self._show is not None
        for rows in self._feed.batches():
            values = [float(rows[column.name][-1]) for column in VITALS]
            self._show({"event": "reading", "values": values, "time": float(rows["time"][-1])})

    def stop(self) -> None:
        """The stream's own readings have begun."""
        if self._feed is not None:
            self._feed.interrupt()
            if self._thread.is_alive() and self._thread is not threading.current_thread():
                self._thread.join()
            self._feed.close()

    def __enter__(self) -> Glance:
        if self._show is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
