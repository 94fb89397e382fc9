"""Where readings come from: this computer, or a function in somebody's file, both in the detector's own form.

In that form a row is `row`, a number that only ever grows; `time`, in seconds; and `values`, its columns side
by side. The number is what tells a reading that comes again after a restart from one that is new.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import time as clock
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import unbounded as ub
from unbounded.detect._columns import VITALS, Column
from unbounded.sources._vitals import read_counters

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Readings:
    """A stream of readings.

    Args:
        name: how the source was named in the command.
        columns: what `values` holds.
        stream: rows of `row` (int64, [rows]), `time` (float64, seconds, [rows]) and `values` (float64,
            [rows, columns]).
    """

    name: str
    columns: tuple[Column, ...]
    stream: ub.Stream


class SourceError(Exception):
    """A source that can't be read; the sentence says what to do."""


def readings(source: str, *, rate: float = 10.0) -> Readings:
    """Find what a source's name in the command stands for.

    Args:
        source: `machine:`, or `FILE.py:FUNCTION`.
        rate: readings a second, for `machine:`.

    Returns:
        The readings.

    Raises:
        SourceError: there is no such source, or not yet.
        ModuleNotFoundError: psutil is needed, and not installed.
    """
    if source in ("machine:", "machine"):
        read_counters(0.0)  # says at once what is to be installed, where something is
        return Readings("machine:", VITALS, ub.machine(rate=rate).map(vitals))
    path, colon, name = source.rpartition(":")
    if colon and path.endswith(".py"):
        return _of_function(source, Path(path), name)
    if source.endswith(".py"):
        raise SourceError(
            f"{source} is a file. Name the function in it too: {source}:FUNCTION. {_functions(Path(source))}"
        )
    raise SourceError(_not_there_yet(source))


def vitals(rows: Mapping[str, np.ndarray]) -> Rows:
    """Rows of `ub.machine()` in the detector's form.

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


def _of_function(source: str, path: Path, name: str) -> Readings:
    function = _load(path, name)
    grade = _grade(function)
    try:
        first, again = _peeked(function, grade)
    except StopIteration:
        raise SourceError(f"{source} yielded nothing. It is to yield dicts of columns, for ever.") from None
    columns = tuple(Column(column) for column in _numbers(first, source) if column not in ("time", "row"))
    if not columns:
        raise SourceError(
            f"{source} yielded no column of readings. It is to yield dicts such as {{'temperature': [21.5]}}."
        )
    return Readings(source, columns, ub.generate(_in_form(again, grade, columns, source, function)))


def _load(path: Path, name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise SourceError(
            f"There is no file {path}. Write the path of a Python file, and a function in it: FILE.py:FUNCTION."
        )
    # As for a script: what stands beside the file can be imported in it.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise SourceError(f"There is no function {name!r} in {path}. {_functions(path)}")
    return function  # type: ignore[no-any-return]


def _functions(path: Path) -> str:
    import ast

    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return ""
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return f"It has: {', '.join(names)}." if names else "It has no function."


def _grade(function: Callable[..., Any]) -> str:
    """How well the function resumes, as `ub.generate` sees it: from a start, from a state, or not at all."""
    if "start" in inspect.signature(function).parameters:
        return "start"
    if not inspect.isgeneratorfunction(function) and hasattr(function(), "state_dict"):
        return "state"
    return "live"


def _peeked(function: Callable[..., Any], grade: str) -> tuple[Mapping[str, Any], Callable[..., Any]]:
    """The first block, to learn the columns from, and the function with nothing lost.

    One that can go back is simply called again; of any other, the iterator that was begun is the one that the
    stream gets first.
    """
    if grade == "start":
        return next(iter(function(start=0))), function
    rows = iter(function())
    first = next(rows)
    if grade == "state":
        return first, function
    waiting = [itertools.chain([first], rows)]
    return first, lambda: waiting.pop() if waiting else iter(function())


def _in_form(
    function: Callable[..., Any], grade: str, columns: tuple[Column, ...], source: str, written: Callable[..., Any]
) -> Callable[..., Iterator[Rows]]:
    """The function as one that yields rows in the detector's form, and resumes as well as it did."""

    def form(block: Mapping[str, Any], row: np.ndarray, now: np.ndarray) -> Rows:
        arrays = _numbers(block, source)
        missing = [column.name for column in columns if column.name not in arrays]
        if missing:
            raise SourceError(f"{source} yielded a block without the column {missing[0]!r}, which the first block had.")
        values = np.stack([arrays[column.name] for column in columns], axis=1)
        return {"row": row, "time": arrays.get("time", now).astype(np.float64), "values": values}

    def from_start(start: int = 0) -> Iterator[Rows]:
        at = start
        for block in function(start=start):
            row = np.arange(at, at + _count(block, source))
            yield form(block, row, row)
            at += len(row)

    def live() -> Iterator[Rows]:
        last = 0
        for block in function():
            # Numbered by the clock, so that they grow on over a restart; two in one microsecond count on.
            first = max(last + 1, clock.time_ns() // 1000)
            row = np.arange(first, first + _count(block, source))
            last = int(row[-1]) if len(row) else last
            yield form(block, row, row / 1e6)

    class Counted:
        """An iterator that can be put back, and the number of the row that it is at."""

        def __init__(self) -> None:
            self._rows, self._at = function(), 0

        def __iter__(self) -> Counted:
            return self

        def __next__(self) -> Rows:
            block = next(self._rows)
            row = np.arange(self._at, self._at + _count(block, source))
            self._at += len(row)
            return form(block, row, row)

        def state_dict(self) -> dict[str, Any]:
            return {"at": self._at, "rows": self._rows.state_dict()}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self._at = state["at"]
            self._rows.load_state_dict(state["rows"])

    grades: dict[str, Callable[..., Iterator[Rows]]] = {"start": from_start, "live": live, "state": lambda: Counted()}
    made = grades[grade]
    # What the checkpoint knows the stream by.
    made.__qualname__ = getattr(written, "__qualname__", source)
    return made


def _count(block: Mapping[str, Any], source: str) -> int:
    return len(next(iter(_numbers(block, source).values())))


def _numbers(block: Mapping[str, Any], source: str) -> Rows:
    """A block's columns as float64, each [rows]."""
    if not isinstance(block, Mapping) or not block:
        raise SourceError(
            f"{source} yielded {type(block).__name__}. It is to yield dicts of columns, such as "
            "{'temperature': [21.5]}."
        )
    out = {}
    for name, column in block.items():
        array = np.asarray(column)
        if array.dtype.kind == "M":
            array = array.astype("datetime64[us]").astype(np.int64) / 1e6
        if array.dtype.kind not in "fiub" or array.ndim != 1:
            raise SourceError(
                f"{source} yielded the column {name!r} as {array.dtype} of shape {array.shape}. A column is "
                "one-dimensional, of numbers: convert it, or leave it out."
            )
        out[str(name)] = array.astype(np.float64)
    return out
