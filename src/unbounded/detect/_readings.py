"""Readings: a stream of readings of this computer, or of a function in a user's file, in the detector's form.

In that form a row has `row`, a number that only grows; `time`, in seconds; and `values`, its columns side by side. The
number distinguishes a reading that comes again after a restart from a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

import unbounded as ub
from unbounded.detect._columns import VITALS, Column
from unbounded.detect._form import ReadingForm, Remarks, Rows, in_form
from unbounded.detect._function import Reading, functions, load
from unbounded.detect._yielded import EXAMPLE, SourceEnded, SourceError, Yielded

__all__ = ["Axis", "Readings", "SourceEnded", "SourceError", "readings", "vitals"]

Axis = Literal["date", "seconds", "row"]
"""The meaning of `time`: seconds since 1970, seconds since any other moment, or the number of the row."""
DATES = 1e8  # seconds: larger numbers, from March 1973 on, count as seconds since 1970


@dataclass(frozen=True)
class Readings:
    """A stream of readings.

    Args:
        name: the source's name in the command.
        columns: the columns of `values`.
        stream: rows of `row` (int64, [rows]), `time` (float64, [rows]) and `values` (float64, [rows, columns]; NaN
            for missing numbers).
        axis: the meaning of `time`.
        remarks: messages of the source about its columns.
    """

    name: str
    columns: tuple[Column, ...]
    stream: ub.Stream
    axis: Axis = "date"
    remarks: Remarks = field(default_factory=Remarks, compare=False)


def readings(source: str, *, rate: float = 10.0, known: Sequence[Column] = (), axis: Axis | None = None) -> Readings:
    """The readings that a source's name in the command refers to.

    Args:
        source: `machine:`, or `FILE.py:FUNCTION`.
        rate: readings a second, for `machine:`.
        known: the columns of the run to resume. Without them, the first reading is waited for, and defines the
            columns.
        axis: the meaning of `time` in the run to resume.

    Returns:
        The readings.

    Raises:
        SourceError: there is no such source, or not yet.
        ModuleNotFoundError: psutil is needed, and not installed.
    """
    if source in ("machine:", "machine"):
        ub.from_machine(rate=100.0).peek()  # raises at once if psutil is missing
        return Readings("machine:", VITALS, ub.from_machine(rate=rate).map(vitals))
    path, colon, name = source.rpartition(":")
    if colon and path.endswith(".py"):
        return _of_function(source, Reading(load(Path(path), name), source), tuple(known), axis)
    if source.endswith(".py"):
        raise SourceError(
            f"{source} is a file. Name the function in it too: {source}:FUNCTION. {functions(Path(source))}"
        )
    raise SourceError(_not_there_yet(source))


def vitals(rows: Mapping[str, np.ndarray]) -> Rows:
    """Rows of `ub.from_machine()` in the detector's form.

    Args:
        rows: its columns, each [rows].

    Returns:
        `row`, `time` and `values`.
    """
    return {
        "row": np.round(rows["time"] * 1e6).astype(np.int64),
        "time": rows["time"],
        "values": np.stack([rows[column.name].astype(np.float64) for column in VITALS], axis=1),
    }


def _not_there_yet(source: str) -> str:
    instead = (
        "What works today: machine:, this computer's own vitals, and FILE.py:FUNCTION, a generator function of yours."
    )
    scheme, colon, _ = source.partition("://")
    if colon and scheme.isidentifier():
        return (
            f"{scheme}:// is not there yet. {instead} A consumer's loop that yields a dict of columns for what came "
            'in, such as {"temperature": [21.5, 21.6]}, is such a function.'
        )
    if source.endswith((".csv", ".parquet", ".json", ".jsonl", ".txt")):
        return (
            f"Files of readings such as {source} are not there yet. {instead} One that reads a CSV file for ever:\n\n"
            "    import itertools, numpy as np\n\n"
            "    def rows(start=0):\n"
            f'        table = np.genfromtxt("{source}", delimiter=",", names=True)\n'
            "        for i in itertools.count(start):\n"
            "            yield {name: table[name][[i % len(table)]] for name in table.dtype.names}\n"
        )
    return f"{source} is no source that is known here. {instead}"


def _of_function(source: str, reading: Reading, known: tuple[Column, ...], axis: Axis | None) -> Readings:
    remarks = Remarks()
    columns = known
    if not known or axis is None:
        first = reading.first()
        columns = known or _columns_of(first, source)
        axis = axis or _axis_of(first, reading)
    stream = ub.from_generator(in_form(reading, ReadingForm(columns, source, remarks)))
    return Readings(source, columns, stream, axis, remarks)


def _columns_of(first: Yielded, source: str) -> tuple[Column, ...]:
    if not first.numbers:
        instead = "".join(
            f" The column {name!r} holds {cell}, which is no number: convert it, as in float(…)."
            for name, cell in first.text.items()
        )
        raise SourceError(
            f"{source} yielded no column of readings. It is to yield dicts of columns, such as {EXAMPLE}.{instead}"
        )
    return tuple(Column(name) for name in first.numbers)


def _axis_of(first: Yielded, reading: Reading) -> Axis:
    if first.time is not None:
        known = first.time[np.isfinite(first.time)]
        return "date" if not len(known) or known[0] > DATES else "seconds"
    # Replayable readings come as fast as they are trained on: their time of arrival has no meaning.
    return "date" if reading.grade == "live" else "row"
