"""What a display knows of a run: the events of the trainer, folded into the figures of the moment.

Events are plain dicts, so that a trainer can be shown by its own process, or by a parent that reads them as
lines of JSON.
"""

from __future__ import annotations

import time as clock
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unbounded.detect._columns import Column

Event = Mapping[str, Any]
KEPT = 240


@dataclass
class View:
    """The figures of the moment; `take` brings them up to date."""

    source: str = ""
    doing: str = "starting"
    columns: list[Column] = field(default_factory=list)
    values: deque[list[float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    threshold: float = np.nan
    alarms: list[dict[str, Any]] = field(default_factory=list)
    step: dict[str, Any] = field(default_factory=dict)
    epoch_steps: int = 0
    begun_at: int | None = None

    def take(self, event: Event) -> None:
        """Take an event in.

        Args:
            event: what the trainer told.
        """
        kind = event["event"]
        if kind == "hello":
            self.source = event["source"]
            self.columns = [Column(name, unit) for name, unit in event["columns"]]
            self.epoch_steps = event["epoch"]
        elif kind == "loading":
            self.doing = "loading Keras"
        elif kind == "reading":
            self.values.append(event["values"])
        elif kind == "begin":
            self.doing = "training"
            self.threshold = event["threshold"]
            self.begun_at = event["step"]
        elif kind == "score":
            self.scores.append(event["score"])
        elif kind == "alarm":
            self.alarms.append(dict(event))
        elif kind == "step":
            self.step = dict(event)
        elif kind == "end":
            self.doing = "ended"

    def reading(self) -> str:
        """The newest reading in words, such as ``cpu 12 %, memory 40 %``."""
        if not self.values:
            return "no reading yet"
        pairs = zip(self.columns, self.values[-1], strict=True)
        return ", ".join(f"{column.name} {column.reading(value)}" for column, value in pairs)

    def figures(self) -> list[tuple[str, str]]:
        """The figures of the training, each with its name."""
        step = self.step
        if not step:
            return [("step", "–")]
        figures = [
            ("epoch", f"{step['epoch'] + 1:,} ({step['in_epoch']}/{self.epoch_steps})"),
            ("step", f"{step['step']:,}"),
            ("rows", f"{step['rows']:,}"),
            ("reuse", _number(step["reuse"], ".1f")),
            ("loss", _number(step["loss"], ".3f")),
            ("fresh", _number(step["age"], ".1f", " s")),
            ("waited", _number(step["waiting"], ".0%")),
        ]
        return figures

    def better(self) -> str:
        """By how much the model beats persistence on readings that it was not trained on, in words."""
        better = self.step.get("better")
        if better is None:
            return ""
        return f"{abs(better):.0%} {'better' if better >= 0 else 'worse'} than “the next reading is the last one”"


def alarm_line(event: Event) -> str:
    """An alarm as a line of text.

    Args:
        event: the alarm.

    Returns:
        Such as ``alarm at 10:31:22: cpu +62 points``.
    """
    moment = clock.strftime("%H:%M:%S", clock.localtime(event["time"]))
    return f"alarm at {moment}: {event['words']}" + (", beyond all before" if event["record"] else "")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:{form}}{unit}"
