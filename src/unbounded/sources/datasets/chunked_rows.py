"""ChunkedRows: rows of an Arrow table by their numbers, however many chunks it has.

A Dataset of Hugging Face makes a table of each row first. `Table.take` finds numbers chunk by chunk, and joins all
chunks of a column of text or lists before it takes rows: there may be more of them than memory, on a disk. The rows of
such columns are taken from each record batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, Tree
from unbounded.sources.datasets.table_columns import TableColumns

_JOINED = 1 << 27  # bytes: so much may be joined for each block of rows


class ChunkedRows:
    """The rows of a `pyarrow.Table`.

    Args:
        table: the table.
        columns: makes arrays of its columns.
    """

    def __init__(self, table: Any, columns: TableColumns) -> None:
        import pyarrow as pa

        self._columns = columns
        self._names: list[str] = table.column_names
        long = [name for name in self._names if not pa.types.is_primitive(table.schema.field(name).type)]
        if table.num_columns and table.select(long).nbytes <= _JOINED:
            long = []
        self._at_once = table.select([name for name in self._names if name not in long])
        self._batches = [batch for batch in table.select(long).to_batches() if batch.num_rows] if long else []
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def columns(self, index: Array) -> Tree:
        """A dict of the columns of the rows `index`, in this order."""
        rows = self._columns.of_arrow(self._at_once.take(index), index) if self._at_once.num_columns else {}
        if self._batches:
            rows = {**rows, **self._by_batch(index)}
        return {name: rows[name] for name in self._names}

    def _by_batch(self, index: Array) -> Tree:
        import pyarrow as pa

        # In ascending order, each record batch has the rows of one range.
        order = np.argsort(index, kind="stable")
        ascending = index[order]
        edges = np.searchsorted(ascending, self._starts)
        taken = [
            self._batches[at].take(pa.array(ascending[edges[at] : edges[at + 1]] - self._starts[at]))
            for at in np.flatnonzero(np.diff(edges))
        ]
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return trees.gather(self._columns.of_arrow(pa.Table.from_batches(taken), ascending), inverse)
