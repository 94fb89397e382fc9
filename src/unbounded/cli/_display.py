"""How a run is shown: live in a terminal, as plain lines without one, or as JSON for another process.

All three take the same events and the same remarks. rich is imported by the live display alone.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time as clock
from collections.abc import Callable
from typing import Any, Protocol, TextIO

import numpy as np

from unbounded.cli._view import Event, View, alarm_line

EVERY = 2.0
BARS = " ▁▂▃▄▅▆▇█"


class Display(Protocol):
    """Something that shows a run."""

    view: View

    def show(self, event: Event) -> None:
        """Show what the trainer told."""
        ...

    def say(self, words: str) -> None:
        """Say something to whoever watches."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def display(kind: str = "auto", out: TextIO | None = None) -> Display:
    """Choose how to show a run.

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
        kind = "live" if out.isatty() and importlib.util.find_spec("rich") else "plain"
    kinds: dict[str, Callable[[TextIO], Display]] = {"live": LiveDisplay, "plain": PlainDisplay, "json": JsonDisplay}
    if kind not in kinds:
        raise ValueError(f"There is no display {kind!r}: choose auto, {', '.join(kinds)}.")
    return kinds[kind](out)


class JsonDisplay:
    """A line of JSON for each event."""

    def __init__(self, out: TextIO) -> None:
        self.view = View()
        self._out = out

    def show(self, event: Event) -> None:
        """Write the event."""
        self.view.take(event)
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def say(self, words: str) -> None:
        """Write the remark, as an event."""
        self.show({"event": "say", "words": words})

    def close(self) -> None:
        """Nothing was opened."""


class PlainDisplay:
    """A line every two seconds, for a log or a pipe."""

    def __init__(self, out: TextIO) -> None:
        self.view = View()
        self._out = out
        self._next = 0.0
        self._read = False

    def show(self, event: Event) -> None:
        """Write a line where one is due."""
        self.view.take(event)
        kind = event["event"]
        if kind == "alarm":
            self.say(alarm_line(event))
        elif kind == "loading":
            self.say("loading Keras …")
        elif kind == "reading" and not self._read:
            self._read = True
            self.say(self.view.reading())
        elif kind == "step" and clock.monotonic() >= self._next:
            self._next = clock.monotonic() + EVERY
            words = ", ".join(f"{name} {figure}" for name, figure in self.view.figures())
            self.say(f"{words}; {self.view.better()}" if self.view.better() else words)

    def say(self, words: str) -> None:
        """Write a line."""
        self._out.write(words + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing was opened."""


class LiveDisplay:
    """A panel that stays in its place, with the remarks scrolling by above it."""

    def __init__(self, out: TextIO) -> None:
        try:
            from rich.console import Console
            from rich.live import Live
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "The live display is drawn with rich, which is not installed: pip install 'unbounded[demo]', or "
                "choose --display plain."
            ) from error
        self.view = View()
        self._turn = threading.RLock()  # rich draws in a thread of its own
        self._console = Console(file=out)
        self._live = Live(console=self._console, get_renderable=self._drawn, refresh_per_second=8, transient=False)
        self._live.start()

    def show(self, event: Event) -> None:
        """Take the event in; the panel follows by itself."""
        with self._turn:
            self.view.take(event)
        if event["event"] == "alarm":
            self._console.print(f"[bold red]{alarm_line(event)}[/]", highlight=False)

    def say(self, words: str) -> None:
        """Print above the panel."""
        self._console.print(words, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the last panel standing."""
        self._live.stop()

    def _drawn(self) -> Any:
        with self._turn:
            return self._panel()

    def _panel(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        view = self.view
        width = max(20, min(self._console.width, 100) - 36)
        figures = Table.grid(padding=(0, 3))
        names, numbers = zip(*view.figures(), strict=True)
        figures.add_row(*(Text(name, style="dim") for name in names))
        figures.add_row(*(Text(number, style="bold") for number in numbers))
        parts: list[Any] = [figures]
        if view.step:
            # In a table of its own, since a bar does not end its line.
            bar = Table.grid()
            bar.add_row(ProgressBar(total=view.epoch_steps, completed=view.step["in_epoch"], width=width + 24))
            better = view.step["better"]
            parts += [bar, Text(view.better(), style="green" if better is None or better >= 0 else "yellow")]
        columns = Table.grid(padding=(0, 2))
        columns.add_column(min_width=10)
        columns.add_column(justify="right", min_width=9)
        late = {alarm["column"] for alarm in view.alarms if clock.time() - alarm["time"] < 6}
        history = np.array(view.values, dtype=float).reshape(len(view.values), len(view.columns))
        for index, column in enumerate(view.columns):
            style = "bold red" if column.name in late else "cyan"
            now = column.reading(float(history[-1, index])) if len(history) else "–"
            # A share is shown against the whole; of anything else nobody knows what much would be.
            whole = (0.0, 100.0) if column.unit == "%" else (None, None)
            bars = sparkline(history[-width:, index], *whole) if len(history) else ""
            columns.add_row(Text(column.name), Text(now, style="bold"), Text(bars, style=style))
        if view.scores:
            top = max(view.threshold, max(view.scores))
            bars = sparkline(np.array(view.scores)[-width:], 0.0, top)
            now = f"{view.scores[-1]:.1f}"
            columns.add_row(Text("score"), Text(now, style="bold"), Text(bars, style="magenta"))
        parts += [Text(""), columns]
        for alarm in view.alarms[-3:]:
            parts.append(Text(alarm_line(alarm), style="red"))
        title = f"[bold]unbounded[/] · {view.source or 'starting'} · {view.doing}"
        return Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED, border_style="dim", width=100)


def sparkline(values: np.ndarray, low: float | None = None, high: float | None = None) -> str:
    """Draw a row of numbers as a row of bars.

    Args:
        values: the numbers, [n].
        low: what the lowest bar stands for; the smallest number, if none is given.
        high: what the highest stands for; the largest number, if none is given.

    Returns:
        A character for each number.

    Example:
        >>> sparkline(np.array([0.0, 1.0, 2.0, 4.0]))
        '▁▂▄█'
    """
    values = np.asarray(values, dtype=float)
    known = values[np.isfinite(values)]
    if not len(known):
        return " " * len(values)
    low = float(known.min()) if low is None else low
    high = float(known.max()) if high is None else high
    share = (values - low) / (high - low) if high > low else np.zeros(len(values))
    bars = 1 + np.clip(np.nan_to_num(share) * 7, 0, 7).astype(int)
    return "".join(BARS[bar] if np.isfinite(value) else " " for bar, value in zip(bars, values, strict=True))
