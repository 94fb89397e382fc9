"""LogOptions: puts a source's rows into the row log, and limits the size of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unbounded.core import check

Overflow = Literal["block", "drop_oldest"]


@dataclass(frozen=True)
class LogOptions:
    """The row log of a source: rows are logged before they are used, and kept from the oldest that a checkpoint needs.

    A source that can't seek has one by default. Give one to limit its size, or to log the rows of a replayable source,
    such as one from which old rows are deleted.

    Args:
        max_bytes: how large it may become, in bytes; None for as large as it takes. It must hold the rows between the
            `keep` checkpoints that are kept and one more, and those that shuffle buffers and the like hold back. Where
            all of it is needed and training waits for rows, one block more is taken, and after that StreamError says
            how much is needed.
        overflow: what happens at the bound. "block" lets the source wait until a checkpoint is on the disk that lets
            older rows go. "drop_oldest" drops the oldest rows that were not handed on yet, about an eighth of the bound
            at a time: a gap takes their place, and they are counted in `stats.dropped`. What was handed on, or lay in
            the log when it was opened, may be needed by a checkpoint and is never dropped; where that alone fills the
            log, the source waits as with "block".

    Raises:
        ValueError: `max_bytes` is not positive, or `overflow` is another word, or there is nothing to overflow.

    >>> import numpy as np, unbounded as ub
    >>> def sensor():
    ...     while True:
    ...         yield np.zeros((8, 3))
    >>> stream = ub.from_generator(sensor, log=ub.LogOptions(max_bytes=10_000_000_000)).batch(4)
    """

    max_bytes: int | None = None
    overflow: Overflow = "block"

    def __post_init__(self) -> None:
        if self.overflow not in ("block", "drop_oldest"):
            raise ValueError(f"LogOptions(overflow={self.overflow!r}): expected 'block' or 'drop_oldest'.")
        if self.drops and self.max_bytes is None:
            raise ValueError("LogOptions(overflow='drop_oldest') drops rows at a bound, and has none: give max_bytes=.")
        if self.max_bytes is not None:
            check.positive(self.max_bytes, "LogOptions(max_bytes=n)")

    @property
    def drops(self) -> bool:
        """Whether rows may be dropped."""
        return self.overflow == "drop_oldest"
