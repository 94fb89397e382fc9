"""RowGroups: consecutive groups of rows, each of which comes out in another order once it is whole.

Groups begin at fixed rows, and close at a boundary. So what comes out follows from the seed and the rows of a group
alone: nothing is kept from one group to the next, and a cursor is the group's first row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Context, EndOfStream, Node
from unbounded.stages.stage import Holding


class RowGroups(Holding):
    """Base class of the nodes.

    Args:
        upstream: the input.
        rows: in a group.
        seed: of the order.
        context: the node's place, and the size of a batch.
    """

    def __init__(self, upstream: Node, rows: int, seed: int, context: Context) -> None:
        super().__init__(upstream)
        self._rows = rows
        self._key = (seed, context.place)
        self._batch = context.batch_rows
        self._held: InputBuffer[Block] = InputBuffer(upstream)
        self._begin(0, 0)

    def _ordered(self, group: Block, key: tuple[int, ...]) -> NDArray[np.int64]:
        """The rows of a group that come out, as many as it has, in their order.

        Args:
            group: at least one row.
            key: of the random order: the seed, the node's place and the group's number.
        """
        raise NotImplementedError

    def _begin(self, number: int, given: int) -> None:
        self._number = number
        self._given = given
        self._group: Block | None = None
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def pull(self, timeout: float | None) -> Block | None:
        if self._group is None and not self._fill(timeout):
            return None
        group = self._group
        assert group is not None
        stop = min(self._given + self._piece(group), group.count) if group.count else 0
        out = group.gather(self._order[self._given : stop]) if group.count else group
        if stop < group.count:
            self._given = stop
            return out
        out = replace(out, boundary=group.boundary)
        self._held.drop(group.count)
        self._held.keep(self._held.head)
        self._begin(self._number + (1 if group.count else 0), 0)
        return out

    def _piece(self, group: Block) -> int:
        """The number of rows to return at once: the rest of a batch that has begun, so that later blocks begin with a
        batch, in aligned memory."""
        out = self._number * self._rows + self._given
        return -out % self._batch or trees.block_rows(trees.row_bytes(group.rows), self._batch)

    def _fill(self, timeout: float | None) -> bool:
        held = self._held
        while held.run < self._rows and not held.closed:
            try:
                if not held.pull(timeout):
                    return False
            except EndOfStream:
                if not held.count:
                    raise
                break
        group = held.peek(min(self._rows, held.run))
        if group.count:
            self._order = self._ordered(group, (*self._key, self._number))
        if group.seen is not None:
            # The whole group has to be read before its first row is known.
            group = replace(group, seen=np.full(group.count, group.seen.max()))
        self._group = group
        return True

    def own(self) -> Mapping[str, Any]:
        return {"number": self._number, "given": self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["number"], own["given"])
