"""SIGINT and SIGTERM during a `fit`: the first asks for a clean stop, a second one ends at once."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

from unbounded._user_code import Interrupted, interruptible

_WATCHED = (signal.SIGINT, signal.SIGTERM)

__all__ = ["Interrupted", "Signals"]


class Signals:
    """The handlers of one `fit`.

    Args:
        on_first: called by the first signal, in the main thread, between two instructions of it.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._before: dict[int, Any] = {}
        self._owner: weakref.ref[Any] | None = None
        self.received: int | None = None
        """The number of the first signal; None until there was one."""

    def install(self, owner: object) -> None:
        """Take over the signals until `put_back`, or until `owner` is no more.

        Args:
            owner: the fit's list of callbacks. After an exception `fit` calls nobody's `on_train_end`; the list,
                which belongs to that call, goes all the same.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread alone
        for number in _WATCHED:
            before = signal.signal(number, self._handle)
            self._before[number] = signal.SIG_DFL if before is None else before
        self._owner = weakref.ref(owner)
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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or not self._is_running(frame):
            self.put_back()
            signal.raise_signal(number)
            return
        self.received = number
        self._on_first()
        if interruptible():
            # A flag alone would wait out a generator that sleeps.
            raise Interrupted

    def _is_running(self, frame: FrameType | None) -> bool:
        """Whether the `fit` is still under way: what it belongs to may live on after an exception."""
        owner = None if self._owner is None else self._owner()
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("callbacks") is owner:
                return True
            frame = frame.f_back
        return False
