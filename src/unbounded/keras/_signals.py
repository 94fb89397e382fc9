"""SIGINT and SIGTERM during a `fit`: the first asks for a clean stop, a second one ends at once."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Raised inside a wait for data, and nowhere else: a clean stop was asked for."""


class Signals:
    """The handlers of one `fit`.

    Args:
        on_first: called by the first signal, in the main thread, between two instructions of it.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._before: dict[int, Any] = {}
        self._waiting = False
        self.received: int | None = None
        """The number of the first signal; None until there was one."""

    def install(self, owner: object) -> None:
        """Take over the signals until `put_back`, or until `owner` is no more.

        After an exception `fit` calls nobody's `on_train_end`, so the handlers go when what belongs to that call goes.
        Outside of the main thread Python allows no handlers, and there are none.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _WATCHED:
            before = signal.signal(number, self._handle)
            self._before[number] = signal.SIG_DFL if before is None else before
        weakref.finalize(owner, Signals.put_back, self)

    def put_back(self) -> None:
        """Put back the handlers that were there; twice is no error."""
        if threading.current_thread() is not threading.main_thread():
            return
        while self._before:
            number, before = self._before.popitem()
            # Somebody else's, set in the meantime, stays. (Bound methods are equal, never identical.)
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A stretch in the main thread that may wait for data: a signal ends it with `Interrupted`.

        A flag alone would wait out a generator of the user's that sleeps.
        """
        if threading.current_thread() is not threading.main_thread() or not self._before:
            yield
            return
        self._waiting = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self._waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.put_back()
            signal.raise_signal(number)
            return
        self.received = number
        self._on_first()
        if self._waiting:
            raise Interrupted
