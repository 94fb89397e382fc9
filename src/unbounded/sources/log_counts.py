"""What a row log counts of the rows that were read: passes, rows that are missing or dropped, the last one's time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from unbounded.core.block import Block


class LogCounts(NamedTuple):
    """Counts up to the end of a log, from the beginning of the stream; rows that were let go of are in them.

    Args:
        passed: passes that ended.
        missed: rows that did not come, as the source says.
        dropped: rows that the bound has cost.
        last_time: when the last row arrived, seconds since 1970; None where that is not known.
        position: the reader's after the last row.
    """

    passed: int = 0
    missed: int = 0
    dropped: int = 0
    last_time: float | None = None
    position: Any = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LogCounts:
        """The counts in what `plain` gave."""
        return cls(**{name: data[name] for name in cls._fields if name in data})

    def plain(self) -> dict[str, Any]:
        """The counts by their names."""
        return self._asdict()

    def after(self, block: Block, position: Any) -> LogCounts:
        """With a block at the end, and the reader's position after it."""
        passed, missed, dropped, last_time, _ = self
        boundary = block.boundary
        if boundary is not None:
            passed += boundary.kind == "pass"
            missed += boundary.missed if boundary.kind == "gap" else 0
        if block.count and block.times is not None:
            last_time = float(block.times[-1])
        return LogCounts(passed, missed, dropped, last_time, position)

    def drop(self, rows: int) -> LogCounts:
        """With so many rows dropped."""
        return LogCounts(self.passed, self.missed, self.dropped + rows, self.last_time, self.position)


class CountedLog:
    """A log that counts. See `LogCounts`."""

    counts = LogCounts()

    @property
    def passed(self) -> int:
        """How many passes ended."""
        return self.counts.passed

    @property
    def missed(self) -> int:
        """How many rows did not come."""
        return self.counts.missed

    @property
    def dropped(self) -> int:
        """How many rows the bound has cost."""
        return self.counts.dropped

    @property
    def last_time(self) -> float | None:
        """When the last row arrived, seconds since 1970; None where that is not known."""
        return self.counts.last_time

    @property
    def position(self) -> Any:
        """The reader's position after the last row."""
        return self.counts.position
