"""New rows: the rows of a feed as they came, before `shuffle` and `replay`, in the form that its batches have.

For tests before training. The stages after a source's tap that change one row at a time are applied to its rows; those
that move rows are left out, and so are changes by chance. A stage whose output depends on the rows before it, in the
order in which they come there, can't be applied to others: a stream that has one after its tap is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from unbounded.core import finite_rows
from unbounded.core.block import Block, join
from unbounded.core.node import Context, Node
from unbounded.core.trees import Tree
from unbounded.feed.excluded import ExcludedNewRows
from unbounded.feed.feed import Feed
from unbounded.stages.batch import Batch
from unbounded.stages.exclude import Exclude
from unbounded.stages.join import Join
from unbounded.stages.map import Columns, Filter, Map, MapRows
from unbounded.stages.prefetch import Buffer, Prefetch
from unbounded.stages.random_map import RandomMap
from unbounded.stages.replay import Replay
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.skip_non_finite import Finite
from unbounded.stages.stage import Stage, Through
from unbounded.stages.take import Take


class ArrivedRows(NamedTuple):
    """Rows in the order in which they came.

    Args:
        numbers: which row of the source each is, counted from the run's beginning; of a window, that of its last row.
            int64, [rows].
        came: the rows as they came to the tap: a tree of arrays, [rows, …].
        rows: the same as batches have them.
    """

    numbers: NDArray[np.int64]
    came: Tree
    rows: Tree


class NewRowsOf:
    """The new rows of one source of a feed, each until it was trained on.

    Args:
        feed: the core feed. It reads again what it has read and not handed out.
        source: of a mix, the name of the stream whose rows are meant; None where there is no mix.
        prepare: makes of rows as they come to the tap what batches have; None applies the stages after it.

    Raises:
        ValueError: no such source, a join in the stream, or a stage after the tap that can't be applied to its rows.
        StreamError: batches are out and not confirmed.
    """

    def __init__(self, feed: Feed, source: str | None = None, prepare: Callable[[Tree], Tree] | None = None) -> None:
        if any(isinstance(part, Join) for part in feed.stream.all_parts):
            raise ValueError(
                "Rows that wait for their labels in .join() can't be tested when they come: which rows had come for a "
                "batch is not known behind it. Test them in a callback of your own."
            )
        names = list(feed.stream.leaves)
        if source is None and len(names) == 1:
            source = names[0]
        if source not in names:
            raise ValueError(
                f"source={source!r}: expected the name of the stream whose new rows are meant, one of "
                f"{', '.join(map(repr, names))}."
            )
        self._feed = feed
        self._steps: list[Through | None]
        if prepare is None:
            self._steps = list(self._changes(source))
        else:
            self._steps = [self._opened(Map(prepare))]
        excluded = [stage for stage in feed.stream.exclusions if (stage.source or source) == source]
        self._excluded = ExcludedNewRows(feed.stream.leaves[source], excluded, feed.runtime) if excluded else None
        self._kept = feed.keep_new_rows(names.index(source))

    def _changes(self, source: str) -> Iterator[Through | None]:
        """The nodes that change rows one at a time; None stands for leaving out rows that are not finite."""
        for stage in self._feed.stream.after_tap(source):
            if isinstance(stage, Shuffle | Replay | Batch | Take | Prefetch | Buffer | RandomMap | Exclude):
                continue
            if isinstance(stage, Finite):
                yield None
            elif isinstance(stage, Map | MapRows | Filter | Columns):
                yield self._opened(replace(stage, workers=0) if isinstance(stage, Map) else stage)
            else:
                raise ValueError(
                    f".{stage.word}() stands after a .shuffle(), a .replay() or a mix, and what it makes of a row "
                    "depends on the rows before it there: a row can't be tested before it comes out. Put "
                    f".{stage.word}() before them, or say what makes batches of rows as they come there: "
                    "prepare=lambda rows: …"
                )

    def _opened(self, stage: Stage) -> Through:
        # It is only asked to change rows, and pulls none.
        node = stage.open(cast(Node, None), Context(self._feed.runtime))
        assert isinstance(node, Through)
        return node

    def upto(self, start: int, stop: int) -> int:
        """How many rows of the source had been read for the batches from number `start` up to `stop`, all at hand."""
        return max((self._feed.seen_at(step) for step in range(start, stop)), default=0)

    def between(self, first: int, stop: int) -> ArrivedRows | None:
        """The rows of the source from number `first` up to `stop` that batches may have; None where there are none."""
        came, changed = [], []
        for block in self._kept.between(first, stop):
            out = self._changed(block)
            if out is not None:
                assert block.seen is not None
                assert out.seen is not None
                came.append(block if out.count == block.count else block.gather(np.searchsorted(block.seen, out.seen)))
                changed.append(out)
        if not changed:
            return None
        whole = join(changed)
        assert whole.seen is not None
        return ArrivedRows(whole.seen - 1, join(came).rows, whole.rows)

    def _changed(self, block: Block) -> Block | None:
        out: Any = block
        if self._excluded is not None:
            assert block.seen is not None
            without = self._excluded.mask(block.seen - 1)
            out = block.only(~without) if without.any() else block
            if out is None:
                return None
        for node in self._steps:
            if node is None:
                bad = finite_rows.non_finite_mask(out.rows)
                out = out if bad is None else out.only(~bad)
            else:
                out = node.apply(out)
            if out is None or not out.count:
                return None
        return out  # type: ignore[no-any-return]
