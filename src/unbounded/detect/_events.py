"""Events: which of the surprising readings raise an alarm, so that an event raises one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SOON = 20  # readings after an alarm in which a lasting change, or another column, is the same event
FAR_WORSE = 1.5  # how much more surprising a reading is that raises an alarm in the silence after another one

_STATE = ("_over", "_silent_until", "_begun", "_peak", "_brief")


class Events:
    """The alarms of several columns.

    A look raises an alarm when it exceeds its threshold after it was below for a while. Then the column is silent for
    `refractory` readings, unless a reading is 10**1.5 times rarer, or a change lasts after a single reading was told.

    Args:
        spans: for each look, the readings for which it stays above the threshold after one surprise, [looks].
        columns: the number of columns.
        refractory: readings.
    """

    def __init__(self, spans: np.ndarray, columns: int, refractory: int) -> None:
        self._refractory = refractory
        # The last ordinal at which a look was above its threshold.
        self._over = np.full((len(spans), columns), -(10**9), dtype=np.int64)
        self._quiet = np.maximum(spans, refractory)[:, None]
        self._slow = spans >= 16
        self._silent_until = np.zeros(columns, dtype=np.int64)
        self._begun = np.full(columns, -(10**9), dtype=np.int64)
        self._peak = np.zeros(columns)
        self._brief = np.zeros(columns, dtype=bool)
        self._last = -(10**9)

    def step(self, ordinal: int, excess: np.ndarray, tells: bool) -> tuple[int | None, np.ndarray]:
        """Count a surprising reading.

        Args:
            ordinal: the reading.
            excess: by how much its scores exceed the threshold; not positive where they do not, [looks, columns].
            tells: False where no alarm may be raised yet.

        Returns:
            The column whose alarm is to be raised, if one is due; and the mask of sizes with which an event begins,
            [looks, columns].
        """
        over = excess > 0
        worst = excess.max(axis=0)
        edge = over & (ordinal - self._over > self._quiet)
        self._over[over] = ordinal
        silent = ordinal < self._silent_until
        self._peak = np.where(silent, self._peak, 0.0)
        later = ordinal >= self._begun + SOON
        worse = later & (worst > self._peak + FAR_WORSE)
        lasts = later & self._brief & edge[self._slow].any(axis=0)
        due = (edge.any(axis=0) & (~silent | lasts)) | (silent & worse)
        self._peak = np.where(over.any(axis=0), np.maximum(self._peak, worst), self._peak)
        if not tells or not due.any():
            return None, edge
        column = int(np.argmax(np.where(due, worst, -1.0)))
        same = ordinal - self._last < SOON
        # The other columns of the same event are silent, too.
        for index in np.flatnonzero(due):
            self._silent_until[index] = ordinal + self._refractory
            self._begun[index] = ordinal
            self._brief[index] = not over[self._slow][:, index].any()
        if same:
            return None, edge
        self._last = ordinal
        return column, edge

    def forget(self, index: int) -> None:
        """Begin anew with a column: nothing was above a threshold.

        Args:
            index: the column.
        """
        self._over[:, index] = -(10**9)

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain data and arrays."""
        return {**{name.strip("_"): getattr(self, name).copy() for name in _STATE}, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from `state_dict` of an object with the same columns.
        """
        for name in _STATE:
            setattr(self, name, np.array(state[name.strip("_")], dtype=getattr(self, name).dtype))
        self._last = int(state["last"])
