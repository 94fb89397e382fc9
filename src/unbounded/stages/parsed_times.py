"""TimeParser: times as datetime64[us], of text, of numbers since 1970, and of other datetime64.

A time with a zone is converted to UTC. Whole columns are parsed at once by NumPy where the text is ISO 8601 without an
offset. What NumPy takes besides, such as "today", is refused: a stream must not depend on the clock.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core.trees import Array, RowsError
from unbounded.stages.named_columns import decoded

MICROSECONDS = 1_000_000
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
"""The units of numbers, with their microseconds; 0 for a thousandth of one."""

_CACHED = 1 << 16  # texts whose times are kept, for a format
_NANOSECONDS = 1000
_MOST = 253_402_300_800 * MICROSECONDS  # the end of the year 9999
_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)
_Z, _SMALL_Z, _PLUS, _MINUS, _COLON = map(ord, "Zz+-:")
_DATE = 10  # characters of "2026-01-31"
_ZONE = 6  # and of "+02:00"
_NINE = 9  # the largest digit
_DAY = 1440  # minutes


class TimeParser:
    """Parses one column.

    Args:
        format: as of `datetime.strptime`, for text; a unit of `UNITS`, for numbers; None for ISO 8601 or seconds.
        what: the stage in words, for errors.
    """

    def __init__(self, format: str | None, what: str) -> None:
        self._format = format
        self._what = what
        self._cache: dict[str, int | None] = {}

    def times(self, column: Array, row: int) -> NDArray[np.datetime64]:
        """The times of a column of shape (rows,).

        Raises:
            RowsError: a value is missing or is no time; the message names its row, counted from `row`.
        """
        kind = column.dtype.kind
        if kind == "M":
            times = column.astype("M8[us]")
        elif kind in "US" or (kind == "O" and all(type(value) is str for value in column.tolist())):
            if self._format in UNITS:
                raise RowsError(
                    f"{self._what} was given text, and format={self._format!r}, a unit of numbers. Expected none, for "
                    "ISO 8601, or a form such as '%d.%m.%Y %H:%M'."
                )
            text = decoded(column, self._what) if kind == "S" else column.astype(np.str_, copy=False)
            times = self._of_text(text)
        elif kind in "iuf":
            if self._format is not None and self._format not in UNITS:
                raise RowsError(
                    f"{self._what} was given numbers ({column.dtype}), and format={self._format!r}, a form of text. "
                    f"Expected their unit: {', '.join(map(repr, UNITS))}; None for seconds."
                )
            times = _of_numbers(column, self._format or "s")
        else:
            raise RowsError(
                f"{self._what} was given {column.dtype}. Expected text, numbers of seconds since 1970, or datetime64."
            )
        bad = np.isnat(times)
        if bad.any():
            raise self._error(column, int(bad.argmax()), row)
        return times

    def _error(self, column: Array, at: int, row: int) -> RowsError:
        value = column[at].item() if column.dtype.kind != "M" else str(column[at])
        where = f"{self._what} was given {value!r} in row {row + at:,} of the stream"
        if value is None or value == "" or value == "NaT" or value != value:
            return RowsError(
                f"{where}, which is a missing value. Expected a time in each row: .drop_missing() before it leaves "
                'such rows out, and .fill("last") gives them the time of the row before.'
            )
        if column.dtype.kind in "iuf":
            return RowsError(
                f"{where}, which is after the year 9999 or before 1970 by as much, in {self._format or 's'}. Expected "
                "numbers since 1970: format='ms', 'us' or 'ns' says another unit."
            )
        expected = f"text as {self._format!r}" if self._format else "ISO 8601, such as '2026-01-31T12:00:00'"
        more = "" if self._format else "; format='%d.%m.%Y %H:%M' says another form"
        return RowsError(f"{where}. Expected {expected}{more}.")

    def _of_text(self, text: NDArray[np.str_]) -> NDArray[np.datetime64]:
        """The times of texts; NaT for what is none."""
        if self._format is None:
            codes = _codes(text)
            if codes.shape[1] >= _DATE and bool(((codes[:, 4] == _MINUS) & (codes[:, 7] == _MINUS)).all()):
                plain, behind = _without_zone(text, codes)
                if plain is not None:
                    try:
                        times: NDArray[np.datetime64] = plain.astype("M8[us]") - behind
                        return times
                    except ValueError:
                        pass  # one by one, to find the text that is none
        return self._singly(text)

    def _singly(self, text: NDArray[np.str_]) -> NDArray[np.datetime64]:
        found = np.empty(len(text), np.int64)
        cache = self._cache
        if len(cache) > _CACHED:
            cache.clear()
        for at, value in enumerate(text.tolist()):
            made = cache.get(value, _UNSEEN)
            if made is _UNSEEN:
                made = cache[value] = self._one(value)
            found[at] = _NAT if made is None else made
        return found.view("M8[us]")

    def _one(self, value: str) -> int | None:
        """A time in microseconds since 1970; None for a text that is none."""
        try:
            if self._format is not None:
                time = datetime.datetime.strptime(value, self._format)
            elif value[4:5] == "-" and value[7:8] == "-":
                time = datetime.datetime.fromisoformat(value.upper())
            else:
                return None
        except ValueError:
            return None
        if time.tzinfo is not None:
            time = time.astimezone(datetime.UTC).replace(tzinfo=None)
        return (time - _EPOCH) // _MICROSECOND


_UNSEEN: Any = object()
_NAT = np.iinfo(np.int64).min


def _codes(text: NDArray[np.str_]) -> NDArray[np.uint32]:
    """The code points, of shape (rows, width)."""
    plain = np.ascontiguousarray(text, text.dtype.newbyteorder("="))
    return plain.view(np.uint32).reshape(len(text), text.dtype.itemsize // 4)


def _without_zone(text: NDArray[np.str_], codes: NDArray[np.uint32]) -> tuple[NDArray[np.str_] | None, Any]:
    """Texts without their zones, and what is to be subtracted of their times; None if they have zones of several forms,
    which NumPy does not read."""
    rest = codes[:, _DATE:]
    none = np.timedelta64(0, "us")
    signs = (rest == _PLUS) | (rest == _MINUS)
    if not signs.any():
        if (rest == _SMALL_Z).any():
            return None, none
        zulu = int((rest == _Z).sum(axis=1).max(initial=0))
        return (np.char.rstrip(text, "Z") if zulu == 1 else text if not zulu else None), none
    # The array may be wider than its texts.
    end = int(np.count_nonzero(codes[0]))
    width = end - _ZONE
    if width < _DATE or codes[:, end:].any() or not signs[:, width - _DATE].all() or signs.sum() != len(text):
        return None, none
    zone = codes[:, width:end].astype(np.int64)
    digits = zone[:, [1, 2, 4, 5]] - ord("0")
    if (zone[:, 3] != _COLON).any() or digits.min() < 0 or digits.max() > _NINE:
        return None, none
    minutes = digits @ np.array([600, 60, 10, 1])
    if minutes.max() >= _DAY:
        return None, none
    plain = np.ascontiguousarray(codes[:, :width]).view(f"U{width}")[:, 0]
    return plain, np.where(zone[:, 0] == _MINUS, -minutes, minutes).astype("m8[m]")


def _of_numbers(column: Array, unit: str) -> NDArray[np.datetime64]:
    """Numbers since 1970 as times; NaT for what is no number, or far from every calendar."""
    scale = UNITS[unit]
    if column.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            value = column.astype(np.float64) * scale if scale else column.astype(np.float64) / _NANOSECONDS
            fits = np.abs(value) < _MOST  # False for NaN
        found = np.round(np.where(fits, value, 0)).astype(np.int64)
    else:
        limit = _MOST // scale if scale else _MOST * _NANOSECONDS
        fits = (column < limit) if column.dtype.kind == "u" else (column < limit) & (column > -limit)
        small = np.where(fits, column, 0).astype(np.int64)
        found = small * scale if scale else small // _NANOSECONDS
    found[~fits] = _NAT
    return found.view("M8[us]")
