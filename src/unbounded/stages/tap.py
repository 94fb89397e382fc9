"""Tap and Numbered: nodes that keep new rows in their order of arrival until they are tested, before being trained on.

Each source is followed by both. `Numbered`, right after it, stamps each row with the number of rows that had arrived
(`Block.seen`). `Tap`, before the first stage that shuffles or repeats rows, keeps the rows. Later stages raise `seen`
to the number of rows that they had to read before a row came out of them. So each batch has the number of source rows
that were read for it, however far ahead a thread has read. Both do nothing until new rows are asked for. A join keeps
its rows itself (`new_pairs`).

A tap keeps the rows that were read and not trained on: those held by later stages and by a prefetch. They are in no
cursor. After a restore they pass the tap again, since a cursor reads again from a row that no earlier batch needed;
rows that are kept already are recognised by their numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unbounded.core.block import Block, Run
from unbounded.core.cursor import own_part
from unbounded.core.locked import locked
from unbounded.core.node import Cursor, Node, Over
from unbounded.core.runtime import Runtime
from unbounded.stages.balance import Balance
from unbounded.stages.batch import Batch
from unbounded.stages.replay import Replay
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.stage import Stage


class NewRows:
    """The rows that a tap has kept and that were not forgotten. The reading thread adds them, the training thread takes
    them."""

    def __init__(self, runtime: Runtime) -> None:
        self._lock = runtime.lock()
        self._kept: deque[Block] = deque()
        self._newest = 0  # the number of the last row kept
        self._stale = False
        self.wanted = False
        """True once new rows are asked for."""
        self.others_wanted = False
        """True once those of another source are: rows of this one have `seen` 0."""

    @locked
    def add(self, block: Block, order: NDArray[np.int64] | None = None) -> None:
        """Keep the rows that are newer than those kept before.

        Args:
            block: the rows.
            order: rising numbers from 1 on that identify the rows; None for `seen`.
        """
        if block.seen is None:
            return
        order = block.seen if order is None else order
        first = int(np.searchsorted(order, self._newest, side="right"))
        if first < block.count:
            self._kept.append(replace(block.part(first, block.count), boundary=None))
            self._newest = int(order[-1])

    @locked
    def _at_hand(self) -> list[Block]:
        return list(self._kept)

    def between(self, after: int, upto: int) -> Iterator[Block]:
        """The rows with `seen` in (after, upto]."""
        for block in self._at_hand():
            assert block.seen is not None
            first, stop = np.searchsorted(block.seen, [after, upto], side="right").tolist()
            if first < stop:
                yield block.part(first, stop)

    @locked
    def forget(self, upto: int) -> None:
        """Drop the rows with `seen` of at most `upto`."""
        while self._kept and self._kept[0].seen is not None and self._kept[0].seen[-1] <= upto:
            self._kept.popleft()

    def forget_all(self) -> None:
        """Drop all rows: the stream is about to be restored, perhaps to another run's state."""
        self._stale = True

    @locked
    def restored(self) -> None:
        """The stream was restored: called by the reading thread before the next row."""
        if self._stale:
            self._kept.clear()
            self._newest, self._stale = 0, False


class Numbered(Over):
    """The node right after a source or a join: stamps rows with the number of rows so far."""

    def __init__(self, upstream: Node, rows: NewRows) -> None:
        super().__init__(upstream)
        self._rows = rows

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The source's next block, with `seen`."""
        wanted = self._rows.wanted
        if not wanted and not self._rows.others_wanted:
            return self._upstream.pull(timeout)
        first = int(own_part(self._upstream.cursor())["row"]) if wanted else 0
        block = self._upstream.pull(timeout)
        if block is None or not block.count:
            return block
        assert isinstance(block, Block)
        seen = np.arange(first + 1, first + 1 + block.count) if wanted else np.zeros(block.count, np.int64)
        return replace(block, seen=seen)


class Tap(Over):
    """The node before the first stage that shuffles or repeats rows: keeps new rows as they pass."""

    def __init__(self, upstream: Node, rows: NewRows) -> None:
        super().__init__(upstream)
        self._rows = rows

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The upstream's next block."""
        block = self._upstream.pull(timeout)
        if block is not None and block.count and self._rows.wanted:
            assert isinstance(block, Block)
            self._rows.add(block)
        return block

    def restore(self, cursor: Cursor) -> None:
        """Restore the upstream."""
        self._rows.restored()
        super().restore(cursor)


def place_of(stages: Sequence[Stage]) -> int:
    """The number of stages before the tap of a source: those that keep rows in order, each row once."""
    return next((i for i, s in enumerate(stages) if isinstance(s, Shuffle | Replay | Balance | Batch)), len(stages))
