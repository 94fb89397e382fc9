"""Progress: the current epoch of a feed: its number, where it began, its length, and whether it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from unbounded.core.runtime import Runtime
from unbounded.feed.epoch import Epoch
from unbounded.feed.in_flight import Count, InFlight, InputCount

_BEGINNING = Count()


@dataclass(frozen=True, slots=True)
class _Current:
    """The current epoch. It is replaced by one assignment, so that an exception between any two lines finds a valid
    one.

    `goals` are the numbers of passes at which it ends, by source name, "" for the stream; `seconds` is the time that it
    took before it was last resumed; `left` is True if the trainer has left it before its end.
    """

    number: int = 0
    start: Count = _BEGINNING
    goals: Mapping[str, Fraction] | None = None
    seconds: float = 0.0
    begun: float | None = None
    left: bool = False


class Progress:
    """The current epoch.

    Args:
        epoch: the length of an epoch; None leaves it to the trainer.
        rows_per_pass: rows in a pass; None if passes have to be counted by their ends.
        runtime: the feed's.
        inputs: `rows_per_pass` of each source of a mix, by name, in order.
    """

    def __init__(
        self,
        epoch: Epoch | None,
        rows_per_pass: int | None,
        runtime: Runtime,
        inputs: Mapping[str, int | None] | None = None,
    ) -> None:
        self.epoch = epoch
        self._rows_per_pass = rows_per_pass
        self._inputs = {name: (i, rows) for i, (name, rows) in enumerate((inputs or {}).items())}
        self._runtime = runtime
        self.begin()

    def begin(self) -> None:
        """Begin the run."""
        self._now = _Current(start=Count(inputs=(InputCount(),) * len(self._inputs)))

    @property
    def number(self) -> int:
        """The number of the current epoch, from 0."""
        return self._now.number

    def renumber(self, number: int) -> None:
        """Continue counting epochs from `number`, for a trainer with its own count."""
        self._now = replace(self._now, number=number)

    @property
    def start(self) -> Count:
        """The count at which the epoch began."""
        return self._now.start

    # -- time ----------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The epoch begins or continues: its time runs."""
        if self._now.begun is None:
            self._now = replace(self._now, begun=self._runtime.monotonic())

    @property
    def seconds(self) -> float:
        """The seconds that the epoch has taken."""
        now = self._now
        return now.seconds + (0.0 if now.begun is None else self._runtime.monotonic() - now.begun)

    @property
    def out_of_time(self) -> bool:
        """True if the epoch's seconds are over."""
        return self.epoch is not None and self.epoch.seconds is not None and self.seconds >= self.epoch.seconds

    # -- bounds --------------------------------------------------------------------------------------------------

    def passes(self, count: Count, source: str = "") -> Fraction:
        """Passes up to a point, of the stream or of one source of a mix: exact if the rows of a pass are known, else
        the number that have ended."""
        if not source:
            return Fraction(count.rows, self._rows_per_pass) if self._rows_per_pass else Fraction(count.passes)
        index, per_pass = self._inputs[source]
        rows, passes = count.inputs[index]
        return Fraction(rows, per_pass) if per_pass else Fraction(passes)

    def goals(self) -> Mapping[str, Fraction]:
        """The passes at which the epoch ends, by source name, "" for the stream. They are counted from the last goal,
        not from the batch with which the last epoch ended, so that fractions are carried."""
        passes = None if self.epoch is None else self.epoch.passes
        if passes is None:
            return {}
        goals = self._now.goals
        if goals is None or goals.keys() != (passes.keys() if isinstance(passes, Mapping) else {""}):
            goals = {name: self.passes(self.start, name) + each for name, each in self._asked().items()}
            self._now = replace(self._now, goals=goals)
        return goals

    def _asked(self) -> dict[str, Fraction]:
        """The passes of an epoch, by source name."""
        passes = None if self.epoch is None else self.epoch.passes
        if passes is None:
            return {}
        asked = passes if isinstance(passes, Mapping) else {"": passes}
        return {name: Fraction(str(each)) for name, each in asked.items()}

    def leave(self) -> None:
        """The trainer requests no more batches of this epoch."""
        self._now = replace(self._now, left=True)

    @property
    def left(self) -> bool:
        """True if the trainer has left the epoch before its end."""
        return self._now.left

    def reached(self, now: Count) -> bool:
        """True if a bound is reached; the epoch must have a batch already."""
        epoch, start = self.epoch, self.start
        if epoch is None:
            return False
        return (
            self.out_of_time
            or (epoch.steps is not None and now.steps - start.steps >= epoch.steps)
            or (epoch.rows is not None and now.rows - start.rows >= epoch.rows)
            or any(self.passes(now, name) >= goal for name, goal in self.goals().items())
        )

    def end_in(self, flight: InFlight) -> int:
        """The step at which the epoch ends, apart from time; after the run's end if it is not in this run."""
        epoch, end = self.epoch, flight.end + 1
        if epoch is None:
            return end
        if epoch.steps is not None:
            end = min(end, self.start.steps + epoch.steps)
        if epoch.rows is not None:
            end = min(end, flight.first_step_with(self.start.rows + epoch.rows))
        for name, goal in self.goals().items():
            if name:
                index, per_pass = self._inputs[name]
                rows = math.ceil(goal * per_pass) if per_pass else None
                end = min(end, flight.first_step_with_input(index, rows=rows, passes=math.ceil(goal)))
            elif self._rows_per_pass is not None:
                end = min(end, flight.first_step_with(math.ceil(goal * self._rows_per_pass)))
            else:
                end = min(end, flight.first_step_with_passes(math.ceil(goal)))
        # An epoch has at least one batch.
        return max(end, self.start.steps + 1)

    def length(
        self, batch_rows: int | None, declared_rows: int | None, *, now: Count | None = None, multiple: int = 1
    ) -> int | None:
        """The number of batches of the current epoch; None if it is not known beforehand.

        Args:
            batch_rows: rows in a batch; None if blocks of any size are the batches.
            declared_rows: rows of the whole stream before its declared end; None if it has none.
            now: the count of what was trained on; None: the epoch has just begun.
            multiple: batches come in groups of this many, from `now` on: bounds by rows and passes are rounded up to
                whole groups.
        """
        epoch, start = self.epoch, self.start
        now = start if now is None else now
        done = now.steps - start.steps
        if epoch is not None and epoch.seconds is not None:
            return None

        def by_rows(goal: int | Fraction, multiple: int = 1) -> int | None:
            """The number of batches from `now` on."""
            if batch_rows is None:
                return None
            return math.ceil(max(0, math.ceil((math.ceil(goal) - now.rows) / batch_rows)) / multiple) * multiple

        found: list[int | None] = []  # batches from `now` on, for each bound
        if epoch is not None:
            if epoch.steps is not None:
                found.append(max(0, epoch.steps - done))
            if epoch.rows is not None:
                found.append(by_rows(start.rows + epoch.rows, multiple))
            for name, goal in self.goals().items():
                per_pass = None if name else self._rows_per_pass
                found.append(None if per_pass is None else by_rows(goal * per_pass, multiple))
        if declared_rows is not None:
            found.append(by_rows(declared_rows))
        left: list[int] = []
        for each in found:
            if each is None:
                return None
            left.append(each)
        # An epoch has at least one batch.
        return done + max(min(left), 0 if done else 1) if left else None

    def end(self, reached: Count) -> None:
        """End the epoch at `reached`: the next one begins there."""
        goals = {}
        for name, passes in self._asked().items():
            # Each source by itself: a goal that was not reached is dropped.
            now, goal = self.passes(reached, name), self.goals()[name]
            goals[name] = (goal if now >= goal else now) + passes
        self._now = _Current(self.number + 1, reached, goals or None)

    # -- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The state as plain data."""
        now = self._now
        goals = None if now.goals is None else {name: str(goal) for name, goal in now.goals.items()}
        return {
            "number": now.number,
            "start": now.start.state(),
            "goals": goals,
            "seconds": self.seconds,
            "left": now.left,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        goals = None if state["goals"] is None else {name: Fraction(goal) for name, goal in state["goals"].items()}
        start = Count.of(state["start"])
        self._now = _Current(state["number"], start, goals, state["seconds"], None, state.get("left", False))
