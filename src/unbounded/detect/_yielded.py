"""Yielded: a block that a user's function yielded, as columns of float64: from scalars, lists, arrays, text and dates.

A cell without a number becomes NaN, so that one bad reading is one row to leave out, and not the end of a run. Only
blocks of which no rows can be made are refused.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TIME = "time"
EXAMPLE = "{'temperature': 21.5}"


class SourceError(Exception):
    """A source can't be read; the message says what to do."""


class SourceEnded(SourceError):
    """A function's generator has ended."""


@dataclass(frozen=True)
class Yielded:
    """One block of rows.

    Args:
        rows: their number.
        numbers: each column that has a number, float64, [rows]; NaN in cells without one.
        text: for each column without any number, one of its cells.
        unreadable: for each column in `numbers`, a cell that is neither a number nor missing, if there is one.
        time: the column `time`, in seconds since 1970 or any other moment, [rows]; None without such a column.
    """

    rows: int
    numbers: Mapping[str, np.ndarray]
    text: Mapping[str, str]
    unreadable: Mapping[str, str]
    time: np.ndarray | None


def read_block(block: Any, source: str) -> Yielded:
    """Parse what a function yielded.

    Args:
        block: a dict of columns. Each is a number or one-dimensional: a list or an array. A single number beside
            columns of several rows is repeated. None is a missing value.
        source: the source's name in the command, for errors.

    Returns:
        The columns.

    Raises:
        SourceError: it is no dict of columns, or the columns have different lengths.

    Example:
        >>> read_block({"temperature": [21.5, None], "room": 4}, "lab.py:sensor").numbers
        {'temperature': array([21.5,  nan]), 'room': array([4., 4.])}
    """
    if not isinstance(block, Mapping) or not block:
        shown = "an empty dict" if isinstance(block, Mapping) else f"{type(block).__name__}: {_shown(block)}"
        raise SourceError(f"{source} yielded {shown}. It is to yield dicts of columns, such as {EXAMPLE}.")
    cells = {str(name): _cells(column, f"the column {str(name)!r}", source) for name, column in block.items()}
    lengths = {name: len(column) for name, column in cells.items() if not isinstance(column, _Scalar)}
    rows = next(iter(lengths.values()), 1)
    if len(set(lengths.values())) > 1:
        a, b = next((a, b) for a in lengths for b in lengths if lengths[a] != lengths[b])
        raise SourceError(
            f"{source} yielded columns of different lengths: {a!r} has {lengths[a]:,} rows and {b!r} has "
            f"{lengths[b]:,}. A reading has one value in each column: yield as many in each."
        )
    numbers_, text, unreadable, time = {}, {}, {}, None
    for name, column in cells.items():
        if name == TIME:
            time = _long(seconds(column), rows)
            continue
        values, other = _floats(column)
        if other is not None and np.isnan(values).all():
            text[name] = other
            continue
        if other is not None:
            unreadable[name] = other
        numbers_[name] = _long(values, rows)
    return Yielded(rows, numbers_, text, unreadable, time)


class _Scalar(list[Any]):
    """The only cell of a column that was given as a single value."""


def _cells(column: Any, what: str, source: str) -> Any:
    """A column as an array of numbers or times, or as a list of cells."""
    if column is None or isinstance(column, str | bytes | numbers.Number | datetime.date | np.generic):
        return _Scalar([column])
    if isinstance(column, np.ma.MaskedArray):
        column = np.where(np.ma.getmaskarray(column), np.nan, column.data)
    try:
        array = np.asarray(column)
    except ValueError:  # lists of different lengths in one list
        array = np.empty((0, 0))
    if array.ndim == 0:
        return _Scalar([array.item() if array.dtype.kind != "M" else array[()]])
    if array.ndim != 1:
        raise SourceError(
            f"{source} yielded {what} as {array.dtype} of shape {array.shape}. A column is one-dimensional, of "
            "numbers: yield each of its values as a column of its own, or leave it out."
        )
    if array.dtype.kind in "fiubM":
        return array
    # NumPy makes a list of numbers with one text an array of texts.
    return list(column) if isinstance(column, Sequence) else array.tolist()


def _floats(cells: Any) -> tuple[np.ndarray, str | None]:
    """Cells as numbers, NaN where there is none; and one cell that is neither a number nor missing."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind != "M":
        return cells.astype(np.float64), None
    out, other = np.full(len(cells), np.nan), None
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        try:
            out[index] = _number(cell)
        except (TypeError, ValueError):
            other = other or _shown(cell)
    return out, other


def _number(cell: Any) -> float:
    if isinstance(cell, np.timedelta64):
        return float(cell / np.timedelta64(1, "s"))
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    if isinstance(cell, np.datetime64 | complex):
        raise TypeError
    return float(cell)


def seconds(cells: Any) -> np.ndarray:
    """Times in seconds; NaN where there is none.

    A number above 1e11 is taken for milliseconds since 1970, above 1e14 for microseconds, above 1e17 for
    nanoseconds. A `datetime` without a zone is local time, as Python has it; NumPy's are UTC.
    """
    if isinstance(cells, np.ndarray):
        if cells.dtype.kind == "M":
            out = cells.astype("datetime64[us]").astype(np.int64) / 1e6
            out[np.isnat(cells)] = np.nan
            return np.asarray(out)
        out = cells.astype(np.float64)
    else:
        out = np.array([_moment(cell) for cell in cells], dtype=np.float64)
    for limit, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
        out = np.where((np.abs(out) > limit), out / unit, out)
    return out


def _moment(cell: Any) -> float:
    if isinstance(cell, datetime.datetime):
        return cell.timestamp()
    if isinstance(cell, datetime.date):
        return datetime.datetime(cell.year, cell.month, cell.day).timestamp()
    if isinstance(cell, np.datetime64):
        return float(seconds(np.asarray([cell]))[0])
    if isinstance(cell, str):
        try:
            return datetime.datetime.fromisoformat(cell).timestamp()
        except ValueError:
            pass
    try:
        return np.nan if cell is None else float(cell)
    except (TypeError, ValueError):
        return np.nan


def _long(values: np.ndarray, rows: int) -> np.ndarray:
    return values if len(values) == rows else np.repeat(values, rows)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
