"""Retention: how long a source keeps rows, with a warning when a checkpoint needs rows older than half of it.

A broker deletes rows by number or age. A run needs rows from the oldest kept checkpoint on; once the broker has deleted
them, the run can't resume from there.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from unbounded.core import check
from unbounded.core.block import Block
from unbounded.core.runtime import Runtime

_log = logging.getLogger("unbounded")


@dataclass(frozen=True)
class Retention:
    """How long a source keeps rows: the attribute `retention` of a replayable source.

    A run warns, once, if it would have to go back more than half of it.

    Args:
        rows: the number of newest rows kept; None if the number is not limited.
        seconds: the age up to which rows are kept; None if the age is not limited.

    Raises:
        ValueError: neither is given, or one is not above 0.

    >>> import unbounded as ub
    >>> ub.Retention(seconds=7 * 24 * 3600)
    Retention(rows=None, seconds=604800)
    """

    rows: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.rows is None and self.seconds is None:
            raise ValueError("Retention() was given neither rows= nor seconds=. Expected at least one of them.")
        if self.rows is not None:
            check.positive(self.rows, "Retention(rows=n)")
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"Retention(seconds={self.seconds!r}): expected a number above 0.")


class RetentionWatch:
    """Compares how far back a run would have to go in one source with the source's retention.

    Args:
        name: the source's name in messages.
        retention: of the source.
        runtime: its clock gives the time.
    """

    def __init__(self, name: str, retention: Retention, runtime: Runtime) -> None:
        self._name = name
        self._retention = retention
        self._runtime = runtime
        self._is_said = False
        self._row: int | None = None  # the first row that is needed; None before it is known
        self._time: float | None = None  # the arrival time of that row or of the one before

    def need(self, row: int, time: float | None) -> None:
        """Rows from number `row` on are needed; the last one before it arrived at `time`."""
        if row != self._row or self._time is None:
            self._row, self._time = row, time

    def restored(self, row: int, time: float | None) -> None:
        """The run continues at row `row`: rows that were needed before are still needed."""
        if self._row is None or row < self._row:
            self.need(row, time)

    def look(self, row: int, block: Block | None) -> None:
        """All rows before `row` were read, the newest in `block`: warn, once, if the needed rows are too far back;
        again only after they were not."""
        if block is not None and block.times is not None and block.count and self._time is None:
            self._time = float(block.times[0])
        needed = self._row or 0
        rows, seconds, kept = row - needed, self._seconds(), self._retention
        too_far = (kept.rows is not None and rows > kept.rows / 2) or (
            kept.seconds is not None and seconds is not None and seconds > kept.seconds / 2
        )
        if too_far and not self._is_said:
            keeps = [f"{kept.rows:,} rows"] if kept.rows is not None else []
            keeps += [f"{kept.seconds:,.0f} seconds"] if kept.seconds is not None else []
            age = f"{rows:,} rows" + ("" if seconds is None else f" and {seconds:,.0f} seconds")
            _log.warning(
                "%s keeps rows for %s, and the oldest checkpoint that is kept, or the run's position, needs them from "
                "row %s on: that is %s back, more than half of it. What the source forgets can't be gone back to. Save "
                "more often, keep fewer checkpoints (keep=), or let the source keep more.",
                self._name,
                " or ".join(keeps),
                f"{needed:,}",
                age,
            )
        self._is_said = too_far

    def _seconds(self) -> float | None:
        return None if self._time is None else self._runtime.time() - self._time
