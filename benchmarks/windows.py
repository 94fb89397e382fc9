"""Windows of each key's own rows, beside a dict and a loop, and rows that come one at a time.

The loop is what one writes by hand: it keeps the numbers of each key's last rows, and takes all windows out of the
table at its end. It neither resumes nor ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed

ROWS = 60_000
KEYS = 500
LENGTH = 10
CHUNK = 500  # rows, as a source of 500 sensors gives them: one of each
OURS = "unbounded"
CHUNKED = f"unbounded, from a generator of {CHUNK} rows at a time"
LOOP = "a dict and a loop"


def table() -> dict[str, Any]:
    """60,000 rows: a key of 500, and four float32."""
    random = np.random.default_rng(0)
    return {"key": random.integers(0, KEYS, ROWS), "x": random.random((ROWS, 4), dtype=np.float32)}


def by_hand(rows: dict[str, Any]) -> Any:
    """All windows, of shape (windows, length, 4)."""
    held: dict[int, list[int]] = {}
    windows = []
    for i, key in enumerate(rows["key"].tolist()):
        last = held.setdefault(key, [])
        last.append(i)
        if len(last) == LENGTH:
            windows.append(last[:])
            del last[0]
    return rows["x"][np.array(windows)]


def drained(stream: ub.Stream) -> int:
    """How many rows there are in all batches."""
    with ub.Feed(stream) as feed:
        return sum(len(batch["x"]) for batch in feed.batches())


def report(*, quick: bool = False) -> Report:
    """Both, in turns."""
    rows = table()
    expected = len(by_hand(rows))

    def chunks(start: int = 0) -> Iterator[dict[str, Any]]:
        for i in range(start, ROWS, CHUNK):
            yield {name: column[i : i + CHUNK] for name, column in rows.items()}

    def singles(start: int = 0) -> Iterator[dict[str, Any]]:
        for i in range(start, ROWS):
            yield {name: column[i : i + 1] for name, column in rows.items()}

    def ours(stream: ub.Stream, count: int) -> Callable[[int], None]:
        def run(n: int) -> None:
            for _ in range(n):
                assert drained(stream) == count

        return run

    def windows(stream: ub.Stream) -> ub.Stream:
        return stream.windows(LENGTH, by="key").batch(32)

    def looped(n: int) -> None:
        for _ in range(n):
            deque(by_hand(rows), maxlen=0)

    sides = [
        Side(LOOP, timed(looped)),
        Side(OURS, timed(ours(windows(ub.from_arrays(rows, shuffle=False, passes=1)), expected))),
        Side(CHUNKED, timed(ours(windows(ub.from_generator(chunks, passes=1)), expected))),
    ]
    rounds, seconds = (5, 0.05) if quick else (15, 0.2)
    timings = measure(f"Windows of {LENGTH} rows, µs a pass", sides, rounds=rounds, slice_seconds=seconds)
    alone = Side("single rows", timed(ours(ub.from_generator(singles, passes=1).batch(32), ROWS)))
    single = measure(f"{ROWS:,} rows, one at a time, µs in all", [alone], rounds=rounds, slice_seconds=seconds)
    checks = []
    for side in (OURS, CHUNKED):
        note = f"{timings.spread(side).median / 1e3:.0f} ms"
        what = f"windows(by=) of {ROWS:,} rows, {KEYS} keys: {side} / {LOOP}"
        checks.append(Check.of(what, timings.ratio(side, LOOP), 3.0, note=note))
    each = single.spread(alone.name)
    low, middle, high = (value / ROWS for value in (each.low, each.median, each.high))
    what = "from_generator of single rows, into batches of 32: a row"
    checks.append(Check(what, middle, 20.0, unit=" µs", spread=(low, high)))
    return Report([(timings, LOOP)], checks)
