"""LiveDisplay: a panel in the terminal that stays in its place and fits its size, drawn with rich."""

from __future__ import annotations

import threading
from typing import Any, TextIO

import numpy as np

from unbounded.cli._view import Event, View
from unbounded.detect._columns import Column

BARS = " ▁▂▃▄▅▆▇█"
WIDEST = 100
ALARMS = 3
LATE = 6.0  # seconds for which a column is red after its alarm
# The order in which figures are left out if there is no room for all.
DISPENSABLE = ("rows", "a second", "reuse", "fresh", "waited", "left out", "loss", "epoch")


class LiveDisplay:
    """A panel that stays in its place; messages scroll by above it."""

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
        self._alarmed: dict[str, float] = {}  # when columns raised their last alarm, on the view's clock
        self._console = Console(file=out)
        self._live = Live(console=self._console, get_renderable=self._drawn, refresh_per_second=8, transient=False)
        self._live.start()

    def show(self, event: Event) -> None:
        """Take the event; the panel is redrawn by itself."""
        with self._turn:
            self.view.take(event)
            if event["event"] == "alarm":
                self._alarmed[event["column"]] = self.view.now()
        if event["event"] == "alarm":
            self._console.print(self.view.alarm(event), style="bold red", highlight=False, markup=False)

    def say(self, words: str) -> None:
        """Print above the panel."""
        self._console.print(words, highlight=False, markup=False)

    def tick(self) -> None:
        """No-op: the panel is redrawn by itself."""

    def close(self) -> None:
        """Stop drawing, and leave the last panel."""
        self._live.stop()

    def _drawn(self) -> Any:
        with self._turn:
            return panel(self.view, self._alarmed, self._console.width, self._console.height)


def panel(view: View, alarmed: dict[str, float], width: int, height: int) -> Any:
    """The panel, as large as the terminal allows.

    Args:
        view: the figures.
        alarmed: by column, the time of its last alarm, on the view's clock.
        width: of the terminal, in characters.
        height: of the terminal, in lines.

    Returns:
        A rich renderable of at most `height` - 1 lines. It always has the figures, the score and the newest alarms; and
        as many columns as fit, those with an alarm first.
    """
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    width = min(width, WIDEST)
    inner = width - 4
    parts: list[Any] = [_figures(view, inner)]
    used = 2
    if view.step:
        better = view.step["better"]
        # In a table of its own, since a bar does not end its line.
        bar = Table.grid()
        bar.add_row(ProgressBar(total=1.0, completed=view.step["share"], width=inner - 8))
        style = "green" if better is None or better >= 0 else "yellow"
        parts += [bar, Text(view.better(), style=style, no_wrap=True, overflow="ellipsis")]
        used += 2
    silence = view.silence()
    if silence:
        parts.append(Text(silence, style="bold yellow", no_wrap=True, overflow="ellipsis"))
        used += 1
    # Two lines of the frame, one blank, one for the score, and one for the cursor.
    used += 5
    alarms = list(view.alarms)[-max(1, min(ALARMS, height - used - 2)) :]
    room = height - used - len(alarms)
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=10, max_width=16, no_wrap=True)
    table.add_column(justify="right", min_width=9, no_wrap=True)
    table.add_column(no_wrap=True)
    bars = max(8, inner - 16 - 9 - 6)
    shown, more = _chosen(view, alarmed, room)
    history = np.array(view.values, dtype=float).reshape(len(view.values), len(view.columns))
    for index in shown:
        column = view.columns[index]
        late = view.now() - alarmed.get(column.name, -np.inf) < LATE
        now = column.reading(float(history[-1, index])) if len(history) else "–"
        drawn = _bars(column, history[-bars:, index])
        table.add_row(Text(column.name), Text(now, style="bold"), Text(drawn, style="bold red" if late else "cyan"))
    if more:
        table.add_row(Text(f"and {more:,} more", style="dim"), Text(""), Text(""))
    if view.scores:
        scores = np.array(view.scores)
        top = float(np.fmax(view.threshold, np.fmax.reduce(scores)))  # there is no threshold in the first minutes
        now = "–" if np.isnan(scores[-1]) else f"{scores[-1]:.1f}"
        drawn = sparkline(scores[-bars:], 0.0, top)
        table.add_row(Text("score"), Text(now, style="bold"), Text(drawn, style="magenta"))
    parts += [Text(""), table]
    parts += [Text(view.alarm(alarm), style="red", no_wrap=True, overflow="ellipsis") for alarm in alarms]
    doing = "waiting" if silence else view.doing
    title = Text.assemble(("unbounded", "bold"), f" · {view.source or 'starting'} · {doing}")
    return Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED, border_style="dim", width=width)


def _figures(view: View, width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    figures = view.figures()
    for name in DISPENSABLE:
        if sum(max(len(name), len(number)) + 3 for name, number in figures) - 3 <= width:
            break
        figures = [figure for figure in figures if figure[0] != name]
    table = Table.grid(padding=(0, 3))
    table.add_row(*(Text(name, style="dim", no_wrap=True) for name, _ in figures))
    table.add_row(*(Text(number, style="bold", no_wrap=True) for _, number in figures))
    return table


def _chosen(view: View, alarmed: dict[str, float], room: int) -> tuple[list[int], int]:
    """The columns that fit, in order, preferring those with the newest alarms; and the number of the others."""
    count = len(view.columns)
    if count <= room:
        return list(range(count)), 0
    room = max(0, room - 1)  # for a line with the number of the others
    order = sorted(range(count), key=lambda index: -alarmed.get(view.columns[index].name, -np.inf))
    return sorted(order[:room]), count - room


def _bars(column: Column, values: np.ndarray) -> str:
    # A percentage is drawn relative to 100; other quantities have no known maximum.
    return sparkline(values, *((0.0, 100.0) if column.unit == "%" else (None, None)))


def sparkline(values: np.ndarray, low: float | None = None, high: float | None = None) -> str:
    """A row of numbers as a row of bars.

    Args:
        values: the numbers, [n].
        low: the value of the lowest bar; the minimum by default.
        high: the value of the highest bar; the maximum by default.

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
