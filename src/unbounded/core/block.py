"""Block and Run: the units in which rows and batches move through a running stream.

A `Block` is a tree of rows with their arrival times, their provenance and the boundary after them. A `Run` is a number
of whole batches, the output of `batch`. Block edges have no meaning: a stream may be cut into blocks anywhere.
Boundaries have one: the end of a pass, or missing rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """A point in a stream: a count of rows, and a count of the boundaries that directly follow the last of these
    rows."""

    rows: int
    boundaries: int = 0

    def after(self, block: Block | Run) -> Offset:
        """The offset at the end of a block that begins at this offset."""
        return Offset(self.rows + block.count, (1 if block.boundary else 0) + (0 if block.count else self.boundaries))


@dataclass(slots=True, frozen=True)
class Block:
    """A tree of rows, with metadata for each row, and the boundary after the last row.

    `rows` is a tree of arrays of `count` rows, or None if count is 0: a block without rows carries a boundary that was
    noticed after its row had been passed on. `boundary` follows the last row. The other fields are None or have one
    entry for each row:

    `times`: when the row arrived, or happened, if `.time(column)` says so, float64, seconds since 1970; NaN for rows of
    a source without arrival times.
    `provenance`: the input of a mix that the row came from, and the pass of that input (see `provenance_of`).
    `seen`: how many rows of its source had arrived when this row's place in the output was final. They end with the row
    itself, the end of its shuffle buffer, or the newest row that `replay` could have drawn. It is present only if new
    rows were asked for (see `Tap`), and 0 for rows of another source.
    """

    rows: Tree
    count: int
    boundary: Boundary | None = None
    times: NDArray[np.float64] | None = None
    provenance: NDArray[np.int64] | None = None
    seen: NDArray[np.int64] | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the rows."""
        return trees.nbytes(self.rows) if self.count else 0

    def with_rows(self, rows: Tree) -> Block:
        """A block with other values: as many rows, with the same metadata and boundary."""
        return replace(self, rows=rows)

    def part(self, start: int, stop: int) -> Block:
        """The rows from `start` up to `stop`. The boundary is included if the last row is."""
        if start == 0 and stop >= self.count:
            return self
        boundary = self.boundary if stop >= self.count else None
        if start >= self.count:
            return Block(None, 0, boundary)
        rows, count, index = trees.cut(self.rows, start, stop), min(stop, self.count) - start, slice(start, stop)
        return Block(rows, count, boundary, *self._of_rows(index))

    def gather(self, index: Array) -> Block:
        """The rows at the positions `index`, in that order, without the boundary."""
        return Block(trees.gather(self.rows, index), len(index), None, *self._of_rows(index))

    def _of_rows(self, index: Any) -> Iterator[Any]:
        """`times`, `provenance` and `seen` of the rows at `index`."""
        return (None if each is None else each[index] for each in (self.times, self.provenance, self.seen))

    def only(self, mask: NDArray[np.bool_]) -> Block | None:
        """The rows where `mask`, of shape (count,), is true, and the boundary; None if there is neither."""
        index = np.flatnonzero(mask)
        if len(index):
            return replace(self.gather(index), boundary=self.boundary)
        return Block(None, 0, self.boundary) if self.boundary else None


def join(blocks: Sequence[Block]) -> Block:
    """One block with all rows. Only the last of `blocks` may have a boundary."""
    full = [b for b in blocks if b.count]
    if not full:
        return Block(None, 0, blocks[-1].boundary)
    if len(full) == 1:
        return replace(full[0], boundary=blocks[-1].boundary)
    beside = (_joined([getattr(b, name) for b in full]) for name in ("times", "provenance", "seen"))
    rows = trees.join([b.rows for b in full])
    return Block(rows, sum(b.count for b in full), blocks[-1].boundary, *beside)


def join_from(
    blocks: Iterable[tuple[Offset, Offset, Block, bool]], at: Offset, rows: int, nbytes: int | None = None
) -> tuple[Block, Offset] | None:
    """The rows after `at`, and their end; None if there are none.

    Whole blocks, until they have `rows` rows, up to a boundary, and at most `nbytes` bytes if they are several.

    Args:
        blocks: blocks that follow each other, each with its beginning and its end, and whether it may be cut: then no
            more than `rows` of its rows are taken. The first one begins at `at` or before it.
    """
    parts: list[Block] = []
    count, total, end = 0, 0, at
    for first, after, block, may_be_cut in blocks:
        if after <= at:
            continue
        skipped = max(0, at.rows - first.rows)
        if may_be_cut and 0 < rows < block.count - skipped:
            after = Offset(first.rows + skipped + rows)
            block = block.part(0, skipped + rows)
        if nbytes is not None:
            total += block.nbytes
            if parts and total > nbytes:
                break
        end = after
        part = block.part(skipped, block.count)
        parts.append(part)
        count += part.count
        if count >= rows or part.boundary is not None:
            break
    if not parts:
        return None
    return (join(parts) if len(parts) > 1 else parts[0]), end


def _joined(parts: Sequence[Array | None]) -> Any:
    have = [part for part in parts if part is not None]
    return np.concatenate(have) if len(have) == len(parts) else None


SOURCES = 256
"""The most sources that a stream may have: a row's provenance has eight bits for the number of its source."""


def provenance_of(leaf: int, number: int) -> int:
    """The provenance of a row: `leaf` is the number of its source in the order of the tree's leaves, and `number`
    counts the passes of that source that ended before the row."""
    return number << 8 | leaf


@dataclass(slots=True, frozen=True)
class Run:
    """A number of consecutive whole batches.

    `items` are the batches, each a tree of `size` rows; the last batch before a declared end may have fewer. `total`
    counts their rows. `boundaries` are pairs (number of batches before the boundary, boundary). `parts` are the larger
    trees that the items are views of: a property that holds for all parts holds for all items. `arrived` is the mean
    arrival time of the rows. `provenance` has one entry for each row, `seen` one for each batch: the maximum over its
    rows.
    """

    items: list[Tree]
    size: int
    total: int
    boundaries: tuple[tuple[int, Boundary], ...] = ()
    parts: tuple[Tree, ...] = ()
    arrived: float | None = None
    provenance: NDArray[np.int64] | None = None
    seen: NDArray[np.int64] | None = None

    # The same names as a Block's, counted in batches instead of rows: InputBuffer and Prefetcher take either.
    @property
    def count(self) -> int:
        """The number of batches."""
        return len(self.items)

    @property
    def boundary(self) -> Boundary | None:
        """The boundary of a run without batches; None for any other, which has it in `boundaries`."""
        return self.boundaries[0][1] if self.boundaries and not self.items else None

    def part(self, start: int, stop: int) -> Run:
        """The batches from `start` up to `stop`, with the boundaries between them."""
        if start == 0 and stop >= self.count:
            return self
        stop = min(stop, self.count)
        boundaries = tuple((at - start, b) for at, b in self.boundaries if start < at <= stop)
        first, last = min(start * self.size, self.total), min(stop * self.size, self.total)
        items = self.items[start:stop]
        provenance = None if self.provenance is None else self.provenance[first:last]
        seen = None if self.seen is None else self.seen[start:stop]
        # `self.parts` hold other batches too. An item is a view: it serves as its own part.
        return Run(items, self.size, last - first, boundaries, tuple(items), self.arrived, provenance, seen)
