"""What the promises cost: counting and cursors, going on from far away, a position's size, copies, the import."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed
from unbounded.core.block import Run

FAR = 10**12


def report(*, quick: bool = False) -> Report:
    """All of it. The share of counting needs Keras on JAX, whose steps are the shortest there are."""
    found = Report()
    found.add(counting(quick))
    found.add(resuming(quick))
    found.checks += [position(), *copies()]
    found.add(importing(3 if quick else 15))
    return found


def counting(quick: bool) -> Report:
    """What a feed adds to the nodes of its stream for each batch, as a share of a step of `fit`."""
    import keras

    from benchmarks import fit

    random = np.random.default_rng(0)
    rows = random.random((100_000, 10), dtype=np.float32), random.random((100_000, 1), dtype=np.float32)
    stream = ub.from_arrays(rows, seed=0).batch(32)
    feed = ub.Feed(stream, epoch=ub.Epoch(steps=1000))
    counted = chain.from_iterable(feed.epochs(FAR))
    top = stream.open().top

    def runs() -> Iterator[Any]:
        while True:
            if isinstance(run := top.pull(None), Run):
                yield run.items

    items = chain.from_iterable(runs())
    sides = [
        Side("the feed", timed(lambda n: deque(islice(counted, n), maxlen=0))),
        Side("its nodes alone", timed(lambda n: deque(islice(items, n), maxlen=0))),
        fit.fitted(f"a step of fit on {keras.backend.backend()}", fit.ours(*rows), 1),
    ]
    title = "What counting, cursors and stats add to batches of 32, µs a batch"
    timings = measure(title, sides, rounds=7 if quick else 25, slice_seconds=0.05, warm=0.25)
    fed, alone, step = (timings.micros[side.name] for side in sides)
    shares = sorted((a - b) / c * 100 for a, b, c in zip(fed, alone, step, strict=True))
    low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
    added = statistics.median(a - b for a, b in zip(fed, alone, strict=True))
    note = f"{added:.2f} µs of {statistics.median(step):.0f} µs"
    check = Check("counting, cursors and stats: share of a fit", middle, 2.0, unit=" %", spread=(low, high), note=note)
    return Report([(timings, sides[1].name)], [check])


def resuming(quick: bool) -> Report:
    """Taking up a position, up to and with the first batch, at row 0 and at row 10**12."""
    rows = np.arange(1_000_000, dtype=np.float32), np.arange(1_000_000, dtype=np.float32)
    stream = ub.from_arrays(rows, seed=0).map(lambda r: r).batch(32).prefetch(4)

    def resumed(row: int) -> Side:
        state = _state_at(stream, row)

        def work(n: int) -> None:
            for _ in range(n):
                with ub.Feed(stream, epoch=ub.Epoch(steps=1)) as feed:
                    feed.load_state_dict(state)
                    next(feed.batches())

        return Side(f"row {row:,}", timed(work))

    near, far = resumed(0), resumed(FAR)
    title = "From a saved position to the first batch, µs"
    timings = measure(title, [near, far], rounds=7 if quick else 25, slice_seconds=0.05)
    note = f"{timings.spread(far.name).median:,.0f} µs"
    what = "resume at row 10^12 / at row 0"
    return Report([(timings, near.name)], [Check.of(what, timings.ratio(far.name, near.name), 1.2, note=note)])


def _state_at(stream: ub.Stream, row: int) -> dict[str, Any]:
    """The state of a feed that has trained on so many rows, without running up to there.

    It is the state of a new feed, with its counts and its source's row set forward.
    """
    with ub.Feed(stream, epoch=ub.Epoch(steps=1)) as feed:
        state: dict[str, Any] = json.loads(json.dumps(feed.state_dict()))
    step = row // 32
    state["count"] = [step, row, row // 1_000_000]
    state["epoch"]["start"] = list(state["count"])
    state["position"] = _set_row(state["position"], row)
    return state


def _set_row(cursor: Any, row: int) -> Any:
    """The cursor with its source's row replaced."""
    if isinstance(cursor, dict):
        return {key: row if key == "row" else _set_row(value, row) for key, value in cursor.items()}
    return cursor


def position() -> Check:
    """The size of a long chain's state, as JSON, in the middle of everything."""

    def readings(start: int = 0) -> Iterator[dict[str, Any]]:
        while True:
            t = np.arange(start, start + 64, dtype=np.float64)
            yield {"time": t, "x": np.sin(t).astype(np.float32), "y": np.cos(t).astype(np.float32)}
            start += 64

    stream = (
        ub.from_generator(readings)
        .map(lambda r: {**r, "x": r["x"] * 2})
        .filter(lambda r: r["y"] > -0.9)
        .shuffle(10_000, seed=1)
        .random_map(lambda r, random: r)
        .windows(16, stride=2)
        .normalize()
        .replay(5_000, reuse=4.0)
        .columns(x="x", y="y")
        .batch(32)
        .prefetch(4)
    )
    with ub.Feed(stream, epoch=ub.Epoch(steps=150)) as feed:
        for epoch in feed.epochs(3):
            for _ in epoch:
                pass
        size = len(json.dumps(feed.state_dict()))
    return Check("a position, of a chain of ten stages", size, 2048, unit=" bytes")


def copies() -> list[Check]:
    """Whether a batch of 38 MB is, in the trainer's step, the very memory that the source gave."""
    import keras

    given: deque[Any] = deque(maxlen=4)  # a feed may be reading the next block already
    seen: list[bool] = []

    def large() -> Iterator[Any]:
        while True:
            given.append(np.ones((1_000_000, 10), np.float32))
            yield given[-1]

    class Looking(keras.Model):  # type: ignore[misc]
        """Trains on nothing, and looks where its batch lies."""

        def train_step(self, state: Any, batch: Any) -> Any:
            """The trainer's step on JAX, which is given what the feed handed out."""
            seen.append(any(np.shares_memory(batch, block) for block in given))
            return {}, state

    rows = np.ones((4_000_000, 10), np.float32)
    in_order = ub.from_arrays(rows, shuffle=False)
    checks = []
    # A generator may fill the same memory again: what it yields is copied, once.
    for name, source, most in (("a generator's", ub.from_generator(large), 6), ("arrays' in their order", in_order, 0)):
        given.append(rows)
        seen.clear()
        model = Looking()
        model.built = True
        model.compile(run_eagerly=True)
        with ub.keras.Feed(source.batch(1_000_000), epoch=ub.Epoch(steps=6)) as feed:
            model.fit(feed, verbose=0)
        assert len(seen) == 6
        checks.append(Check(f"batches of 38 MB that were copied, of 6: {name}", 6 - sum(seen), most, unit=""))
    return checks


def importing(rounds: int) -> Report:
    """`import unbounded` beside `import numpy`, each timed inside of a new process, by turns."""
    statements = ["import numpy", "import unbounded", "from unbounded import Epoch, Feed, from_arrays"]
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(rounds):
        for statement, taken in seconds.items():
            timer = f"from time import perf_counter as t; a = t(); {statement}; print(t() - a)"
            done = subprocess.run([sys.executable, "-c", timer], check=True, capture_output=True, text=True)
            taken.append(float(done.stdout))
    base, ours, used = seconds.values()
    low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, base, strict=True)], method="inclusive")
    note = f"{statistics.median(ours) * 1e3:.0f} ms, {statistics.median(base) * 1e3:.0f} ms"
    check = Check("import unbounded / import numpy", middle, 1.3, spread=(low, high), note=note)
    first = statistics.median(a / b for a, b in zip(used, base, strict=True))
    remark = f"`{statements[2]}`, NumPy and all, takes {first:.2f} times as long as `{statements[0]}`."
    return Report([], [check], [remark])
