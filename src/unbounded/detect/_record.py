"""Record: the file `run.jsonl` of a run of the detector.

It has a line for each start, alarm and long pause, for each bin of readings and of epochs (`_bins.py`), and from time
to time for the totals of training. Apart from alarms it grows with the logarithm of the run's length. A resume
truncates it to its length at the checkpoint, so its totals are those of the model that is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from unbounded.detect._columns import Column
from unbounded.detect._readings import Axis
from unbounded.detect._score import Alarm

FILE = "run.jsonl"


@dataclass(frozen=True)
class Start:
    """The trainer started: ``step`` is the last step trained before, ``position`` describes the row of the stream at
    which it continues, ``axis`` is the meaning of the readings' times, and ``keyed`` is true if they have keys.
    """

    time: float
    source: str
    step: int
    position: str
    columns: tuple[Column, ...]
    threshold: float
    axis: Axis = "date"
    keyed: bool = False


@dataclass(frozen=True)
class RecordedAlarm:
    """One alarm: that of a scorer (see `Alarm`), with the key of the reading; ``""`` without keys."""

    time: float
    key: str
    column: str
    cause: str
    score: float
    tail: float
    change: float
    row: int
    words: str

    @classmethod
    def of(cls, alarm: Alarm, key: str, row: int) -> RecordedAlarm:
        """An alarm of a scorer.

        Args:
            alarm: the alarm.
            key: of its reading.
            row: the number of the reading, among all that were scored.
        """
        shared = {name: getattr(alarm, name) for name in _SHARED}
        return cls(**shared, key=key, row=row)


_SHARED = ("time", "column", "cause", "score", "tail", "change", "words")


@dataclass(frozen=True)
class Trained:
    """Totals of training up to a moment.

    Args:
        step: the number of the last step, which is the optimizer's count of updates.
        steps: the number of steps counted here.
        rows: rows in the batches of all steps; each reading is in several.
        twice: rows in batches equal to an earlier one, which would be a fault; 0 is the guarantee.
        missed: readings that did not come, such as those while no process read.
        skipped: readings left out because a column had no number, by the first such column.
        time: the moment, in seconds since 1970.
    """

    step: int = 0
    steps: int = 0
    rows: int = 0
    twice: int = 0
    missed: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    time: float = 0.0


@dataclass(frozen=True)
class RecordedEpoch:
    """One epoch, or some that follow each other: the means of the figures that Keras logged, and the model's error on
    the readings that came in their course, which it had not been trained on; ``last`` is the error of "the next
    reading is the last one" on the same readings.
    """

    first: int
    last_epoch: int
    step: int
    time: float
    logs: Mapping[str, float]
    error: float
    last: float
    judged: int


@dataclass(frozen=True)
class Bins:
    """Readings, summed up: for each bin how many there are and when, and the extremes of each column.

    Args:
        first: the number of its first reading, [bins]; so are the next.
        count: how many readings it holds.
        begin: when its first reading was taken, on the run's axis.
        end: when its last was.
        low: the lowest of each column, [bins, columns].
        high: the highest.
        score: the highest score.
        error: the sum of the model's squared errors.
        last: the sum of those of "the next reading is the last one".
    """

    first: np.ndarray
    count: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: np.ndarray
    error: np.ndarray
    last: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class RecordedRun:
    """A run, read back.

    Args:
        starts: the newest begins of the trainer, in order.
        start_count: how many there were in all.
        bins: its readings.
        pauses: long times without a reading, (from, to).
        alarms: the newest, in order.
        alarm_count: how many there were in all.
        epochs: in order.
        trained: what was trained in all.
        damaged: lines of the file that could not be read.
    """

    starts: tuple[Start, ...]
    start_count: int
    bins: Bins
    pauses: tuple[tuple[float, float], ...]
    alarms: tuple[RecordedAlarm, ...]
    alarm_count: int
    epochs: tuple[RecordedEpoch, ...]
    trained: Trained
    damaged: int = 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the columns are."""
        return self.starts[-1].columns if self.starts else ()

    @property
    def axis(self) -> Axis:
        """What the readings' times are."""
        return self.starts[-1].axis if self.starts else "date"

    @property
    def readings(self) -> int:
        """How many readings were scored."""
        return int(self.bins.count.sum())

    @property
    def steps(self) -> np.ndarray:
        """The numbers of the steps that were trained, [steps]; from 1, where none is missing."""
        return np.arange(self.trained.step - self.trained.steps, self.trained.step) + 1

    @property
    def uses(self) -> float:
        """How often each reading was trained on, on average, over all that were scored."""
        return self.trained.rows / self.readings if self.readings else 0.0

    def better_by(self, readings: int | None = None) -> float | None:
        """By how much the model beat "the next reading is the last one", before it was trained on it.

        Args:
            readings: how many of the newest readings to look at, about; ``None`` for all.

        Returns:
            The share of persistence's mean squared error that the model saved: 0.3 is 30 % better, a
            negative number is worse. ``None`` where nothing moved, or nothing was scored.
        """
        newest = np.ones(len(self.bins), dtype=bool)
        if readings is not None:
            newest = np.cumsum(self.bins.count[::-1])[::-1] <= max(readings, int(self.bins.count[-1:].sum()))
        error, last = float(self.bins.error[newest].sum()), float(self.bins.last[newest].sum())
        return 1.0 - error / last if last > 0 else None

    def since_long_pause(self) -> RecordedRun:
        """The readings after the last pause that is longer than ten minutes and than all reading before it.

        Returns:
            The same run with fewer readings and alarms; or itself, where there is no such pause.
        """
        if self.axis == "row" or not len(self.bins):
            return self
        read, first = 0.0, None
        begin = float(self.bins.begin[0])
        for since, until in self.pauses:
            read, begin = read + since - begin, until
            if until - since > max(600.0, read):
                first = until
        if first is None:
            return self
        kept = self.bins.begin >= first
        bins = Bins(*(getattr(self.bins, one.name)[kept] for one in fields(Bins)))
        alarms = tuple(alarm for alarm in self.alarms if alarm.time >= first)
        pauses = tuple(pause for pause in self.pauses if pause[0] >= first)
        return replace(self, bins=bins, alarms=alarms, pauses=pauses)

    def rows_trained_twice(self) -> int:
        """Rows in batches that were trained before: the same rows in the same order.

        Replay draws each row again and again, but never the same batch.

        Returns:
            A count; 0 is what is promised.
        """
        return self.trained.twice


def as_line(what: Start | RecordedAlarm | Trained) -> dict[str, Any]:
    """A start, an alarm, or what was trained, as a line of the file.

    Args:
        what: one of them.

    Returns:
        Plain data.
    """
    # The file says of a tuple that it is one, and its readers expect a list.
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(what).items()}
    return {"kind": type(what).__name__.lower().removeprefix("recorded"), **plain}
