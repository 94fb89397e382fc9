"""Progress: which epoch a feed is in, where it began, how long it is, and when it is over."""

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
    """The epoch at hand. It changes by one assignment, so that an exception between any two lines finds a whole one.

    `goals` are the numbers of passes at which it ends, by the names of sources, "" for those of the stream; `seconds`
    is what it took before it was last taken up; `left` says that its trainer has left it before its end.
    """

    number: int = 0
    start: Count = _BEGINNING
    goals: Mapping[str, Fraction] | None = None
    seconds: float = 0.0
    begun: float | None = None
    left: bool = False


class Progress:
    """The epoch at hand.

    Args:
        epoch: how much an epoch is; None leaves it to the trainer.
        rows_per_pass: rows in a pass; None where passes must be counted by their ends.
        runtime: the feed's.
        inputs: the same for each source of a mix, by its name, in order.
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
        """The run's beginning."""
        self._now = _Current(start=Count(inputs=(InputCount(),) * len(self._inputs)))

    @property
    def number(self) -> int:
        """The number of the epoch at hand, from 0."""
        return self._now.number

    def renumber(self, number: int) -> None:
        """Count the epochs on from `number`, for a trainer that has its own count."""
        self._now = replace(self._now, number=number)

    @property
    def start(self) -> Count:
        """Where it began."""
        return self._now.start

    # -- time ----------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """The epoch is begun, or gone on with: time counts."""
        if self._now.begun is None:
            self._now = replace(self._now, begun=self._runtime.monotonic())

    @property
    def seconds(self) -> float:
        """How long the epoch has taken."""
        now = self._now
        return now.seconds + (0.0 if now.begun is None else self._runtime.monotonic() - now.begun)

    @property
    def out_of_time(self) -> bool:
        """Whether its seconds are over."""
        return self.epoch is not None and self.epoch.seconds is not None and self.seconds >= self.epoch.seconds

    # -- bounds --------------------------------------------------------------------------------------------------

    def passes(self, count: Count, source: str = "") -> Fraction:
        """Passes up to a point, of the stream or of one source of a mix: exact where it is known how many rows a pass
        has, else those that have ended."""
        if not source:
            return Fraction(count.rows, self._rows_per_pass) if self._rows_per_pass else Fraction(count.passes)
        index, per_pass = self._inputs[source]
        rows, passes = count.inputs[index]
        return Fraction(rows, per_pass) if per_pass else Fraction(passes)

    def goals(self) -> Mapping[str, Fraction]:
        """The passes at which the epoch ends, by the names of sources, "" for those of the stream. They are carried:
        counted on from the last goal, not from where a batch happened to end."""
        passes = None if self.epoch is None else self.epoch.passes
        if passes is None:
            return {}
        goals = self._now.goals
        if goals is None or goals.keys() != (passes.keys() if isinstance(passes, Mapping) else {""}):
            goals = {name: self.passes(self.start, name) + each for name, each in self._asked().items()}
            self._now = replace(self._now, goals=goals)
        return goals

    def _asked(self) -> dict[str, Fraction]:
        """The passes of an epoch, by the names of sources."""
        passes = None if self.epoch is None else self.epoch.passes
        if passes is None:
            return {}
        asked = passes if isinstance(passes, Mapping) else {"": passes}
        return {name: Fraction(str(each)) for name, each in asked.items()}

    def leave(self) -> None:
        """The trainer wants no more of this epoch's batches."""
        self._now = replace(self._now, left=True)

    @property
    def left(self) -> bool:
        """Whether the trainer has left it before its end."""
        return self._now.left

    def reached(self, now: Count) -> bool:
        """Whether a bound is reached, of an epoch in which something was handed out."""
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
        """The step at which the epoch ends, as far as batches decide it; after the run's end where it is not in it."""
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
        # Never before one batch was handed out.
        return max(end, self.start.steps + 1)

    def length(
        self, batch_rows: int | None, declared_rows: int | None, *, now: Count | None = None, multiple: int = 1
    ) -> int | None:
        """How many batches the epoch at hand has in all, where that can be said beforehand.

        Args:
            batch_rows: rows in a batch; None where blocks of any size are the batches.
            declared_rows: rows of the whole stream, up to its declared end; None where it has none.
            now: how far it is trained, all of it acknowledged; None: it has just begun.
            multiple: batches come in groups of so many, from `now` on: bounds by rows and passes are rounded up to
                them.
        """
        epoch, start = self.epoch, self.start
        now = start if now is None else now
        done = now.steps - start.steps
        if epoch is not None and epoch.seconds is not None:
            return None

        def by_rows(goal: int | Fraction, multiple: int = 1) -> int | None:
            """Batches from `now` on."""
            if batch_rows is None:
                return None
            return math.ceil(max(0, math.ceil((math.ceil(goal) - now.rows) / batch_rows)) / multiple) * multiple

        found: list[int | None] = []  # batches from `now` on, by each bound
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
        # Never before one batch was trained.
        return done + max(min(left), 0 if done else 1) if left else None

    def end(self, reached: Count) -> None:
        """It is over, where `reached` says: the next one begins there."""
        goals = {}
        for name, passes in self._asked().items():
            # Each on its own: a goal that was not reached is left behind.
            now, goal = self.passes(reached, name), self.goals()[name]
            goals[name] = (goal if now >= goal else now) + passes
        self._now = _Current(self.number + 1, reached, goals or None)

    # -- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """As plain data."""
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
        """Take up what `state` gave."""
        goals = None if state["goals"] is None else {name: Fraction(goal) for name, goal in state["goals"].items()}
        start = Count.of(state["start"])
        self._now = _Current(state["number"], start, goals, state["seconds"], None, state.get("left", False))
