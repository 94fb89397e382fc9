"""LogOptions: that a source's rows go through the row log, and how large it may become."""

from __future__ import annotations

from dataclasses import dataclass

from unbounded.core import check


@dataclass(frozen=True)
class LogOptions:
    """The row log of a source: rows are in it before they are handed on, from the oldest that a checkpoint needs.

    A source that can't go back has one by itself. Give one to bound it, or to put a source behind it that could go
    back, such as one from which rows are deleted after a while.

    Args:
        max_bytes: how large it may become, in bytes; None for as large as it takes. At the bound, reading waits until a
            checkpoint is on the disk that lets older rows go: it must hold the rows between `keep` checkpoints and one
            more, and those that shuffle buffers and the like hold back.

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
