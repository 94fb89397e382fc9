"""WaitingPredictions: predictions until their labels arrive, in arrays that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Array, Tree

_LEAST = 256  # rows that there is memory for, at least


class WaitingPredictions:
    """Predictions of rows, until their labels come or can come no more.

    Example:
        >>> waiting = WaitingPredictions()
        >>> waiting.add({"number": np.arange(3), "time": np.arange(3) * 1.0, "prediction": np.array([0.5, 0.6, 0.7])})
        >>> at, found = waiting.find(np.array([1, 9]))
        >>> at, found["prediction"]
        (array([0]), array([0.6]))
        >>> waiting.remove(np.array([1]))
        >>> waiting.forget_before(2.0), len(waiting)
        (1, 1)

    Args:
        rows: the `state` of others, which wait again; None for none.
    """

    def __init__(self, rows: Tree = None) -> None:
        self._rows: Any = None  # memory for more than there are
        self._waits: NDArray[np.bool_] = np.empty(0, bool)
        self._head = self._used = 0  # all that wait lie between
        self._count = 0
        if rows is not None:
            self.add(rows)

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def add(self, rows: Tree) -> None:
        """Add predictions.

        Args:
            rows: a dict of `number`, which rises; `time`, which does not fall; and whatever belongs to them. [rows, …].
        """
        count = trees.count(rows)
        if self._used + count > len(self._waits):
            self._make_room(rows, count)

        def write(into: Array, leaf: Array) -> None:
            into[self._used : self._used + count] = leaf

        trees.map_leaves(write, self._rows, rows)
        self._waits[self._used : self._used + count] = True
        self._used += count
        self._count += count

    def _make_room(self, rows: Tree, count: int) -> None:
        kept = self.state()
        size = max(_LEAST, 2 * (self._count + count))

        def grown(leaf: Array, *old: Array) -> Array:
            out = trees.empty((size, *leaf.shape[1:]), leaf.dtype)
            for each in old:
                out[: len(each)] = each
            return out

        self._rows = trees.map_leaves(grown, rows, *(() if kept is None else (kept,)))
        self._head, self._used = 0, self._count
        self._waits = np.arange(size) < self._count

    def find(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], Tree]:
        """The predictions of some rows, which wait on.

        Args:
            numbers: of the rows. Some of them may not wait.

        Returns:
            The places in `numbers` of those that wait, and what was added of them; None where none does.
        """
        places, index = self._places(numbers)
        return places, trees.gather(self._rows, index) if len(index) else None

    def remove(self, numbers: NDArray[np.int64]) -> None:
        """Of these rows the predictions wait no more."""
        _, index = self._places(numbers)
        self._waits[index] = False
        self._count -= len(index)

    def _places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of some rows wait, and where."""
        if not self._count:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        known = self._rows["number"][self._head : self._used]
        at = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        places = np.flatnonzero((known[at] == numbers) & self._waits[self._head + at])
        return places, self._head + at[places]

    def forget_before(self, time: float) -> int:
        """Forget the predictions of rows of earlier times, and say how many these were."""
        if not self._count:
            return 0
        stop = self._head + int(np.searchsorted(self._rows["time"][self._head : self._used], time))
        forgotten = int(self._waits[self._head : stop].sum())
        self._waits[self._head : stop] = False
        self._head = stop
        self._count -= forgotten
        return forgotten

    def state(self) -> Tree:
        """Those that wait, in memory of their own; None if there are none."""
        return trees.gather(self._rows, np.flatnonzero(self._waits[: self._used])) if self._count else None
