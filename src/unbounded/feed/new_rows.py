"""NewRowsOf: a feed's rows in their order of arrival, before `shuffle` and `replay`, with the form of its batches.

For tests before training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core.block import Block, join
from unbounded.core.trees import Tree
from unbounded.feed.excluded import ExcludedNewRows
from unbounded.feed.feed import Feed
from unbounded.feed.row_changes import RowChanges, refuse_flat_map


class ArrivedRows(NamedTuple):
    """Rows in their order of arrival.

    Args:
        numbers: each row's number in its source, counted from the run's beginning; for a window, that of its last row.
            int64, [rows].
        came: the rows as they came to the tap: a tree of arrays, [rows, …].
        rows: the same in the form of batches.
    """

    numbers: NDArray[np.int64]
    came: Tree
    rows: Tree


def source_of(feed: Feed, source: str | None) -> str:
    """The name of the source whose rows are meant.

    Raises:
        ValueError: there is none of that name, or which one is meant must be said.
    """
    names = list(feed.stream.leaves)
    if source is None and feed.stream.makes_new_rows:
        source = names[0]
    if source not in names:
        raise ValueError(
            f"source={source!r}: expected the name of the stream whose new rows are meant, one of "
            f"{', '.join(map(repr, names))}."
        )
    return source


class NewRowsOf:
    """The new rows of one source of a feed, each until it was trained on.

    Args:
        feed: the core feed. It reads again what it has read and not handed out.
        source: the source's name.
        prepare: makes of rows as they come to the tap what batches have; None applies the stages after it.

    Raises:
        ValueError: a stage after the tap can't be applied to its rows.
        StreamError: batches are out and not confirmed.
    """

    def __init__(self, feed: Feed, source: str, prepare: Callable[[Tree], Tree] | None = None) -> None:
        stream = feed.stream
        refuse_flat_map(stream.leaves[source].stages)
        self._changes = RowChanges(stream.after_tap(source), prepare, feed)
        excluded = [stage for stage in stream.exclusions if (stage.source or source) == source]
        self._excluded = ExcludedNewRows(stream.leaves[source], excluded, feed.runtime) if excluded else None
        self._kept = feed.keep_new_rows(list(stream.leaves).index(source))

    def between(self, first: int, stop: int) -> ArrivedRows | None:
        """The rows of the source from number `first` up to `stop` that batches may have; None if there are none."""
        found = []
        for block in self._kept.between(first, stop):
            weighing = self._without_excluded(block)
            if weighing is not None and (kept := self._changes.kept(weighing, weighing.rows)) is not None:
                found.append(kept)
        if not found:
            return None
        came, made = found[0] if len(found) == 1 else (join(blocks) for blocks in zip(*found, strict=True))
        assert made.seen is not None
        return ArrivedRows(made.seen - 1, came.rows, made.rows)

    def _without_excluded(self, block: Block) -> Block | None:
        if self._excluded is None:
            return block
        assert block.seen is not None
        without = self._excluded.mask(block.seen - 1)
        return block.only(~without) if without.any() else block
