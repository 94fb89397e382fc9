"""What a reader or a user's function gives, as blocks: checked against what came before, copied, stamped."""

from __future__ import annotations

from typing import Any

import numpy as np

from unbounded.core import row_spec, trees
from unbounded.core.block import Block, Boundary
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.sources.reader import Rows


class AsBlock:
    """Makes blocks of the rows of one source; structure, dtypes and trailing shapes stay those of the first.

    Args:
        name: what the source is called in errors, such as `sensor()`.
        what: what its rows are called, such as `Row`.
        runtime: tells when rows arrived.
        row: the number of the first row.
    """

    def __init__(self, name: str, runtime: Runtime, *, what: str = "Row", row: int = 0) -> None:
        self.name = name
        self.row = row
        self._what = what
        self._runtime = runtime
        self._spec: Tree = None

    def __call__(self, given: Any) -> Block:
        """A block of a tree of arrays, which is copied, or of `Rows`.

        Raises:
            RowsError: the rows are not what they were before, or no rows.
        """
        if isinstance(given, Block):  # of a reader of ours
            return given
        times, boundary = None, None
        if isinstance(given, Rows):
            rows, boundary, times = given.rows, given.boundary, given.times
            if rows is None:
                return Block(None, 0, boundary)
            rows = trees.read_only(trees.as_rows(rows, f"{self._what} {self.row:,} of {self.name}"))
        else:
            rows = trees.map_leaves(trees.copied, given)
        return self.block(rows, boundary, times)

    def block(self, rows: Tree, boundary: Boundary | None = None, times: Any = None) -> Block:
        """The same of rows whose memory is ours."""
        what = f"{self._what} {self.row:,} of {self.name}"
        count = trees.count_checked(rows, what)
        if self._spec is None:
            self._spec = row_spec.spec(rows)
        else:
            row_spec.check_same(self._spec, rows, what)
        if times is None:
            times = np.empty(count)  # np.full takes longer, and it may be for each row
            times.fill(self._runtime.time())
        self.row += count
        return Block(rows, count, boundary, times)
