"""The rows in a block of lines, and the lines that are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from unbounded.sources.files.records import Offsets, Records


class BadLine(NamedTuple):
    """A line that is no row.

    Args:
        line: its number in the file, from 1.
        text: the line.
        why: what is wrong with it.
    """

    line: int
    text: str
    why: str


Parse: TypeAlias = Callable[[bytes], tuple[Any, list[tuple[int, str]]]]
"""Makes a `pyarrow.Table` of lines, and returns it with the lines that it left out: for each its number among the lines
that are not blank, from 0, and what is wrong with it. Raises `pyarrow.ArrowException` if there are broken lines that it
does not tell."""


def rows_of(
    data: bytes, line: int, parse: Parse, *, first_bad: bool, records: Records
) -> tuple[list[Any], list[BadLine]]:
    """The tables of the lines that are rows, and the lines that are not.

    The parsers say of some errors only that there is one. The broken lines are found by parsing halves.

    Args:
        data: whole lines.
        line: the number of the first.
        parse: makes a table.
        first_bad: True to stop at the first broken line.
        records: where they end.
    """
    import pyarrow as pa

    if not data.strip():
        return [], []
    try:
        table, left_out = parse(data)
    except pa.ArrowException as error:
        cut = _middle(data, records.ends(data))
        if cut is None:
            lead = len(data) - len(data.lstrip())
            why = re.sub(r"(In CSV column #\d+: )?Row #\d+: | in row \d+", "", str(error))
            return [], [BadLine(line + data.count(b"\n", 0, lead), _text(data.strip()), why)]
        tables, bad = rows_of(data[:cut], line, parse, first_bad=first_bad, records=records)
        if bad and first_bad:
            return tables, bad
        after = line + data.count(b"\n", 0, cut)
        more, others = rows_of(data[cut:], after, parse, first_bad=first_bad, records=records)
        return tables + more, bad + others
    return [table], _with_numbers(data, line, left_out, records.ends(data)) if left_out else []


def _middle(data: bytes, ends: Offsets) -> int | None:
    """The offset of a record near the middle; None if there is only one that is not blank."""
    begin, stop = len(data) - len(data.lstrip()), len(data.rstrip())
    found = ends[(ends > begin) & (ends <= stop)]
    if not len(found):
        return None
    return int(found[min(int(np.searchsorted(found, (begin + stop) // 2, "right")), len(found) - 1)])


def _with_numbers(data: bytes, line: int, left_out: list[tuple[int, str]], ends: Offsets) -> list[BadLine]:
    starts = [0, *ends.tolist()]
    records = zip(starts, [*starts[1:], len(data)], strict=True)
    full = [(start, text) for start, stop in records if (text := data[start:stop]).strip(b"\r\n")]
    return [
        BadLine(line + data.count(b"\n", 0, full[number][0]), _text(full[number][1]), why) for number, why in left_out
    ]


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")
