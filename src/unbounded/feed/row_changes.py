"""RowChanges: the stages after a tap that change single rows, applied to rows as they arrive there.

The stages that change one row at a time are applied; those that move rows are left out, and so are changes by chance. A
stage whose output depends on the rows before it, in the order in which they come there, can't be applied to others: a
stream that has one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from unbounded.core import finite_rows
from unbounded.core.arrival_log import ArrivalLog
from unbounded.core.block import Block
from unbounded.core.node import Context, Node
from unbounded.core.trees import Tree
from unbounded.feed.feed import Feed
from unbounded.stages.balance import Balance
from unbounded.stages.batch import Batch
from unbounded.stages.bucket_batch import BucketBatch
from unbounded.stages.drop_missing import DropMissing
from unbounded.stages.encode import Encode
from unbounded.stages.event_time import Time
from unbounded.stages.exclude import Exclude
from unbounded.stages.fill import Fill
from unbounded.stages.flat_map import FlatMap
from unbounded.stages.images import Images
from unbounded.stages.map import Columns, Filter, Map, MapRows
from unbounded.stages.pad import Pad
from unbounded.stages.prefetch import Buffer, Prefetch
from unbounded.stages.random_map import RandomMap
from unbounded.stages.replay import Replay
from unbounded.stages.shuffle import Shuffle
from unbounded.stages.skip_non_finite import Finite
from unbounded.stages.split import Split
from unbounded.stages.stage import Stage, Through
from unbounded.stages.take import Take

_OF_SINGLE_ROWS = (Map, MapRows, Filter, Columns, Encode, Time, DropMissing, Pad, Split)


def refuse_flat_map(stages: Sequence[Stage]) -> None:
    """Raise ValueError for a stage whose rows have no numbers of their own, by which they would be tested once."""
    if any(isinstance(stage, FlatMap) for stage in stages):
        raise ValueError(
            ".flat_map() makes several rows of one, and rows are tested before training by their numbers in the "
            "source. Make the rows in the source: a generator that yields them, ub.from_generator(fn)."
        )


class RowChanges:
    """The stages behind a tap, for rows one at a time.

    Args:
        stages: those stages.
        prepare: makes of rows as they come to the tap what batches have, in place of them; None applies them.
        feed: the feed. Where it refuses batches with rows that are not finite, such rows are left out.

    Raises:
        ValueError: a stage can't be applied to rows as they come.
    """

    def __init__(self, stages: Sequence[Stage], prepare: Callable[[Tree], Tree] | None, feed: Feed) -> None:
        self._runtime = feed.runtime
        refuse_flat_map(stages)
        given = list(stages) if prepare is None else [Map(prepare)]
        # Each step: whether it leaves rows out, and its node; None leaves out rows that are not finite.
        self._steps = list(self._opened_steps(given))
        # Rows that keep their order are tested right before their batch, which was checked.
        if feed.on_nan == "raise" and any(isinstance(stage, Shuffle | Replay) for stage in stages):
            self._steps.append((True, None))

    def _opened_steps(self, stages: Sequence[Stage]) -> Iterator[tuple[bool, Through | None]]:
        for stage in stages:
            if isinstance(stage, BucketBatch):
                yield False, self._opened(stage.buckets.pad(stage.buckets.bounds[-1]))
                continue
            if isinstance(stage, Balance | Shuffle | Replay | Batch | Take | Prefetch | Buffer | RandomMap | Exclude):
                continue
            if isinstance(stage, Finite):
                yield True, None
            elif isinstance(stage, Images):
                yield stage.on_bad == "skip", stage.at_once()
            elif isinstance(stage, _OF_SINGLE_ROWS) or (isinstance(stage, Fill) and not stage.carries):
                step = replace(stage, workers=0) if isinstance(stage, Map) else stage
                yield isinstance(stage, Filter | DropMissing | Split), self._opened(step)
            else:
                raise ValueError(
                    f".{stage.word}() stands after a .shuffle(), a .replay(), a .join() or a mix, and what it makes of "
                    "a row depends on the rows before it there: a row can't be tested before it comes out. Put "
                    f".{stage.word}() before them, or say what makes batches of rows as they come there: "
                    "prepare=lambda rows: …"
                )

    def _opened(self, stage: Stage) -> Through:
        # The node is used for `apply` only, and never pulls.
        node = stage.open(cast(Node, None), Context(self._runtime, ArrivalLog(self._runtime)))
        assert isinstance(node, Through)
        return node

    def kept(self, block: Block, rows: Tree) -> tuple[Block, Block] | None:
        """The rows that batches may have, and what becomes of them; None if there are none.

        Args:
            block: rows that came to the tap, with `seen`.
            rows: the part of `block.rows` that the stages change.
        """
        out = self.apply(block if rows is block.rows else block.with_rows(rows))
        if out is None or out.count == block.count:
            return None if out is None else (block, out)
        assert block.seen is not None
        assert out.seen is not None
        return block.gather(np.searchsorted(block.seen, out.seen)), out

    def apply(self, block: Block, *, leave_out: bool = True) -> Block | None:
        """What becomes of rows.

        Args:
            block: as they came to the tap.
            leave_out: False keeps the rows, too, that a stage leaves out.
        """
        out: Any = block
        for leaves_out, node in self._steps:
            if leaves_out and not leave_out:
                continue
            if node is None:
                bad = finite_rows.non_finite_mask(out.rows)
                out = out if bad is None else out.only(~bad)
            else:
                out = node.apply(out)
            if out is None or not out.count:
                return None
        return out  # type: ignore[no-any-return]
