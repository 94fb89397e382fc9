"""Blocks: what moves through a running stream.

A `Block` is rows on their way, with what is known of them beside their values: the boundary that follows them,
and when they arrived. A `Run` is what comes out of `batch`: some whole batches. Where a block begins and ends
carries no meaning; where a boundary falls does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Array, Tree


class Boundary(NamedTuple):
    """A seam after a row: the end of a pass, or a gap in which `missed` rows (0: unknown) did not come.

    >>> Boundary("gap", missed=3)
    Boundary(kind='gap', missed=3)
    """

    kind: str
    missed: int = 0


class Offset(NamedTuple):
    """A point in a stretch of the stream: after so many rows, and after so many of the boundaries that follow the
    last of them."""

    rows: int
    boundaries: int = 0

    def after(self, block: Block | Run) -> Offset:
        """The point after a block that begins here."""
        return Offset(self.rows + block.count, (1 if block.boundary else 0) + (0 if block.count else self.boundaries))


@dataclass(slots=True, frozen=True)
class Block:
    """Rows on their way.

    `rows` is a tree of arrays of `count` rows, or None where count is 0: a block without rows carries a boundary
    that was noticed late. `boundary` is the seam after the last row. `times` says when each row arrived (float64,
    seconds since 1970; NaN for a row that did not arrive but was there), or is None where none of them did.
    `provenance` says of which input of a mix each row is, and in which of its passes (see `provenance_of`), or is None
    where there is no mix. `seen` says how many rows of its source had come when it was settled that this row is the one
    here: with the row itself, or with its shuffle buffer, or with the newest row that `replay` could have drawn in its
    place. It is there where somebody has asked for new rows (see `Tap`); 0 for a row of another source.
    """

    rows: Tree
    count: int
    boundary: Boundary | None = None
    times: NDArray[np.float64] | None = None
    provenance: NDArray[np.int64] | None = None
    seen: NDArray[np.int64] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of its rows."""
        return sum(leaf.nbytes for leaf in trees.arrays(self.rows)) if self.count else 0

    def with_rows(self, rows: Tree) -> Block:
        """The same stretch of the stream with other values: as many rows, the same times and boundary."""
        return replace(self, rows=rows)

    def part(self, start: int, stop: int) -> Block:
        """The rows from `start` up to `stop`; the boundary comes along with the last of them."""
        if start == 0 and stop >= self.count:
            return self
        boundary = self.boundary if stop >= self.count else None
        if start >= self.count:
            return Block(None, 0, boundary)
        rows, count, index = trees.cut(self.rows, start, stop), min(stop, self.count) - start, slice(start, stop)
        return Block(rows, count, boundary, *self._of_rows(index))

    def gather(self, index: Array) -> Block:
        """The rows that `index` names, in its order, without the boundary."""
        return Block(trees.gather(self.rows, index), len(index), None, *self._of_rows(index))

    def _of_rows(self, index: Any) -> Iterator[Any]:
        """`times`, `provenance` and `seen` of some rows."""
        return (None if each is None else each[index] for each in (self.times, self.provenance, self.seen))

    def only(self, mask: NDArray[np.bool_]) -> Block | None:
        """The rows that a mask of shape (count,) names, and the boundary; None where neither is left."""
        index = np.flatnonzero(mask)
        if len(index):
            return replace(self.gather(index), boundary=self.boundary)
        return Block(None, 0, self.boundary) if self.boundary else None


def join(blocks: Sequence[Block]) -> Block:
    """All rows in one block. Only the last may end with a boundary."""
    full = [b for b in blocks if b.count]
    if not full:
        return Block(None, 0, blocks[-1].boundary)
    if len(full) == 1:
        return replace(full[0], boundary=blocks[-1].boundary)
    beside = (_joined([getattr(b, name) for b in full]) for name in ("times", "provenance", "seen"))
    rows = trees.join([b.rows for b in full])
    return Block(rows, sum(b.count for b in full), blocks[-1].boundary, *beside)


def _joined(parts: Sequence[Array | None]) -> Any:
    have = [part for part in parts if part is not None]
    return np.concatenate(have) if len(have) == len(parts) else None


SOURCES = 256
"""So many sources a stream may have: a row's provenance has eight bits for its source."""


def provenance_of(leaf: int, number: int) -> int:
    """What says that a row is of the source with number `leaf`, in the order of the tree's leaves, and that `number` of
    that source's passes ended before it."""
    return number << 8 | leaf


@dataclass(slots=True, frozen=True)
class Run:
    """Some whole batches, one after the other.

    `items` are the batches, each a tree of `size` rows (the very last of a declared end may have fewer);
    `total` counts their rows. `boundaries` says after how many of the items one falls (0: before the first),
    `parts` are the larger trees that the items are views of (what is true of all parts is true of all items),
    `arrived` is the mean arrival time of their rows; `provenance` is that of their rows, one after the other.
    `seen` is that of each batch: the greatest of its rows'.
    """

    items: list[Tree]
    size: int
    total: int
    boundaries: tuple[tuple[int, Boundary], ...] = ()
    parts: tuple[Tree, ...] = ()
    arrived: float | None = None
    provenance: NDArray[np.int64] | None = None
    seen: NDArray[np.int64] | None = None

    # A run counts in batches where a block counts in rows, so that whatever holds, skips or queues one can
    # take the other.
    @property
    def count(self) -> int:
        """How many batches there are."""
        return len(self.items)

    @property
    def boundary(self) -> Boundary | None:
        """The boundary of a run without batches; any other carries its boundaries inside."""
        return self.boundaries[0][1] if self.boundaries and not self.items else None

    def part(self, start: int, stop: int) -> Run:
        """The batches from `start` up to `stop`, with the boundaries among them."""
        if start == 0 and stop >= self.count:
            return self
        stop = min(stop, self.count)
        boundaries = tuple((at - start, b) for at, b in self.boundaries if start < at <= stop)
        first, last = min(start * self.size, self.total), min(stop * self.size, self.total)
        items = self.items[start:stop]
        provenance = None if self.provenance is None else self.provenance[first:last]
        seen = None if self.seen is None else self.seen[start:stop]
        # The larger trees hold other batches as well; of these, each is its own part.
        return Run(items, self.size, last - first, boundaries, tuple(items), self.arrived, provenance, seen)
