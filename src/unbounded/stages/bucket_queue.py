"""BucketQueue: the rows that wait in one bucket of `batch(bucket=)`, oldest first."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from unbounded.core import trees
from unbounded.core.block import Block


class QueuedRows(NamedTuple):
    """Rows that wait in a bucket, with their ordinals in the input."""

    ordinals: list[int]
    block: Block


class BucketQueue:
    """The rows of one bucket, oldest first: those of earlier blocks, and the numbers of those in the block at hand."""

    def __init__(self, other: BucketQueue | None = None) -> None:
        self._parts: deque[QueuedRows] = deque(() if other is None else other._parts)
        self.fresh: list[int] = []
        self.count: int = 0 if other is None else other.count

    def oldest(self, first: int) -> int | None:
        """The ordinal of the oldest row; `first` is that of the first row of the block at hand."""
        if self._parts:
            return self._parts[0].ordinals[0]
        return first + self.fresh[0] if self.fresh else None

    def put(self, row: int) -> None:
        """Add a row of the block at hand, by its number there."""
        self.fresh.append(row)
        self.count += 1

    def take(self, rows: int, first: int, at_hand: Block | None) -> list[QueuedRows]:
        """Remove the oldest rows."""
        taken: list[QueuedRows] = []
        self.count -= rows
        while rows and self._parts:
            ordinals, block = self._parts.popleft()
            if len(ordinals) > rows:
                self._parts.appendleft(QueuedRows(ordinals[rows:], block.part(rows, block.count)))
                ordinals, block = ordinals[:rows], block.part(0, rows)
            taken.append(QueuedRows(ordinals, block))
            rows -= len(ordinals)
        if rows:
            assert at_hand is not None
            index, self.fresh = self.fresh[:rows], self.fresh[rows:]
            taken.append(QueuedRows([first + i for i in index], at_hand.gather(np.array(index))))
        return taken

    def hold(self, first: int, at_hand: Block) -> None:
        """Keep copies of the rows of the block at hand that wait: rows of a ragged column may be views of the memory
        of thousands."""
        if self.fresh:
            kept = at_hand.gather(np.array(self.fresh))
            kept = kept.with_rows(trees.map_leaves(trees.copied, kept.rows))
            self._parts.append(QueuedRows([first + i for i in self.fresh], kept))
            self.fresh = []
