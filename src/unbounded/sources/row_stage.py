"""RowStage: memory for rows of a function: copied once, written to the row log from there, passed on in views of many.

To make an array of each leaf of a single row, check it, and join hundreds of them later takes ten times as long as all
other work for it. A stage takes what is plainly of its form, and refuses everything else, which goes the general way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.trees import Tree

# A stage has room for so many rows, or so many blocks, but for no more bytes than this. Its memory is freed as a whole.
_ROWS = 256
_BLOCKS = 64
_BYTES = 1 << 23
_LEAST = 4  # blocks: with room for fewer, nothing is gained
# Python's types of numbers, by the dtype of the array that NumPy makes of one.
_PYTHON_TYPES = {np.array(kind()).dtype: kind for kind in (bool, int, float, complex)}


class RowStage:
    """Memory for some rows of one form.

    Args:
        like: rows of that form.
        room: the number of rows.
    """

    def __init__(self, like: Tree, room: int) -> None:
        self.count = 0
        """The rows in it. Those before `count` never change."""
        self._room = room
        self._times = np.empty(room)
        self._columns = trees.map_leaves(lambda leaf: _LeafMemory(leaf, room), like)
        parts = [self._times, *(column.rows for _, column in trees.leaves(self._columns))]
        # Dates and structured arrays do not support the buffer protocol.
        self._memory = [(part.reshape(-1).view(np.uint8).data, part.nbytes // room) for part in parts if part.nbytes]
        self.row_bytes = trees.row_bytes(like)
        """The bytes of a row, without its time."""

    @classmethod
    def like(cls, block: Block, most: int | None = None) -> RowStage | None:
        """A stage for rows of the form of a block's, with room for `most` bytes if that is given; None if a stage is of
        no use for them."""
        if not block.count or block.times is None or any(leaf.dtype.hasobject for leaf in trees.arrays(block.rows)):
            return None
        nbytes = min(_BYTES, _BYTES if most is None else most)
        room = min(max(_ROWS, _BLOCKS * block.count), nbytes * block.count // max(1, block.nbytes))
        return cls(block.rows, room) if room >= _LEAST * block.count else None

    def put(self, value: Tree, time: float, *, is_sample: bool) -> int:
        """Copy rows behind the last; they count once `count` is raised. Return how many: 0 if they are not plainly of
        the stage's form, or if there is no room.

        Args:
            value: a tree of arrays that share their first dimension; with `is_sample`, of arrays or numbers without it.
            time: when they arrived.
        """
        begin = self.count
        rows = 1 if is_sample else _length(value)
        end = begin + rows
        if not begin < end <= self._room:
            return 0
        try:
            if is_sample:
                fits = _put_sample(self._columns, value, begin)
            else:
                fits = _put_rows(self._columns, value, begin, end)
        except (TypeError, ValueError, OverflowError):  # such as an int that is too large for the column
            return 0
        self._times[begin:end] = time
        return rows if fits else 0

    def time(self, row: int) -> float:
        """The arrival time of a row."""
        return float(self._times[row])

    def memory(self, begin: int, end: int) -> list[memoryview]:
        """The memory of rows as the log has them: their times, then leaf by leaf."""
        return [memory[begin * width : end * width] for memory, width in self._memory]

    def block(self, begin: int, end: int) -> Block:
        """Rows as a block: read-only views."""
        rows = trees.map_leaves(lambda column: column.part(begin, end), self._columns)
        return Block(rows, end - begin, None, self._times[begin:end])


class _LeafMemory:
    """The memory for one leaf, and what can be put into it as it is."""

    __slots__ = ("dtype", "rows", "shape", "types")

    def __init__(self, like: trees.Array, room: int) -> None:
        self.dtype = like.dtype
        self.shape = like.shape[1:]
        self.rows = np.empty((room, *self.shape), self.dtype)
        # Numbers of these types become just this dtype; with text or dates it depends on the value.
        plain = not self.shape and self.dtype.kind in "biufc" and self.dtype.isnative
        self.types = (self.dtype.type, _PYTHON_TYPES.get(self.dtype)) if plain else ()

    def part(self, begin: int, end: int) -> trees.Array:
        rows = self.rows[begin:end]
        rows.flags.writeable = False
        return rows


def _length(rows: Tree) -> int:
    """The rows of a tree's first leaf; 0 if it is no array."""
    while type(rows) is not np.ndarray:
        if type(rows) not in (dict, tuple, list) or not rows:
            return 0
        rows = next(iter(rows.values() if type(rows) is dict else rows))
    return len(rows) if rows.ndim else 0


def _put_sample(columns: Tree, value: Tree, row: int) -> bool:
    """Copy a sample to a row; False if it has another form."""
    kind = type(value)
    if type(columns) is _LeafMemory:
        if kind not in columns.types and not (
            kind is np.ndarray and value.shape == columns.shape and value.dtype == columns.dtype
        ):
            return False
        columns.rows[row] = value
        return True
    for column, part in _pairs(columns, value, kind):  # noqa: SIM110 - `all` is slower
        if not _put_sample(column, part, row):
            return False
    return True


def _put_rows(columns: Tree, value: Tree, begin: int, end: int) -> bool:
    """Copy rows to those from `begin` up to `end`; False if they have another form."""
    kind = type(value)
    if type(columns) is _LeafMemory:
        if kind is not np.ndarray or len(value) != end - begin or value.dtype != columns.dtype:
            return False
        if value.shape[1:] != columns.shape:
            return False
        columns.rows[begin:end] = value
        return True
    for column, part in _pairs(columns, value, kind):  # noqa: SIM110 - `all` is slower
        if not _put_rows(column, part, begin, end):
            return False
    return True


def _pairs(columns: Tree, value: Tree, kind: type[Any]) -> Iterable[tuple[Tree, Tree]]:
    """The parts of a tree, each with its columns.

    Raises:
        ValueError: it has another structure.
    """
    if kind is dict and type(columns) is dict and list(columns) == list(value):
        return zip(columns.values(), value.values(), strict=True)
    if kind is type(columns) and kind is not dict and columns is not None:
        return zip(columns, value, strict=True)  # raises ValueError in the end if one of them is longer
    if columns is None and value is None:
        return ()
    raise ValueError("another structure")
