"""Shuffle: random order within consecutive buffers of rows.

Each `rows` consecutive rows are put in a keyed random order. Buffers begin at fixed rows, so the place of a row is a
function of the seed and its number alone, and a buffer of a whole pass is a uniform permutation. A buffer ends early at
a boundary: each row comes once in each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unbounded.core import check, trees
from unbounded.core.block import Block
from unbounded.core.input_buffer import Address, InputBuffer, compose_held
from unbounded.core.node import Context, Cursor, EndOfStream, Node
from unbounded.core.permutation import Permutation
from unbounded.stages.stage import Holding, Stage


@dataclass(frozen=True)
class Shuffle(Stage):
    """See `Stream.shuffle`."""

    rows: int
    seed: int = 0
    word = "shuffle"
    ends_with_pass = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", check.positive(self.rows, "shuffle(rows)"))
        object.__setattr__(self, "seed", check.seed(self.seed, "shuffle(seed=n)"))

    def open(self, upstream: Node, context: Context) -> Node:
        return _ShuffleNode(upstream, self.rows, (self.seed, context.place), context.batch_rows)

    def _buffer(self, ordinal: int, rows: int | None) -> tuple[int, int, int, int]:
        """For an output row: the number, the first row and the length of its buffer, and its place in that buffer."""
        passed, within = divmod(ordinal, rows) if rows else (0, ordinal)
        in_pass, given = divmod(within, self.rows)
        length = min(self.rows, rows - in_pass * self.rows) if rows else self.rows
        return passed * -(-(rows or 0) // self.rows) + in_pass, ordinal - given, length, given

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        number, start, _, given = self._buffer(ordinal, rows)
        return compose_held([Address(upstream(start))], {"number": number, "given": given})

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        number, start, length, given = self._buffer(ordinal, rows)
        return start + Permutation(length, (self.seed, place, number)).find_one(given)


class _ShuffleNode(Holding):
    def __init__(self, upstream: Node, rows: int, key: tuple[int, int], batch_rows: int) -> None:
        super().__init__(upstream)
        self._rows = rows
        self._key = key
        self._batch = batch_rows
        self._held: InputBuffer[Block] = InputBuffer(upstream)
        self._begin(0, 0)

    def _begin(self, number: int, given: int) -> None:
        self._number = number
        self._given = given
        self._buffer: Block | None = None
        self._order = np.empty(0, np.int64)

    def pull(self, timeout: float | None) -> Block | None:
        if self._buffer is None and not self._fill(timeout):
            return None
        buffer = self._buffer
        assert buffer is not None
        stop = min(self._given + self._piece(buffer), buffer.count) if buffer.count else 0
        out = buffer.gather(self._order[self._given : stop]) if buffer.count else buffer
        if stop < buffer.count:
            self._given = stop
            return out
        out = replace(out, boundary=buffer.boundary)
        self._held.drop(buffer.count)
        self._held.keep(self._held.head)
        self._begin(self._number + (1 if buffer.count else 0), 0)
        return out

    def _piece(self, buffer: Block) -> int:
        """The number of rows to return at once: the rest of a batch that has begun, so that later blocks begin with a
        batch, in aligned memory."""
        out = self._number * self._rows + self._given
        return -out % self._batch or trees.block_rows(trees.row_bytes(buffer.rows), self._batch)

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
        buffer = held.peek(min(self._rows, held.run))
        if buffer.count:
            self._order = Permutation(buffer.count, (*self._key, self._number)).span(0, buffer.count)
        if buffer.seen is not None:
            # The whole buffer has to be read before its first row is known.
            buffer = replace(buffer, seen=np.full(buffer.count, buffer.seen.max()))
        self._buffer = buffer
        return True

    def own(self) -> Mapping[str, Any]:
        return {"number": self._number, "given": self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["number"], own["given"])
