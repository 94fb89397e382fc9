"""Changelog: the state of a keyed stage as a snapshot and the rows since, which its cursors refer to in O(1).

A keyed stage changes its arrays in place, so a cursor can't refer to them. It refers to a snapshot, taken from time to
time, and to the rows after it: a restore loads the snapshot and processes those rows again. A new snapshot is due when
the rows since the last one have twice its bytes: the cost of snapshots for each row is then independent of the number
of keys. Snapshots and rows are pages, written once: a save writes the pages that are new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from unbounded.core import ragged, trees
from unbounded.core.pages import Page, as_page
from unbounded.core.trees import Array, Tree
from unbounded.stages.keys import Ints

SETTLED = 256
"""The rows that may come between two snapshots, however small these are."""

_PER_SNAPSHOT = 2  # bytes of rows for each byte of the snapshot before them
_PAGE_BYTES = 1 << 18


class Changelog:
    """A snapshot, and the rows since.

    Rows are appended to growing memory that is never overwritten, so pages can be views of it. The first rows may be
    the snapshot's own.

    Args:
        unique: the prefix of its page ids, which no other changelog has.
    """

    def __init__(self, unique: str) -> None:
        self._unique = unique
        self._pages_made = 0
        self.begin(0)

    def begin(self, row: int) -> None:
        """Begin without state; `row` is the number of the next row of the stream."""
        self._start(row, None, None, 0)

    def snapshot(self, row: int, state: Tree, kept: Ints | None = None) -> Callable[[], None]:
        """Take a snapshot; return a function that makes the changelog begin with it, and can't fail.

        Args:
            row: the number of the next row of the stream.
            state: a tree of arrays.
            kept: the places of the rows that are part of the snapshot. They move to the beginning of the memory, in
            this
                order.
        """
        count = 0 if kept is None else len(kept)
        rows, memory = None, None
        if kept is not None and count:
            # With room for all rows up to the next snapshot, so that they need not be copied again.
            size = sum(each.nbytes for each in trees.arrays(state)) // max(1, trees.row_bytes(self.rows))
            room = (1 + _PER_SNAPSHOT) * count + _PER_SNAPSHOT * size + SETTLED + self._put
            memory = trees.map_leaves(lambda leaf: _taken(leaf, kept, room), self.rows)
            rows = trees.cut(memory, 0, count)
        return partial(self._start, row, self._page({"state": state, "rows": rows}), memory, count)

    def _start(self, row: int, snapshot: Page | None, memory: Tree | None, count: int) -> None:
        self.row = row
        self.rows: Any = memory
        """The memory: the snapshot's rows, then those of the log. Beyond `used` it is undefined."""
        self.snapshot_rows = count
        self.used = count
        self._put = 0  # the number of rows in the last `put`
        self._snapshot = snapshot
        self._snapshot_bytes = 0 if snapshot is None else sum(each.nbytes for each in trees.arrays(snapshot.tree))
        self._closed: tuple[Page, ...] = ()
        self._closed_to = count
        self._open: tuple[int, Page] | None = None  # (end, page) of the rows after the last closed page

    @property
    def excess(self) -> int:
        """The bytes of rows above the limit: a new snapshot should be taken if this is above 0."""
        size = trees.row_bytes(self.rows) if self.used > self.snapshot_rows else 0
        return size * (self.used - self.snapshot_rows - SETTLED) - _PER_SNAPSHOT * self._snapshot_bytes

    def put(self, rows: Tree, count: int) -> int:
        """Write rows after the last ones; return the place of the first. They do not count before `accept`, so a
        failure in between changes nothing."""
        if self.rows is None or self.used + count > trees.count(self.rows) or not _holds(rows, self.rows):
            # A copy: pages refer to the present memory.
            size = 2 * self.used + count + SETTLED
            before = self.rows

            def grown(leaf: Array, *old: Array) -> Array:
                wide = np.result_type(leaf.dtype, *(each.dtype for each in old))
                out = trees.empty((size, *leaf.shape[1:]), wide)
                for each in old:
                    out[: self.used] = each[: self.used]
                return out

            self.rows = trees.map_leaves(grown, rows, *(() if before is None else (before,)))

        def write(into: Array, leaf: Array) -> None:
            # Copies of ragged rows: they may be views of the memory of thousands, of which a key keeps one for long.
            into[self.used : self.used + count] = ragged.copied(leaf) if leaf.dtype == object else leaf

        trees.map_leaves(write, self.rows, rows)
        self._put = count
        return self.used

    def accept(self, count: int) -> None:
        """Add the rows that were put last to the log."""
        self.used += count
        self._open = None
        size = trees.row_bytes(self.rows)
        if (self.used - self._closed_to) * size >= max(_PAGE_BYTES, self.used * size // 16):
            self._closed = (*self._closed, self._page(trees.cut(self.rows, self._closed_to, self.used)))
            self._closed_to = self.used

    def _page(self, tree: Tree) -> Page:
        self._pages_made += 1
        return Page(f"{self._unique}-{self._pages_made}", tree)

    # -- cursors -----------------------------------------------------------------------------------------------------

    def own(self) -> Mapping[str, Any]:
        """The node's own part of its cursor."""
        pages = self._closed
        if self.used > self._closed_to:
            if self._open is None or self._open[0] != self.used:
                self._open = (self.used, self._page(trees.cut(self.rows, self._closed_to, self.used)))
            pages = (*pages, self._open[1])
        return {"row": self.row, "snapshot": self._snapshot, "log": list(pages)}

    def take_up(self, own: Mapping[str, Any]) -> Tree | None:
        """Restore from `own`; return the snapshot. The caller then processes the rows of the log, which are in `rows`
        from `snapshot_rows` up to `used`."""
        snapshot, log = as_page(own["snapshot"]), [Page(*page) for page in own["log"]]
        rows = None if snapshot is None else snapshot.tree["rows"]
        count = 0 if rows is None else trees.count(rows)
        parts = [*([] if rows is None else [rows]), *(page.tree for page in log)]
        self._start(own["row"], snapshot, trees.join(parts) if parts else None, count)
        # The pages keep their ids: the next save need not write them again.
        self._closed = tuple(log)
        self.used += sum(trees.count(page.tree) for page in log)
        self._closed_to = self.used
        return None if snapshot is None else snapshot.tree["state"]


def _taken(leaf: Array, index: Ints, room: int) -> Array:
    """The rows at `index`, at the beginning of new memory for `room` rows."""
    out = trees.empty((room, *leaf.shape[1:]), leaf.dtype)
    leaf.take(index, axis=0, out=out[: len(index)], mode="clip")
    return out


def _holds(rows: Tree, memory: Tree) -> bool:
    """True if the memory's dtypes can hold the rows without truncating text."""
    pairs = zip(trees.leaves(rows), trees.leaves(memory), strict=True)
    return all(np.can_cast(leaf.dtype, wide.dtype) for (_, leaf), (_, wide) in pairs)
