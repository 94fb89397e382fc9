"""Readings: a stream of readings of this computer, of a user's function, or of files, in the detector's form.

In that form a row has `row`, a number that only grows; `time`, in seconds; and `values`, its columns side by side. The
number distinguishes a reading that comes again after a restart from a new one.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import unbounded as ub
from unbounded.detect._columns import VITALS, Column
from unbounded.detect._file_columns import Choice, columns_of
from unbounded.detect._file_readings import FileReadings
from unbounded.detect._form import ReadingForm, Remarks, Rows, in_form
from unbounded.detect._function import Reading, functions, load, load_module
from unbounded.detect._yielded import EXAMPLE, SourceEnded, SourceError, Yielded

__all__ = ["Axis", "Choice", "Readings", "SourceEnded", "SourceError", "readings", "vitals"]

Axis = Literal["date", "utc", "seconds", "row"]
"""The meaning of `time`: seconds since 1970, shown in local time; the same, shown in UTC, as times in files are, which
may have no zone; seconds since any other moment; or the number of the row."""
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
        keyed: True if rows have a `key`, text: each key's readings are a series of their own.
        live: True if readings may come as they are taken; False for files, which come as fast as they are read.
        remarks: messages of the source about its columns.
    """

    name: str
    columns: tuple[Column, ...]
    stream: ub.Stream
    axis: Axis = "date"
    keyed: bool = False
    live: bool = True
    remarks: Remarks = field(default_factory=Remarks, compare=False)


def readings(
    source: str,
    *,
    rate: float = 10.0,
    known: Sequence[Column] = (),
    axis: Axis | None = None,
    choice: Choice | None = None,
    passes: int | None = 1,
) -> Readings:
    """The readings that a source's name in the command refers to.

    Args:
        source: `machine:`, `FILE.py:FUNCTION`, `MODULE:FUNCTION`, or files: a path, a directory, a glob or a URL.
        rate: readings a second, for `machine:`.
        known: the columns of the run to resume. Without them, the first reading of a function is waited for, and
            defines the columns.
        axis: the meaning of `time` in the run to resume.
        choice: the columns of files; of other sources, none may be chosen.
        passes: how often files are read; None for ever.

    Returns:
        The readings.

    Raises:
        SourceError: there is no such source, or not yet.
        ModuleNotFoundError: a library is needed, and not installed.
    """
    name = _function_of(source)
    if source in ("machine:", "machine") or name is not None:
        _refuse_choice(source, choice, passes)
    if source in ("machine:", "machine"):
        ub.from_machine(rate=100.0).peek()  # raises at once if psutil is missing
        return Readings("machine:", VITALS, ub.from_machine(rate=rate).map(vitals))
    if name is not None:
        return _of_function(source, Reading(name(), source), tuple(known), axis)
    if source.endswith(".py"):
        raise SourceError(
            f"{source} is a file. Name the function in it too: {source}:FUNCTION. {functions(Path(source))}"
        )
    scheme, colon, _ = source.partition("://")
    if colon and scheme in _LATER:
        raise SourceError(
            f"{scheme}:// is not there yet. A function whose loop yields a dict of columns for what comes in, such as "
            f"{EXAMPLE}, reads it: FILE.py:FUNCTION."
        )
    return _of_files(source, choice or Choice(), passes)


_LATER = ("kafka", "redis", "nats", "mqtt", "mqtts", "rediss")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _function_of(source: str) -> Callable[[], Callable[..., Any]] | None:
    """What imports the function that a source's name refers to; None for other sources."""
    path, colon, name = source.rpartition(":")
    if colon and path.endswith(".py"):
        return lambda: load(Path(path), name)
    if _MODULE.fullmatch(source) and not Path(source).exists():
        return lambda: load_module(path, name)
    return None


def _refuse_choice(source: str, choice: Choice | None, passes: int | None) -> None:
    given = choice or Choice()
    options = {"--columns": given.columns, "--time": given.time, "--time-format": given.time_format, "--by": given.by}
    options["--passes"] = None if passes == 1 else str(passes)
    for option, value in options.items():
        if value is not None:
            raise SourceError(
                f"{option} is of files, and {source} is none: a function yields the columns that are wanted, its times "
                "in the column 'time'."
            )


def _of_files(source: str, choice: Choice, passes: int | None) -> Readings:
    for package in ("pyarrow", "fsspec"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"Files are read by {package}, which is not installed: pip install 'unbounded[demo]'.", name=package
            )
    try:
        chosen = columns_of(source, choice)
        # Its errors are sentences: files of several formats, columns that differ from file to file.
        ub.from_files(source, columns=dict(chosen.dtypes), passes=1)
    except (ub.RowsError, FileNotFoundError, ValueError) as error:
        raise SourceError(str(error)) from None
    except OSError as error:
        raise SourceError(f"{source} can't be read: {error.strerror or error}.") from None
    remarks = Remarks()
    if chosen.left_out:
        names = ", ".join(chosen.left_out[:12]) + (", …" if len(chosen.left_out) > 12 else "")
        remarks.say("left out", f"Left out, since they are no numbers: {names}. (A key is named by --by.)")
    if chosen.time is None:
        remarks.say("time", "No column of times was found (--time names one): rows are numbered.")
    columns = tuple(Column(name) for name in chosen.numbers)
    stream = ub.from_source(FileReadings(source, chosen, passes))
    axis: Axis = "row" if chosen.time is None else "utc"
    return Readings(source, columns, stream, axis, chosen.by is not None, False, remarks)


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


def _of_function(source: str, reading: Reading, known: tuple[Column, ...], axis: Axis | None) -> Readings:
    remarks = Remarks()
    columns = known
    if not known or axis is None:
        first = reading.first()
        columns = known or _columns_of(first, source)
        axis = axis or _axis_of(first, reading)
    stream = ub.from_generator(in_form(reading, ReadingForm(columns, source, remarks)))
    return Readings(source, columns, stream, axis, remarks=remarks)


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
