"""What a run of the detector writes down, and how it is read back.

One file of lines, `run.jsonl`: a line for each start, each reading with its score, each alarm, each trained
step and each epoch. It is cut back to the checkpoint's length on resume, so whatever is counted in it is what
the model that goes on has really been through.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.detect._columns import Column
from unbounded.detect._score import Alarm

FILE = "run.jsonl"


@dataclass(frozen=True)
class Start:
    """The trainer began, or began again: ``step`` is the last step that it had trained before, and
    ``position`` says in words with which row of the stream it goes on.
    """

    time: float
    source: str
    step: int
    position: str
    columns: tuple[Column, ...]
    threshold: float


@dataclass(frozen=True)
class Epoch:
    """One epoch's figures, as Keras logged them."""

    epoch: int
    step: int
    time: float
    logs: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A run, read back.

    Args:
        starts: each begin of the trainer.
        row: number of each reading that was scored, [readings]; so are the next.
        time: when it was taken, in seconds since 1970.
        values: the readings, [readings, columns], in the columns' units.
        score: how surprising each was.
        error: the squared error of the model, which had not been trained on it yet; mean over the columns.
        last: that of "the next reading is the last one".
        alarms: in order.
        steps: the number of each trained step, [steps].
        batches: the numbers of the rows that each was trained on.
        epochs: in order.
        missed: readings that did not come, such as those while nobody was there to take them.
    """

    starts: tuple[Start, ...]
    row: np.ndarray
    time: np.ndarray
    values: np.ndarray
    score: np.ndarray
    error: np.ndarray
    last: np.ndarray
    alarms: tuple[Alarm, ...]
    steps: np.ndarray
    batches: tuple[tuple[int, ...], ...]
    epochs: tuple[Epoch, ...]
    missed: int

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the columns are."""
        return self.starts[-1].columns if self.starts else ()

    def better_by(self, readings: int | None = None) -> float | None:
        """By how much the model beat "the next reading is the last one", before it was trained on it.

        Args:
            readings: how many of the newest readings to look at; ``None`` for all.

        Returns:
            The share of persistence's mean squared error that the model saved: 0.3 is 30 % better, a
            negative number is worse. ``None`` where nothing moved, or nothing was scored.
        """
        newest = slice(-readings if readings else None, None)
        error, last = self.error[newest], self.last[newest]
        known = np.isfinite(error) & np.isfinite(last)
        usual = float(last[known].sum())
        return 1.0 - float(error[known].sum()) / usual if usual > 0 else None

    @property
    def uses(self) -> float:
        """How often each reading was trained on, on average, over all that were scored."""
        return sum(map(len, self.batches)) / len(self.row) if len(self.row) else 0.0

    def since_long_pause(self) -> Run:
        """The readings after the last pause that is longer than ten minutes and than all reading before it.

        Returns:
            The same run with fewer readings and alarms; or itself, where there is no such pause.
        """
        apart = np.diff(self.time)
        read = float(apart[apart <= 600].sum())
        long = np.flatnonzero(apart > max(600.0, read))
        if not len(long):
            return self
        first = int(long[-1]) + 1
        kept = {name: getattr(self, name)[first:] for name in ("row", "time", "values", "score", "error", "last")}
        alarms = tuple(alarm for alarm in self.alarms if alarm.time >= self.time[first])
        return replace(self, alarms=alarms, **kept)

    def rows_trained_twice(self) -> int:
        """Rows in batches that were trained before: the same rows in the same order.

        Replay draws each row again and again, but never the same batch.

        Returns:
            A count; 0 is what is promised.
        """
        return sum(len(batch) for batch in self.batches) - sum(len(batch) for batch in set(self.batches))


def start_record(start: Start) -> dict[str, Any]:
    """A start as a line.

    Args:
        start: what began.

    Returns:
        Plain data.
    """
    return {"kind": "start", **asdict(start), "columns": [asdict(column) for column in start.columns]}


def reading_records(
    row: Sequence[int], time: np.ndarray, values: np.ndarray, figures: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Readings as lines.

    Args:
        row: their numbers, [rows].
        time: when they were taken, [rows].
        values: [rows, columns].
        figures: `score`, `error` and `last`, each [rows].

    Returns:
        Plain data, a dict for each.
    """
    return [
        {
            "kind": "reading",
            "row": int(row[i]),
            "time": round(float(time[i]), 3),
            "values": [_short(value) for value in values[i]],
            **{name: _short(figure[i]) for name, figure in figures.items()},
        }
        for i in range(len(time))
    ]


def alarm_record(alarm: Alarm) -> dict[str, Any]:
    """An alarm as a line.

    Args:
        alarm: the alarm.

    Returns:
        Plain data.
    """
    return {"kind": "alarm", **asdict(alarm)}


def step_record(step: int, rows: Sequence[int]) -> dict[str, Any]:
    """A trained step as a line.

    Args:
        step: its number, from 1.
        rows: the numbers of the rows in its batch, in order.

    Returns:
        Plain data.
    """
    return {"kind": "step", "step": int(step), "rows": [int(row) for row in rows]}


def missed_record(readings: int, time: float) -> dict[str, Any]:
    """Readings that did not come as a line.

    Args:
        readings: how many.
        time: when that was noticed.

    Returns:
        Plain data.
    """
    return {"kind": "missed", "readings": int(readings), "time": float(time)}


def epoch_record(epoch: Epoch) -> dict[str, Any]:
    """An epoch as a line.

    Args:
        epoch: the epoch.

    Returns:
        Plain data.
    """
    return {"kind": "epoch", **asdict(epoch), "logs": {k: float(v) for k, v in epoch.logs.items()}}


def read_run(directory: Path) -> Run:
    """Read back what a run wrote.

    Args:
        directory: the run's.

    Returns:
        The run; one that has not begun is empty.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    path = directory / FILE
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                # A run that is still going on, or was killed, may have written half of its last line.
                if line.endswith(b"\n"):
                    record = json.loads(line)
                    lines.setdefault(record.pop("kind"), []).append(record)
    readings = lines.get("reading", [])
    starts = tuple(
        Start(**{**record, "columns": tuple(Column(**column) for column in record["columns"])})
        for record in lines.get("start", [])
    )

    def column(name: str, dtype: type = np.float64) -> np.ndarray:
        values = [np.nan if record[name] is None else record[name] for record in readings]
        return np.array(values, dtype=dtype)

    width = len(starts[-1].columns) if starts else 0
    values = np.array([record["values"] for record in readings], dtype=np.float64).reshape(len(readings), width)
    return Run(
        starts=starts,
        row=column("row", np.int64),
        time=column("time"),
        values=values,
        score=column("score"),
        error=column("error"),
        last=column("last"),
        alarms=tuple(Alarm(**record) for record in lines.get("alarm", [])),
        steps=np.array([record["step"] for record in lines.get("step", [])], dtype=np.int64),
        batches=tuple(tuple(record["rows"]) for record in lines.get("step", [])),
        epochs=tuple(Epoch(**record) for record in lines.get("epoch", [])),
        missed=sum(record["readings"] for record in lines.get("missed", [])),
    )


def _short(value: float) -> float | None:
    """Five digits are what a plot and an eye can use, and half as long in a file that never ends."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
