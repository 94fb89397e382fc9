"""Threshold: its shift for a stream, upwards where the looks find more surprises than their probabilities allow.

The highest score of each block of readings follows a Gumbel distribution (block maxima; Coles, "An Introduction to
Statistical Modeling of Extreme Values", 2001, chapter 3), fitted by its moments, with a weak prior: scores that are
true probabilities. Where the quantile of the accepted rate lies above the threshold, the threshold is moved to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

BLOCK = 96  # readings
MARGIN = 4.0  # times the accepted rate of false alarms at which it intervenes
NATURAL = 1 / np.log(10.0)  # the scale of a maximum of -log10 of true probabilities
LEAST_SCALE = 0.3
PRIOR = 10.0  # blocks
MEMORY = 100.0  # blocks
WINSOR = 0.5  # how far above the threshold a block counts
LOWEST, HIGHEST = -3.0, 3.0
EULER = 0.5772


class Threshold:
    """The shift of the threshold for one stream.

    Args:
        rate: the accepted false alarms for each reading.
    """

    def __init__(self, rate: float) -> None:
        self._goal = np.log(min(rate * BLOCK * MARGIN, 0.9))
        self.shift = 0.0
        """What is subtracted from each score, on the scale of -log10."""
        center = NATURAL * self._goal
        self._mean, self._variance = center + EULER * NATURAL, (np.pi * NATURAL) ** 2 / 6
        self._blocks = PRIOR
        self._highest, self._rows = LOWEST, 0

    def learn(self, excess: np.ndarray) -> None:
        """Add readings.

        Args:
            excess: the highest score of each reading, relative to the threshold without a shift, [rows]; in portions
                of which a number makes a block.
        """
        self._highest = max(self._highest, float(excess.max()))
        self._rows += len(excess)
        if self._rows < BLOCK:
            return
        # A fault counts as one surprise, however large.
        off = min(self._highest, self.shift + WINSOR) - self._mean
        self._blocks += 1
        rate = max(1 / self._blocks, 1 / MEMORY)
        self._mean += rate * off
        self._variance = (1 - rate) * (self._variance + rate * off * off)
        scale = max(float(np.sqrt(6 * self._variance)) / np.pi, LEAST_SCALE)
        quantile = self._mean - EULER * scale - scale * self._goal
        self.shift = float(np.clip(quantile, 0.0, HIGHEST))
        self._highest, self._rows = LOWEST, 0

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain data."""
        return {"numbers": [self.shift, self._mean, self._variance, self._blocks, self._highest], "rows": self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from `state_dict` of an object with the same rate.
        """
        self.shift, self._mean, self._variance, self._blocks, self._highest = (float(n) for n in state["numbers"])
        self._rows = int(state["rows"])
