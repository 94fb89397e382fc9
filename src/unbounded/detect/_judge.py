"""Judge: by how much the sizes of readings exceed their thresholds, with all that is learned from earlier readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.detect._columns import Column
from unbounded.detect._looks import LASTING, LOOKS, OPPOSITE, Looks
from unbounded.detect._scales import Scales
from unbounded.detect._tail import Tail
from unbounded.detect._threshold import Threshold

CHUNK = 16  # readings between two calls of `learn`
WEEK = 7 * 86_400.0
OFTENEST = 5e-3  # the highest rate of false alarms that follows from `weekly`
SLOWLY = 0.1  # the weight of a surprising reading after the one with which its event began: an event counts once
EXPONENT = 0.85  # of the readings for which a slow look stays as it is: its surprises are rarer by that


class Judge:
    """Scales, looks, tails and the threshold of several columns.

    Args:
        columns: the columns.
        first: readings from which the scales are set; a multiple of the readings between two calls of `learn`.
        false_alarms: the accepted rate for each reading.
        weekly: the accepted false alarms a week of the readings' times.
        memory: readings over which the usual size of a look is learned.
    """

    def __init__(self, columns: Sequence[Column], first: int, false_alarms: float, weekly: float, memory: int) -> None:
        self._width, self._first, self._memory = len(columns), first, memory
        self._false_alarms, self._weekly = false_alarms, weekly
        # Times, values and errors: the readings from which scales are set, kept while a column is idle.
        self._kept = np.zeros((0, 1 + 2 * self._width))
        self.scales = Scales(columns)
        self.looks: Looks | None = None
        self._use(1.0)
        # Sizes, excesses and weights of the readings that are not learned yet.
        self._pending = np.zeros((3, 0, LOOKS, self._width))

    def _use(self, every: float) -> None:
        """Set what follows from the time between readings, in seconds."""
        self._every = every
        rate = max(self._false_alarms, min(self._weekly * every / WEEK, OFTENEST))
        self.rate = -float(np.log10(rate))
        """-log10 of the accepted rate of false alarms for each reading."""
        # More comparisons for each reading find more that is rare: correct for their number (Bonferroni).
        self._limits = (self.rate + np.log10(LOOKS * self._width) - EXPONENT * np.log10(LASTING))[:, None]
        self._tail = Tail(LASTING, OPPOSITE, self._width, self._memory)
        self._threshold = Threshold(rate)

    def look(self, time: np.ndarray, values: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Judge the next readings.

        Args:
            time: in seconds, [rows].
            values: without missing ones, [rows, columns].
            error: of the model, [rows, columns].

        Returns:
            By how much -log10 of the tail probability of each size exceeds its threshold, and the changes on the scale
            of the looks, [rows, looks, columns] each; None as long as there are too few readings to judge by.
        """
        if self.scales.idle.any():
            kept = np.concatenate([time[:, None], values, error], axis=1)
            self._kept = np.concatenate([self._kept, kept])[-self._first :]
        elif len(self._kept):
            self._kept = self._kept[:0]
        return None if self.looks is None else self._look(self.looks, time, self.scales.to(values), error)

    def _look(self, looks: Looks, time: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.array([looks.step(float(t), *row) for t, *row in zip(time, y, error, strict=True)])
        sizes, changes = both[:, 0], both[:, 1]
        excess = self._tail.rarity(sizes) - self._limits
        new = np.stack([sizes, excess, np.where(excess > self._threshold.shift, SLOWLY, 1.0)])
        self._pending = np.concatenate([self._pending, new], axis=1)
        return excess - self._threshold.shift, changes

    def correct(self, excess: np.ndarray, begins: Mapping[int, np.ndarray]) -> None:
        """Say which of the last readings are surprising, before they are learned.

        Args:
            excess: a result of `look` without those that do not matter.
            begins: for some of its rows, the mask of the looks with which an event begins, [looks, columns].
        """
        held = self._pending[:, self._pending.shape[1] - len(excess) :]
        held[1] = excess + self._threshold.shift
        held[2] = np.where(excess > 0, SLOWLY, 1.0)
        for row, mask in begins.items():
            held[2, row][mask] = 1.0

    def learn(self) -> None:
        """Learn the readings since the last time, and set the scales that are not known yet."""
        if self.looks is not None:
            self._learn(self.looks)
        if len(self._kept) >= self._first and self.scales.idle.any():
            self._scale()

    def _learn(self, looks: Looks) -> None:
        size, excess, weight = self._pending
        if len(size):
            self._tail.learn(size, weight, looks.seen)
            self._threshold.learn(excess.max(axis=(1, 2)))
            self._pending = self._pending[:, :0]

    def _scale(self) -> None:
        """Set the scales of columns that were idle, and let the looks see the last readings on them."""
        time, values, error = np.split(self._kept, [1, 1 + self._width], axis=1)
        woken = [i for i in np.flatnonzero(self.scales.idle).tolist() if self.scales.fit(values[:, i], i)]
        known = self.looks
        if known is not None and not woken:
            return
        if known is None:
            steps = np.diff(time[:, 0])
            self._use(float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0)
        before = self._tail, self._threshold
        looks, self._tail = Looks(self._width, self._every), Tail(LASTING, OPPOSITE, self._width, self._memory)
        if known is not None:
            self._threshold = Threshold(10.0**-self.rate)
        y = self.scales.to(values)
        for start in range(0, len(y), CHUNK):
            part = slice(start, start + CHUNK)
            self._look(looks, time[part, 0], y[part], error[part])
            self._learn(looks)
        if known is None:
            self.looks = looks
            return
        fresh, (self._tail, self._threshold) = self._tail, before
        for index in woken:
            known.set_column(index, looks.column(index))
            self._tail.weights[:, index] = fresh.weights[:, index]
        self._tail.fit()

    def begin_anew(self) -> None:
        """Take the next reading for the first after a gap."""
        if self.looks is not None:
            self.looks.begin_anew()

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain data and arrays."""
        return {
            "every": self._every,
            "looks": self.looks.state_dict() if self.looks is not None else None,
            "scales": self.scales.numbers.copy(),
            "tail": self._tail.weights.copy(),
            "threshold": self._threshold.state_dict(),
            "kept": self._kept.copy(),
            "pending": self._pending.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from `state_dict` of an object with the same columns and options.
        """
        self.looks = None
        if state["looks"] is not None:
            self._use(float(state["every"]))
            self.looks = Looks(self._width, self._every)
            self.looks.load_state_dict(state["looks"])
        self.scales.numbers = np.array(state["scales"], dtype=np.float64)
        self._tail.weights = np.array(state["tail"], dtype=np.float32)
        self._tail.fit()
        self._threshold.load_state_dict(state["threshold"])
        self._kept = np.array(state["kept"], dtype=np.float64).reshape(-1, 1 + 2 * self._width)
        self._pending = np.array(state["pending"], dtype=np.float64).reshape(3, -1, LOOKS, self._width)
