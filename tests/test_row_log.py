"""The row log returns rows as they were written, on the disk and in memory alike."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from test_record_log import QUICK, Disk, FailsAt, full, never, torn_writes
from unbounded.core.block import Block, Boundary, Offset, join
from unbounded.core.node import DataLoss
from unbounded.core.runtime import SYSTEM
from unbounded.core.trees import leaves, map_leaves
from unbounded.sources.log_counts import LogCounts
from unbounded.sources.memory_log import MemoryLog
from unbounded.sources.record_log import Full
from unbounded.sources.row_log import RowLog
from unbounded.sources.row_stage import RowStage
from unbounded.testing import Faults, Simulation, assert_same_rows

Log = RowLog | MemoryLog


@pytest.fixture(params=["disk", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """A log of each kind."""
    made: Log = RowLog(tmp_path / "log", SYSTEM) if request.param == "disk" else MemoryLog(SYSTEM)
    yield made
    made.close()


def block(*rows: int, boundary: Boundary | None = None, time: float | None = 5.0) -> Block:
    """Rows with these numbers."""
    times = None if time is None or not rows else np.full(len(rows), time)
    return Block(np.array(rows) if rows else None, len(rows), boundary, times)


class Appender:
    """Appends blocks as a source does: those that a stage takes, through it; others make the next stage."""

    def __init__(self) -> None:
        self.stage: RowStage | None = None

    def append(self, log: Log, given: Block, position: Any = None) -> None:
        rows = 0
        if self.stage is not None and given.count and given.boundary is None:
            rows = self.stage.put(given.rows, 5.0, is_sample=False)
        if rows:
            assert self.stage is not None
            log.append_staged(self.stage, rows)
        else:
            log.append(given, position)
            self.stage = RowStage.like(given, 200)  # room for 25 rows


def all_of(log: Log, at: Offset | None = None, rows: int = 0) -> list[tuple[list[int], Boundary | None]]:
    """What is in a log, from an offset on, as it is cut when it is read."""
    found = []
    at = log.start if at is None else at
    while (next_ := log.read(at, rows)) is not None:
        read, end = next_
        assert end > at
        at = end
        found.append(([] if read.rows is None else read.rows.tolist(), read.boundary))
    assert at >= log.stop
    return found


def read_all(path: Path) -> None:
    """What the next process does."""
    log = RowLog(path, QUICK)
    try:
        all_of(log, rows=100)
    finally:
        log.close()


GAP, PASS = Boundary("gap", 3), Boundary("pass")


def test_blocks_come_back_with_their_boundaries_and_times(log: Log) -> None:
    log.append(block(0, 1, boundary=PASS))
    log.append(block(boundary=GAP))
    log.append(block(boundary=PASS))
    log.append(block(2, time=9.0))
    expected = [([0, 1], PASS), ([], GAP), ([], PASS), ([2], None)]
    assert all_of(log) == expected
    assert (log.start, log.stop) == (Offset(0), Offset(3))
    assert (log.counts.passed, log.counts.missed, log.counts.last_time) == (2, 3, 9.0)
    offsets = [Offset(0), Offset(2, 1), Offset(2, 2), Offset(2, 3), Offset(3)]
    for i, at in enumerate(offsets[:-1]):
        assert all_of(log, at) == expected[i:]
    assert all_of(log, Offset(1)) == [([1], PASS), *expected[1:]]
    assert all_of(log, Offset(2)) == [([], PASS), *expected[1:]]
    first = log.read(Offset(0))
    assert first is not None
    assert first[0].times is not None
    assert first[0].times.tolist() == [5.0, 5.0]


def test_nothing_is_there_at_the_end_and_at_the_beginning_of_an_empty_log(log: Log) -> None:
    assert log.read(Offset(0)) is None
    log.append(block(1))
    assert log.read(Offset(1)) is None
    assert log.read(Offset(7)) is None


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 100])
def test_small_records_are_read_together_and_are_the_same_rows_as_one_by_one(rows: int, log: Log) -> None:
    numbers = iter(range(1000))
    for size, boundary in [(1, None)] * 5 + [(4, None), (1, PASS), (0, GAP), (1, None), (2, None), (1, None)]:
        log.append(block(*(next(numbers) for _ in range(size)), boundary=boundary))
    for start in range(log.stop.rows):
        parts = all_of(log, Offset(start), rows)
        assert [row for part, _ in parts for row in part] == [*range(start, log.stop.rows)]
        assert [(sum(len(p) for p, _ in parts[: i + 1]), b) for i, (_, b) in enumerate(parts) if b] == (
            [(10 - start, PASS), (10 - start, GAP)] if start <= 10 else []
        )
        for (part, boundary), (following, _) in pairwise(parts):
            assert len(part) >= rows or boundary is not None or not following


def test_positions_are_known_where_blocks_end(log: Log) -> None:
    log.append(block(0, 1), {"at": [1]})
    log.append(block(2, boundary=PASS), {"at": [2]})
    log.append(block(boundary=GAP), {"at": [3]})
    log.append(block(3, 4), {"at": [4]})
    places = [Offset(2), Offset(3, 1), Offset(3, 2), Offset(5)]
    assert [log.position_at(at) for at in places] == [{"at": [n]} for n in (1, 2, 3, 4)]
    assert [log.position_at(at) for at in (Offset(0), Offset(1), Offset(3), Offset(4))] == [None] * 4
    assert log.counts.position == {"at": [4]}


def test_what_is_released_is_no_longer_there_and_numbers_stay(log: Log) -> None:
    for number in range(300):
        log.append(block(number), number)
        log.release(Offset(number // 2))
    assert all_of(log, Offset(150))[0] == ([150], None)
    assert log.position_at(Offset(200)) == 199
    assert log.stop == Offset(300)


def test_where_rows_were_let_go_before_they_were_read_is_a_gap(tmp_path: Path) -> None:
    logs = (RowLog(tmp_path / "log", SYSTEM, segment_bytes=100), MemoryLog(SYSTEM))
    for log in logs:
        for number in range(20):
            log.append(block(number))
        log.release(Offset(10))
        start = log.start.rows
        assert 0 < start <= 10
        assert all_of(log, Offset(0), 50)[0] == ([], Boundary("gap", start))
        assert all_of(log, Offset(0), 50)[1][0][0] == start
        log.close()


TREES: dict[str, Callable[[int, int], Any]] = {
    "plain": lambda i, n: np.arange(i, i + n),
    "big-endian": lambda i, n: np.arange(i, i + n).astype(">i4"),
    "floats": lambda i, n: {"h": np.full((n, 3), i, "f2"), "c": np.full(n, 1j * i), "g": np.full(n, i, "g")},
    "bool": lambda i, n: (np.arange(i, i + n) % 2 == 0, None, [np.arange(i, i + n)]),
    "dates": lambda i, n: (np.arange(i, i + n).astype("M8[ns]"), np.arange(i, i + n).astype("m8[D]").reshape(n, 1)),
    "a structure": lambda i, n: np.array([(k, (k, [k] * 3), "é" * (k % 4)) for k in range(i, i + n)], STRUCTURE),
    "text that grows": lambda i, n: {"t": np.array(["x" * k for k in range(i, i + n)]), "b": np.full(n, b"ab" * i)},
    "nothing": lambda i, n: {"empty": np.zeros((n, 0)), "dates": np.zeros((n, 2, 0), "M8[s]")},
    "nothing beside rows": lambda i, n: {"empty": np.zeros((n, 0, 3)), "x": np.arange(i, i + n, dtype=np.uint8)},
    "voids": lambda i, n: np.array([b"%03d" % k for k in range(i, i + n)], "V3"),
    "nested": lambda i, n: {"a": {"b": (np.arange(i, i + n), [{"c": np.full((n, 2, 2), i)}])}, "": np.zeros(n)},
    "not in one piece": lambda i, n: np.arange(4 * n).reshape(2, 2 * n).T[::2],
    "strided dates": lambda i, n: np.arange(2 * n).astype("M8[s]")[::2],
    "one number": lambda i, n: np.broadcast_to(np.int16(i), (n, 2)),
    "dict in an odd order": lambda i, n: {"z": np.arange(n), "a": np.arange(n) + i},
}
STRUCTURE = np.dtype([("a", "<i4"), ("b", [("c", "f8"), ("d", "u1", (3,))]), ("e", "U5")])


def native(rows: Any) -> Any:
    """The rows in this machine's byte order, in which NumPy joins arrays."""
    return map_leaves(lambda leaf: leaf.astype(leaf.dtype.newbyteorder("=")), rows)


@pytest.mark.parametrize("make", TREES.values(), ids=TREES.keys())
@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 1, 3], [1, 1, 4, 1, 1]])
@pytest.mark.parametrize("times", [True, False])
def test_rows_of_any_kind_come_back_bit_for_bit(
    times: bool, sizes: list[int], make: Callable[[int, int], Any], tmp_path: Path
) -> None:
    path = tmp_path / "log"
    log = RowLog(path, QUICK)
    written, row = [], 0
    for size in sizes:
        written.append(Block(make(row, size), size, None, np.arange(row, row + size) * 1.5 if times else None))
        log.append(written[-1])
        row += size
    for _ in range(2):
        for rows in (1, 2, 100):
            at, parts = Offset(0), []
            while (found := log.read(at, rows)) is not None:
                parts.append(found[0])
                at = found[1]
            whole, expected = join(parts), join(written)
            assert_same_rows(native(whole.rows), native(expected.rows))
            assert type(whole.rows) is type(expected.rows)
            assert (whole.times is None) == (not times)
            if times:
                assert whole.times.tolist() == expected.times.tolist()
            assert all(not leaf.flags.writeable for part in parts for _, leaf in leaves(part.rows))
        log.close()
        log = RowLog(path, QUICK)  # the next process reads the same
    log.close()


def test_rows_whose_keys_come_in_another_order_keep_their_columns(tmp_path: Path) -> None:
    log = RowLog(tmp_path, SYSTEM)
    x, y = np.array([1.0]), np.array([2.0])
    for rows in ({"x": x, "y": y}, {"y": y, "x": x}, {"x": x, "y": y}):
        log.append(Block(rows, 1))
    log.close()
    log = RowLog(tmp_path, SYSTEM)
    found = log.read(Offset(0), 3)
    log.close()
    assert found is not None
    assert_same_rows(found[0].rows, {"x": np.repeat(x, 3), "y": np.repeat(y, 3)})


def test_rows_whose_form_changes_are_each_read_as_they_are(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", SYSTEM)
    log.append(Block(np.array([1]), 1))
    log.append(Block(np.array([2]), 1))
    log.append(Block(np.array([3]), 1, None, np.array([1.0])))
    log.append(Block(np.array([4]), 1, None, np.array([1.0])))
    found = log.read(Offset(0), 100)
    assert found is not None
    assert found[0].rows.tolist() == [1, 2, 3, 4]
    assert found[0].times is None
    log.close()


# ---- the next process ----


def test_counts_position_and_time_survive_whatever_lies_in_the_last_segment(tmp_path: Path) -> None:
    for number, ending in enumerate(
        (
            [block(5, 6, time=7.0)],
            [block(5, 6, time=7.0), block(boundary=PASS)],
            [block(5, 6, time=7.0), block(boundary=PASS), *[block(boundary=GAP)] * 40],
            [block(5, time=7.0), block(6, time=None)],
        )
    ):
        log = RowLog(tmp_path / f"{number}", SYSTEM, segment_bytes=150)
        log.append(block(1, boundary=PASS), "first")
        for each in ending:
            log.append(each, "last")
        expected = (log.counts.passed, log.counts.missed, log.counts.last_time, log.counts.position, log.stop)
        assert expected[2] == 7.0
        log.close()
        log = RowLog(tmp_path / f"{number}", SYSTEM)
        assert (log.counts.passed, log.counts.missed, log.counts.last_time, log.counts.position, log.stop) == expected
        log.close()


def test_they_survive_a_segment_that_was_begun_when_the_disk_was_full(tmp_path: Path) -> None:
    disk = Disk()
    log = RowLog(tmp_path / "log", disk, segment_bytes=10)
    log.append(block(1, boundary=GAP, time=7.0), "here")
    disk.fails = lambda function, *args: full()(function, *args) if function is os.write and len(args[1]) > 70 else None
    with pytest.raises(OSError, match="No space"):
        log.append(block(*range(50)))
    disk.fails = None
    log.close()
    assert len([*(tmp_path / "log").glob("*.log")]) == 2
    log = RowLog(tmp_path / "log", SYSTEM)
    assert (log.counts.missed, log.counts.position, log.counts.last_time, log.stop) == (3, "here", 7.0, Offset(1, 1))
    log.close()


def test_a_log_that_begins_in_the_middle_knows_what_came_before(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", SYSTEM)
    log.begin_at(Offset(50, 1), LogCounts(passed=2, missed=9, last_time=3.0))
    log.close()
    log = RowLog(tmp_path / "log", SYSTEM)
    assert (log.start, log.stop, log.counts.passed, log.counts.missed, log.counts.last_time) == (
        Offset(50, 1),
        Offset(50, 1),
        2,
        9,
        3.0,
    )
    log.append(block(50, boundary=PASS))
    assert all_of(log) == [([50], PASS)]
    assert log.counts.passed == 3
    log.close()


def test_rows_in_memory_are_spilled_as_they_are_and_counted_once(tmp_path: Path) -> None:
    memory = MemoryLog(SYSTEM)
    for number in range(10):
        memory.append(block(number, boundary=PASS if number % 3 == 0 else GAP if number == 5 else None), number)
    memory.release(Offset(4))
    log = RowLog(tmp_path / "log", SYSTEM)
    memory.spill(log)
    for _ in range(2):
        assert (log.start, log.stop) == (memory.start, memory.stop)
        assert (log.counts.passed, log.counts.missed, log.counts.last_time) == (
            memory.counts.passed,
            memory.counts.missed,
            memory.counts.last_time,
        )
        assert (log.counts.position, log.position_at(Offset(6, 1))) == (9, 5)
        assert log.position_at(Offset(7, 1)) == 6
        assert all_of(log) == all_of(memory)
        log.close()
        log = RowLog(tmp_path / "log", SYSTEM)
    log.close()


def test_a_form_that_is_damaged_is_data_loss_and_not_other_rows(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", QUICK)
    log.append(Block({"x": np.arange(4.0)}, 4))
    log.append(Block({"x": np.arange(4)}, 4))
    log.close()
    specs = (tmp_path / "log" / "specs.jsonl").read_bytes()
    for place in range(len(specs)):
        flipped = bytearray(specs)
        flipped[place] ^= 1 << place % 7
        (tmp_path / "log" / "specs.jsonl").write_bytes(flipped)
        with pytest.raises(DataLoss, match=r"specs\.jsonl is damaged"):
            read_all(tmp_path / "log")
    (tmp_path / "log" / "specs.jsonl").write_bytes(specs)
    log = RowLog(tmp_path / "log", QUICK)
    log.append(Block({"x": np.arange(4.0)}, 4))
    assert (tmp_path / "log" / "specs.jsonl").read_bytes() == specs
    log.close()


@pytest.mark.parametrize("size", [0, 1, 20, 41])
def test_a_form_that_a_kill_cut_short_is_written_anew(size: int, tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", SYSTEM)
    log.append(Block(np.arange(2), 2))
    log.close()
    specs = tmp_path / "log" / "specs.jsonl"
    whole = specs.read_bytes()
    next((tmp_path / "log").glob("*.log")).unlink()  # no row was written with it
    specs.write_bytes(whole[:size])
    log = RowLog(tmp_path / "log", SYSTEM)
    log.append(Block(np.arange(2), 2))
    assert specs.read_bytes() == whole
    log.close()


def test_a_form_that_can_not_be_written_is_no_row(tmp_path: Path) -> None:
    disk = Disk()
    log = RowLog(tmp_path / "log", disk)
    for fails in (never(os.pwrite, errno.ENOSPC), never(os.fsync), never(os.ftruncate)):
        disk.fails = fails
        with pytest.raises(OSError, match=r"space|error"):
            log.append(block(1))
        disk.fails = None
        assert log.stop == Offset(0)
    log.append(block(1))
    log.close()
    log = RowLog(tmp_path / "log", SYSTEM)
    assert all_of(log) == [([1], None)]
    log.close()


def test_a_directory_that_is_removed_is_made_again_with_the_forms(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", SYSTEM)
    log.append(block(1))
    shutil.rmtree(tmp_path / "log")
    log.append(block(2))
    log.sync()
    log.close()
    log = RowLog(tmp_path / "log", SYSTEM)
    assert all_of(log, rows=10) == [([1, 2], None)]
    log.close()


def test_rows_of_another_form_are_written_where_the_directory_was_removed(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", SYSTEM)
    log.append(block(1))
    log.close()
    log = RowLog(tmp_path / "log", SYSTEM)  # what it reads is yet to be put on the disk
    shutil.rmtree(tmp_path / "log")
    log.append(block(2))
    shutil.rmtree(tmp_path / "log")
    log.append(block(3, time=None))
    log.sync()
    log.close()
    log = RowLog(tmp_path / "log", SYSTEM)
    at, found = Offset(0), []
    while (read := log.read(at)) is not None:
        found += read[0].rows.tolist()
        at = read[1]
    assert found == [1, 2, 3]
    log.close()


def test_rows_in_a_segment_that_was_begun_after_the_directory_was_removed_are_of_a_known_form(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", QUICK, segment_bytes=100)
    log.append(block(*range(30)))
    shutil.rmtree(tmp_path / "log")
    log.append(block(*range(30, 60)))  # begins a segment, in a directory that is made again
    shutil.copytree(tmp_path / "log", tmp_path / "killed")
    log.close()
    again = RowLog(tmp_path / "killed", QUICK)
    assert all_of(again)[-1][0] == list(range(30, 60))
    again.close()


@pytest.mark.parametrize("what", ["append", "sync"])
def test_rows_are_of_a_known_form_whenever_the_directory_was_removed_and_made_again(what: str, tmp_path: Path) -> None:
    calls = number = 0
    while calls >= number:
        path = tmp_path / f"{number}"
        calls = 0

        def removes(*_: Any, path: Path = path, number: int = number) -> None:
            nonlocal calls
            if calls == number:
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
            calls += 1

        disk = Disk()
        log = RowLog(path, disk, segment_bytes=100)
        log.append(block(*range(30)))
        if what == "sync":
            shutil.rmtree(path)
        disk.fails = removes
        with suppress(OSError):  # such as a file that can't be renamed any more
            log.append(block(*range(30, 60))) if what == "append" else log.sync()
        disk.fails = None
        shutil.copytree(path, tmp_path / f"{number} killed")
        log.close()
        again = RowLog(tmp_path / f"{number} killed", QUICK)
        all_of(again)
        again.close()
        number += 1
    assert number > 4


def test_forms_that_could_not_be_written_again_at_first_are_written_with_the_rows(tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        path = tmp_path / f"{number}"
        log = RowLog(path, disk := Disk())
        log.append(block(*range(30)))
        shutil.rmtree(path)
        disk.fails = fails = FailsAt(number)
        with suppress(OSError):
            log.sync()
        log.sync()
        shutil.copytree(path, tmp_path / f"{number} killed")
        log.close()
        again = RowLog(tmp_path / f"{number} killed", QUICK)
        assert all_of(again)[0][0] == list(range(30)), number
        again.close()
        if fails.calls < number:
            break
    assert number > 5


def test_a_kill_while_a_removed_directory_is_written_again_leaves_no_rows_of_unknown_form() -> None:
    for seed in range(100):
        simulation = Simulation(seed, Faults(kills=40, power_cuts=0.5))

        def process(simulation: Simulation = simulation) -> None:
            log = RowLog(Path("/simulated/log"), simulation)
            log.append(block(1))
            log.sync()
            simulation.remove(Path("/simulated/log"))
            log.sync()
            log.close()

        simulation.run(process)
        simulation.faults = Faults()
        # Nothing, or all of it.
        assert simulation.run(lambda: all_of(RowLog(Path("/simulated/log"), simulation)))  # noqa: B023


# ---- against a model ----


class Model:
    """What a log is to hold: all blocks that were appended, and from where on they are still needed."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.boundaries: dict[int, list[Boundary]] = {}
        self.let_go = 0

    def append(self, given: Block) -> None:
        self.rows += [] if given.rows is None else given.rows.tolist()
        if given.boundary is not None:
            self.boundaries.setdefault(len(self.rows), []).append(given.boundary)

    def check(self, log: Log, rng: random.Random) -> None:
        for at in {self.let_go, rng.randint(self.let_go, len(self.rows)), len(self.rows)}:
            found, boundaries = [], {}
            for rows, boundary in all_of(log, Offset(at), rng.choice((0, 1, 5, 1000))):
                found += rows
                if boundary is not None:
                    boundaries.setdefault(at + len(found), []).append(boundary)
            assert found == self.rows[at:]
            # Of those right at the beginning, some may lie in a segment that is gone.
            expected = {row: some for row, some in self.boundaries.items() if row > at}
            assert {row: some for row, some in boundaries.items() if row > at} == expected
        assert log.stop.rows == len(self.rows)
        assert log.counts.passed == sum(b.kind == "pass" for some in self.boundaries.values() for b in some)
        assert log.counts.missed == sum(b.missed for some in self.boundaries.values() for b in some)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
# Files that could not be removed: before a hole, of an older generation, and with the newest record of all.
@example(seed=807150909)
@example(seed=1115)
@example(seed=1040)
def test_whatever_is_done_to_it_it_holds_what_a_list_would(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("log")
    trouble = rng.choice((0.0, 0.0, 0.1, 0.3))
    fails = torn_writes(rng, trouble)

    disk = Disk()
    size = rng.choice((60, 300, 10_000))
    log, model, memory = RowLog(path / "0", disk, segment_bytes=size), Model(), MemoryLog(disk)
    to_disk, to_memory = Appender(), Appender()
    lives = 0
    for _ in range(60):
        chance = rng.random()
        disk.fails = fails
        try:
            if chance < 0.6:
                rows = rng.choice((0, 1, 1, 1, 2, 30))
                boundary = None if rows and rng.random() < 0.8 else rng.choice((PASS, Boundary("gap", 2)))
                given_ = block(*range(len(model.rows), len(model.rows) + rows), boundary=boundary)
                to_disk.append(log, given_, len(model.rows))
                model.append(given_)
                to_memory.append(memory, given_, len(model.rows))
            elif chance < 0.8:
                log.sync()
                assert log.synced == log.stop
            elif chance < 0.9:
                model.let_go = rng.randint(model.let_go, len(model.rows))
                memory.release(Offset(model.let_go))
                log.release(Offset(model.let_go))
            else:
                disk.fails = None
                lives += 1
                if rng.random() < 0.5:  # killed: another process finds the files as they are
                    shutil.copytree(path / f"{lives - 1}", path / f"{lives}")
                    log.close()
                else:
                    log.close()
                    (path / f"{lives - 1}").rename(path / f"{lives}")
                log = RowLog(path / f"{lives}", disk, segment_bytes=size)
        except OSError:
            assert trouble
        disk.fails = None
        model.check(log, rng)
        model.check(memory, rng)
    log.close()


# ---- rows that are dropped ----


def bounded(kind: str, path: Path, most: int, runtime: Any = QUICK) -> Log:
    """A log with a bound."""
    return RowLog(path, runtime, max_bytes=most) if kind == "disk" else MemoryLog(runtime, max_bytes=most)


def stretches(log: Log, at: int = 0, rows: int = 0) -> list[int | tuple[int, int]]:
    """The rows of a log, and what is missing of them as (from, to)."""
    found: list[int | tuple[int, int]] = []
    place = Offset(at)
    while (next_ := log.read(place, rows)) is not None:
        read, end = next_
        if end.rows - place.rows != read.count:
            assert read == Block(None, 0, Boundary("gap", end.rows - place.rows))
            found.append((place.rows, end.rows))
        found += [] if read.rows is None else read.rows.tolist()
        place = end
    assert place >= log.stop
    return found


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_dropped_rows_are_a_gap_and_are_counted(kind: str, tmp_path: Path) -> None:
    log = bounded(kind, tmp_path / "log", 8000)
    number, dropped = 0, 0
    while dropped < 1000:
        more = block(*range(number, number + 10))
        try:
            log.append(more, number + 10)
            number += 10
        except Full:
            rows = log.drop(Offset(100), more)
            assert rows
            dropped += rows
    for _ in range(2 if kind == "disk" else 1):
        found = stretches(log)
        (gap,) = [each for each in found if isinstance(each, tuple)]
        assert gap[0] >= 100
        assert found == [*range(gap[0]), gap, *range(gap[1], number)]
        assert stretches(log, 5, 10_000) == [*range(5, gap[0]), gap, *range(gap[1], number)]
        assert (log.counts.dropped, log.counts.position) == (dropped, number)
        assert gap[1] - gap[0] == dropped
        assert log.position_at(Offset(gap[0])) == gap[0]
        assert log.position_at(Offset(gap[1])) is None
        assert log.position_at(Offset(gap[1] + 10)) == gap[1] + 10
        if isinstance(log, RowLog):
            log.close()
            log = RowLog(tmp_path / "log", SYSTEM, max_bytes=8000)
    log.close()


def test_dropped_rows_stay_dropped_when_the_log_moves_to_the_disk(tmp_path: Path) -> None:
    memory = MemoryLog(SYSTEM, max_bytes=800)
    for number in range(0, 200, 5):
        more = block(*range(number, number + 5), boundary=PASS if number == 50 else None)
        while True:
            try:
                memory.append(more, number)
                break
            except Full:
                assert memory.drop(Offset(20), more)
    log = RowLog(tmp_path / "log", SYSTEM)
    memory.spill(log)
    for _ in range(2):
        assert log.counts == memory.counts
        assert (log.start, log.stop) == (memory.start, memory.stop)
        assert stretches(log) == stretches(memory)
        log.close()
        log = RowLog(tmp_path / "log", SYSTEM)
    assert log.counts.dropped == 200 - len(stretches(log)) + 1
    log.close()


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_dropped_only_what_was_not_handed_on_is_and_it_is_counted(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.mktemp("log")
    trouble = rng.choice((0.0, 0.0, 0.1, 0.3))
    fails = torn_writes(rng, trouble)

    disk = Disk()
    most = rng.choice((3000, 20_000))
    kind = rng.choice(("disk", "disk", "memory"))
    log = bounded(kind, path / "0", most, disk)
    stop = handed = let_go = lives = 0
    gone: list[int] = []
    appender = Appender()

    def check() -> None:
        assert log.stop.rows == stop
        assert log.counts.dropped == len(gone)
        at = rng.randint(let_go, stop)
        at = next((row for row in range(at, stop) if row not in gone), stop)
        found = stretches(log, at, rng.choice((0, 7, 10_000)))
        assert [each for each in found if isinstance(each, int)] == [r for r in range(at, stop) if r not in lost]
        jumped = [row for each in found if isinstance(each, tuple) for row in range(*each)]
        assert jumped == [row for row in gone if row >= at]

    for _ in range(120):
        chance = rng.random()
        disk.fails = fails
        lost = set(gone)
        try:
            if chance < 0.7:
                more = block(*range(stop, stop + rng.choice((1, 1, 4, 20))))
                try:
                    appender.append(log, more)
                    stop += more.count
                except Full:
                    rows = log.drop(Offset(handed), more)
                    disk.fails = None
                    now = {row for each in stretches(log, handed) if isinstance(each, tuple) for row in range(*each)}
                    assert len(now - lost) == rows
                    gone, lost = sorted(lost | now), lost | now
            elif chance < 0.8:
                log.sync()
            elif chance < 0.9:
                handed = next((row for row in range(rng.randint(handed, stop), stop) if row not in lost), stop)
                let_go = rng.randint(let_go, handed)
                let_go = next((row for row in range(let_go, stop) if row not in lost), stop)
                log.release(Offset(let_go))
            elif kind == "disk":
                disk.fails = None
                lives += 1
                if rng.random() < 0.5:
                    shutil.copytree(path / f"{lives - 1}", path / f"{lives}")
                    log.close()
                else:
                    log.close()
                    (path / f"{lives - 1}").rename(path / f"{lives}")
                log = bounded(kind, path / f"{lives}", most, disk)
                handed = stop
        except OSError:
            assert trouble
        disk.fails = None
        check()
    log.close()


def test_specs_of_an_earlier_process_that_the_disk_refused_to_sync_are_written_again(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "log", QUICK)
    log.append(block(1))
    log.close()
    disk, written = Disk(), []
    log = RowLog(tmp_path / "log", disk)
    disk.fails = never(os.fsync)
    with pytest.raises(OSError, match="Input/output"):
        log.append(block(2))
    # What a failed sync was given may be gone, though the next one says nothing.
    disk.fails = lambda function, *args: written.append(args[1]) if function is os.pwrite else None
    log.append(block(2))
    assert b"".join(written) == (tmp_path / "log" / "specs.jsonl").read_bytes()
    log.close()
