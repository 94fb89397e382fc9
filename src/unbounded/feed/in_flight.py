"""Lots: the batches that a feed has at hand, and where among them it stands.

A lot is a run of batches with what had been trained on before it. Which batch was handed out, and which was
trained on, are two step numbers; everything else about a point (its rows, its passes, its address in the
stream) follows from the lot it lies in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from unbounded.core.block import Offset, Run


class Count(NamedTuple):
    """How far a point in the run is from its beginning."""

    steps: int = 0
    rows: int = 0
    passes: int = 0


@dataclass(slots=True)
class InFlight:
    """Batches at hand.

    `at` is where they begin in what the stream gave, `before` what came before them. `bad` says, by step, how many rows
    have a NaN or an infinity, once they were looked at; `checked` that no batch has anything to refuse.
    """

    run: Run
    at: Offset
    before: Count
    bad: Mapping[int, int] | None = None
    checked: bool = False

    @property
    def end(self) -> int:
        """The step after the last batch."""
        return self.before.steps + self.run.count

    @property
    def passes(self) -> int:
        """How many passes end in it."""
        return sum(b.kind == "pass" for _, b in self.run.boundaries)

    def count_at(self, step: int) -> Count:
        """How far the point before batch number `step` is."""
        i = step - self.before.steps
        run = self.run
        passes = sum(1 for at, b in run.boundaries if at <= i and b.kind == "pass")
        return Count(step, self.before.rows + min(i * run.size, run.total), self.before.passes + passes)

    def at_step(self, step: int) -> Offset:
        """The point before batch number `step`, in what the stream gave."""
        i = step - self.before.steps
        return Offset(self.at.rows + i) if i else self.at

    def first_step_with(self, rows: int) -> int:
        """The first step by which `rows` rows in all are reached; beyond the end where they are not."""
        need = rows - self.before.rows
        if need > self.run.total:
            return self.end + 1
        return self.before.steps + max(0, -(-need // self.run.size))

    def first_step_with_passes(self, passes: int) -> int:
        """The first step by which `passes` passes in all have ended; beyond the end where they have not."""
        seen = self.before.passes
        if seen >= passes:
            return self.before.steps
        for at, b in self.run.boundaries:
            seen += b.kind == "pass"
            if seen >= passes:
                return self.before.steps + at
        return self.end + 1
