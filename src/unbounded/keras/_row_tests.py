"""RowTests: predicts the new rows of a feed and judges the predictions, for `Prequential`.

Two ways with one interface: `ArrivalTests` judges a row when it is predicted, since its target comes with it;
`LabelTests`, for a join, judges it when its label comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.feed.feed import Feed as CoreFeed
from unbounded.feed.new_labels import NewLabelsOf, UnlabelledRows
from unbounded.feed.new_rows import NewRowsOf, source_of
from unbounded.feed.predictions import WaitingPredictions
from unbounded.keras._predicting import ModelPredictions
from unbounded.keras._running import Running
from unbounded.keras._tested_rows import table_rows
from unbounded.stages.join import Join
from unbounded.store.table import Table

Numbers = NDArray[np.int64]
Rows = TypeVar("Rows", bound=tuple[Any, ...])


@dataclass
class Results:
    """Where predictions that were judged go.

    Args:
        running: the metrics.
        on_predictions: the user's function.
        table: the table on the disk; None for none.
        written: the rows of it.
    """

    running: Running
    on_predictions: Callable[[Any, Tree, Tree], object] | None
    table: Table | None = None
    written: int = 0

    def told(self, numbers: Numbers, came: Tree, predictions: Tree) -> None:
        """Rows were predicted: tell the user's function."""
        if self.on_predictions is not None:
            self.on_predictions(numbers, came, predictions)

    def judged(self, tested: dict[str, Numbers], predictions: Tree, rows: Tree) -> None:
        """Add rows whose targets are known to the metrics and to the table.

        Args:
            tested: columns of numbers for the table, [rows].
            predictions: a tree of arrays, [rows, …].
            rows: as batches have them.
        """
        _, y, weight = keras.utils.unpack_x_y_sample_weight(rows)
        if y is None and self.running.metrics:
            raise ValueError(
                "Prequential(metrics=…) was given metrics, and the rows have no targets. Give batches of (x, y), or "
                "metrics of your own in on_predictions."
            )
        count, y = len(tested["row"]), None if y is None else trees.map_leaves(np.asarray, y)
        self.running.check(y, predictions, weight)
        if self.table is not None:
            self.table.append(table_rows(tested, predictions, y))
            self.written = len(self.table)
        self.running.add(y, predictions, weight, count)


class RowTests(ABC):
    """The tests of a feed's new rows, in order, each once.

    Args:
        results: where they go.
        chunk: the most rows predicted at once.
    """

    def __init__(self, results: Results, chunk: int) -> None:
        self._results = results
        self._chunk = chunk
        self._predictions = ModelPredictions()
        self.upto = 0
        """How many rows of the source were tested, or left out for good; for a join, how many pairs it returned."""

    waiting = 0
    """The number of rows that were predicted and whose labels may still come."""
    unlabelled = 0
    """The number of rows that were predicted and got no label in time."""

    @abstractmethod
    def test(self, model: Any, step: int, upto: int) -> None:
        """Test what came up to `upto`, before batch number `step` is trained on."""

    def state(self) -> dict[str, Any]:
        """The state, as arrays and plain data."""
        return {"upto": self.upto}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self.upto = int(state["upto"])

    def _chunks(self, rows: Rows | None) -> Iterator[Rows]:
        """A tuple of trees, the first of them numbers, as such tuples of fewer rows."""
        count = 0 if rows is None else len(rows[0])
        if rows is not None and count <= self._chunk:
            yield rows
            return
        for at in range(0, count, self._chunk):
            yield tuple(trees.cut(each, at, at + self._chunk) for each in rows or ())  # type: ignore[misc]

    def _predict(self, model: Any, rows: Tree, count: int) -> Tree:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(rows)
        # Few shapes, for backends that compile each; each row's prediction is independent of the others.
        full = min(self._chunk, 1 << (count - 1).bit_length())
        if full > count:
            x = trees.map_leaves(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], full - count, axis=0)]), x)
        made = self._predictions.of(model, x)
        return made if full == count else trees.cut(made, 0, count)


class ArrivalTests(RowTests):
    """Tests of rows that come with their targets."""

    def __init__(self, new: NewRowsOf, results: Results, chunk: int) -> None:
        super().__init__(results, chunk)
        self._new = new

    def test(self, model: Any, step: int, upto: int) -> None:
        for numbers, came, rows in self._chunks(self._new.between(self.upto, upto)):
            predictions = self._predict(model, rows, len(numbers))
            tested = {"row": numbers, "step": np.full(len(numbers), step)}
            self._results.judged(tested, predictions, rows)
            # Before the user's function, which may fail: these were tested, once.
            self.upto = int(numbers[-1]) + 1
            self._results.told(numbers, came, predictions)
        self.upto = upto


class LabelTests(RowTests):
    """Tests of rows whose labels come later, in a join."""

    def __init__(self, new: NewLabelsOf, results: Results, chunk: int) -> None:
        super().__init__(results, chunk)
        self._new = new
        self._waiting = WaitingPredictions()
        self._next_row = 0  # the first row that was not predicted
        self.unlabelled = 0

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """The number of rows that were predicted and whose labels may still come."""
        return len(self._waiting)

    def test(self, model: Any, step: int, upto: int) -> None:
        new = self._new.between(self.upto, upto)
        self._predict_arrived(model, new.came, step)
        for pairs, numbers, rows in self._chunks(new.labelled):
            # Of a run that was begun without this callback, some were never predicted.
            places, found = self._waiting.find(numbers)
            if found is not None:
                tested = {"row": found["number"], "step": found["step"], "judged": np.full(len(places), step)}
                self._results.judged(tested, found["prediction"], trees.gather(rows, places))
                self._waiting.remove(numbers)
            self.upto = int(pairs[-1])
        self.unlabelled += self._waiting.forget_before(new.expired)
        self.upto = upto

    def _predict_arrived(self, model: Any, rows: UnlabelledRows | None, step: int) -> None:
        for numbers, times, came, made_of in self._chunks(rows):
            if numbers[-1] < self._next_row:
                continue  # predicted before, in a step that failed after it
            predictions = self._predict(model, made_of, len(numbers))
            steps = np.full(len(numbers), step)
            self._waiting.add({"number": numbers, "time": times, "step": steps, "prediction": predictions})
            self._next_row = int(numbers[-1]) + 1
            self._results.told(numbers, came, predictions)

    def state(self) -> dict[str, Any]:
        return {
            "upto": self.upto,
            "next_row": self._next_row,
            "unlabelled": self.unlabelled,
            "waiting": self._waiting.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._next_row, self.unlabelled = int(state["next_row"]), int(state["unlabelled"])
        self._waiting = WaitingPredictions(state["waiting"])


def tests_of(
    feed: CoreFeed, source: str | None, prepare: Callable[[Tree], Tree] | None, results: Results, chunk: int
) -> RowTests:
    """The tests of the new rows of a feed's source; see `Prequential` for the arguments."""
    source = source_of(feed, source)
    if isinstance(feed.stream.tested(source).head, Join):
        return LabelTests(NewLabelsOf(feed, source, prepare), results, chunk)
    return ArrivalTests(NewRowsOf(feed, source, prepare), results, chunk)
