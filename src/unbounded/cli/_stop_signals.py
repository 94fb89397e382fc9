"""SIGINT and SIGTERM where no `fit` looks after them: they end what is at hand, but no framework in its beginning.

While Keras and its backend are loaded and `fit` begins, a signal is only noted: an exception that is raised there may
be swallowed by a callback from C (JAX has one in Python's garbage collection, which drops it), or leave a module half
imported. It is delivered once `fit` has handlers of its own, which let the step at hand end and save.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 2  # signals that are only noted: who sends a third wants an end, whatever it leaves


class Stopped(KeyboardInterrupt):
    """A signal that ends what is at hand.

    Args:
        name: the signal's, such as "SIGINT".
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class StopSignals:
    """Handlers, from `with` to its end. A signal that is ignored, as SIGINT by a job in the background, stays so."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._held = False
        self._noted: list[int] = []

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            for number in _WATCHED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held and len(self._noted) < PATIENCE:
            self._noted.append(number)
            return
        raise Stopped(signal.Signals(number).name)

    def hold(self) -> None:
        """Only note a signal from now on."""
        self._held = True

    def deliver(self) -> None:
        """Let signals through again, the one that was noted first: to whoever handles it now."""
        self._held = False
        noted, self._noted = self._noted, []
        if noted:
            signal.raise_signal(noted[0])
