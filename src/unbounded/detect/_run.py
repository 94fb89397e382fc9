"""A run read from its file, line by line, in memory that does not grow with the run."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.detect._columns import Column
from unbounded.detect._record import FILE, Bins, RecordedAlarm, RecordedEpoch, RecordedRun, Start, Trained

__all__ = ["FILE", "RecordedRun", "last_start", "read_run", "records"]

ALARMS = 1_000
STARTS = 1_000


class Damaged(int):
    """The number of a line that is not a record."""


def records(directory: Path) -> Iterator[dict[str, Any] | Damaged]:
    """The lines of a run's file, one after the other, without loading all of them.

    Args:
        directory: the run's.

    Returns:
        Plain data; for a line that is not a record, its number; an incomplete last line is left out.
    """
    path = directory / FILE
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            # A run that is training, or was killed, may have written a part of its last line.
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                yield Damaged(number)
                continue
            yield record if isinstance(record, dict) and "kind" in record else Damaged(number)


def read_run(directory: Path) -> RecordedRun:
    """Read back what a run wrote.

    Args:
        directory: the run's.

    Returns:
        The run; one that has not begun is empty.
    """
    starts: deque[Start] = deque(maxlen=STARTS)
    alarms: deque[RecordedAlarm] = deque(maxlen=ALARMS)
    bins: list[dict[str, Any]] = []
    pauses: list[tuple[float, float]] = []
    epochs: list[RecordedEpoch] = []
    trained, counts = Trained(), {"start": 0, "alarm": 0}
    damaged = 0
    for record in records(directory):
        if isinstance(record, Damaged):
            damaged += 1
            continue
        kind = record.pop("kind")
        if kind in counts:
            counts[kind] += 1
        if kind == "start":
            starts.append(_made(Start, {**record, "columns": tuple(Column(**column) for column in record["columns"])}))
        elif kind == "alarm":
            alarms.append(_made(RecordedAlarm, record))
        elif kind == "readings":
            bins.append(record)
        elif kind == "pause":
            pauses.append((record["from"], record["to"]))
        elif kind == "epochs":
            epochs.append(
                _made(RecordedEpoch, {**record, "error": _known(record["error"]), "last": _known(record["last"])})
            )
        elif kind == "trained":
            trained = _made(Trained, record)
    width = len(starts[-1].columns) if starts else 0
    return RecordedRun(
        starts=tuple(starts),
        start_count=counts["start"],
        bins=_bins(bins, width),
        pauses=tuple(pauses),
        alarms=tuple(alarms),
        alarm_count=counts["alarm"],
        epochs=tuple(epochs),
        trained=trained,
        damaged=damaged,
    )


def last_start(directory: Path) -> Start | None:
    """How a run began last.

    Args:
        directory: the run's.

    Returns:
        The start; None where there was none.
    """
    found = None
    for record in records(directory):
        if not isinstance(record, Damaged) and record["kind"] == "start":
            found = record
    if found is None:
        return None
    start: Start = _made(Start, {**found, "columns": tuple(Column(**column) for column in found["columns"])})
    return start


def _made(kind: Any, record: Mapping[str, Any]) -> Any:
    """A record as what it is of; what another version of the command wrote beside it is left out."""
    return kind(**{one.name: record[one.name] for one in fields(kind) if one.name in record})


def _bins(records: list[dict[str, Any]], width: int) -> Bins:
    records = [record for record in records if len(record["low"]) == width]

    def column(name: str, dtype: type = np.float64) -> np.ndarray:
        return np.array([_known(record[name]) for record in records], dtype=dtype)

    def table(name: str) -> np.ndarray:
        out = np.array([record[name] for record in records], dtype=np.float64)  # None becomes NaN
        return out.reshape(len(records), width)

    return Bins(
        first=column("first", np.int64),
        count=column("count", np.int64),
        begin=column("from"),
        end=column("to"),
        low=table("low"),
        high=table("high"),
        score=column("score"),
        error=column("error"),
        last=column("last"),
    )


def _known(value: float | None) -> float:
    return np.nan if value is None else value
