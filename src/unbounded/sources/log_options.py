"""LogOptions: puts a source's rows into the row log, and limits the size of the log."""

from __future__ import annotations

from dataclasses import dataclass

from unbounded.core import check


@dataclass(frozen=True)
class LogOptions:
    """The row log of a source: rows are logged before they are used, and kept from the oldest that a checkpoint needs.

    A source that can't seek has one by default. Give one to limit its size, or to log the rows of a replayable source,
    such as one from which old rows are deleted.

    Args:
        max_bytes: the largest size of the log in bytes; None for no limit. At the limit, reading stops until a new
            checkpoint lets old rows go. The log holds the rows of `keep` checkpoints and one more, and the rows that
            shuffle buffers and other stages hold back.

    Raises:
        ValueError: `max_bytes` is not positive.

    >>> import numpy as np, unbounded as ub
    >>> def sensor():
    ...     while True:
    ...         yield np.zeros((8, 3))
    >>> stream = ub.from_generator(sensor, log=ub.LogOptions(max_bytes=10_000_000_000)).batch(4)
    """

    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.max_bytes is not None:
            check.positive(self.max_bytes, "LogOptions(max_bytes=n)")
