"""Shuffle: random order within consecutive buffers of rows.

Each `rows` consecutive rows are put in a keyed random order. Buffers begin at fixed rows, so the place of a row is a
function of the seed and its number alone, and a buffer of a whole pass is a uniform permutation. A buffer ends early at
a boundary: each row comes once in each pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unbounded.core import check
from unbounded.core.block import Block
from unbounded.core.input_buffer import Address, compose_held
from unbounded.core.node import Context, Cursor, Node
from unbounded.core.permutation import Permutation
from unbounded.stages.row_groups import RowGroups
from unbounded.stages.stage import Stage


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
        return _ShuffleNode(upstream, self.rows, self.seed, context)

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


class _ShuffleNode(RowGroups):
    def _ordered(self, group: Block, key: tuple[int, ...]) -> NDArray[np.int64]:
        return Permutation(group.count, key).span(0, group.count)
