"""Arrays: finite rows in memory or mapped from a file, repeated forever in a new order in each pass."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import check, trees
from unbounded.core.block import Block, Boundary
from unbounded.core.node import CannotTell, EndOfStream
from unbounded.core.permutation import Permutation
from unbounded.core.trees import RowsError, Tree
from unbounded.sources.reader import JSON, Opening, Reader

_AHEAD = 1 << 16  # positions of the order that are computed at once


@dataclass(frozen=True)
class Arrays:
    """See `unbounded.from_arrays`."""

    rows: Tree = field(repr=False)
    shuffle: bool = True
    seed: int = 0
    passes: int | None = None
    word = "from_arrays"
    replayable = True
    any_thread = True  # see `inline`

    def __post_init__(self) -> None:
        check.yes_or_no(
            self.shuffle,
            f"from_arrays(shuffle={self.shuffle!r})",
            "The order of a pass is drawn over all rows; a buffer that shuffles some at a time is .shuffle(rows).",
        )
        rows = trees.as_rows(self.rows, "from_arrays()")
        if trees.count(rows) == 0:
            raise RowsError("from_arrays() was given zero rows. Expected at least one: there is nothing to repeat.")
        if self.passes is not None:
            check.positive(self.passes, "from_arrays(passes=n)")
        object.__setattr__(self, "seed", check.seed(self.seed, "from_arrays(seed=n)"))
        object.__setattr__(self, "rows", rows)

    def rows_per_pass(self) -> int:
        """The number of rows."""
        return trees.count(self.rows)

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        given = {"shuffle": (self.shuffle, True), "seed": (self.seed, 0), "passes": (self.passes, None)}
        return {"": f"{self.rows_per_pass():,} rows", **{k: v for k, (v, d) in given.items() if v != d}}

    def identity(self) -> JSON:
        """Structure, length, and a checksum of evenly spaced rows."""
        n = self.rows_per_pass()
        digest = hashlib.blake2b(digest_size=8)
        probe = np.unique(np.linspace(0, n - 1, 64).astype(np.int64))
        shapes = {}
        for path, leaf in trees.leaves(self.rows):
            shapes[path] = [str(leaf.dtype), list(leaf.shape[1:])]
            if leaf.dtype.kind != "O":
                digest.update(np.ascontiguousarray(leaf[probe]).tobytes())
        order = {"shuffle": self.shuffle, "seed": self.seed if self.shuffle else 0}
        return {"rows": n, "leaves": shapes, "sample": digest.hexdigest(), **order, "passes": self.passes}

    def open(self, opening: Opening) -> Reader:
        return _ArraysReader(self, opening)

    def numbered(self) -> Arrays:
        """A source with the same order whose rows are their own numbers."""
        return replace(self, rows=np.arange(self.rows_per_pass()))

    def position_at(self, row: int) -> JSON:
        """The position before row number `row`, counted over all passes."""
        if self.passes is not None and row >= self.passes * self.rows_per_pass():
            raise CannotTell(f"from_arrays(passes={self.passes}) ends before row {row:,}")
        return row

    def row_after(self, row: int, after: int) -> int:
        """The first ordinal, at least `after`, at which row `row` of the arrays comes."""
        n = self.rows_per_pass()
        if not 0 <= row < n:
            raise ValueError(f"step_of(row={row}): the arrays have the rows 0 to {n - 1:,}.")
        first, start = divmod(after, n)
        for number in (first, first + 1):
            place = self.order(number).find_one(row) if self.shuffle else row
            if number > first or place >= start:
                return number * n + place
        raise AssertionError("a row comes in each pass")

    def order(self, number: int) -> Permutation:
        """The order of the rows in pass `number`, counted from 0."""
        return Permutation(self.rows_per_pass(), (self.seed, 0, number))


class _ArraysReader:
    """A reader whose position is the ordinal of the next row over all passes: any position costs the same."""

    def __init__(self, arrays: Arrays, opening: Opening) -> None:
        self._arrays = arrays
        self._n = arrays.rows_per_pass()
        handy = trees.block_rows(trees.row_bytes(arrays.rows), opening.batch_rows)
        self._piece = opening.block_rows or max(1, int(handy * opening.share))
        self._batch = opening.batch_rows
        self._end = None if arrays.passes is None else arrays.passes * self._n
        self._row = 0
        self._order: tuple[int, Permutation] | None = None  # (pass, its order)
        # (position in the pass, the rows from there on): computed ahead.
        self._ahead = (0, np.empty(0, np.int64))

    def read(self, timeout: float) -> Block:
        if self._row == self._end:
            raise EndOfStream
        number, start = divmod(self._row, self._n)
        stop = min(start + (self._until_batch() or self._piece), self._n)
        if self._arrays.shuffle:
            rows = trees.gather(self._arrays.rows, self._index(number, start, stop))
        else:
            rows = trees.read_only(trees.cut(self._arrays.rows, start, stop))
        self._row += stop - start
        return Block(rows, stop - start, Boundary("pass") if stop == self._n else None)

    def _until_batch(self) -> int:
        """The rows up to the next edge of a batch, which are returned alone: all later blocks then begin with a batch,
        in aligned memory."""
        return 0 if self._piece % self._batch else -self._row % self._batch

    def _index(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """The rows at the positions from `start` up to `stop` of pass `number`."""
        if self._order is None or self._order[0] != number:
            self._order = (number, self._arrays.order(number))
            self._ahead = (0, np.empty(0, np.int64))
        first, ahead = self._ahead
        end = first + len(ahead)
        if not first <= start <= stop <= end:
            # A sequential read computes several blocks' positions at once: each call of `Permutation.span` has a cost.
            length = max(1, _AHEAD // (stop - start)) * (stop - start) if start == end else stop - start
            self._ahead = first, ahead = start, self._order[1].span(start, min(start + length, self._n))
        return ahead[start - first : stop - first]

    def position(self) -> JSON:
        return self._row

    def seek(self, position: JSON) -> None:
        self._row = position

    def close(self) -> None:
        """No-op."""
