"""Taps: new rows, kept where they pass in order until they are tested, which is before they are trained on.

Two nodes stand in each source's chain. `Numbered`, right after the source, says of each row how many rows had come with
it (`Block.seen`). `Tap`, before the first stage that shuffles or repeats rows, keeps them. The stages after it raise
`seen` to what they had to read before a row came out of them, so each batch knows how many rows of the source were
read for it, however far ahead a thread has read. Until somebody asks for new rows both do nothing.

A tap keeps what was read and not trained on: what the stages after it hold, and what a prefetch is ahead. None of that
is in a cursor. After a restore the rows come by again, since a cursor reads again from a row that no batch before it
had to have read; rows that are kept already are known by their numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from unbounded.core.block import Block, Run
from unbounded.core.cursor import own_part
from unbounded.core.locked import locked
from unbounded.core.node import Cursor, Node, Over
from unbounded.core.runtime import Runtime
from unbounded.stages.batch import Batch
from unbounded.stages.replay import Replay
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.stage import Stage


class NewRows:
    """The rows that a tap has seen and nobody has forgotten yet. The thread that reads adds to them; the one that
    trains takes them."""

    def __init__(self, runtime: Runtime) -> None:
        self._lock = runtime.lock()
        self._kept: deque[Block] = deque()
        self._newest = 0  # `seen` of the last row that was kept
        self._stale = False
        self.wanted = False
        """Whether anybody asks for them."""

    @locked
    def add(self, block: Block) -> None:
        """Keep the rows that were not kept before."""
        if block.seen is None:
            return
        first = int(np.searchsorted(block.seen, self._newest, side="right"))
        if first < block.count:
            self._kept.append(replace(block.part(first, block.count), boundary=None))
            self._newest = int(block.seen[-1])

    @locked
    def _at_hand(self) -> list[Block]:
        return list(self._kept)

    def between(self, after: int, upto: int) -> Iterator[Block]:
        """The rows whose `seen` is above `after`, and `upto` at most."""
        for block in self._at_hand():
            assert block.seen is not None
            first, stop = np.searchsorted(block.seen, [after, upto], side="right").tolist()
            if first < stop:
                yield block.part(first, stop)

    @locked
    def forget(self, upto: int) -> None:
        """Rows whose `seen` is `upto` at most are not asked for again."""
        while self._kept and self._kept[0].seen is not None and self._kept[0].seen[-1] <= upto:
            self._kept.popleft()

    def forget_all(self) -> None:
        """The stream is about to go to another state, which may be of another run."""
        self._stale = True

    @locked
    def restored(self) -> None:
        """The stream has gone there: called by whoever reads, before the first row from there on."""
        if self._stale:
            self._kept.clear()
            self._newest, self._stale = 0, False


class Numbered(Over):
    """Right after a source, or a join: says of each row how many rows of it had come with it."""

    def __init__(self, upstream: Node, rows: NewRows) -> None:
        super().__init__(upstream)
        self._rows = rows

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The source's."""
        if not self._rows.wanted:
            return self._upstream.pull(timeout)
        first = int(own_part(self._upstream.cursor())["row"])
        block = self._upstream.pull(timeout)
        if block is None or not block.count:
            return block
        assert isinstance(block, Block)
        return replace(block, seen=np.arange(first + 1, first + 1 + block.count))


class Tap(Over):
    """Before the first stage that shuffles or repeats rows: keeps them as they pass."""

    def __init__(self, upstream: Node, rows: NewRows) -> None:
        super().__init__(upstream)
        self._rows = rows

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The upstream's."""
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
    """How many stages of a source's chain come before its tap: all that keep rows in order, and each of them once."""
    return next((i for i, s in enumerate(stages) if isinstance(s, Shuffle | Replay | Batch)), len(stages))
