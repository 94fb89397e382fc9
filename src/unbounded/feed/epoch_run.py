"""EpochRun, an iterable of one epoch's batches, from `Feed.epochs`; and Loop, the state of one loop over a feed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from unbounded.core.node import StreamError
from unbounded.core.trees import Tree
from unbounded.feed.stats import Stats

if TYPE_CHECKING:
    from unbounded.feed.loops import Loops


class Loop:
    """The state of one loop over a feed's batches. A feed has one loop at a time: the one that began last.

    Attributes:
        state: "live" while its generator runs or is suspended; "over" after it ran to its end; "left" if it was closed
            or dropped before, or an exception ended it.
        stopped: True if it ends with the current batch, which is trained on.
        whole_epoch: True for a loop over the feed itself, as data loaders make one.
    """

    __slots__ = ("state", "stopped", "whole_epoch")

    def __init__(self, *, whole_epoch: bool = False) -> None:
        self.state: Literal["live", "over", "left"] = "live"
        self.stopped = False
        self.whole_epoch = whole_epoch

    def end(self) -> None:
        """Its generator has ended, for whatever reason."""
        if self.state == "live":
            self.state = "over" if self.stopped else "left"


class EpochRun:
    """One epoch's batches: iterate over it once, before the next epoch is requested.

    Attributes:
        number: the epoch's number, from 0, counted from the run's beginning.

    >>> import numpy as np, unbounded as ub
    >>> with ub.Feed(ub.from_arrays(np.arange(10), shuffle=False).batch(2), epoch=ub.Epoch(steps=3)) as feed:
    ...     for epoch in feed.epochs(2):
    ...         for batch in epoch:
    ...             print(epoch.number, batch)
    ...             if batch.max() == 3:
    ...                 epoch.stop()
    0 [0 1]
    0 [2 3]
    1 [4 5]
    1 [6 7]
    1 [8 9]
    """

    def __init__(self, feed: Loops, number: int) -> None:
        self.number = number
        self._feed = feed
        self._done = feed.handed - feed.progress.start.steps  # batches of the epoch that earlier loops handed out
        self._batches = feed.batches()
        self._stats: Stats | None = None

    def __iter__(self) -> Iterator[Tree]:
        if self._stats is not None:
            raise StreamError(
                f"Epoch {self.number} is over: its batches came, or were left, before the next epoch was asked for. "
                "Iterate over each epoch in turn: for epoch in feed.epochs(n): for batch in epoch: …"
            )
        return self._batches

    def __len__(self) -> int:
        """The number of batches: fewer than `len(feed)` if the epoch began in an earlier loop."""
        return max(0, len(self._feed) - self._done)

    def __bool__(self) -> bool:
        return True

    @property
    def stats(self) -> Stats:
        """The stats of this epoch so far."""
        return self._feed.epoch_stats if self._stats is None else self._stats

    def stop(self) -> None:
        """End the epoch: the current batch is trained on, and no other comes in this epoch.

        Call it in the loop's body after the batch was trained on; the loop then ends by itself, or by `break`. A
        `break` alone leaves in doubt whether the current batch was trained on: it comes again. With `confirm="manual"`,
        only `trained()` tells what was trained on.
        Raises:
            StreamError: the epoch is over.
        """
        if self._stats is not None or self._feed.epoch_number != self.number:
            raise StreamError(f"Epoch {self.number} is over already: stop() belongs into the body of its loop.")
        self._feed.leave_epoch()

    def close(self) -> None:
        """End it: its loop was left, or ran to the end."""
        self._batches.close()  # type: ignore[attr-defined]
        self._stats = self._feed.epoch_stats
