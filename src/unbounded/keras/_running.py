"""Running: metrics over all rows that were tested, and over the last n of them.

Keras's metrics add up what they are given, so the last bits of a result depend on how many rows come at once. Here rows
are added in groups of fixed size, counted from the first row: results are a function of the rows alone. The incomplete
group, and the last n rows, are added when a result is requested, in pieces whose sizes are powers of two, so that a
backend that compiles each shape has few shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.keras._metrics import metrics_of
from unbounded.keras._variables import read

_GROUP = 1024  # rows


class Running:
    """Metrics over the rows that were tested.

    Args:
        metrics: Keras metrics, or their names, such as "mae"; for a model with several outputs, by output.
        last: the number of newest rows for each metric's second result.
    """

    def __init__(self, metrics: Any, last: int) -> None:
        self.metrics = metrics_of(metrics)
        """The metrics."""
        self._last = last
        self._kept = max(last, _GROUP)
        self.clear()

    def clear(self) -> None:
        """Begin without rows."""
        self.rows = 0
        """The number of rows that were tested."""
        self._folded = 0  # the rows in the metrics' variables: whole groups
        self._newest: list[Tree] = []  # targets, predictions and weights of the newest `_held` rows
        self._held = 0
        for each in self.metrics:
            each.metric.reset_state()

    def check(self, y: Tree, predictions: Tree, weight: Any) -> None:
        """Before the first rows are added, raise ValueError if a metric can't be computed of such."""
        if not self.rows:
            for each in self.metrics:
                each.check(y, predictions, weight)

    def add(self, y: Tree, predictions: Tree, weight: Any, rows: int) -> None:
        """Add rows that were tested.

        Args:
            y: targets, [rows, …], or a tree of such.
            predictions: the same.
            weight: [rows], or None.
            rows: their number.
        """
        self.rows += rows
        if not self.metrics:
            return
        self._newest.append((y, predictions, weight))
        self._held += rows
        while self.rows - self._folded >= _GROUP:
            self._fold(self._folded, self._folded + _GROUP)
            self._folded += _GROUP
        if self._held > 2 * self._kept:
            self._trim()

    def results(self) -> dict[str, float]:
        """Each metric over all rows, by name, and over the last rows, as "…_last"; empty before the first row."""
        if not self.rows or not self.metrics:
            return {}
        before = self._variables()
        try:
            self._fold(self._folded, self.rows)
            over_all = self._named("")
            for each in self.metrics:
                each.metric.reset_state()
            # After a resume with a larger `last`, fewer rows are there.
            self._fold(self.rows - min(self._last, self._held), self.rows)
            return over_all | self._named("_last")
        finally:
            self._assign(before)

    def state(self) -> dict[str, Any]:
        """The state, as arrays and plain data."""
        self._trim()
        return {
            "rows": self.rows,
            "folded": self._folded,
            "newest": list(self._newest),
            "names": [each.name for each in self.metrics],
            "variables": self._variables(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        names = [each.name for each in self.metrics]
        if list(state["names"]) != names:
            raise ValueError(
                f"Prequential(metrics={names}): the checkpoint has the sums of {list(state['names'])}. Expected the "
                "same metrics; or begin a new run in another directory."
            )
        self.clear()
        self.rows, self._folded = int(state["rows"]), int(state["folded"])
        self._newest = [tuple(part) for part in state["newest"]]
        self._held = sum(trees.count(part) for part in self._newest)
        if self._held:
            # Some metrics have variables once they have seen rows.
            self._fold(self.rows - 1, self.rows)
        self._assign(state["variables"])

    # -- adding groups -----------------------------------------------------------------------------------------------

    def _trim(self) -> None:
        kept = min(self._held, max(self._last, self.rows - self._folded))
        self._newest = [self._part(self.rows - kept, self.rows)] if kept else []
        self._held = kept

    def _part(self, start: int, stop: int) -> Tree:
        """The rows from number `start` up to `stop`, counted over all rows."""
        first = self.rows - self._held
        whole = self._newest[0] if len(self._newest) == 1 else trees.join(self._newest)
        self._newest = [whole]
        return trees.cut(whole, start - first, stop - first)

    def _fold(self, start: int, stop: int) -> None:
        while start < stop:
            rows = min(_GROUP, 1 << (stop - start).bit_length() - 1)
            y, predictions, weight = self._part(start, start + rows)
            for each in self.metrics:
                each.update(y, predictions, weight)
            start += rows

    def _named(self, suffix: str) -> dict[str, float]:
        return {f"{name}{suffix}": value for each in self.metrics for name, value in each.results().items()}

    def _variables(self) -> list[list[Any]]:
        return [[np.array(read(variable)) for variable in each.metric.variables] for each in self.metrics]

    def _assign(self, values: Sequence[Sequence[Any]]) -> None:
        for each, of_metric in zip(self.metrics, values, strict=True):
            for variable, value in zip(each.metric.variables, of_metric, strict=True):
                variable.assign(value)
