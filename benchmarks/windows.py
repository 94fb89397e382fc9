"""Windows of each key's own rows, beside a dict and a loop; keyed stages over many keys; and rows that come one at a
time.

The loop is what one writes by hand: it keeps the numbers of each key's last rows, and takes all windows out of the
table at its end. It neither resumes nor ends.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
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


MANY = 20_000
FEW = 10
SPREAD = 300_000  # rows over them


def spread_over(keys: int) -> dict[str, Any]:
    """300,000 rows of so many keys, and four float32."""
    random = np.random.default_rng(1)
    return {"key": random.integers(0, keys, SPREAD), "x": random.random((SPREAD, 4), dtype=np.float32)}


def many_keys(*, rounds: int, seconds: float) -> Report:
    """Keyed stages over 20,000 keys beside 10, and what saving and a cursor cost with 20,000."""
    tables = {keys: spread_over(keys) for keys in (FEW, MANY)}

    def source(rows: dict[str, Any], chunked: bool) -> ub.Stream:
        def some(start: int = 0) -> Iterator[dict[str, Any]]:
            for i in range(start, SPREAD, CHUNK):
                yield {name: column[i : i + CHUNK] for name, column in rows.items()}

        return ub.from_generator(some, passes=1) if chunked else ub.from_arrays(rows, shuffle=False, passes=1)

    def joined(rows: dict[str, Any], chunked: bool) -> ub.Stream:
        labels = {"key": rows["key"], "y": rows["x"][:, 0].copy()}
        return source(rows, chunked).join(source(labels, chunked), on="key")

    stages: dict[str, Callable[[dict[str, Any], bool], ub.Stream]] = {
        f"windows({LENGTH}, by=)": lambda rows, chunked: source(rows, chunked).windows(LENGTH, by="key"),
        f"windows({LENGTH}, stride={LENGTH}, by=)": lambda rows, chunked: source(rows, chunked).windows(
            LENGTH, stride=LENGTH, by="key"
        ),
        "normalize(by=)": lambda rows, chunked: source(rows, chunked).normalize("x", by="key"),
        "join(on=)": joined,
    }
    report = Report()
    for name, stage in stages.items():
        for chunked in (False, True):
            how = f"{CHUNK} rows at a time" if chunked else "arrays"
            sides = []
            for keys, rows in tables.items():
                stream = stage(rows, chunked).batch(32)
                sides.append(
                    Side(f"{keys:,} keys", timed(lambda n, stream=stream: [drained(stream) for _ in range(n)]))
                )
            title = f"{name} of {SPREAD:,} rows, {how}, µs a pass"
            timings = measure(title, sides, rounds=rounds, slice_seconds=seconds)
            few, many = (side.name for side in sides)
            what = f"{name}, {how}: speed with {MANY:,} keys / with {FEW}, processor time"
            note = f"{timings.spread(few).median / SPREAD:.2f} µs a row with {FEW}"
            check = Check.of(what, timings.worked_ratio(few, many), 0.5, at_least=True, note=note)
            report.add(Report([(timings, few)], [check]))
    stream = source(tables[MANY], True).windows(LENGTH, by="key").batch(32)
    report.add(Report([], saving(stream)))
    return report


def saving(stream: ub.Stream) -> list[Check]:
    """A feed's saves, once all keys have rows, and the time of a cursor."""
    checks = []
    with tempfile.TemporaryDirectory() as folder, ub.Feed(stream) as feed:
        batches = feed.batches()

        def save(steps: int) -> tuple[float, float]:
            for _ in itertools.islice(batches, steps):
                feed.trained()
            before = set(Path(folder).rglob("*.npz"))
            begun = time.perf_counter()
            feed.save(folder)
            taken = time.perf_counter() - begun
            new = set(Path(folder).rglob("*.npz")) - before
            return taken * 1e3, sum(path.stat().st_size for path in new) / 1e6

        first = save(2_000)
        later = [save(100) for _ in range(9)]
        for kind, each in (("the first save", [first]), ("a save after 3,200 more windows", later)):
            for at, unit, target in ((0, " ms", 100.0), (1, " MB", 10.0)):
                low, middle, high = np.quantile([values[at] for values in each], [0.0, 0.5, 1.0])
                what = f"windows(by=) of {MANY:,} keys, {LENGTH} rows each: {kind}"
                checks.append(Check(what, float(middle), target, unit=unit, spread=(float(low), float(high))))
        cursor = timed(lambda n: [feed.opened.top.cursor() for _ in range(n)])
        each = measure("A cursor, µs", [Side("cursor", cursor)], rounds=5, slice_seconds=0.05).spread("cursor")
        what = f"windows(by=) of {MANY:,} keys: a cursor"
        checks.append(Check(what, each.median, 50.0, unit=" µs", spread=(each.low, each.high)))
    return checks


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
    whole = Report([(timings, LOOP)], checks)
    whole.add(many_keys(rounds=min(rounds, 7), seconds=seconds))
    return whole
