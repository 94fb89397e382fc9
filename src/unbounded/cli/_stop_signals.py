"""StopSignals: SIGINT, SIGTERM and SIGHUP outside of `fit`: they end the current work, but never interrupt a
framework's import.

While Keras and its backend are imported and `fit` begins, a signal is only recorded: an exception from a handler could
be swallowed by a callback from C (JAX has one in Python's garbage collection, which drops it), or leave a module half
imported. The signal is delivered once `fit` has its own handlers, which finish the current step and save. These are for
SIGINT and SIGTERM: a SIGHUP, of a terminal that was closed, is passed on as a SIGTERM.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 2  # signals that are only recorded: a third one ends the process


class Stopped(KeyboardInterrupt):
    """A signal that ends the current work.

    Args:
        name: the signal's, such as "SIGINT".
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class StopSignals:
    """Handlers for the duration of a `with`. An ignored signal, such as SIGINT in a background job, stays ignored."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._held = False
        self._noted: list[int] = []
        self._hung_up = False  # a SIGTERM is a SIGHUP that was passed on

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in the main thread only
            for number in _WATCHED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
            hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
            if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
                self._before[hang_up] = signal.signal(hang_up, self._pass_on)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._held and len(self._noted) < PATIENCE:
            self._noted.append(number)
            return
        name = self.name(signal.Signals(number).name)
        assert name is not None
        raise Stopped(name)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._hung_up = True
        signal.raise_signal(signal.SIGTERM)

    def name(self, ended_by: str | None) -> str | None:
        """The signal that was sent.

        Args:
            ended_by: what ended `fit`, such as "SIGTERM".

        Returns:
            The same, or "SIGHUP" for a SIGTERM that was one.
        """
        return "SIGHUP" if self._hung_up and ended_by == "SIGTERM" else ended_by

    def hold(self) -> None:
        """From now on, record signals without raising."""
        self._held = True

    def deliver(self) -> None:
        """Handle signals again; a recorded one is sent now, to the present handlers."""
        self._held = False
        noted, self._noted = self._noted, []
        if noted:
            signal.raise_signal(noted[0])
