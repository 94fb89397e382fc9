"""Season: what is usual at a time of day and at an hour of the week, learned from the times of the readings.

A profile has a mean and a mean absolute deviation for each bin of its cycle, smoothed exponentially from cycle to cycle
(the seasonal part of Holt and Winters' method; Winters, Management Science 6, 1960). A column uses the profile that
predicts it best, or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DAY = 86_400.0
CYCLES = (DAY, 7 * DAY)
FINEST = (900.0, 3_600.0)  # seconds of a bin of the day, and of the week
AFTER = (2.0, 1.0)  # cycles after which a profile may be used
SLOWEST = 0.25  # the least weight of a new cycle in a profile
CLIP = 6.0  # mean absolute deviations beyond which a reading is not learned from in full
FLOOR = 0.05  # added to them, on the scale of the readings
BETTER = 0.9  # the error of a profile, relative to that of none, at which it is used


class Season:
    """The profiles of several columns, whose readings have about unit scale.

    Args:
        columns: the number of columns.
        every: seconds between two readings, about. With less than six readings a day there is no profile.
    """

    def __init__(self, columns: int, every: float) -> None:
        self.every = every
        self._seasonal = every <= DAY / 6
        bins = [
            int(cycle / max(finest, every)) if self._seasonal else 1
            for cycle, finest in zip(CYCLES, FINEST, strict=True)
        ]
        self._bins = bins
        self._mean, self._spread = ([np.zeros((count, columns), dtype=np.float32) for count in bins] for _ in range(2))
        self._visits = [np.zeros(count, dtype=np.int64) for count in bins]
        self._open = [-1, -1]  # the bins of the last reading
        self._count = [0, 0]  # readings in them
        self._sum, self._size = np.zeros((2, columns)), np.zeros((2, columns))
        # Without a profile, with that of the day, with that of the week:
        self._level, self._error = np.zeros((3, columns)), np.zeros((3, columns))
        self._chosen = np.zeros(columns, dtype=np.int64)
        self._columns = np.arange(columns)
        self._rows, self._first, self._last = 0, 0.0, 0.0
        self._parts, self._wide = np.zeros((3, columns)), np.zeros((3, columns))
        self._point()

    @property
    def used(self) -> np.ndarray:
        """True for the columns that use a profile, [columns]."""
        return self._chosen > 0

    def step(self, time: float, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The seasonal part of a reading and its deviation from what is usual; then the reading is learned.

        Args:
            time: in seconds.
            y: the reading, [columns].

        Returns:
            The seasonal part; the deviation; and the deviation in mean absolute deviations, [columns] each.
        """
        if not self._rows:
            self._level[:] = y
            self._first = self._last = time
        for i in (0, 1):
            at = int((time % CYCLES[i]) / CYCLES[i] * self._bins[i])
            if at != self._open[i]:
                self._close(i)
                self._open[i] = at
                self._choose(time)
                self._point()
        off = y - self._parts - self._level
        pick = self._pick
        part, deviation = self._parts.ravel()[pick], off.ravel()[pick]
        error, wide = self._error.ravel()[pick], self._wide.ravel()[pick]
        standard = deviation / np.maximum(np.where(self._chosen > 0, 0.5 * (error + wide), error), 1e-3)
        step = min(max(time - self._last, 0.0), 4 * self.every)
        self._last = time
        self._rows += 1
        size = np.abs(off)
        self._sum += off[1:]
        self._size += size[1:]
        if self._rows > 50:
            limit = CLIP * self._error + FLOOR
            off = np.minimum(np.maximum(off, -limit), limit)
            size = np.minimum(size, limit)
        slowest = 1.0 - math.exp(-step / DAY) if self._seasonal else 0.05
        self._level += max(1.0 / self._rows, slowest) * off
        self._error += max(1.0 / self._rows, slowest / 3) * (size - self._error)
        self._count[0] += 1
        self._count[1] += 1
        return part, deviation, standard

    def _close(self, i: int) -> None:
        """Learn the bin of the last readings."""
        at, count = self._open[i], self._count[i]
        if at >= 0 and count:
            mean, size = self._sum[i] / count, self._size[i] / count
            visits = int(self._visits[i][at])
            if visits >= 2:
                limit = CLIP * np.maximum(self._spread[i][at], self._error[i + 1]) + FLOOR
                mean, size = np.clip(mean, -limit, limit), np.minimum(size, limit)
            self._mean[i][at] += max(1.0 / (visits + 1.0), SLOWEST) * mean
            # The first size is that of a bin without a mean: no deviation from it.
            self._spread[i][at] += (max(1.0 / visits, SLOWEST) if visits else 1.0) * (size - self._spread[i][at])
            self._visits[i][at] += 1
        self._sum[i] = self._size[i] = 0.0
        self._count[i] = 0

    def _choose(self, time: float) -> None:
        """Choose the profiles."""
        best, chosen = self._error[0] * BETTER, np.zeros(len(self._columns), dtype=np.int64)
        for i in (0, 1):
            if not self._seasonal or time - self._first <= AFTER[i] * CYCLES[i]:
                continue
            better = self._error[i + 1] < best
            chosen, best = np.where(better, i + 1, chosen), np.where(better, self._error[i + 1] * BETTER, best)
        self._chosen = chosen

    def _point(self) -> None:
        """Set what stays the same within a bin."""
        for i in (0, 1):
            at, bins = self._open[i], self._bins[i]
            if at >= 0:
                self._parts[i + 1] = self._mean[i][at]
                self._wide[i + 1] = self._spread[i][[(at - 1) % bins, at, (at + 1) % bins]].max(axis=0)
        self._pick = self._chosen * len(self._columns) + self._columns

    def _arrays(self) -> list[np.ndarray]:
        """All that is known of the columns, each array with the columns last."""
        return [*(getattr(self, name) for name in _ARRAYS), *self._mean, *self._spread]

    def column(self, index: int) -> list[np.ndarray]:
        """What is known of a column, for `set_column` of another object."""
        return [one[..., index].copy() for one in self._arrays()]

    def set_column(self, index: int, known: Sequence[np.ndarray]) -> None:
        """Replace what is known of a column, whose scale has changed.

        Args:
            index: the column.
            known: from `column` of an object that saw the last readings on the new scale.
        """
        for one, new in zip(self._arrays(), known, strict=True):
            one[..., index] = new
        self._point()

    def state_dict(self) -> dict[str, Any]:
        """The profiles and levels, as plain data and arrays."""
        return {
            "every": self.every,
            "arrays": {name.strip("_"): getattr(self, name).copy() for name in _ARRAYS},
            "profiles": {str(i): np.array(one) for i, one in enumerate((*self._mean, *self._spread, *self._visits))},
            "open": list(self._open),
            "count": list(self._count),
            "times": [self._rows, self._first, self._last],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from `state_dict` of an object with the same columns and times.
        """
        for name in _ARRAYS:
            setattr(self, name, np.array(state["arrays"][name.strip("_")], dtype=getattr(self, name).dtype))
        profiles = [np.array(state["profiles"][str(i)]) for i in range(6)]
        self._mean, self._spread, self._visits = profiles[:2], profiles[2:4], profiles[4:]
        self._open, self._count = [int(n) for n in state["open"]], [int(n) for n in state["count"]]
        rows, self._first, self._last = (float(one) for one in state["times"])
        self._rows = int(rows)
        self._point()


_ARRAYS = ("_sum", "_size", "_level", "_error", "_chosen")
