"""AsBlock: makes blocks of the rows of a reader or a user function: checked, copied, and stamped with arrival times."""

from __future__ import annotations

from typing import Any

import numpy as np

from unbounded.core import row_spec, trees
from unbounded.core.block import Block, Boundary
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.sources.reader import Rows


class AsBlock:
    """Makes blocks of one source's rows; raises if structure, dtypes or trailing shapes change.

    Args:
        name: the source's name in errors, such as `sensor()`.
        what: what errors call a row, such as `Row`.
        runtime: its clock gives the arrival times.
        row: the number of the first row.
    """

    def __init__(self, name: str, runtime: Runtime, *, what: str = "Row", row: int = 0) -> None:
        self.name = name
        self.row = row
        self._what = what
        self._runtime = runtime
        self._spec: Tree = None

    def __call__(self, given: Any) -> Block:
        """A block of a tree of arrays, which is copied, or of `Rows`, which are not.

        Raises:
            RowsError: the rows differ from earlier ones in form, or are no rows.
        """
        if isinstance(given, Block):  # from one of this package's readers
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
        """A block of rows that need no copy."""
        count = trees.length(rows)
        if count is None or self._spec is None or not row_spec.fits(self._spec, rows):
            count = self._checked(rows)
        if times is None:
            times = np.empty(count)  # np.full is slower, and there may be a block for each row
            times.fill(self._runtime.time())
        self.row += count
        return Block(rows, count, boundary, times)

    def _checked(self, rows: Tree) -> int:
        what = f"{self._what} {self.row:,} of {self.name}"
        count = trees.count_checked(rows, what)
        if self._spec is None:
            self._spec = row_spec.spec(rows)
        else:
            row_spec.check_same(self._spec, rows, what)
        return count
