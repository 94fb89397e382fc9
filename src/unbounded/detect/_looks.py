"""Looks: sizes by which a reading is judged, each for a cause of alarms and for one direction.

Moving means over several spans are compared with slower ones, so that a change that lasts is as visible as a single
reading; the model's error and the deviation from the season are compared with their usual size; so is the mean
absolute difference of readings in succession, which detects noise and stuck sensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from unbounded.detect._season import Season

Cause = Literal["sudden", "lasting", "season", "variation", "extreme"]
"""The causes of alarms; see `Alarm`."""

SPANS = np.array([1.0, 4.0, 16.0, 64.0])[:, None]  # readings of the moving means
SLOWER = 8.0  # how much longer a mean is that they are compared with
MEDIAN = 0.0015  # mean absolute deviations by which the running median follows a reading: slower than the slowest mean
VARIATION = 16.0  # readings of the mean absolute difference
CLIP = 8.0  # deviations beyond which a reading does not move a mean further
FLOOR = 0.05  # added to them: the scale of the readings is about one
AWAY = 0.5  # of a change: nearer to the running median, it is a return
SMALL = 0.02  # a difference between readings that is taken for none
ERROR_SCALE = 10.0  # the model's errors are a fraction of its scale

_UP = [(float(span), "lasting" if span > 1 else "sudden") for span in SPANS.ravel()]
_ONCE = [(1.0, "sudden"), (1.0, "sudden"), (1.0, "season"), (1.0, "season")]
_ALL = [*_UP, *_UP, (VARIATION, "variation"), (VARIATION, "variation"), *_ONCE]
LOOKS = len(_ALL)
LASTING = np.array([span for span, _ in _ALL])
"""The readings over which the size of a look hardly changes, [looks]."""
OPPOSITE = np.concatenate(
    [np.roll(np.arange(2 * len(SPANS)), len(SPANS)), 2 * len(SPANS) + np.array([1, 0, 3, 2, 5, 4])]
)
"""For each look, that of the other direction, [looks]."""
CAUSES: tuple[Cause, ...] = tuple(cause for _, cause in _ALL)  # type: ignore[misc]
"""The cause of each look."""

_FAST = np.minimum(1.0, 2.0 / (SPANS + 1.0))
_SLOW = 1.0 / (SPANS * SLOWER)
_STATE = ("_fast", "_slow", "_usual", "_steps", "_usual_steps", "_before", "_median", "seen")


class Looks:
    """The looks of several columns, reading by reading.

    Args:
        columns: the number of columns.
        every: seconds between two readings, about.
    """

    def __init__(self, columns: int, every: float) -> None:
        self.season = Season(2 * columns, every)
        self.seen = np.zeros(columns)
        self._columns = columns
        self._fast, self._slow = (np.zeros((len(SPANS), columns)) for _ in range(2))
        self._usual = np.ones((len(SPANS), columns))
        self._steps, self._usual_steps, self._before = np.full(columns, 0.5), np.full(columns, 0.5), np.zeros(columns)
        self._median = np.zeros(columns)
        self._anew = True

    def step(self, time: float, y: np.ndarray, error: np.ndarray) -> np.ndarray:
        """The sizes of one reading, after which it is learned.

        Args:
            time: in seconds.
            y: the reading, on a scale on which noise is about one, [columns].
            error: that of the model, [columns].

        Returns:
            The sizes, not negative, and the changes that they are of, on the scale of `y`, 0 where a mean returns to
            what is usual: [2, looks, columns].
        """
        columns = self._columns
        part, away, standard = self.season.step(time, np.concatenate([y, error * ERROR_SCALE]))
        now = y - part[:columns]
        if self._anew:
            self._anew = False
            self._before = now
            self._fast[:], self._slow[:] = now, now
            self._median = np.where(self.seen > 0, self._median, now)
        self.seen += 1
        first = 1.0 / self.seen
        limit = CLIP * self._usual + FLOOR
        off = np.minimum(np.maximum(now - self._slow, -limit), limit)
        self._fast += _FAST * (self._slow + off - self._fast)
        self._fast[0] = now
        moved = self._fast - self._slow
        rate = np.maximum(_SLOW, first)
        limit *= 0.5
        self._slow += rate * np.minimum(np.maximum(off, -limit), limit)
        self._usual += rate * (np.abs(off) - self._usual)

        step = np.minimum(np.abs(now - self._before), CLIP * self._usual_steps + FLOOR)
        self._before = now
        self._steps += np.maximum(2.0 / (VARIATION + 1), first) * (step - self._steps)
        varied = np.log((self._steps + SMALL) / (self._usual_steps + SMALL))
        variation = self._steps - self._usual_steps
        self._usual_steps += np.maximum(1.0 / (VARIATION * SLOWER), first) * (step - self._usual_steps)

        # A return to what is usual is no change that lasts.
        self._median += np.maximum(MEDIAN, first) * self._usual[-1] * np.sign(now - self._median)
        away_from_it = np.sign(moved) * (self._fast - self._median) > AWAY * np.abs(moved)
        away_from_it[0] = True
        lasting = np.where(away_from_it, moved, 0.0)

        both = np.empty((2, LOOKS, columns))
        sizes, changes = both
        for at, size, change in (
            (0, moved, lasting),
            (2 * len(SPANS), varied, variation),
            (2 * len(SPANS) + 2, standard[columns:], moved[0]),
            (2 * len(SPANS) + 4, standard[:columns], away[:columns]),
        ):
            rows = len(SPANS) if at == 0 else 1
            sizes[at : at + rows] = size
            sizes[at + rows : at + 2 * rows] = -size
            changes[at : at + rows] = change
            changes[at + rows : at + 2 * rows] = change
        np.maximum(sizes, 0.0, out=sizes)
        return both

    def begin_anew(self) -> None:
        """Take the next reading for the first after a gap: what is usual stays, the means begin at it."""
        self._anew = True

    def column(self, index: int) -> list[list[np.ndarray]]:
        """What is known of a column, for `set_column` of another object."""
        means = [np.copy(getattr(self, name)[..., index]) for name in _STATE]
        return [means, self.season.column(index), self.season.column(self._columns + index)]

    def set_column(self, index: int, known: Sequence[Sequence[np.ndarray]]) -> None:
        """Replace what is known of a column, whose scale has changed.

        Args:
            index: the column.
            known: from `column` of an object that saw the last readings on the new scale.
        """
        means, of_column, of_error = known
        for name, new in zip(_STATE, means, strict=True):
            getattr(self, name)[..., index] = new
        self.season.set_column(index, of_column)
        self.season.set_column(self._columns + index, of_error)

    def state_dict(self) -> dict[str, Any]:
        """The state, as plain data and arrays."""
        return {
            "means": {name.strip("_"): getattr(self, name).copy() for name in _STATE},
            "anew": self._anew,
            "season": self.season.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from `state_dict` of an object with the same columns.
        """
        for name in _STATE:
            setattr(self, name, np.array(state["means"][name.strip("_")], dtype=np.float64))
        self._anew = bool(state["anew"])
        self.season.load_state_dict(state["season"])
