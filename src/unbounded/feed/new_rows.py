"""NewRowsOf: a feed's rows in their order of arrival, before `shuffle` and `replay`, with the form of its batches.

For testing before training. The stages after a source's tap that change single rows are applied to its rows; stages
that move rows, and random changes, are left out. A stage whose output depends on earlier rows in the order after the
tap can't be applied: a stream with such a stage after its tap is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from unbounded.core import finite_rows
from unbounded.core.arrival_log import ArrivalLog
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


class NewRowsOf:
    """The new rows of one source of a feed, each until it was trained on.

    Args:
        feed: the core feed. Batches that it has read and not handed out are read again.
        source: for a mix, the name of the input stream; None without a mix.
        prepare: converts rows at the tap to the form of batches; None applies the stages after the tap.

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
        """The nodes that change single rows; None stands for leaving out non-finite rows."""
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
        # The node is used for `apply` only, and never pulls.
        node = stage.open(cast(Node, None), Context(self._feed.runtime, ArrivalLog(self._feed.runtime)))
        assert isinstance(node, Through)
        return node

    def upto(self, start: int, stop: int) -> int:
        """The number of source rows read for the batches from number `start` up to `stop`, all of which were read."""
        return max((self._feed.seen_at(step) for step in range(start, stop)), default=0)

    def between(self, first: int, stop: int) -> ArrivedRows | None:
        """The rows of the source from number `first` up to `stop` that batches may have; None if there are none."""
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
