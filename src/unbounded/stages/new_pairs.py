"""NewPairs: for a join, the rows as they arrive, and the pairs that it returned.

A row is predicted when it comes, and the prediction is judged when its label comes. A join's pairs are numbered from
1 on. A pair's `seen` is its number; a row's is that of the first pair that came out when the row had come. So the rows
and the pairs up to a batch's `seen` are those that had come when the batch was settled.

Rows that wait in the join when it is restored don't come by again: it adds them anew, each with the numbers that it
keeps beside them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unbounded.core.block import Block
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.stages.tap import NewRows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class NewPairs(NewRows):
    """The pairs that came out of a join, and the rows that came to it, until they are forgotten."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.came = NewRows(runtime)
        """The rows: blocks of `rows`, `number` and `time`."""
        self.label: Tree = None
        """The columns of one label, once there was one."""

    def add_rows(self, rows: Tree, numbers: Ints, seen: Ints, times: Floats) -> None:
        """Keep rows that came, which have no label yet.

        Args:
            rows: a dict of columns, [rows, …].
            numbers: the first row that came to the join is 0. [rows].
            seen: of each, the number of the next pair. [rows].
            times: by which the join orders rows and labels. [rows].
        """
        self.came.add(Block({"rows": rows, "number": numbers, "time": times}, len(numbers), seen=seen), numbers + 1)

    def add_pairs(self, rows: Tree, first: int, numbers: Ints, times: Floats) -> None:
        """Keep pairs that come out.

        Args:
            rows: a dict of columns, those of the labels included. [pairs, …].
            first: how many pairs came out before.
            numbers: those of their rows; -1 for one that waited for its label in vain. [pairs].
            times: of what completed each: its row or its label. [pairs].
        """
        seen = np.arange(first + 1, first + 1 + len(numbers))
        self.add(Block({"rows": rows, "number": numbers, "time": times}, len(numbers), seen=seen))

    def forget(self, upto: int) -> None:
        """Rows and pairs whose `seen` is `upto` at most are not asked for again."""
        super().forget(upto)
        self.came.forget(upto)

    def forget_all(self) -> None:
        """The stream is about to go to another state."""
        super().forget_all()
        self.came.forget_all()

    def restored(self) -> None:
        """The stream has gone there."""
        super().restored()
        self.came.restored()
