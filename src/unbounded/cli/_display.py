"""The displays of a run: live in a terminal, plain lines without one, or JSON for another process.

All three accept the same events and messages, from any thread.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TextIO

import numpy as np

from unbounded.cli._view import Event, Silence, View

EVERY = 2.0
LINES = 10  # the least number of lines for steps, if the number of steps is known


class Display(Protocol):
    """Something that shows a run."""

    view: View

    def show(self, event: Event) -> None:
        """Show an event of the trainer."""
        ...

    def say(self, words: str) -> None:
        """Show a message."""
        ...

    def tick(self) -> None:
        """Called once a second: show what is being waited for, if it is time."""
        ...

    def close(self) -> None:
        """Restore the terminal."""
        ...


def display(kind: str = "auto", out: TextIO | None = None) -> Display:
    """The display of a kind.

    Args:
        kind: ``auto`` is live in a terminal where rich is installed, and plain elsewhere; or ``live``, ``plain``,
            ``json``.
        out: where to write; standard output, if none is given.

    Returns:
        A display.

    Raises:
        ValueError: there is no such kind.
    """
    out = out or sys.stdout
    if kind == "auto":
        terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        kind = "live" if terminal and importlib.util.find_spec("rich") else "plain"
    kinds: dict[str, Callable[[TextIO], Display]] = {"live": _live, "plain": PlainDisplay, "json": JsonDisplay}
    if kind not in kinds:
        raise ValueError(f"There is no display {kind!r}: choose auto, {', '.join(kinds)}.")
    return kinds[kind](out)


def _live(out: TextIO) -> Display:
    from unbounded.cli._live import LiveDisplay

    return LiveDisplay(out)


class Lines:
    """Writes lines from any thread. If the reader of the output is gone, it stops the process as SIGTERM does.

    Args:
        out: the output.
    """

    def __init__(self, out: TextIO) -> None:
        self._out: TextIO | None = out
        self.turn = threading.RLock()  # the trainer's thread and the ticker's thread both write

    def write(self, words: str) -> None:
        """Write a line."""
        with self.turn:
            if self._out is None:
                return
            try:
                self._out.write(words + "\n")
                self._out.flush()
            except OSError as error:
                # Nobody reads a pipe any more, or the terminal was closed.
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                # The interpreter would try to flush the rest at its end.
                if self._out is sys.stdout:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self._out = None
                signal.raise_signal(signal.SIGTERM)


class JsonDisplay:
    """A line of JSON for each event."""

    def __init__(self, out: TextIO) -> None:
        self.view = View()
        self._lines, self._silence = Lines(out), Silence()

    def show(self, event: Event) -> None:
        """Write the event; values that are not finite, such as the loss before the first step, are null."""
        with self._lines.turn:
            self.view.take(event)
            self._lines.write(json.dumps(_finite(event), allow_nan=False))

    def say(self, words: str) -> None:
        """Write the message, as an event."""
        self.show({"event": "say", "words": words})

    def tick(self) -> None:
        """Write a silence, as an event."""
        with self._lines.turn:
            words = self._silence.due(self.view)
            if words:
                self.show({"event": "silent", "seconds": round(self.view.quiet(), 1), "words": words})

    def close(self) -> None:
        """No-op."""


class PlainDisplay:
    """A line every two seconds, for a log or a pipe; at least ten for a known number of steps."""

    def __init__(self, out: TextIO, view: View | None = None) -> None:
        self.view = view or View()
        self._lines, self._silence = Lines(out), Silence()
        self._next = -np.inf
        self._next_step = 0
        self._shown = -1

    def show(self, event: Event) -> None:
        """Write a line if one is due."""
        with self._lines.turn:
            self.view.take(event)
            kind, now, step = event["event"], self.view.now(), self.view.step
            if kind == "alarm":
                self.say(self.view.alarm(event))
            elif kind == "loading":
                self.say("loading Keras …")
            elif kind == "reading" and not step and now >= self._next:
                self._next = now + EVERY
                count = f"{self.view.readings:,} readings; the last: " if self.view.readings > 1 else ""
                self.say(count + self.view.reading())
            elif kind == "step":
                if now >= self._next or step["step"] >= self._next_step:
                    self._step(now)
            elif kind == "end" and step and step["step"] != self._shown:
                self._step(now)

    def _step(self, now: float) -> None:
        step = int(self.view.step["step"])
        self._next, self._shown = now + EVERY, step
        each = -(-(self.view.steps - (self.view.begun_at or 0)) // LINES) if self.view.steps else 1 << 62
        self._next_step = step + max(1, each)
        words = ", ".join(f"{name} {figure}" for name, figure in self.view.figures())
        self.say(f"{words}; {self.view.better()}" if self.view.better() else words)

    def say(self, words: str) -> None:
        """Write a line."""
        self._lines.write(words)

    def tick(self) -> None:
        """Write a line for a silence."""
        with self._lines.turn:
            words = self._silence.due(self.view)
            if words:
                self.say(words)

    def close(self) -> None:
        """No-op."""


class Ticker:
    """Calls a display's `tick` once a second in a thread, since the trainer's thread may be waiting.

    Args:
        shown: the display.
        every: seconds.
    """

    def __init__(self, shown: Display, every: float = 1.0) -> None:
        self._shown, self._every = shown, every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._shown.tick()

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
