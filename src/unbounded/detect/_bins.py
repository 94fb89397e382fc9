"""Bins: a run's readings and epochs, aggregated while it runs, so that its record stays small.

A bin has the minimum and the maximum of each column: no extreme is lost. Its size doubles when there are twice as many
bins as wanted, so their number grows by `most` for each doubling of the run's length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

READINGS = 600
EPOCHS = 300
PAUSE = 10.0  # a pause is this many times as long as the usual time between two readings
NOTABLE = 0.005  # and at least this share of the time since the first reading: a shorter one is invisible in a plot


class Ladder:
    """The size of bins: the smallest power of two that gives fewer than twice `most` bins.

    Args:
        most: the number of bins wanted.
        done: the number of items so far.
    """

    def __init__(self, most: int, done: int = 0) -> None:
        self._most, self.done = most, done

    @property
    def size(self) -> int:
        """The number of items in a bin now."""
        return 1 << max(0, (self.done // self._most).bit_length() - 1)

    @property
    def room(self) -> int:
        """The number of items that still fit into the current bin."""
        return self.size - self.done % self.size


class ReadingBins:
    """Bins of scored readings.

    Args:
        columns: the number of columns of a reading.
        most: the approximate number of bins for a run of any length.

    Example:
        >>> bins = ReadingBins(columns=1, most=2)
        >>> one = np.ones(8)
        >>> records = bins.add(np.arange(8.0), np.arange(8.0)[:, None], one, one, one)
        >>> [(record["low"], record["high"]) for record in records]
        [([0.0], [0.0]), ([1.0], [1.0]), ([2.0], [2.0]), ([3.0], [3.0]), ([4.0], [5.0]), ([6.0], [7.0])]
    """

    def __init__(self, columns: int, most: int = READINGS) -> None:
        self._ladder, self._columns = Ladder(most), columns
        self._first_time = np.nan
        self._last_time = np.nan
        self._apart: deque[float] = deque(maxlen=9)  # seconds between the last readings with different times
        self._empty()

    def _empty(self) -> None:
        self._count = 0
        self._from = np.nan
        self._low, self._high = np.full(self._columns, np.inf), np.full(self._columns, -np.inf)
        self._score = -np.inf
        self._sums = np.zeros(3)  # error, last, and the number of readings that have both

    def add(
        self, time: np.ndarray, values: np.ndarray, score: np.ndarray, error: np.ndarray, last: np.ndarray
    ) -> list[dict[str, Any]]:
        """Add readings.

        Args:
            time: in seconds, [rows].
            values: [rows, columns].
            score: how surprising each is, NaN if it was not judged, [rows].
            error: the model's squared error, [rows].
            last: the squared error of "the next reading equals the last", [rows].

        Returns:
            Records of the bins that are full, and of long pauses.
        """
        records: list[dict[str, Any]] = []
        pauses = self._pauses(time)
        at = 0
        while at < len(time):
            if at in pauses:
                records += self.rest()
                records.append({"kind": "pause", "from": _time(pauses[at]), "to": _time(time[at])})
            ends = [stop for stop in pauses if stop > at]
            stop = min(at + self._ladder.room, len(time), *ends)
            self._take(slice(at, stop), time, values, score, error, last)
            at = stop
            if self._ladder.done % self._ladder.size == 0:
                records += self.rest()
        return records

    def _pauses(self, time: np.ndarray) -> dict[int, float]:
        """The readings that follow a long pause, with the time when the pause began."""
        found = {}
        for index, now in enumerate(time.tolist()):
            before, self._last_time = self._last_time, now
            if np.isnan(before):
                self._first_time = now
                continue
            apart = now - before
            if apart <= 0:
                continue
            usual = sorted(self._apart)[len(self._apart) // 2] if self._apart else apart
            if apart > PAUSE * usual and apart > NOTABLE * (now - self._first_time):
                found[index] = before
            # The usual time adapts soon to a source that has become slower.
            self._apart.append(apart)
        return found

    def _take(
        self, rows: slice, time: np.ndarray, values: np.ndarray, score: np.ndarray, error: np.ndarray, last: np.ndarray
    ) -> None:
        count = rows.stop - rows.start
        if not self._count:
            self._from = float(time[rows.start])
        self._count += count
        self._ladder.done += count
        self._to = float(time[rows.stop - 1])
        np.fmin(self._low, np.fmin.reduce(values[rows]), out=self._low)
        np.fmax(self._high, np.fmax.reduce(values[rows]), out=self._high)
        self._score = float(np.fmax(self._score, np.fmax.reduce(score[rows], initial=-np.inf)))
        known = np.isfinite(error[rows]) & np.isfinite(last[rows])
        self._sums += [error[rows][known].sum(), last[rows][known].sum(), known.sum()]

    def rest(self) -> list[dict[str, Any]]:
        """Close the current bin, and return its record; an empty list if it has no reading."""
        if not self._count:
            return []
        record = {
            "kind": "readings",
            "first": self._ladder.done - self._count,
            "count": self._count,
            "from": _time(self._from),
            "to": _time(self._to),
            "low": [short(value) for value in self._low],
            "high": [short(value) for value in self._high],
            "score": short(self._score),
            "error": short(self._sums[0]),
            "last": short(self._sums[1]),
            "judged": int(self._sums[2]),
        }
        self._empty()
        return [record]

    def state_dict(self) -> dict[str, Any]:
        """The current bin, as plain numbers and small arrays."""
        return {
            "done": self._ladder.done,
            "count": self._count,
            "times": np.array([self._first_time, self._last_time, self._from]),
            "apart": list(self._apart),
            "low": self._low.copy(),
            "high": self._high.copy(),
            "score": np.array(self._score),
            "sums": self._sums.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a saved bin.

        Args:
            state: from `state_dict`.
        """
        self._ladder.done, self._count = int(state["done"]), int(state["count"])
        self._first_time, self._last_time, self._from = (float(value) for value in state["times"])
        self._apart = deque((float(value) for value in state["apart"]), maxlen=9)
        self._to = self._last_time
        self._low, self._high = (np.array(state[name], dtype=np.float64) for name in ("low", "high"))
        self._score, self._sums = float(state["score"]), np.array(state["sums"], dtype=np.float64)


class EpochBins:
    """Bins of epochs: the means of their metrics, and the sums of the errors.

    Args:
        most: the approximate number of bins for a run of any length.
    """

    def __init__(self, most: int = EPOCHS) -> None:
        self._ladder = Ladder(most)
        self._held: list[dict[str, Any]] = []

    def add(self, epoch: int, step: int, time: float, logs: Mapping[str, float], sums: Sequence[float]) -> list[Any]:
        """Add an epoch.

        Args:
            epoch: its number, from 1.
            step: its last step.
            time: when it ended.
            logs: its metrics.
            sums: error, last and the number of judged readings, during the epoch.

        Returns:
            A record, if a bin is full.
        """
        self._held.append({"epoch": epoch, "step": step, "time": time, "logs": dict(logs), "sums": list(sums)})
        self._ladder.done += 1
        return self.rest() if self._ladder.done % self._ladder.size == 0 else []

    def rest(self) -> list[dict[str, Any]]:
        """Close the current bin, and return its record; an empty list if it has no epoch."""
        held, self._held = self._held, []
        if not held:
            return []
        names = {name: None for epoch in held for name in epoch["logs"]}
        means = {name: np.mean([epoch["logs"][name] for epoch in held if name in epoch["logs"]]) for name in names}
        error, last, judged = np.sum([epoch["sums"] for epoch in held], axis=0)
        return [
            {
                "kind": "epochs",
                "first": held[0]["epoch"],
                "last_epoch": held[-1]["epoch"],
                "step": held[-1]["step"],
                "time": _time(held[-1]["time"]),
                "logs": {name: short(value) for name, value in means.items()},
                "error": short(error),
                "last": short(last),
                "judged": int(judged),
            }
        ]

    def state_dict(self) -> dict[str, Any]:
        """The current bin, as plain data."""
        return {"done": self._ladder.done, "held": [dict(epoch) for epoch in self._held]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with a saved bin.

        Args:
            state: from `state_dict`.
        """
        self._ladder.done = int(state["done"])
        self._held = [dict(epoch) for epoch in state["held"]]


def short(value: float) -> float | None:
    """The number rounded to seven digits, which is more than a plot can show; None if it is not finite."""
    return float(f"{value:.7g}") if np.isfinite(value) else None


def _time(seconds: float) -> float:
    return round(float(seconds), 6)
