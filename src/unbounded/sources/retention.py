"""How long a source keeps rows, and the warning where a checkpoint needs rows that are half as old.

A broker forgets rows by their number or their age. What a run needs of it reaches back to the oldest checkpoint that is
kept; once the broker has forgotten that, the run can't go on from there.
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
    """How long a source keeps rows: the attribute `retention` of a source that can go back.

    A run warns, once, where it would have to go back more than half of it.

    Args:
        rows: so many rows, the newest; None where their number does not matter.
        seconds: rows that are not older; None where their age does not matter.

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
    """How far back a run would have to go in one source, against what the source keeps.

    Args:
        name: the source's, in messages.
        retention: what it keeps.
        runtime: tells the time.
    """

    def __init__(self, name: str, retention: Retention, runtime: Runtime) -> None:
        self._name = name
        self._retention = retention
        self._runtime = runtime
        self._is_said = False
        self._row: int | None = None  # the first that is needed; None before it is known
        self._time: float | None = None  # when it arrived, or the one before it

    def need(self, row: int, time: float | None) -> None:
        """From here on rows from number `row` on are needed; the last one before it arrived at `time`."""
        if row != self._row or self._time is None:
            self._row, self._time = row, time

    def restored(self, row: int, time: float | None) -> None:
        """The run goes on with row `row`: what was needed before that is needed still."""
        if self._row is None or row < self._row:
            self.need(row, time)

    def look(self, row: int, block: Block | None) -> None:
        """Up to row `row` all is read, with `block` as the newest: warn where what is needed lies too far back, once
        until it no longer does."""
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
