"""The number of steps of an epoch, if it is known beforehand, for Keras's loop and its progress bar."""

from __future__ import annotations

from unbounded.feed.feed import Feed

# Told to Keras if the number of steps is unknown: it would replace None by the first epoch's number.
ENDLESS = 2**31 - 1


def left(done: int, total: int | None) -> int:
    """The steps that Keras still has to run, of `total` of which `done` are trained."""
    return ENDLESS if total is None else total - done


def epoch_steps(feed: Feed, multiple: int = 1) -> tuple[int, int | None]:
    """The trained steps of the current epoch, and all its steps.

    Args:
        feed: a feed without unconfirmed batches.
        multiple: the size of groups of steps; bounds other than steps are rounded up to whole groups.

    Returns:
        The steps done, and those of the whole epoch; None for these if time or the data decides.
    """
    now, declared = feed.count, feed.stream.declared_rows()
    done = now.steps - feed.progress.start.steps
    if feed.stream.has_end and declared is None:
        return done, None
    return done, feed.progress.length(feed.stream.batch_size, declared, now=now, multiple=multiple)
