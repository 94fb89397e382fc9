"""Arrays: finite rows in memory or mapped from a file, repeated forever in a new order in each pass."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from unbounded.core import check, ragged, trees
from unbounded.core.block import Block, Boundary
from unbounded.core.node import EndOfStream
from unbounded.core.permutation import Permutation
from unbounded.core.trees import RowsError, Tree
from unbounded.sources.pass_order import PassIndex, PassOrder
from unbounded.sources.reader import JSON, Opening, Reader


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
        object.__setattr__(self, "rows", trees.map_leaves(ragged.read_only, rows))

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
            if ragged.is_ragged(leaf):
                # Other objects may be among them, such as None: they have no bytes to compare, as in any such column.
                with suppress(ragged.NotRagged):
                    digest.update(b"".join(ragged.encoded(leaf[probe])))
            elif leaf.dtype.kind != "O":
                digest.update(np.ascontiguousarray(leaf[probe]).tobytes())
        return {"rows": n, "leaves": shapes, "sample": digest.hexdigest(), **self.pass_order.identity()}

    def open(self, opening: Opening) -> Reader:
        return _ArraysReader(self, opening)

    def numbered(self) -> Arrays:
        """A source with the same order whose rows are their own numbers."""
        return replace(self, rows=np.arange(self.rows_per_pass()))

    def position_at(self, row: int) -> JSON:
        """The position before row number `row`, counted over all passes."""
        return self.pass_order.position_at(row)

    def row_after(self, row: int, after: int) -> int:
        """The first ordinal, at least `after`, at which row `row` of the arrays comes."""
        return self.pass_order.row_after(row, after, "the arrays have")

    @cached_property
    def pass_order(self) -> PassOrder:
        """The order of the rows in each pass."""
        return PassOrder(self.rows_per_pass(), self.shuffle, self.seed, self.passes, self.word)

    def order(self, number: int) -> Permutation:
        """The order of the rows in pass `number`, counted from 0."""
        return self.pass_order.of_pass(number)


class _ArraysReader:
    """A reader whose position is the ordinal of the next row over all passes: any position costs the same."""

    def __init__(self, arrays: Arrays, opening: Opening) -> None:
        self._arrays = arrays
        self._order = arrays.pass_order
        handy = trees.block_rows(trees.row_bytes(arrays.rows), opening.batch_rows)
        self._piece = opening.block_rows or max(1, int(handy * opening.share))
        self._index = PassIndex(self._order, opening.batch_rows)
        self._row = 0

    def read(self, timeout: float) -> Block:
        if self._row == self._order.end:
            raise EndOfStream
        number, start, stop = self._index.following(self._row, self._piece)
        if self._order.shuffle:
            rows = trees.gather(self._arrays.rows, self._index.rows(number, start, stop))
        else:
            rows = trees.read_only(trees.cut(self._arrays.rows, start, stop))
        self._row += stop - start
        return Block(rows, stop - start, Boundary("pass") if stop == self._order.rows else None)

    def position(self) -> JSON:
        return self._row

    def seek(self, position: JSON) -> None:
        self._row = position

    def close(self) -> None:
        """No-op."""
