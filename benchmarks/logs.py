"""What the row log costs: blocks beside a plain write of the same bytes, and single rows through a feed.

A plain write is `os.write` of the block's memory to a file, and an fsync at the end; the log makes the same of its own.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Spread
from unbounded.core.block import Block
from unbounded.core.runtime import SYSTEM
from unbounded.sources.log_checksum import checksum
from unbounded.sources.row_log import RowLog


def report(*, quick: bool = False) -> Report:
    """Blocks of several sizes, and single rows."""
    found = Report()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for size in (1 << 16, 1 << 20):
            found.checks.append(blocks(Path(folder), size, rounds=5 if quick else 15, total=1 << (26 if quick else 28)))
        found.checks.append(single(Path(folder), rows=40_000 if quick else 400_000, rounds=3 if quick else 7))
        found.checks += held(Path(folder), rows=1_000_000 if quick else 10_000_000)
    return found


def blocks(folder: Path, size: int, *, rounds: int, total: int) -> Check:
    """The time for `total` bytes in blocks of `size` bytes, over that of a plain write, round by round."""
    block = Block(np.random.default_rng(0).random((size // 32, 4)), size // 32)
    memory, count = memoryview(block.rows).cast("B"), total // size
    ratios, rates = [], []
    for number in range(rounds):
        taken = {}
        for side in ("plain", "log") if number % 2 else ("log", "plain"):
            begin = perf_counter()
            (_plain if side == "plain" else _logged)(folder / f"{side}-{number}", block, memory, count)
            taken[side] = perf_counter() - begin
        ratios.append(taken["log"] / taken["plain"])
        rates.append(total / taken["plain"] / 1e6)
    begin = process_time()
    for _ in range(16):
        checksum(memory, 0)
    crc = size * 16 / (process_time() - begin) / 1e6
    note = f"{statistics.median(rates):,.0f} MB/s plain; the checksum alone {crc:,.0f} MB/s"
    return Check.of(f"the row log over a plain write, blocks of {size >> 10} KiB", Spread.of(ratios), 1.25, note=note)


def _plain(path: Path, block: Block, memory: memoryview, count: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    for _ in range(count):
        os.write(fd, memory)
    os.fsync(fd)
    os.close(fd)
    path.unlink()


def _logged(path: Path, block: Block, memory: memoryview, count: int) -> None:
    log = RowLog(path, SYSTEM)
    for _ in range(count):
        log.append(block)
    log.sync()
    log.close()
    SYSTEM.files.remove(path)


def single(folder: Path, *, rows: int, rounds: int) -> Check:
    """Single rows a second of a function that can't go back, logged before they are handed on."""

    def sensor() -> Iterator[Any]:
        for i in itertools.count():
            yield {"x": np.float32(i), "y": i}

    rates, worked = [], []
    for number in range(rounds):
        with ub.Feed(ub.from_samples(sensor).batch(256)) as feed:
            feed.load(folder / f"run-{number}")
            begin, work = perf_counter(), process_time()
            for _ in itertools.islice(feed.batches(), rows // 256):
                pass
            rates.append(rows / (perf_counter() - begin))
            worked.append(rows / (process_time() - work))
    note = f"{statistics.median(worked):,.0f} a second of the processor's time"
    return Check("single rows a second through the row log", statistics.median(rates), 20_000, True, "", note=note)


def held(folder: Path, *, rows: int) -> list[Check]:
    """Single rows a second, and what memory grows by, with so many rows held on the disk."""
    row = {"x": np.zeros(1, np.float32), "y": np.zeros(1)}
    many = {name: np.repeat(value, 1000) for name, value in row.items()}

    def sensor() -> Iterator[Any]:
        yield from itertools.repeat(many, rows // 1000)
        yield from itertools.repeat(row)

    with ub.Feed(ub.from_generator(sensor).batch(250)) as feed:
        feed.load(folder / "held")  # nothing is let go of before the first checkpoint
        batches = feed.batches()
        _go_on(batches, rows // 10 // 250)
        before = _resident()
        _go_on(batches, rows * 9 // 10 // 250)
        grown = (_resident() - before) / 1e6
        rates = []
        for _ in range(9):
            begin = perf_counter()
            _go_on(batches, 100)
            rates.append(25_000 / (perf_counter() - begin))
        batches.close()
    what = f"with {rows:,} rows held on the disk: "
    return [
        Check(what + "single rows a second", statistics.median(rates), 20_000, True, ""),
        Check(what + "memory since a tenth of them", grown, 16, unit=" MB"),
    ]


def _go_on(batches: Iterator[Any], count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
