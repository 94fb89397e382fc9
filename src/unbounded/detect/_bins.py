"""A run's readings and epochs, summed up in bins while it goes on, so that its record stays small for ever.

A bin holds the lowest and the highest of each column: no extreme is lost. Its size doubles whenever there are
twice as many bins as are wanted. So few are written, however long the run: `most` for each doubling.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

READINGS = 600
EPOCHS = 300
PAUSE = 10.0  # times as long as usual between two readings
NOTABLE = 0.005  # of the time since the first reading: a shorter pause would not be seen in a plot


class Ladder:
    """How large the bin at hand is to become: the smallest power of two that leaves fewer than twice `most` bins.

    Args:
        most: how many bins are wanted.
        done: how many items there were.
    """

    def __init__(self, most: int, done: int = 0) -> None:
        self._most, self.done = most, done

    @property
    def size(self) -> int:
        """Items in a bin now."""
        return 1 << max(0, (self.done // self._most).bit_length() - 1)

    @property
    def room(self) -> int:
        """How many items the bin at hand still takes."""
        return self.size - self.done % self.size


class ReadingBins:
    """Scored readings on their way into the file.

    Args:
        columns: how many a reading has.
        most: how many bins a run of any length is to have, about.

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
        self._apart: deque[float] = deque(maxlen=9)  # seconds between the last readings that were not of one moment
        self._empty()

    def _empty(self) -> None:
        self._count = 0
        self._from = np.nan
        self._low, self._high = np.full(self._columns, np.inf), np.full(self._columns, -np.inf)
        self._score = -np.inf
        self._sums = np.zeros(3)  # error, last, and how many readings have both

    def add(
        self, time: np.ndarray, values: np.ndarray, score: np.ndarray, error: np.ndarray, last: np.ndarray
    ) -> list[dict[str, Any]]:
        """Take in the next readings.

        Args:
            time: in seconds, [rows].
            values: [rows, columns].
            score: how surprising each was, NaN where that was not judged, [rows].
            error: the model's squared error, [rows].
            last: that of "the next reading is the last one", [rows].

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
        """Before which of these readings there was a long pause, and since when."""
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
            # A source that has slowed down for good is soon taken for what it is.
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
        """Close the bin at hand, and give its record; none where it holds no reading."""
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
        """The bin at hand, as plain numbers and small arrays."""
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
        """Go on with the bin that was at hand.

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
    """Epochs on their way into the file: the means of their figures, and the sums of the errors.

    Args:
        most: how many bins a run of any length is to have, about.
    """

    def __init__(self, most: int = EPOCHS) -> None:
        self._ladder = Ladder(most)
        self._held: list[dict[str, Any]] = []

    def add(self, epoch: int, step: int, time: float, logs: Mapping[str, float], sums: Sequence[float]) -> list[Any]:
        """Take in an epoch.

        Args:
            epoch: its number, from 1.
            step: its last step.
            time: when it ended.
            logs: its figures.
            sums: error, last and how many readings were judged, in its course.

        Returns:
            A record, where a bin is full.
        """
        self._held.append({"epoch": epoch, "step": step, "time": time, "logs": dict(logs), "sums": list(sums)})
        self._ladder.done += 1
        return self.rest() if self._ladder.done % self._ladder.size == 0 else []

    def rest(self) -> list[dict[str, Any]]:
        """Close the bin at hand, and give its record; none where it holds no epoch."""
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
        """The bin at hand, as plain data."""
        return {"done": self._ladder.done, "held": [dict(epoch) for epoch in self._held]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the bin that was at hand.

        Args:
            state: from `state_dict`.
        """
        self._ladder.done = int(state["done"])
        self._held = [dict(epoch) for epoch in state["held"]]


def short(value: float) -> float | None:
    """Seven digits are more than a plot can show; None stands for what is not finite."""
    return float(f"{value:.7g}") if np.isfinite(value) else None


def _time(seconds: float) -> float:
    return round(float(seconds), 6)
