"""SIGINT and SIGTERM during a `fit`: the first asks for a clean stop, a second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from unbounded.core.user_code import Interrupted, can_interrupt
from unbounded.keras import internals

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The handlers of one `fit`.

    Args:
        on_first: called by the first signal, in the main thread, between two instructions of it.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._before: dict[int, Any] = {}
        self._director: Any = None
        self.received: int | None = None
        """The number of the first signal; None until there was one."""

    def install(self, director: object) -> None:
        """Take over the signals until `put_back`.

        Args:
            director: the one callback in the list of the `fit`. After an exception of the model's own, Keras tells no
                callback that `fit` has ended; the first signal after it finds out, and goes to whom it went before.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread alone
        self._director = director
        for number in _WATCHED:
            before = signal.signal(number, self._handle)
            self._before[number] = signal.SIG_DFL if before is None else before

    def put_back(self) -> None:
        """Put back the handlers that were there; twice is no error."""
        if threading.current_thread() is not threading.main_thread():
            return
        while self._before:
            number, before = self._before.popitem()
            # Somebody else's, set in the meantime, stays. (Bound methods are equal, never identical.)
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or not internals.is_fitting(frame, self._director):
            self.put_back()
            signal.raise_signal(number)
            return
        self.received = number
        self._on_first()
        if can_interrupt():
            # A flag alone would wait out a generator that sleeps.
            raise Interrupted
