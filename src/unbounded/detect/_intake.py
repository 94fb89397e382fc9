"""Intake: tells new rows from those that come again after a restart, and leaves out those without a number."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.detect._columns import Column, scaled

AGAIN = 0.5  # seconds between two events about rows that are read again


class Intake:
    """Two functions for a stream, `read` for `map` and `usable` for `filter`, with their counts.

    Args:
        columns: the columns of the readings.
        tell: receives the events `reading`, `skipped` and `again`.
        live: True if readings come as they are taken, and are shown as they come.
    """

    def __init__(self, columns: Sequence[Column], tell: Callable[[dict[str, Any]], None], *, live: bool = True) -> None:
        self._columns, self._tell = columns, tell
        self.live = live
        """True if readings are shown as they come."""
        self._seen = -1  # the number of the newest row read, in this process or an earlier one
        self._again = 0  # rows read again in this process
        self._told_again = -np.inf
        self.readings = 0
        """The number of readings, including those left out."""
        self.skipped: dict[str, int] = {}
        """The number of readings left out, by the first column without a number."""

    def read(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Show the newest row, and add all rows on the model's scale as `x`.

        Args:
            rows: `row`, `time` and `values`.

        Returns:
            The same, and `x`, [rows, columns].
        """
        rows = {**rows, "x": scaled(self._columns, rows["values"])}
        new = rows["row"] > self._seen
        if not new.all():
            self._read_again(int((~new).sum()))
        if new.any():
            self._seen = int(rows["row"][-1])
            usable = self.usable(rows)
            earlier = self.readings - int((~new).sum())
            for index in np.flatnonzero(new & ~usable):
                self._skip(rows, int(index), earlier + int(index) + 1)
            self.readings += int(new.sum())
            if self.live and (newest := np.flatnonzero(new & usable)).size:
                values, time = rows["values"][newest[-1]].tolist(), float(rows["time"][newest[-1]])
                self._tell({"event": "reading", "values": values, "time": time, "readings": self.readings})
        return rows

    def usable(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """The mask of rows that the model can be trained on: those with a number in each column.

        Args:
            rows: a result of `read`.

        Returns:
            bool, [rows].
        """
        known: np.ndarray = np.isfinite(rows["x"]).all(axis=1) & np.isfinite(rows["time"])
        return known

    def _skip(self, rows: Mapping[str, np.ndarray], index: int, reading: int) -> None:
        """Count a reading that is left out, and tell the first of its column."""
        bad = np.flatnonzero(~np.isfinite(rows["x"][index]))
        column = self._columns[int(bad[0])].name if len(bad) else "time"
        value = float(rows["values"][index, bad[0]]) if len(bad) else float(rows["time"][index])
        self.skipped[column] = self.skipped.get(column, 0) + 1
        self._tell(
            {
                "event": "skipped",
                "reading": reading,
                "column": column,
                "value": str(value),
                "first": self.skipped[column] == 1,
                "skipped": sum(self.skipped.values()),
            }
        )

    def _read_again(self, rows: int) -> None:
        """Tell that rows are read again that an earlier process knew, since this may take long."""
        self._again += rows
        if clock.monotonic() - self._told_again >= AGAIN:
            self._told_again = clock.monotonic()
            self._tell({"event": "again", "readings": self._again})

    def state_dict(self) -> dict[str, Any]:
        """The counts, as plain data."""
        # A list of pairs: column names may be any strings, also those reserved in JSON.
        skipped = [[name, count] for name, count in self.skipped.items()]
        return {"seen": self._seen, "readings": self.readings, "skipped": skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved counts.

        Args:
            state: from `state_dict`.
        """
        self._seen, self.readings = int(state["seen"]), int(state["readings"])
        self.skipped = {name: int(count) for name, count in state["skipped"]}
