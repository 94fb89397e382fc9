"""A mix of two arrays, beside one array of the same rows.

Both shuffle, never end and give batches of 32; the mix deals a quarter of its rows from the one and the rest from the
other, counts rows and passes of each, and copies each row once more.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed

ROWS = 400_000
OLD = ROWS // 4
SIZE = 32
ONE = "one array"
MIXED = "a mix of two arrays, 1 : 3"
RARE = "a mix of two arrays, 999 : 1"
LIMIT = 1 / 0.8


def table(width: int) -> dict[str, Any]:
    """Rows of so many float32."""
    return {"x": np.random.default_rng(0).random((ROWS, width), dtype=np.float32)}


def side(name: str, stream: ub.Stream) -> Side:
    """The making of n batches, each dropped at once."""
    batches = ub.Feed(stream.batch(SIZE)).batches()
    return Side(name, timed(lambda n: deque(islice(batches, n), maxlen=0)))


def report(*, quick: bool = False) -> Report:
    """Narrow rows, where what is done for each row counts most, and wide ones."""
    found = Report()
    rounds, seconds = (7, 0.02) if quick else (25, 0.05)
    for width in (10, 250):
        rows = table(width)
        old, new = ({"x": part} for part in np.split(rows["x"], [OLD]))
        two = {"old": ub.from_arrays(old), "new": ub.from_arrays(new)}
        sides = [
            side(ONE, ub.from_arrays(rows)),
            side(MIXED, ub.mix(two, weights={"old": 1, "new": 3})),
            side(RARE, ub.mix(two, weights={"old": 999, "new": 1})),
        ]
        title = f"Shuffled endless batches of {SIZE} rows of {width} float32, µs a batch"
        timings = measure(title, sides, rounds=rounds, slice_seconds=seconds, warm=0.25)
        found.tables.append((timings, ONE))
        note = f"{timings.spread(MIXED).median:.1f} µs"
        what = f"rows of {4 * width:,} bytes: {MIXED} / {ONE}"
        found.checks.append(Check.of(what, timings.ratio(MIXED, ONE), LIMIT, note=note))
    return found
