"""LogCounts: counts of a row log: passes that ended, missing and dropped rows, and the time of the last row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from unbounded.core.block import Block


class LogCounts(NamedTuple):
    """Counts up to the end of a log, from the beginning of the stream, with the rows that were released.

    Args:
        passed: passes that ended.
        missed: rows that did not come, by the gaps that the source reported.
        dropped: rows that were dropped at the log's limit.
        last_time: when the last row arrived, seconds since 1970; None if unknown.
        position: the reader's position after the last row.
    """

    passed: int = 0
    missed: int = 0
    dropped: int = 0
    last_time: float | None = None
    position: Any = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LogCounts:
        """The counts from a result of `plain`."""
        return cls(**{name: data[name] for name in cls._fields if name in data})

    def plain(self) -> dict[str, Any]:
        """The counts as a dict."""
        return self._asdict()

    def after(self, block: Block, position: Any) -> LogCounts:
        """The counts after one more block; `position` is the reader's position after it."""
        passed, missed, dropped, last_time, _ = self
        boundary = block.boundary
        if boundary is not None:
            passed += boundary.kind == "pass"
            missed += boundary.missed if boundary.kind == "gap" else 0
        if block.count and block.times is not None:
            last_time = float(block.times[-1])
        return LogCounts(passed, missed, dropped, last_time, position)

    def staged(self, last_time: float) -> LogCounts:
        """The counts after more rows, the last of which arrived at `last_time`, of a reader without positions."""
        return LogCounts(self.passed, self.missed, self.dropped, last_time)

    def drop(self, rows: int) -> LogCounts:
        """The counts after `rows` rows were dropped."""
        return LogCounts(self.passed, self.missed, self.dropped + rows, self.last_time, self.position)
