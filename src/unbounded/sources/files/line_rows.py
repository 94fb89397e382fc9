"""The rows in a block of lines, and the lines that are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

_NEWLINE = ord("\n")


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


def rows_of(data: bytes, line: int, parse: Parse, *, first_bad: bool) -> tuple[list[Any], list[BadLine]]:
    """The tables of the lines that are rows, and the lines that are not.

    The parsers say of some errors only that there is one. The broken lines are found by parsing halves.

    Args:
        data: whole lines.
        line: the number of the first.
        parse: makes a table.
        first_bad: True to stop at the first broken line.
    """
    import pyarrow as pa

    if not data.strip():
        return [], []
    try:
        table, left_out = parse(data)
    except pa.ArrowException as error:
        cut = _middle(data)
        if cut is None:
            lead = len(data) - len(data.lstrip())
            why = re.sub(r"(In CSV column #\d+: )?Row #\d+: | in row \d+", "", str(error))
            return [], [BadLine(line + data.count(b"\n", 0, lead), _text(data.strip()), why)]
        tables, bad = rows_of(data[:cut], line, parse, first_bad=first_bad)
        if bad and first_bad:
            return tables, bad
        more, others = rows_of(data[cut:], line + data.count(b"\n", 0, cut), parse, first_bad=first_bad)
        return tables + more, bad + others
    return [table], _with_numbers(data, line, left_out) if left_out else []


def _middle(data: bytes) -> int | None:
    """The offset of a line near the middle; None if there is only one line that is not blank."""
    begin = len(data) - len(data.lstrip())
    stop = len(data.rstrip())
    half = (begin + stop) // 2
    found = data.find(b"\n", half, stop)
    if found < 0:
        found = data.rfind(b"\n", begin, half)
    return None if found < 0 else found + 1


def _with_numbers(data: bytes, line: int, left_out: list[tuple[int, str]]) -> list[BadLine]:
    lines = data.split(b"\n")
    full = [number for number, text in enumerate(lines) if text.strip(b"\r")]
    return [BadLine(line + full[number], _text(lines[full[number]]), why) for number, why in left_out]


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")
