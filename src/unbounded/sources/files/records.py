"""Records: where the records of a text end: at each line end, or, in CSV, at those outside of quoted values."""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.intp]

_VALUE = re.compile(rb'"(?:[^"]++|"")*+("|\Z)')


class Records(Protocol):
    """Where records end, in bytes that begin with a record."""

    def ends(self, data: bytes) -> Offsets:
        """The offset after each record that is whole."""

    def last_end(self, data: bytes) -> int:
        """The offset after the last record that is whole, whatever bytes may follow; 0 if there is none."""

    def count(self, data: bytes) -> int:
        """The number of records that are whole."""


class LineRecords:
    """Records that are lines."""

    def ends(self, data: bytes) -> Offsets:
        return _places(data, b"\n") + 1

    def last_end(self, data: bytes) -> int:
        return data.rfind(b"\n") + 1

    def count(self, data: bytes) -> int:
        return data.count(b"\n")


class CsvRecords:
    """Records of CSV: a value that begins with a quote ends with the next quote that is not doubled (RFC 4180), and may
    have line ends. A quote that is not closed is a broken record, which ends with its line.

    Args:
        delimiter: between two values, one byte.

    Example:
        >>> CsvRecords(b",").ends(b'1,"a\\nb"\\n2,"c"\\n3,"d\\n4,e\\n')
        array([ 8, 14, 19, 23])
        >>> CsvRecords(b",").unclosed(b'1,"a\\nb"\\n2,"c"\\n3,"d\\n4,e\\n')
        16
    """

    def __init__(self, delimiter: bytes) -> None:
        self._between = np.frombuffer(delimiter + b"\n\r", np.uint8)

    def ends(self, data: bytes) -> Offsets:
        return self._found(data)[0]

    def last_end(self, data: bytes) -> int:
        if b'"' not in data:
            return data.rfind(b"\n") + 1
        ends, unclosed = self._found(data)
        if unclosed is not None:
            # It may be closed by what follows. One that is open from the first record on is taken for broken.
            closed = ends[ends <= unclosed]
            ends = closed if len(closed) else ends
        return int(ends[-1]) if len(ends) else 0

    def count(self, data: bytes) -> int:
        return len(self.ends(data)) if b'"' in data else data.count(b"\n")

    def unclosed(self, data: bytes) -> int | None:
        """The offset of a quote that is not closed; None if there is none."""
        return self._found(data)[1] if b'"' in data else None

    def _found(self, data: bytes) -> tuple[Offsets, int | None]:
        """The ends, and the offset of a quote that is not closed."""
        ends = _places(data, b"\n") + 1
        quotes = _places(data, b'"')
        if not len(quotes):
            return ends, None
        # If each quote that may open a value stands where one begins, or doubles the quote before it, then those are
        # all that do, and a line end is within a value if the number of quotes before it is odd.
        before = np.frombuffer(data, np.uint8)[quotes - 1]
        begins = np.isin(before, self._between) | (quotes == 0)
        opening = begins[::2]
        if (opening | (before[::2] == ord('"'))).all():
            unclosed = int(quotes[::2][opening][-1]) if len(quotes) % 2 else None
            is_end = np.searchsorted(quotes, ends) % 2 == 0
        else:
            spans, unclosed = _values(data, quotes[begins].tolist())
            is_end = np.searchsorted(spans[:, 0], ends - 1) == np.searchsorted(spans[:, 1], ends - 1, "right")
        return ends[is_end if unclosed is None else is_end | (ends > unclosed)], unclosed


def _values(data: bytes, begins: list[int]) -> tuple[Offsets, int | None]:
    """The begin and the end of each quoted value that is closed, and the begin of one that is not.

    Args:
        data: the bytes.
        begins: where a value may begin, unless that is within another one.
    """
    spans: list[tuple[int, int]] = []
    unclosed = None
    for begin in begins:
        if not spans or begin >= spans[-1][1]:
            value = _VALUE.match(data, begin)
            assert value is not None
            if not value[1]:
                unclosed = begin
                break
            spans.append(value.span())
    return np.array(spans, np.intp).reshape(-1, 2), unclosed


def _places(data: bytes, character: bytes) -> Offsets:
    return np.flatnonzero(np.frombuffer(data, np.uint8) == ord(character))
