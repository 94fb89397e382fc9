"""AsBlock: makes blocks of the rows of a reader or a user function: checked, copied, and stamped with arrival times."""

from __future__ import annotations

from typing import Any

import numpy as np

from unbounded.core import ragged, row_spec, trees
from unbounded.core.block import Block, Boundary
from unbounded.core.runtime import Runtime
from unbounded.core.trees import RowsError, Tree
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
        self._has_objects = False
        self._ragged: dict[str, Any] = {}  # of each ragged leaf the dtype and shape of its values

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
        if self._has_objects:
            self._check_ragged(rows)
        if times is None:
            times = np.empty(count)  # np.full is slower, and there may be a block for each row
            times.fill(self._runtime.time())
        self.row += count
        return Block(rows, count, boundary, times)

    def _check_ragged(self, rows: Tree) -> None:
        """Raise RowsError if the rows of a ragged leaf are of another dtype or shape than earlier ones."""
        for path, leaf in trees.leaves(rows):
            if not ragged.is_ragged(leaf) or not ragged.has_values(leaf):
                continue
            try:
                now = ragged.form(leaf)
                was = self._ragged.setdefault(path, now)
                found = "" if now == was else f"has now rows of {now[0]} and shape {now[1]}, and had {was[0]}, {was[1]}"
            except ragged.NotRagged as error:
                found = str(error)
            if found:
                raise RowsError(
                    f"{self._what} {self.row:,} of {self.name}: {trees.name(path)} is ragged, and {found}. Expected "
                    "rows that differ in their length alone, such as np.asarray(row, 'int64')."
                )

    def _checked(self, rows: Tree) -> int:
        what = f"{self._what} {self.row:,} of {self.name}"
        count = trees.count_checked(rows, what)
        if self._spec is None:
            self._spec = row_spec.spec(rows)
            self._has_objects = row_spec.has_objects(self._spec)
        else:
            row_spec.check_same(self._spec, rows, what)
        return count
