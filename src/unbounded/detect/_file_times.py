"""Times in files: text, numbers and dates as seconds since 1970, with NaN where there is none."""

from __future__ import annotations

import datetime

import numpy as np

from unbounded.detect._yielded import seconds


def parsed(cells: np.ndarray, form: str | None) -> np.ndarray:
    """Times as seconds since 1970. A time without a zone counts as UTC, so that it is shown as it was written.

    Args:
        cells: datetime64, numbers, or text, [rows].
        form: of text, as `strptime` has it; None for ISO 8601.

    Returns:
        float64, [rows]; NaN for a cell that is no time.

    Example:
        >>> parsed(np.array(["1970-01-01 00:01:00", "1970-01-01T02:00:00+01:00", "soon"]), None).tolist()
        [60.0, 3600.0, nan]
        >>> parsed(np.array(["2.1.1970"]), "%d.%m.%Y").tolist()
        [86400.0]
    """
    if cells.dtype.kind in "OU":
        return _of_text(cells.astype("U"), form)
    return seconds(cells)


def _of_text(cells: np.ndarray, form: str | None) -> np.ndarray:
    if form is None:
        try:
            # Many times as fast as one at a time, and only for text without a zone.
            if not len(cells) or not np.char.find(cells, "+").max() > 0:
                return seconds(cells.astype("datetime64[us]"))
        except ValueError:
            pass
    # Neighbours often have the same time, as readings of several keys at once.
    distinct, places = np.unique(cells, return_inverse=True)
    return np.array([_moment(cell, form) for cell in distinct.tolist()], dtype=np.float64)[places]


def _moment(cell: str, form: str | None) -> float:
    text = cell.strip()
    try:
        found = datetime.datetime.strptime(text, form) if form else datetime.datetime.fromisoformat(text)
    except ValueError:
        try:
            return float("nan") if form else float(seconds(np.array([float(text)]))[0])
        except ValueError:
            return float("nan")
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
