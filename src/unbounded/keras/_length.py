"""How many steps an epoch has, where that can be said before it has run: for Keras's loop and its progress bar."""

from __future__ import annotations

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
    now, declared = feed.count, feed.stream.declared_rows()
    done = now.steps - feed.progress.start.steps
    if feed.stream.has_end and declared is None:
        return done, None
    return done, feed.progress.length(feed.stream.batch_size, declared, now=now, multiple=multiple)
