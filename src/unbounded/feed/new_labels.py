"""NewLabelsOf: for a feed over a join, the rows as they arrive, and those whose labels have arrived.

For predictions that are made when a row comes and judged when its label comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block, join
from unbounded.core.trees import Tree
from unbounded.feed.feed import Feed
from unbounded.feed.row_changes import RowChanges
from unbounded.stages.join import Join
from unbounded.stages.new_pairs import NewPairs

_LOOKED_AT = 64  # rows in which it is looked whether what is predicted from depends on labels


class UnlabelledRows(NamedTuple):
    """Rows in the order in which they came to a join.

    Args:
        numbers: the first that came to the join is 0. int64, [rows].
        times: by which the join orders rows and labels. float64, [rows].
        came: the rows as they came, a dict of columns.
        rows: the same as batches have them, with some other row's label: only the inputs mean anything.
    """

    numbers: NDArray[np.int64]
    times: NDArray[np.float64]
    came: Tree
    rows: Tree


class LabelledRows(NamedTuple):
    """Rows in the order in which their labels came.

    Args:
        pairs: how many pairs had come out of the join with each. int64, [rows].
        numbers: those of the rows. int64, [rows].
        rows: as batches have them.
    """

    pairs: NDArray[np.int64]
    numbers: NDArray[np.int64]
    rows: Tree


class NewLabels(NamedTuple):
    """What came between two batches.

    Args:
        came: the rows that came, and may get a label; None where there are none.
        labelled: those whose labels came; None where there are none.
        expired: rows of earlier times will get no label any more.
    """

    came: UnlabelledRows | None
    labelled: LabelledRows | None
    expired: float


class NewLabelsOf:
    """The new rows and labels of a join in a feed.

    Args:
        feed: the core feed. It reads again what it has read and not handed out.
        source: the name of the join's first source.
        prepare: makes of rows as they come out of the join what batches have; None applies the stages after it.

    Raises:
        ValueError: a stage after the join can't be applied to rows as they come.
        StreamError: batches are out and not confirmed.
    """

    def __init__(self, feed: Feed, source: str, prepare: Callable[[Tree], Tree] | None = None) -> None:
        stream = feed.stream
        head = stream.tested(source).head
        assert isinstance(head, Join)
        self._within = np.inf if head.within is None else head.within
        self._changes = RowChanges(stream.after_tap(source), prepare, feed)
        kept = feed.keep_new_rows(list(stream.leaves).index(source))
        assert isinstance(kept, NewPairs)
        self._kept = kept
        self._checked = False  # that inputs do not depend on labels

    def between(self, first: int, stop: int) -> NewLabels:
        """What came after pair number `first`, and up to pair number `stop`.

        Raises:
            ValueError: what a batch has as inputs depends on the label.
        """
        pairs = list(self._kept.between(first, stop))
        labelled = [out for block in pairs if (out := self._labelled(block)) is not None]
        expired = float(pairs[-1].rows["time"][-1]) - self._within if pairs else -np.inf
        judged, paired = _numbers(labelled), _numbers(pairs)

        def is_tested(rows: Tree) -> NDArray[np.bool_]:
            # A row that came and went between two batches is not: a join that was restored does not know it any more.
            gone: NDArray[np.bool_] = rows["time"] < expired
            if len(judged) < len(paired):  # some pairs were left out after the join
                gone |= np.isin(rows["number"], paired)
            return ~gone | np.isin(rows["number"], judged) if gone.any() else ~gone

        came = [out for block in self._kept.came.between(first, stop) if (out := self._came(block, is_tested))]
        return NewLabels(
            UnlabelledRows(*(join(came).rows[name] for name in ("number", "time", "came", "rows"))) if came else None,
            LabelledRows(*(join(labelled).rows[name] for name in ("pair", "number", "rows"))) if labelled else None,
            expired,
        )

    def _labelled(self, block: Block) -> Block | None:
        """The rows of pairs that batches may have."""
        with_label = block.rows["number"] >= 0
        block = block if with_label.all() else block.gather(np.flatnonzero(with_label))
        if not block.count:
            return None
        self._check(block)
        found = self._changes.kept(block, block.rows["rows"])
        if found is None:
            return None
        pairs, out = found
        return out.with_rows({"pair": out.seen, "number": pairs.rows["number"], "rows": out.rows})

    def _came(self, block: Block, is_tested: Callable[[Tree], NDArray[np.bool_]]) -> Block | None:
        kept = is_tested(block.rows)
        block = block if kept.all() else block.gather(np.flatnonzero(kept))
        if not block.count:
            return None
        came = block.rows["rows"]
        out = self._changes.apply(block.with_rows(self._with_label(came, block.count)), leave_out=False)
        assert out is not None
        return out.with_rows({**block.rows, "came": came, "rows": out.rows})

    def _with_label(self, rows: Tree, count: int) -> Tree:
        """Rows with one and the same label."""
        return {**rows, **trees.map_leaves(lambda leaf: np.repeat(leaf, count, axis=0), self._kept.label)}

    def _check(self, block: Block) -> None:
        """Raise ValueError where the inputs of rows are others with another label: they could not be known before."""
        if self._checked:
            return
        block = replace(block.part(0, _LOOKED_AT), boundary=None)
        rows = block.rows["rows"]
        other = self._with_label(rows, block.count)
        self._checked = not all(_equal(rows[name], other[name]) for name in self._kept.label)
        ours, theirs = (self._changes.apply(block.with_rows(each), leave_out=False) for each in (rows, other))
        assert ours is not None
        assert theirs is not None
        if not _equal(_inputs(ours.rows), _inputs(theirs.rows)):
            raise ValueError(
                "What the stages after .join() make of a row's inputs depends on its label, which is not known when "
                "the row comes. Expected batches (x, y) whose x is made of the row alone: look at what .map() returns, "
                "or name the columns by .columns(x=…, y=…)."
            )


def _numbers(blocks: Sequence[Block]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(block.rows["number"] for block in blocks)])


def _inputs(rows: Tree) -> Tree:
    """What a model predicts from."""
    return rows[0] if isinstance(rows, tuple | list) else rows


def _equal(one: Tree, other: Tree) -> bool:
    pairs: Any = zip(trees.leaves(one), trees.leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM") for (_, a), (_, b) in pairs)
