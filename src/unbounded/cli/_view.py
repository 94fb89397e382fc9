"""View: the figures of a display, updated by the trainer's events.

Events are plain dicts, so that a trainer can be shown by its own process, or by a parent that reads them as lines of
JSON.
"""

from __future__ import annotations

import time as clock
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unbounded.detect._columns import Column
from unbounded.detect._report import compared, moment

Event = Mapping[str, Any]
KEPT = 240
QUIET = 3.0  # seconds without a reading or a step, after which a display shows the silence


@dataclass
class View:
    """The current figures; `take` updates them.

    Args:
        now: a monotonic clock, in seconds; tests pass one that they move.
    """

    now: Callable[[], float] = clock.monotonic
    source: str = ""
    doing: str = "starting"
    axis: Any = "date"
    columns: list[Column] = field(default_factory=list)
    values: deque[list[float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    threshold: float = np.nan
    alarms: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    step: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    steps: int | None = None
    begun_at: int | None = None
    readings: int = 0
    skipped: int = 0
    heard: float = field(init=False)
    """The time of the last reading or step."""
    _skipped_since: int = 0  # readings left out since then
    _why: str = ""
    _again: int = 0  # readings that were read again since then

    def __post_init__(self) -> None:
        self.heard = self.now()

    def take(self, event: Event) -> None:
        """Update the figures.

        Args:
            event: an event of the trainer.
        """
        kind = event["event"]
        if kind == "opening":
            self.source = event["source"]
            self.doing = "opening"
            self._news()
        elif kind == "hello":
            self.source = event["source"]
            self.columns = [Column(name, unit) for name, unit in event["columns"]]
            self.epochs, self.steps = event.get("epochs"), event.get("steps")
            self.axis = event.get("axis", "date")
        elif kind == "loading":
            self.doing = "loading Keras"
        elif kind == "reading":
            self.values.append(event["values"])
            self.readings = event.get("readings", self.readings)
            self._news()
        elif kind == "skipped":
            self.skipped = event["skipped"]
            self._skipped_since += 1
            self._why = f"{event['column']} was {event['value']}"
        elif kind == "again":
            self._again = event["readings"]
        elif kind == "begin":
            self.doing = "training"
            self.threshold = _known(event["threshold"])
            self.begun_at = event["step"]
            self.readings = event.get("readings", self.readings)
            self._news()
        elif kind == "score":
            self.scores.append(_known(event["score"]))
        elif kind == "alarm":
            self.alarms.append(dict(event))
        elif kind == "step":
            self.step = dict(event)
            self.skipped = event.get("skipped", self.skipped)
            self._news()
        elif kind == "end":
            self.doing = "ended"

    def _news(self) -> None:
        self.heard = self.now()
        self._skipped_since = self._again = 0

    def quiet(self) -> float:
        """Seconds without a reading or a step, while these are waited for; 0 otherwise."""
        return self.now() - self.heard if self.doing in ("training", "opening") else 0.0

    def silence(self) -> str:
        """What is waited for, and for how long; empty if there is no silence."""
        quiet = self.quiet()
        if quiet < QUIET:
            return ""
        if self._again:
            return f"reading again what is known: {self._again:,} readings so far"
        if self.doing == "opening":
            return f"waiting for the first reading for {duration(quiet)}"
        if self._skipped_since:
            return (
                f"no reading with a number in each column for {duration(quiet)}: {self._skipped_since:,} were left "
                f"out, the last since {self._why}"
            )
        return f"no reading for {duration(quiet)}"

    def reading(self) -> str:
        """The newest reading as text, such as ``cpu 12 %, memory 40 %``."""
        if not self.values:
            return "no reading yet"
        pairs = list(zip(self.columns, self.values[-1], strict=True))
        words = ", ".join(f"{column.name} {column.reading(value)}" for column, value in pairs[:8])
        return words + (f", and {len(pairs) - 8} more" if len(pairs) > 8 else "")

    def figures(self) -> list[tuple[str, str]]:
        """The figures of the training, as pairs (name, value)."""
        step = self.step
        if not step:
            return [("step", "–"), *([("readings", f"{self.readings:,}")] if self.readings else [])]
        of = f" of {self.epochs:,}" if self.epochs else ""
        figures = [
            ("epoch", f"{step['epoch'] + 1:,}{of} ({step['share']:.0%})"),
            ("step", f"{step['step']:,}" + (f" of {self.steps:,}" if self.steps else "")),
            ("readings", f"{step['scored']:,}"),
            ("a second", _number(step["rate"], ",.3g" if (step["rate"] or 0) < 100 else ",.0f")),
            ("rows", f"{step['rows']:,}"),
            ("reuse", _number(step["reuse"], ".1f")),
            ("loss", _number(step["loss"], ".3f")),
        ]
        if self.quiet() < QUIET:
            # Readings that were there already have no age.
            figures += [] if step["age"] is None else [("fresh", _number(step["age"], ".1f", " s"))]
            figures.append(("waited", _number(step["waiting"], ".0%")))
        if self.skipped:
            figures.append(("left out", f"{self.skipped:,}"))
        return figures

    def better(self) -> str:
        """By how much the model's error was lately below that of persistence, on readings before training on them."""
        better = self.step.get("better")
        if better is None:
            return ""
        return compared(better)

    def alarm(self, event: Event) -> str:
        """An alarm as a line of text, such as ``alarm at 10:31:22: cpu +62 points``."""
        return alarm_line(event, self.axis)


class Silence:
    """Decides when to show a silence again: after five seconds, after twice as long, and so on, up to five minutes."""

    FIRST, MOST = 5.0, 300.0

    def __init__(self) -> None:
        self._heard = -np.inf
        self._next = self.FIRST

    def due(self, view: View) -> str:
        """The text to show now; empty if there is none.

        Args:
            view: the figures.

        Returns:
            A line of text.
        """
        if view.heard != self._heard:
            self._heard, self._next = view.heard, self.FIRST
        quiet = view.quiet()
        if quiet < self._next:
            return ""
        self._next = quiet + min(quiet, self.MOST)
        return view.silence()


def alarm_line(event: Event, axis: Any = "date") -> str:
    """An alarm as a line of text.

    Args:
        event: the alarm.
        axis: the meaning of its time.

    Returns:
        Such as ``alarm at 10:31:22: cpu +62 points``.
    """
    at = moment(event["time"], axis)
    at = at[11:] if axis == "date" and len(at) == 19 else at
    of = f"{event['key']}: " if event.get("key") else ""
    return f"alarm at {at}: {of}{event['words']}" + (", beyond all before" if event["cause"] == "extreme" else "")


def duration(seconds: float) -> str:
    """A duration as text.

    Example:
        >>> duration(12.3), duration(754.0), duration(7_300.0)
        ('12 s', '12 min 34 s', '2 h 1 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def _known(value: float | None) -> float:
    """A number from JSON, which has null in place of NaN."""
    return np.nan if value is None else value


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:{form}}{unit}"
