"""Scales: readings on a scale on which noise is about one, a logarithmic one for values over orders of magnitude."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unbounded.detect._columns import Column

SKEWED = 4.0  # how much farther the highest hundredth is from the median than the lowest, for a logarithmic scale
ALIVE = 0.05  # the fraction of readings that differ from the median in a column that is not idle


class Scales:
    """A scale for each column: `(f(value) - middle) / spread`, where f is a logarithm or nothing.

    Args:
        columns: the columns.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._bursts = np.array([column.bursts for column in columns])
        width = len(columns)
        # The constant of the logarithm, 0 for none; middle; spread; and whether the column was idle: [4, columns].
        self.numbers = np.stack([np.zeros(width), np.zeros(width), np.ones(width), np.ones(width)])

    @property
    def idle(self) -> np.ndarray:
        """True for the columns of which nothing is known but one value, [columns]."""
        idle: np.ndarray = self.numbers[3] > 0
        return idle

    def fit(self, values: np.ndarray, index: int) -> bool:
        """Set the scale of a column.

        Args:
            values: its readings, finite, [rows].
            index: the column.

        Returns:
            True if its values vary from the first quarter on; otherwise the scale is a guess.
        """
        low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
        skewed = bool(values.min() >= 0 and high - middle > SKEWED * (middle - low) + 1e-12)
        constant = 0.0
        if skewed or self._bursts[index]:
            positive = np.abs(values[values != 0])
            constant = abs(middle) or (float(positive.mean()) if len(positive) else 1.0)
        y = _logarithm(values, constant) if constant else values
        middle = float(np.median(y))
        spread = float(np.mean(np.abs(y - middle)))
        # Of a column that was just switched on, most readings would be those from before.
        alive = bool(np.mean(values != np.median(values)) >= ALIVE and np.ptp(values[: len(values) // 4]) > 0)
        self.numbers[:, index] = constant, middle, spread or max(abs(middle) * 0.02, 1e-6), not alive
        return alive

    def to(self, values: np.ndarray) -> np.ndarray:
        """Readings on the scale.

        Args:
            values: [..., columns].

        Returns:
            The same shape.
        """
        constant, middle, spread, _ = self.numbers
        y = np.where(constant > 0, _logarithm(values, np.where(constant > 0, constant, 1.0)), values)
        out: np.ndarray = np.clip((y - middle) / spread, -1e6, 1e6)
        return out

    def back(self, y: float, index: int) -> float:
        """The value of a reading.

        Args:
            y: the reading on the scale.
            index: the column.
        """
        constant, middle, spread, _ = self.numbers[:, index].tolist()
        y = y * spread + middle
        return float(np.copysign(np.expm1(min(abs(y), 50.0)) * constant, y)) if constant else y


def _logarithm(values: np.ndarray, constant: float | np.ndarray) -> np.ndarray:
    out: np.ndarray = np.copysign(np.log1p(np.abs(values) / constant), values)
    return out
