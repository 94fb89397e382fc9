"""IndexedDataset: a data set with random access, repeated in a new order in each pass, in constant memory.

It is read in a thread of its own, since an item may come from a disk, or has to be decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from unbounded.core import ragged, trees
from unbounded.core.block import Block, Boundary
from unbounded.core.node import CannotTell, EndOfStream
from unbounded.sources.arrays import Arrays
from unbounded.sources.datasets.row_access import RowAccess
from unbounded.sources.pass_order import PassIndex, PassOrder
from unbounded.sources.reader import JSON, Opening, Reader

# Seconds: after a read that is shorter than the first the next one takes more items, after one that is longer than the
# second fewer. Of a table each read has a cost of its own, however few the rows are.
_SINGLY, _AT_ONCE = (0.005, 0.02), (0.05, 0.2)
_UNBATCHED = 256  # without `.batch(n)`, the most items in a block that may be slow, or have text of any length
_SAMPLE = 64  # the rows of which the identity has a checksum


@dataclass(frozen=True)
class IndexedDataset:
    """See `unbounded.from_dataset`; for data sets with `len` and `[i]`.

    Args:
        access: reads the data set.
        batched: True if an item is a batch, that is a tree of rows: then the order is one of batches.
    """

    access: RowAccess
    shuffle: bool = True
    seed: int = 0
    passes: int | None = None
    batched: bool = False
    word = "from_dataset"
    replayable = True
    has_passes = True

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"from_dataset({self.access.name})"

    @property
    def caveat(self) -> str:
        """What its guarantee does not include."""
        return "" if self.access.repeatable else "in order; the values are as its items give them"

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        given = {"shuffle": (self.shuffle, True), "seed": (self.seed, 0), "passes": (self.passes, None)}
        return {"": self.access.name, **{k: v for k, (v, d) in given.items() if v != d}}

    def identity(self) -> JSON:
        """Class, length and structure; a checksum of evenly spaced rows where they have the same values each time."""
        access = self.access
        form = {path: [_dtype(leaf), list(leaf.shape[1:])] for path, leaf in trees.leaves(access.first)}
        found = {"kind": access.name, "items": access.count, "batched": self.batched, "leaves": form}
        if access.repeatable:
            probe = np.unique(np.linspace(0, access.count - 1, _SAMPLE).astype(np.int64))
            digest = hashlib.blake2b(digest_size=8)
            for leaf in trees.arrays(access.open()(probe)):
                if ragged.is_ragged(leaf):
                    digest.update(b"".join(ragged.encoded(leaf)))
                    continue
                # Text is as wide as the longest in the block.
                digest.update("\0".join(leaf.ravel().tolist()).encode() if leaf.dtype.kind == "U" else leaf.tobytes())
            found["sample"] = digest.hexdigest()
        return {**found, **self.order.identity()}

    @cached_property
    def order(self) -> PassOrder:
        """The order of the items in each pass."""
        return PassOrder(self.access.count, self.shuffle, self.seed, self.passes, self.word)

    def rows_per_pass(self) -> int | None:
        """The number of rows; None if items are batches, which may have any number of rows."""
        return None if self.batched else self.access.count

    def open(self, opening: Opening) -> Reader:
        return _IndexedReader(self, opening)

    def numbered(self) -> Arrays:
        """A source with the same order whose rows are their own numbers."""
        self._refuse_batched()
        return Arrays(np.arange(self.access.count), self.shuffle, self.seed, self.passes)

    def position_at(self, row: int) -> JSON:
        """The position before row number `row`, counted over all passes."""
        self._refuse_batched()
        return self.order.position_at(row)

    def row_after(self, row: int, after: int) -> int:
        """The first ordinal, at least `after`, at which row `row` of the data set comes."""
        self._refuse_batched()
        return self.order.row_after(row, after, "the data set has")

    def _refuse_batched(self) -> None:
        if self.batched:
            raise CannotTell(f"{self.title} gives whole batches, of any number of rows: it does not know which")


def _dtype(leaf: Any) -> str:
    return "str" if leaf.dtype.kind == "U" else str(leaf.dtype)


class _IndexedReader:
    """A reader whose position is the ordinal of the next item over all passes: any position costs the same."""

    def __init__(self, dataset: IndexedDataset, opening: Opening) -> None:
        self._order = dataset.order
        self._fetch = dataset.access.open()
        self._monotonic: Callable[[], float] = opening.runtime.monotonic
        # A batch stays a block of its own: without `.batch(n)` it is one of the feed's, too.
        self._batch = 1 if dataset.batched else opening.batch_rows
        self._most = 1 if dataset.batched else trees.block_rows(trees.row_bytes(dataset.access.first), self._batch)
        leaves = trees.arrays(dataset.access.first)
        self._piece = self._most
        self._adapts = False
        self._limits = _AT_ONCE if dataset.access.at_once else _SINGLY
        if opening.block_rows and not dataset.batched:
            self._piece = opening.block_rows
        elif self._batch > 1:
            self._piece, self._adapts = min(self._batch, self._most), True
        elif not dataset.access.repeatable or any(leaf.dtype.kind == "U" for leaf in leaves):
            # Perhaps without `.batch(n)`, where blocks are batches, whose length must not depend on the clock.
            self._piece = min(self._most, _UNBATCHED)
        self._index = PassIndex(self._order, self._batch)
        self._item = 0

    def read(self, timeout: float) -> Block:
        if self._item == self._order.end:
            raise EndOfStream
        number, start, stop = self._index.following(self._item, self._piece)
        index = self._index.rows(number, start, stop) if self._order.shuffle else np.arange(start, stop)
        begun = self._monotonic()
        rows = self._fetch(index)
        block = Block(rows, trees.count(rows), Boundary("pass") if stop == self._order.rows else None)
        if self._adapts:
            self._adapt(self._monotonic() - begun, block.nbytes)
        self._item += stop - start
        return block

    def _adapt(self, seconds: float, nbytes: int) -> None:
        """Many items at once where they are quick and small, few where they are slow: the first batch is not to wait
        for thousands of them. Text may be longer than that of item 0. Doubling and halving keeps whole batches."""
        soon, late = self._limits
        if seconds < soon and nbytes <= trees.BLOCK_BYTES:
            self._piece = min(self._piece * 2, self._most)
        elif seconds > late or nbytes > 2 * trees.BLOCK_BYTES:
            self._piece = max(self._piece // 2, min(self._batch, self._most))

    def position(self) -> JSON:
        return self._item

    def seek(self, position: JSON) -> None:
        self._item = position

    def close(self) -> None:
        """No-op: the data set is the user's."""
