"""Progress: which epoch a feed is in, where it began, and when it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from unbounded._clock import Clock
from unbounded._epoch import Epoch
from unbounded._lots import Count, Lot


class Progress:
    """The epoch at hand.

    `epoch` says how much an epoch is, None leaving it to the trainer; `rows_per_pass` is None where passes must be
    counted by their ends.
    """

    def __init__(self, epoch: Epoch | None, rows_per_pass: int | None, clock: Clock) -> None:
        self.epoch = epoch
        self._rows_per_pass = rows_per_pass
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """The run's beginning."""
        self.number = 0
        self.start = Count()
        self._goal: Fraction | None = None
        self._seconds = 0.0  # that the epoch took, before it was last taken up
        self._begun: float | None = None

    # -- time ----------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The epoch is begun, or gone on with: time counts."""
        if self._begun is None:
            self._begun = self._clock.monotonic()

    @property
    def seconds(self) -> float:
        """How long the epoch has taken."""
        return self._seconds + (0.0 if self._begun is None else self._clock.monotonic() - self._begun)

    @property
    def out_of_time(self) -> bool:
        """Whether its seconds are over."""
        return self.epoch is not None and self.epoch.seconds is not None and self.seconds >= self.epoch.seconds

    # -- bounds --------------------------------------------------------------------------------------------------

    def passes(self, count: Count) -> Fraction:
        """Passes up to a point: exact where it is known how many rows a pass has, else those that have ended."""
        return Fraction(count.rows, self._rows_per_pass) if self._rows_per_pass else Fraction(count.passes)

    def goal(self, passes: float) -> Fraction:
        """The passes at which the epoch ends. They are carried: counted on from the last goal, not from where a batch
        happened to end."""
        if self._goal is None:
            self._goal = self.passes(self.start) + Fraction(str(passes))
        return self._goal

    def reached(self, now: Count) -> bool:
        """Whether a bound is reached, of an epoch in which something was handed out."""
        epoch, start = self.epoch, self.start
        if epoch is None:
            return False
        return (
            self.out_of_time
            or (epoch.steps is not None and now.steps - start.steps >= epoch.steps)
            or (epoch.rows is not None and now.rows - start.rows >= epoch.rows)
            or (epoch.passes is not None and self.passes(now) >= self.goal(epoch.passes))
        )

    def end_in(self, lot: Lot) -> int:
        """The step at which the epoch ends, as far as batches decide it; beyond the lot's end where it is not in it."""
        epoch, end = self.epoch, lot.end + 1
        if epoch is None:
            return end
        if epoch.steps is not None:
            end = min(end, self.start.steps + epoch.steps)
        if epoch.rows is not None:
            end = min(end, lot.first_step_with(self.start.rows + epoch.rows))
        if epoch.passes is not None:
            goal = self.goal(epoch.passes)
            if self._rows_per_pass is not None:
                end = min(end, lot.first_step_with(math.ceil(goal * self._rows_per_pass)))
            else:
                end = min(end, lot.first_step_with_passes(math.ceil(goal)))
        # Never before one batch was handed out.
        return max(end, self.start.steps + 1)

    def end(self, reached: Count) -> None:
        """It is over, where `reached` says: the next one begins there."""
        epoch, goal = self.epoch, None
        if epoch is not None and epoch.passes is not None and self.passes(reached) >= self.goal(epoch.passes):
            goal = self.goal(epoch.passes) + Fraction(str(epoch.passes))
        self._goal = goal
        self.number += 1
        self.start = reached
        self._seconds, self._begun = 0.0, None

    # -- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """As plain data."""
        goal = None if self._goal is None else str(self._goal)
        return {"number": self.number, "start": list(self.start), "goal": goal, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self.number = state["number"]
        self.start = Count(*state["start"])
        self._goal = None if state["goal"] is None else Fraction(state["goal"])
        self._seconds, self._begun = state["seconds"], None
