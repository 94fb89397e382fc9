"""FileColumns: which columns of a file of readings are numbers, which one is the time, and which one is the key.

Names and types are those of the first file, as pyarrow finds them. The rows are read by `_file_readings.py`.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.detect._file_times import parsed
from unbounded.detect._yielded import SourceError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".br")
TIMES = ("time", "timestamp", "date", "datetime", "ts")
_SAMPLE = 100  # rows that are looked at, to find the time


@dataclass(frozen=True)
class FileColumns:
    """The columns of a file that are read.

    Args:
        numbers: the columns of a reading, in the file's order.
        dtypes: for each column that is read, the dtype to which it is converted.
        time: the column of times; None: rows are numbered.
        time_format: of times as text, as `strptime` has it; None for ISO 8601, or numbers.
        by: the column of the key; None if all rows are of one series.
        left_out: columns that are no numbers.
    """

    numbers: tuple[str, ...]
    dtypes: tuple[tuple[str, str], ...]
    time: str | None = None
    time_format: str | None = None
    by: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What a user chose: names of columns; None leaves the choice to the command."""

    columns: tuple[str, ...] | None = None
    time: str | None = None
    time_format: str | None = None
    by: str | None = None


def columns_of(path: str, choice: Choice) -> FileColumns:
    """Choose the columns of files.

    Args:
        path: a path, a directory, a glob or a URL.
        choice: the user's choice.

    Raises:
        SourceError: there is no such file or column, or none with numbers.
    """
    table = _FirstRows(path)
    for option, name in (("--time", choice.time), ("--by", choice.by)):
        if name is not None:
            table.check(name, option)
    time = choice.time if choice.time is not None else _time(table, choice)
    if time is not None and choice.time is not None:
        _check_time(table, time, choice.time_format)
    if choice.time_format is not None and time is None:
        raise SourceError(
            f"--time-format {choice.time_format!r} was given, and {path} has no column of times: name one by --time."
        )
    rest = [name for name in table.names if name not in (time, choice.by)]
    if choice.columns is not None:
        for name in choice.columns:
            table.check(name, "--columns")
            if not table.is_number(name):
                raise SourceError(
                    f"--columns {name}: this column of {table.name} is {table.kind(name)}, and numbers are expected. "
                    f"{_there([each for each in rest if table.is_number(each)], 'Columns of numbers')}"
                )
            if name in (time, choice.by):
                raise SourceError(f"--columns {name}: this column is the {'time' if name == time else 'key'} already.")
        numbers = tuple(dict.fromkeys(choice.columns))
    else:
        numbers = tuple(name for name in rest if table.is_number(name))
    if not numbers:
        kinds = ", ".join(f"{name} ({table.kind(name)})" for name in table.names[:12])
        raise SourceError(
            f"{table.name} has no column of numbers besides the time and the key: {kinds}. A reading needs one or more."
        )
    dtypes = [(name, table.dtype(name)) for name in numbers]
    if time is not None:
        # With a form, numbers such as 20240501 are text.
        as_text = choice.time_format is not None and not table.is_time(time)
        dtypes.append((time, "str" if as_text else table.dtype(time)))
    if choice.by is not None and choice.by != time:
        dtypes.append((choice.by, "str"))
    chosen = () if choice.columns is not None else tuple(name for name in rest if name not in numbers)
    return FileColumns(numbers, tuple(dtypes), time, choice.time_format, choice.by, chosen)


def _time(table: _FirstRows, choice: Choice) -> str | None:
    """The column of times that a user did not name: one of a type of times, or one of a usual name that has times."""
    names = [name for name in table.names if name != choice.by and name not in (choice.columns or ())]
    usual = [name for word in TIMES for name in names if name.strip().lower() == word]
    found = [name for name in names if table.is_time(name)]
    found += [name for name in usual if _has_times(table, name, choice.time_format)]
    return found[0] if found else None


def _has_times(table: _FirstRows, name: str, form: str | None) -> bool:
    """True if most of the first values are times."""
    try:
        values = table.values(name)
        found = parsed(values.astype("U") if form and not table.is_time(name) else values, form)
    except (TypeError, ValueError):
        return False
    return bool(np.isfinite(found).mean() > 0.5) if len(found) else table.is_number(name)


def _check_time(table: _FirstRows, name: str, form: str | None) -> None:
    if _has_times(table, name, form):
        return
    values = table.values(name)
    shown = repr(str(values[0])) if len(values) else "nothing"
    how = (
        f"which --time-format {form!r} does not fit"
        if form
        else "and a number of seconds, or a time as 2026-01-31 10:31:22, is expected. Give its form: --time-format "
        "'%d.%m.%Y %H:%M'"
    )
    raise SourceError(f"--time {name}: this column of {table.name} has {shown}, {how}.")


def _there(names: Sequence[str], what: str) -> str:
    if not names:
        return f"{what}: none."
    return f"{what}: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}."


class _FirstRows:
    """The names, types and first values of the first file's columns."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.dataset as ds

        self._types = pa.types
        files, (first, *_) = found(path)
        self.name = posixpath.basename(first)
        stem, end = posixpath.splitext(first.lower())
        form = FORMATS.get(posixpath.splitext(stem)[1] if end in COMPRESSED else end)
        if form is None:
            raise SourceError(
                f"{self.name} is no file of readings that is known here: CSV (.csv, .tsv), JSON lines (.jsonl), "
                "Parquet (.parquet) and Arrow (.arrow, .feather) are. For others, write a function: FILE.py:FUNCTION."
            )
        from pyarrow import csv

        self._is_text_file = form in ("csv", "tsv", "json")
        if form == "csv" and end not in COMPRESSED:
            self._check_commas(files, first)
        tabs = form == "tsv"
        chosen = ds.CsvFileFormat(csv.ParseOptions(delimiter="\t")) if tabs else form
        try:
            self._table = ds.dataset(first, format=chosen, filesystem=files).head(_SAMPLE)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            # Behind what pyarrow says of its own: "Error creating dataset. Could not open … input source '…': …"
            words = re.sub(r"^.* input source '.*?': (Invalid: )?", "", str(error).partition("\n")[0]).rstrip(".")
            words = "".join(letter if letter.isprintable() else "?" for letter in words[:200])
            raise SourceError(f"{self.name} can't be read as {form}: {words}.") from None
        self.names: list[str] = list(self._table.schema.names)
        self._of = {field.name: field.type for field in self._table.schema}

    def _check_commas(self, files: Any, first: str) -> None:
        with files.open(first, "rb") as file:
            head = file.readline(1 << 16)
        if b"," not in head and any(sign in head for sign in (b";", b"\t", b"|")):
            raise SourceError(
                f"{self.name} begins with {head[:60].decode('utf-8', 'replace').strip()!r}: commas are expected "
                "between columns. Write it with commas (and decimal points), or with tabs as .tsv."
            )

    def check(self, name: str, option: str) -> None:
        """Raise SourceError if there is no such column."""
        if name in self._of:
            return
        near = difflib.get_close_matches(name.lower(), [each.lower() for each in self.names], 1, 0.6)
        mean = next((each for each in self.names if near and each.lower() == near[0]), None)
        hint = f" Did you mean {mean}?" if mean else ""
        raise SourceError(f"{option} {name}: {self.name} has no such column.{hint} {_there(self.names, 'It has')}")

    def is_number(self, name: str) -> bool:
        kind, types = self._of[name], self._types
        known = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
        # A column without any value in the first rows may get some later.
        return bool(known or types.is_null(kind))

    def is_time(self, name: str) -> bool:
        return bool(self._types.is_timestamp(self._of[name]) or self._types.is_date(self._of[name]))

    def kind(self, name: str) -> str:
        """The type in words."""
        kind = self._of[name]
        return "text" if self._is_text(kind) else "a time" if self.is_time(name) else str(kind)

    def _is_text(self, kind: Any) -> bool:
        types = self._types
        if types.is_dictionary(kind):
            kind = kind.value_type
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

    def dtype(self, name: str) -> str:
        """The dtype as which a column is read. Integers are floats, in which a missing value is NaN."""
        kind, types = self._of[name], self._types
        if self.is_time(name):
            # In text each time may have a zone of its own, which pyarrow reads as one type or not at all.
            return "str" if self._is_text_file and getattr(kind, "tz", None) else "datetime64[us]"
        if types.is_boolean(kind):
            return "bool"
        return "float64" if self.is_number(name) else "str"

    def values(self, name: str) -> np.ndarray:
        """The first values that are there."""
        return np.asarray(self._table.column(name).drop_null().to_numpy())


def found(path: str) -> tuple[Any, list[str]]:
    """The file system of a path, and the files that it names there, in order.

    Args:
        path: a path, a directory, a glob or a URL.

    Raises:
        SourceError: there is none.
    """
    import fsspec

    try:
        files, at = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is not installed
        raise SourceError(f"{path} can't be opened: {str(error).rstrip('.')}.") from None
    if any(sign in at for sign in "*?["):
        names = sorted(each for each in files.glob(at) if files.isfile(each))
    elif files.isdir(at):
        names = sorted(each for each in files.find(at) if not posixpath.basename(each).startswith((".", "_")))
        names = [name for name in names if posixpath.splitext(name.lower())[1] in (*FORMATS, *COMPRESSED)]
        if not names:
            raise SourceError(f"{path} is a directory without a file of readings: .csv, .jsonl, .parquet or .arrow.")
    else:
        names = [at] if files.isfile(at) else []
    if not names:
        no = "No file matches" if any(sign in path for sign in "*?[") else "There is no file"
        raise SourceError(
            f"{no} {path}. A source is machine:, a path or a glob of files, FILE.py:FUNCTION or MODULE:FUNCTION."
        )
    return files, names
