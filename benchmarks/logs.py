"""What the row log costs: blocks beside a plain write of the same bytes, and single rows through a feed.

A plain write is `os.write` of the block's memory to a file that is open, and an fsync at the end. The log's side begins
with an open log and the thread that syncs it, as a source has them, and ends with a sync, too.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Spread, Took
from unbounded.core.block import Block
from unbounded.core.runtime import SYSTEM
from unbounded.sources.log_checksum import checksum
from unbounded.sources.log_sync import LogSync
from unbounded.sources.row_log import RowLog

RUNS = Path("runs")  # on the disk on which this package lies, and of no interest to git


def report(*, quick: bool = False) -> Report:
    """Blocks of several sizes, and single rows."""
    found = Report()
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RUNS) as folder:
        for size in (1 << 16, 1 << 20):
            rounds, total = (5, 1 << 26) if quick else (15, 1 << 28)
            found.checks += blocks(Path(folder), size, rounds=rounds, total=total)
        found.checks.append(single(Path(folder), rows=40_000 if quick else 400_000, rounds=3 if quick else 7))
        found.checks += held(Path(folder), rows=1_000_000 if quick else 10_000_000)
    return found


def blocks(folder: Path, size: int, *, rounds: int, total: int) -> list[Check]:
    """The time for `total` bytes in blocks of `size` bytes, over that of a plain write, round by round: of the log
    alone, and of a generator through a feed whose log is on the disk. All end with a sync."""
    block = Block(np.random.default_rng(0).random((1, size // 8)), 1, None, np.zeros(1))
    memory, count = memoryview(block.rows).cast("B"), total // size
    taken: dict[str, list[Took]] = {"plain": [], "log": [], "feed": []}
    for number in range(rounds):
        order = list(taken)
        for side in order[number % 3 :] + order[: number % 3]:
            path = folder / f"{side}-{number}"
            if side == "plain":
                took = _plain(path, memory, count)
            else:
                took = (_logged if side == "log" else _fed)(path, block, count)
            taken[side].append(took)
            SYSTEM.files.remove(path)
    rates = [total / each.passed / 1e6 for each in taken["plain"]]
    begin = process_time()
    for _ in range(16):
        checksum(memory, 0)
    crc = size * 16 / (process_time() - begin) / 1e6
    plain = f"{statistics.median(rates):,.0f} MB/s plain; the checksum alone {crc:,.0f} MB/s"
    found = []
    for side, what in (("log", "the row log"), ("feed", "a feed with its row log")):
        ratios = [ours.passed / each.passed for ours, each in zip(taken[side], taken["plain"], strict=True)]
        micros = {name: statistics.median(each.worked for each in taken[name]) / count * 1e6 for name in taken}
        note = f"{plain}; the processor's time for a block {micros[side]:,.0f} µs, plain {micros['plain']:,.0f} µs"
        what += f" over a plain write, blocks of {size >> 10} KiB"
        found.append(Check.of(what, Spread.of(ratios), 1.25, note=note))
    return found


def _plain(path: Path, memory: memoryview, count: int) -> Took:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, memory)
    os.fsync(fd)
    begin = Took.now()
    for _ in range(count):
        os.write(fd, memory)
    os.fsync(fd)
    took = Took.now().since(begin)
    os.close(fd)
    return took


def _logged(path: Path, block: Block, count: int) -> Took:
    log = RowLog(path, SYSTEM)
    sync = LogSync(log, SYSTEM)
    log.append(block)
    log.sync()
    begin = Took.now()
    for _ in range(count):
        log.append(block)
        sync.appended(block.nbytes)
    log.sync()
    took = Took.now().since(begin)
    sync.close()
    log.close()
    return took


def _fed(path: Path, block: Block, count: int) -> Took:
    def rows() -> Iterator[Any]:
        yield from itertools.repeat(block.rows, count + 4)
        done.wait()

    done = threading.Event()
    with ub.Feed(ub.from_generator(rows).batch(4)) as feed:
        feed.load(path)
        batches = feed.batches()
        next(batches)
        ((_, node),) = feed.opened.logged()
        log = node.log
        assert isinstance(log, RowLog)
        log.sync()
        begin = Took.now()
        _go_on(batches, count // 4)
        log.sync()
        took = Took.now().since(begin)
        done.set()
        batches.close()
    return took


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
    """Single rows a second, and what memory grows by, with so many rows in the log and a replay buffer of a tenth."""
    row = {"x": np.zeros(1, np.float32), "y": np.zeros(1)}
    many = {name: np.repeat(value, 1000) for name, value in row.items()}

    def sensor() -> Iterator[Any]:
        yield from itertools.repeat(many, rows // 1000)
        yield from itertools.repeat(row)

    with ub.Feed(ub.from_generator(sensor).replay(rows // 10, reuse=1).batch(250)) as feed:
        feed.load(folder / "held")  # nothing is let go of before the first checkpoint
        batches = feed.batches()
        _go_on(batches, rows // 5 // 250)
        before = _resident()
        _go_on(batches, rows * 4 // 5 // 250)
        grown = (_resident() - before) / 1e6
        rates = []
        for _ in range(9):
            begin = perf_counter()
            _go_on(batches, 100)
            rates.append(25_000 / (perf_counter() - begin))
        batches.close()
    what = f"with {rows:,} rows in the log, and {rows // 10:,} of them in a replay buffer: "
    return [
        Check(what + "single rows a second", statistics.median(rates), 20_000, True, ""),
        Check(what + "memory since a fifth of them", grown, 16, unit=" MB"),
    ]


def _go_on(batches: Iterator[Any], count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _resident() -> int:
    """Bytes of memory that this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
