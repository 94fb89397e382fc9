"""How many steps an epoch has, where that can be said before it has run: for Keras's loop and its progress bar."""

from __future__ import annotations

import math
from fractions import Fraction

from unbounded.feed.feed import Feed

# Told to Keras where nobody knows how many steps there are: None would be replaced by the first epoch's number.
ENDLESS = 2**31 - 1


def left(done: int, total: int | None) -> int:
    """The steps that Keras still has to run, of `total` of which some are done."""
    return ENDLESS if total is None else total - done


def epoch_steps(feed: Feed, multiple: int = 1) -> tuple[int, int | None]:
    """How many steps of the epoch at hand are trained, and how many it has.

    Args:
        feed: with nothing handed out that isn't confirmed.
        multiple: steps come in groups of so many; bounds other than steps are rounded up to them.

    Returns:
        The steps done, and those of the whole epoch; None for these where time or the data decides.
    """
    epoch, start = feed.epoch, feed.progress.start
    now = feed.count
    done = now.steps - start.steps
    size = feed.stream.batch_size
    per_pass = feed.stream.rows_per_pass
    if epoch is not None and (epoch.seconds is not None or (size is None and epoch.steps is None)):
        return done, None
    left: list[int] = []  # steps from now on, by each bound that can be counted in advance

    def by_rows(goal: int | Fraction) -> int:
        return max(0, math.ceil((math.ceil(goal) - now.rows) / (size or 1)))

    if epoch is not None and epoch.rows is not None:
        left.append(by_rows(start.rows + epoch.rows))
    if epoch is not None and epoch.passes is not None:
        if per_pass is None:
            return done, None
        left += [by_rows(goal * per_pass) for goal in feed.progress.goals().values()]
    rounded = [math.ceil(steps / multiple) * multiple for steps in left]
    if epoch is not None and epoch.steps is not None:
        rounded.append(max(0, epoch.steps - done))
    if feed.stream.has_end:
        rows = feed.stream._declared_rows()
        if rows is None or size is None:
            return done, None
        rounded.append(by_rows(rows))
    if not rounded:
        return done, None
    # Never before one batch was trained.
    return done, done + max(min(rounded), 0 if done else 1)
