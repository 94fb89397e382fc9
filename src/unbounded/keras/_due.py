"""Due: whether it is time for a checkpoint."""

from __future__ import annotations

from unbounded.core import check
from unbounded.feed.epoch import Epoch
from unbounded.feed.feed import Feed


class Due:
    """When to save, beside the end of training.

    Args:
        every: a number of steps, counted from the run's beginning; an `Epoch`, counted from the last checkpoint;
            or None for the end of each epoch.
    """

    def __init__(self, every: int | Epoch | None) -> None:
        if every is not None and not isinstance(every, Epoch):
            every = check.positive(every, "Checkpoint(every=n)")
        self.every = every
        self._steps = 0
        self._rows = 0
        self._passes = 0.0
        self._time = 0.0

    @property
    def each_epoch(self) -> bool:
        """Whether the end of an epoch is the time."""
        return self.every is None

    def saved(self, feed: Feed) -> None:
        """A checkpoint was written, or read, where the feed stands now."""
        stats = feed.stats
        self._steps, self._rows, self._passes = stats.steps, stats.rows, stats.passes or 0.0
        self._time = feed.runtime.monotonic()

    def since(self, feed: Feed) -> int:
        """Steps since then."""
        return feed.steps - self._steps

    def now(self, feed: Feed) -> bool:
        """Whether a checkpoint is due after the step that was just trained."""
        every = self.every
        if every is None or feed.steps == self._steps:
            return False
        if isinstance(every, int):
            return feed.steps // every > self._steps // every
        if every.steps is not None and feed.steps - self._steps >= every.steps:
            return True
        if every.seconds is not None and feed.runtime.monotonic() - self._time >= every.seconds:
            return True
        if every.rows is None and every.passes is None:
            return False
        stats = feed.stats
        if every.rows is not None and stats.rows - self._rows >= every.rows:
            return True
        return every.passes is not None and (stats.passes or 0.0) - self._passes >= every.passes
