"""InFlight: a run of batches that a feed has read, with the count of what came before it.

Which batches were handed out, and which were trained on, are two step numbers; all else about a point (its rows, passes
and cursor) follows from the run that contains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core.block import Offset, Run


class InputCount(NamedTuple):
    """A point of a run in one source of a mix: rows from the run's beginning, and passes that ended before the last of
    them."""

    rows: int = 0
    passes: int = 0


class Count(NamedTuple):
    """A point of a run: steps, rows and passes from its beginning; `inputs` has rows and passes of each source of a
    mix."""

    steps: int = 0
    rows: int = 0
    passes: int = 0
    inputs: tuple[InputCount, ...] = ()

    def state(self) -> list[Any]:
        """The count as plain data."""
        return [*self[:3], *([list(map(list, self.inputs))] if self.inputs else [])]

    @classmethod
    def of(cls, state: Sequence[Any]) -> Count:
        """The count from a `state`."""
        steps, rows, passes, *inputs = state
        return cls(steps, rows, passes, tuple(InputCount(*each) for found in inputs for each in found))


@dataclass(slots=True)
class InFlight:
    """A run of batches.

    `at` is the offset of its beginning in the stream's output, `before` the count before it. `bad` has, by step, the
    number of rows with a NaN or an infinity, once checked; `checked` is True if no batch has to be refused.
    """

    run: Run
    at: Offset
    before: Count
    bad: Mapping[int, int] | None = None
    checked: bool = False
    _inputs: NDArray[np.int64] | None = None

    @property
    def end(self) -> int:
        """The step after the last batch."""
        return self.before.steps + self.run.count

    @property
    def passes(self) -> int:
        """The number of passes that end in it."""
        return sum(b.kind == "pass" for _, b in self.run.boundaries)

    def count_at(self, step: int) -> Count:
        """The count before batch number `step`."""
        i = step - self.before.steps
        run = self.run
        passes = sum(1 for at, b in run.boundaries if at <= i and b.kind == "pass")
        inputs = self.before.inputs
        if inputs and i:
            inputs = tuple(InputCount(*each) for each in self._counted()[i - 1].tolist())
        return Count(step, self.before.rows + min(i * run.size, run.total), self.before.passes + passes, inputs)

    def _counted(self) -> NDArray[np.int64]:
        """Rows and passes of each source of a mix after each batch, of shape (batches, sources, 2)."""
        if self._inputs is None:
            self._inputs = _counted(self.run, np.array(self.before.inputs, np.int64))
        return self._inputs

    def at_step(self, step: int) -> Offset:
        """The offset of batch number `step` in the stream's output."""
        i = step - self.before.steps
        return Offset(self.at.rows + i) if i else self.at

    def first_step_with(self, rows: int) -> int:
        """The first step with at least `rows` rows before it; beyond the end if there is none."""
        need = rows - self.before.rows
        if need > self.run.total:
            return self.end + 1
        return self.before.steps + max(0, -(-need // self.run.size))

    def first_step_with_passes(self, passes: int) -> int:
        """The first step with at least `passes` ended passes before it; beyond the end if there is none."""
        seen = self.before.passes
        if seen >= passes:
            return self.before.steps
        for at, b in self.run.boundaries:
            seen += b.kind == "pass"
            if seen >= passes:
                return self.before.steps + at
        return self.end + 1

    def first_step_with_input(self, index: int, *, rows: int | None = None, passes: int = 0) -> int:
        """The same for the rows, or the passes, of one source of a mix."""
        goal, which = (passes, 1) if rows is None else (rows, 0)
        if self.before.inputs[index][which] >= goal:
            return self.before.steps
        at = int(np.searchsorted(self._counted()[:, index, which], goal)) if self.run.count else 0
        return self.before.steps + at + 1


def _counted(run: Run, before: NDArray[np.int64]) -> NDArray[np.int64]:
    batches, sources = run.count, len(before)
    out = np.tile(before, (batches, 1, 1))
    if run.provenance is None or not batches:
        return out  # the rows have no source: a stage after the mix has made them of several
    leaf, passes = run.provenance & 0xFF, run.provenance >> 8
    ends = np.minimum(np.arange(1, batches + 1) * run.size, run.total)
    for source in range(sources):
        rows = np.flatnonzero(leaf == source)
        count = np.searchsorted(rows, ends)
        out[:, source, 0] += count
        ended = passes[rows]
        if len(rows) and ended.max() > before[source, 1]:
            most = np.maximum.accumulate(np.concatenate([before[source, 1:], ended]))
            out[:, source, 1] = most[count]
    return out
