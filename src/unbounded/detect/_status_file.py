"""StatusFile: where a run is, in `status.json`, for `unbounded status` and other programs.

The file is replaced once a second while the run trains. It is not part of a checkpoint and nothing is read back from it
but the number of starts, so it may be removed at any time.
"""

from __future__ import annotations

import json
import os
import time as clock
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import unbounded as ub
from unbounded.detect._alarm_file import written
from unbounded.detect._readings import Readings
from unbounded.detect._record import RecordedAlarm

FILE = "status.json"
EVERY = 1.0  # seconds
LATELY = 20.0  # seconds over which the rate is taken


class StatusFile:
    """Writes the status of a run.

    Args:
        directory: the run's.
        readings: what is read.
        epoch: the length of an epoch.
    """

    def __init__(self, directory: Path, readings: Readings, epoch: ub.Epoch) -> None:
        self.path = directory / FILE
        self._readings, self._bounds = readings, epoch
        self._epoch = -1
        self._first = (0, 0, 0.0)  # steps, rows and seconds at the epoch's beginning
        self._alarms = 0
        self._last_alarm: dict[str, Any] | None = None
        self._lately: deque[tuple[float, int]] = deque()  # times, and readings scored by then
        self._written = -EVERY
        self._status: dict[str, Any] = {}
        self.share = 0.0
        """The share of the epoch that is trained."""

    @property
    def rate(self) -> float | None:
        """Readings scored in a second, lately; None before there are two moments."""
        if len(self._lately) < 2:
            return None
        (since, before), (until, after) = self._lately[0], self._lately[-1]
        return (after - before) / (until - since) if until > since else None

    def begin(self) -> None:
        """The process begins to train."""
        starts = (read_status(self.path.parent) or {}).get("starts", 0)
        self._status = {
            "source": self._readings.name,
            "columns": [column.name for column in self._readings.columns],
            "process": os.getpid(),
            "starts": starts + 1 if isinstance(starts, int) else 1,
            "started": clock.time(),
        }

    def begin_epoch(self, number: int, stats: ub.Stats) -> None:
        """An epoch begins, or goes on after a restart.

        Args:
            number: from 0.
            stats: of the feed.
        """
        if number != self._epoch:
            self._epoch, self._first = number, _measures(stats)
            self.share = 0.0

    def step(self, stats: ub.Stats, readings: int, scored: int, skipped: Mapping[str, int]) -> None:
        """A step was trained.

        Args:
            stats: of the feed.
            readings: how many were read.
            scored: how many were scored.
            skipped: readings left out, by column.
        """
        measures = _measures(stats)
        done = [now - before for now, before in zip(measures, self._first, strict=True)]
        bounds = (self._bounds.steps, self._bounds.rows, self._bounds.seconds)
        shares = [part / bound for part, bound in zip(done, bounds, strict=True) if bound]
        self.share = min(1.0, max(shares, default=0.0))
        now = clock.monotonic()
        due = now - self._written >= EVERY
        if due or not self._lately:
            self._lately.append((now, scored))
            while now - self._lately[0][0] > LATELY:
                self._lately.popleft()
        self._status |= {
            "epoch": self._epoch + 1,
            "share_of_epoch": round(self.share, 4),
            "epoch_seconds_left": round(done[2] * (1 / self.share - 1), 1) if self.share else None,
            "steps": stats.steps,
            "rows_trained": stats.rows,
            "readings": readings,
            "scored": scored,
            "readings_a_second": None if self.rate is None else round(self.rate, 3),
            "waiting": round(stats.waiting, 4),
            "missed": stats.missed,
            "dropped": stats.dropped,
            "left_out": sum(skipped.values()),
        }
        if due:
            self.write("training")

    def scored(self, row: int, time: float) -> None:
        """The newest reading that was scored.

        Args:
            row: its number.
            time: in seconds on the run's axis.
        """
        self._status["row"], self._status["time"] = row, written(time, self._readings.axis)

    def alarm(self, alarm: RecordedAlarm) -> None:
        """An alarm was raised."""
        self._alarms += 1
        self._last_alarm = {**asdict(alarm), "time": written(alarm.time, self._readings.axis)}

    def write(self, state: str) -> None:
        """Replace the file.

        Args:
            state: "training", or "ended".
        """
        self._written = clock.monotonic()
        status = {**self._status, "state": state, "written": clock.time()}
        status |= {"alarms": self._alarms, "last_alarm": self._last_alarm}
        unfinished = self.path.with_suffix(".tmp")
        try:
            unfinished.write_text(json.dumps(status, indent=1) + "\n", encoding="utf-8")
            unfinished.replace(self.path)
        except OSError:
            pass  # it is for looking at: a full disk is reported by what must not be lost

    def state_dict(self) -> dict[str, Any]:
        """What belongs to the position, as plain data."""
        last = None if self._last_alarm is None else json.dumps(self._last_alarm)
        return {"epoch": self._epoch, "first": list(self._first), "alarms": self._alarms, "last_alarm": last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Args:
            state: from `state_dict`.
        """
        self._epoch, self._alarms = int(state["epoch"]), int(state["alarms"])
        steps, rows, seconds = state["first"]
        self._first = (int(steps), int(rows), float(seconds))
        self._last_alarm = None if state["last_alarm"] is None else json.loads(state["last_alarm"])


def read_status(directory: Path) -> dict[str, Any] | None:
    """What a run wrote last.

    Args:
        directory: the run's.

    Returns:
        Plain data; None where there is none.
    """
    try:
        status = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def _measures(stats: ub.Stats) -> tuple[int, int, float]:
    return stats.steps, stats.rows, stats.waited + stats.worked
