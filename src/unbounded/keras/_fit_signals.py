"""Signals: SIGINT and SIGTERM during a `fit`: the first requests a clean stop, a second one ends at once."""

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
        on_first: called by the first signal, in the main thread, between two bytecode instructions.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._before: dict[int, Any] = {}
        self._director: Any = None
        self.received: int | None = None
        """The number of the first signal; None before it."""

    def install(self, director: object) -> None:
        """Set the handlers until `put_back`.

        Args:
            director: the one callback of the `fit`. After an exception of the model, Keras calls no callback, so the
                handlers stay; the next signal detects that `fit` has ended, and is passed to the previous handler.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread only
        self._director = director
        for number in _WATCHED:
            before = signal.signal(number, self._handle)
            self._before[number] = signal.SIG_DFL if before is None else before

    def put_back(self) -> None:
        """Restore the previous handlers; a second call does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        while self._before:
            number, before = self._before.popitem()
            # Keep a handler that was set by others since. (Bound methods are equal, but never identical.)
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
            # A flag alone would not end a wait inside a generator.
            raise Interrupted
