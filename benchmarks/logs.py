"""The row log: beside a plain write of the same bytes, single rows through a whole source, and memory with many rows
held on the disk.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Side, Spread, Took, measure
from unbounded.core.block import Block
from unbounded.core.runtime import SYSTEM
from unbounded.sources.row_log import RowLog

BLOCKS = (1 << 16, 1 << 20)  # bytes
LEAST = 1 << 24  # bytes between two syncs, at least
PLAIN, LOG = "a plain write", "the row log"
MOST = 1.25
RATE = 20_000  # single rows a second


def report(*, quick: bool = False) -> Report:
    """All of it, in a directory of its own beside this machine's other temporary files."""
    found = Report()
    with tempfile.TemporaryDirectory(prefix="unbounded-logs-") as name:
        directory = Path(name)
        for size in BLOCKS:
            found.add(blocks(directory, size, quick))
        found.add(appends(directory, quick))
        found.checks += through_a_source(directory, quick)
    return found


def blocks(directory: Path, size: int, quick: bool) -> Report:
    """Blocks of so many bytes, appended one after the other and synced at the end of each slice."""
    rows = np.random.default_rng(0).random((size // 1024, 128))
    block = Block(rows, len(rows))
    sides = [plain(directory / "plain", memoryview(rows).cast("B")), logged(directory / "log", block)]
    sides = [Side(side.name, side.run, least=max(16, LEAST // size)) for side in sides]
    title = f"Blocks of {size:,} bytes to the disk, synced, µs a block"
    timings = measure(title, sides, rounds=7 if quick else 25, slice_seconds=0.02 if quick else 0.1)
    rate = size / timings.spread(LOG).median
    what = f"blocks of {size:,} bytes: {LOG} / {PLAIN}, with equal syncs"
    check = Check.of(what, timings.ratio(LOG, PLAIN), MOST, note=f"{rate:,.0f} MB/s")
    return Report([(timings, PLAIN)], [check])


def plain(path: Path, data: memoryview) -> Side:
    """The same bytes, written to a file and synced."""

    def run(n: int) -> Took:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        begin = Took.now()
        for _ in range(n):
            os.write(fd, data)
        os.fsync(fd)
        took = Took.now().since(begin)
        os.close(fd)
        path.unlink()
        return took

    return Side(PLAIN, run)


def logged(directory: Path, block: Block, *, sync: bool = True) -> Side:
    """Blocks appended to a new row log, and synced."""

    def run(n: int) -> Took:
        log = RowLog(directory, SYSTEM)
        begin = Took.now()
        for _ in range(n):
            log.append(block)
        if sync:
            log.sync()
        took = Took.now().since(begin)
        log.close()
        shutil.rmtree(directory)
        return took

    return Side(LOG, run)


def appends(directory: Path, quick: bool) -> Report:
    """Single rows of three numbers, appended to a log, beside the one call that can't be spared."""
    row = {name: np.array([0.5]) for name in ("x", "y", "z")}
    block = Block(row, 1, None, np.array([1.6e9]))
    bare = plain(directory / "plain", memoryview(bytes(64)))
    sides = [Side("a write of 64 bytes", bare.run, least=1000), logged(directory / "log", block, sync=False)]
    title = "Single rows of three float64 to the row log, not synced, µs a row"
    timings = measure(title, sides, rounds=7 if quick else 25, slice_seconds=0.05)
    spread = timings.spread(LOG)
    quartiles = (spread.low, spread.high)
    check = Check("a single row appended to the row log", spread.median, 12, unit=" µs", spread=quartiles)
    return Report([(timings, sides[0].name)], [check])


def through_a_source(directory: Path, quick: bool) -> list[Check]:
    """Single rows through a whole source with its log on the disk, as it begins and with many rows held there."""
    held = 1_000_000 if quick else 10_000_000
    many = {name: np.random.default_rng(0).random(1000) for name in ("x", "y", "z")}

    def readings() -> Iterator[Any]:
        yield from itertools.repeat({name: value[:1] for name, value in many.items()}, 200_000)
        yield from itertools.repeat(many, held // 1000)
        while True:
            yield {name: value[:1] for name, value in many.items()}

    with ub.Feed(ub.from_generator(readings).batch(50)) as feed:
        feed.load(directory / "run")  # nothing is released before the first checkpoint
        batches = feed.batches()

        def rate() -> float:
            begin = Took.now()
            for _ in range(400):
                next(batches)
            return 400 * 50 / Took.now().since(begin).passed

        rates = [rate() for _ in range(9)]
        _until(feed, batches, 200_000 + held // 10)
        memory = _resident()
        _until(feed, batches, 200_000 + held)
        grown = (_resident() - memory) / 1e6
        later = [rate() for _ in range(9)]
        batches.close()
    return [
        _rate("single rows a second through a source", rates),
        _rate(f"the same with {held:,} rows held on the disk", later),
        Check(f"memory for {held * 9 // 10:,} more rows held on the disk", grown, 16, unit=" MB"),
    ]


def _rate(what: str, rates: list[float]) -> Check:
    spread = Spread.of(rates)
    return Check(what, spread.median, RATE, at_least=True, unit="", spread=(spread.low, spread.high))


def _until(feed: ub.Feed, batches: Iterator[Any], row: int) -> None:
    while feed.steps * 50 < row:
        next(batches)


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
