"""Lengths of time as users write them: a number of seconds, a text such as "5min", or a timedelta."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, TypeAlias

import numpy as np

Duration: TypeAlias = "float | str | datetime.timedelta | np.timedelta64[Any]"

_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_WRITTEN = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-z]+)\s*")


def seconds_of(value: Any, what: str) -> float:
    """A length of time in seconds, above 0.

    Args:
        value: a number of seconds; a number with ms, s, min, h or d as text; a timedelta of `datetime` or NumPy.
        what: the argument as the user wrote it, for errors.

    >>> seconds_of("5min", "windows(max_gap=…)"), seconds_of(2, ""), seconds_of(datetime.timedelta(hours=1), "")
    (300.0, 2.0, 3600.0)
    """
    expected = "Expected a length of time above 0: a number of seconds, a text such as '5min' or '1h', or a timedelta."
    found = math.nan
    if isinstance(value, str):
        match = _WRITTEN.fullmatch(value)
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{what} was given {value!r}. {expected} The units are ms, s, min, h and d.")
        found = float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, datetime.timedelta):
        found = value.total_seconds()
    elif isinstance(value, np.timedelta64):
        found = float(value / np.timedelta64(1, "s"))
    elif isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        found = float(value)
    else:
        raise TypeError(f"{what} was given {value!r}. {expected}")
    if not (math.isfinite(found) and found > 0):
        raise ValueError(f"{what} was given {value!r}. {expected}")
    return found
