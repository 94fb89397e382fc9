"""Due: decides when a checkpoint is due."""

from __future__ import annotations

import math
from collections.abc import Mapping

from unbounded.core import check
from unbounded.feed import validate
from unbounded.feed.epoch import Epoch
from unbounded.feed.feed import Feed
from unbounded.feed.stats import Stats
from unbounded.stream import Stream


class Due:
    """The times of checkpoints, besides the end of training.

    Args:
        every: a number of steps, counted from the run's beginning; an `Epoch`, counted from the last checkpoint; or
            None for the end of each epoch.
        stream: the stream whose passes it counts.
    """

    def __init__(self, every: int | Epoch | None, stream: Stream) -> None:
        if isinstance(every, Epoch):
            validate.passes_of(stream, every)
        elif every is not None:
            every = check.positive(every, "Checkpoint(every=n)")
        self.every = every
        self._steps = 0
        self._rows = 0
        self._passes: dict[str, float] = {}
        self._time = 0.0

    @property
    def each_epoch(self) -> bool:
        """True if checkpoints are due at the ends of epochs."""
        return self.every is None

    def saved(self, feed: Feed) -> None:
        """A checkpoint was written or read at the feed's current position."""
        stats = feed.stats
        self._steps, self._rows = stats.steps, stats.rows
        self._passes = self._passed(stats)
        self._time = feed.runtime.monotonic()

    def since(self, feed: Feed) -> int:
        """The steps since the last checkpoint."""
        return feed.steps - self._steps

    def now(self, feed: Feed) -> bool:
        """True if a checkpoint is due after the step that was just trained."""
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
        passed = self._passed(stats)
        asked = every.passes if isinstance(every.passes, Mapping) else {"": every.passes or math.inf}
        return any(passed.get(name, 0.0) - self._passes.get(name, 0.0) >= passes for name, passes in asked.items())

    def _passed(self, stats: Stats) -> dict[str, float]:
        """The passes of the stream, under "", and of each source of a mix, under its name."""
        return {"": stats.passes or 0.0} | {name: each.passes or 0.0 for name, each in stats.inputs.items()}
