"""Rows that come one or a few at a time are copied once, and are the same rows as on the general way."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import unbounded as ub
from helpers import log_of, wait_until
from unbounded.core import trees
from unbounded.core.block import Block, Offset
from unbounded.core.runtime import SYSTEM
from unbounded.sources.iteration import Form, Iteration, Made
from unbounded.sources.logged import Logged
from unbounded.sources.memory_log import MemoryLog
from unbounded.sources.read_ahead import AheadBound, ReadAhead
from unbounded.sources.row_log import RowLog
from unbounded.sources.row_stage import RowStage

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Point(NamedTuple):
    x: Any
    y: Any


NOW = 1.75e9
SAMPLES = {
    "an array": lambda i: np.full(3, i, np.float32),
    "a number": lambda i: i,
    "a NumPy number": lambda i: np.float16(i),
    "a float": lambda i: i / 7,
    "a bool": lambda i: i % 2 == 0,
    "a complex number": lambda i: complex(i, -i),
    "an array without dimensions": lambda i: np.array(i, np.uint8),
    "a dict": lambda i: {"x": np.float32(i), "y": i, "z": np.arange(i, i + 4).reshape(2, 2)},
    "a tuple with an absent part": lambda i: (np.zeros(2) + i, None, 1.0),
    "a tree": lambda i: ({"a": [i, np.float32(i)]}, (np.zeros((2, 0)), i)),
    "a named tuple": lambda i: Point(i, np.arange(i, i + 2)),
    "another byte order": lambda i: np.full(2, i, ">i4"),
    "dates": lambda i: {"at": np.array(f"2026-01-{i + 1:02}", "datetime64[D]"), "n": i},
    "structured": lambda i: np.array((i, 1.5 * i), [("a", "i4"), ("b", "f8")]),
    "text of one width": lambda i: {"name": np.array(f"m{i}"), "n": i},
}


def arrays(sample: Any) -> Any:
    """A sample as the general way makes rows of it."""
    return trees.map_leaves(lambda leaf: np.array(leaf)[None], sample)


def same(one: Any, other: Any) -> bool:
    ones, others = dict(trees.leaves(one)), dict(trees.leaves(other))
    return ones.keys() == others.keys() and all(
        ones[path].dtype == others[path].dtype and np.array_equal(ones[path], others[path]) for path in ones
    )


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_are_the_rows_that_the_general_way_makes_of_them(kind: str, tmp_path: Path) -> None:
    made = [SAMPLES[kind](i) for i in range(8)]
    staged, general = RowLog(tmp_path / "staged", SYSTEM), RowLog(tmp_path / "general", SYSTEM)
    first = Block(arrays(made[0]), 1, None, np.array([NOW]))
    staged.append(first)
    stage = RowStage.like(first)
    assert stage is not None
    taken = []
    for i, sample in enumerate(made):
        general.append(Block(arrays(sample), 1, None, np.array([NOW + i])))
        if i:
            taken.append(stage.put(sample, NOW + i, is_sample=True))
            staged.append_staged(stage, 1)
    # A number becomes an array whose dtype depends on the value where it is text or a date: these are given as arrays.
    assert taken == [1] * 7
    block = stage.block(0, 7)
    assert same(block.rows, trees.join([arrays(sample) for sample in made[1:]]))
    assert block.times is not None
    assert block.times.tolist() == [NOW + i for i in range(1, 8)]
    assert not trees.is_writable(block.rows)
    for log in (staged, general):
        log.sync()
        log.close()
    again = RowLog(tmp_path / "staged", SYSTEM)
    other = RowLog(tmp_path / "general", SYSTEM)
    assert again.counts == other.counts
    for at in range(8):
        one, another = again.read(Offset(at)), other.read(Offset(at))
        assert one is not None
        assert another is not None
        assert same(one[0].rows, another[0].rows)
        assert np.array_equal(one[0].times, another[0].times)
    again.close()
    other.close()
    files = [
        sorted(path.read_bytes()[100:] for path in (tmp_path / name).glob("*.log")) for name in ("staged", "general")
    ]
    assert [len(data) for data in files[0]] == [len(data) for data in files[1]]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.zeros(2, ">f8"), np.zeros(2)),
        (np.zeros(2), [0.0, 0.0]),
        (np.zeros(2), 1.0),
        (np.zeros(2), None),
        (np.zeros(2), np.ma.masked_array([1.0, 2.0], [True, False])),
        (1, 1.0),
        (1, True),
        (1, 1 << 80),
        (1.0, 1),
        (np.float32(1), 1.0),
        (np.int64(1), np.int32(1)),
        (np.zeros(()), "1.0"),
        (np.array("ab"), "ab"),
        (np.array("ab"), np.array("abc")),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        ({"x": 1, "y": 2}, {"x": 1}),
        ({"x": 1}, {"x": 1, "y": 2}),
        ({"x": 1}, OrderedDict(x=1)),
        ({"x": 1}, 1),
        ({"x": 1}, (1,)),
        ((1, 2), [1, 2]),
        ((1, 2), (1, 2, 3)),
        ((1, 2), (1,)),
        ((1, 2), Point(1, 2)),
        (Point(1, 2), (1, 2)),
        ((1, None), (1, 2)),
        ((1, 2), (1, None)),
        ({"x": (1, 2)}, {"x": {"y": 1}}),
    ],
)
def test_what_is_not_plainly_of_the_form_is_left_to_the_general_way(first: Any, later: Any) -> None:
    stage = RowStage.like(Block(arrays(first), 1, None, np.zeros(1)))
    assert stage is not None
    assert stage.put(later, NOW, is_sample=True) == 0
    assert stage.count == 0


@pytest.mark.parametrize(
    "later",
    [
        {"x": np.zeros((2, 3)), "y": np.zeros(3)},
        {"x": np.zeros((2, 3)), "y": np.zeros(2, np.float32)},
        {"x": np.zeros((2, 2)), "y": np.zeros(2)},
        {"x": np.zeros((2, 3)), "y": 1.0},
        {"x": np.zeros((2, 3)), "y": np.zeros(())},
        {"x": np.zeros((0, 3)), "y": np.zeros(0)},
        {"x": [[0.0, 0.0, 0.0]], "y": np.zeros(1)},
        {"y": np.zeros(1), "x": np.zeros((1, 3))},
        {"x": np.zeros((257, 3)), "y": np.zeros(257)},  # more than there is room for
        {},
        (),
        None,
        "rows",
        np.zeros(3),
    ],
)
def test_rows_that_are_not_plainly_of_the_form_are_left_to_the_general_way(later: Any) -> None:
    like = Block({"x": np.zeros((1, 3)), "y": np.zeros(1)}, 1, None, np.zeros(1))
    stage = RowStage.like(like)
    assert stage is not None
    assert stage.put(like.rows, NOW, is_sample=False) == 1
    assert stage.put(later, NOW, is_sample=False) == 0


def test_several_rows_are_put_at_once_and_memory_that_is_written_again_is_copied() -> None:
    memory = np.zeros((3, 2))
    stage = RowStage.like(Block(memory, 3, None, np.zeros(3)))
    assert stage is not None
    for i in range(4):
        memory[:] = i
        assert stage.put(memory, NOW + i, is_sample=False) == 3
        stage.count += 3
    assert stage.block(2, 8).rows[:, 0].tolist() == [0, 1, 1, 1, 2, 2]
    assert stage.time(11) == NOW + 3


def test_a_stage_has_the_room_that_it_was_given() -> None:
    like = Block(np.zeros((1, 4)), 1, None, np.zeros(1))
    assert RowStage.like(like, 40) is None  # one row: nothing is gained
    stage = RowStage.like(like, 150)
    assert stage is not None
    for _ in range(4):
        assert stage.put(like.rows, NOW, is_sample=False) == 1
        stage.count += 1
    assert stage.put(like.rows, NOW, is_sample=False) == 0
    assert RowStage.like(Block(np.zeros((1, 1 << 18)), 1, None, np.zeros(1))) is not None
    assert RowStage.like(Block(np.zeros((1, 1 << 19)), 1, None, np.zeros(1))) is None  # a block of half of its memory
    assert RowStage.like(Block(None, 0)) is None


@pytest.mark.parametrize("where", ["disk", "memory"])
@pytest.mark.parametrize("is_sample", [True, False])
def test_each_row_is_in_the_log_before_the_function_is_asked_for_the_next(
    is_sample: bool, where: str, tmp_path: Path
) -> None:
    seen: list[int] = []

    def sensor() -> Iterator[Any]:
        for i in range(700):
            yield {"x": i} if is_sample else {"x": np.array([i])}
            seen.append(log_of(feed).stop.rows)

    stream = (ub.from_samples if is_sample else ub.from_generator)(sensor, passes=1).batch(100)
    with ub.Feed(stream) as feed:
        if where == "disk":
            feed.load(tmp_path)
        batches = [batch["x"].tolist() for batch in feed.batches()]
        assert isinstance(log_of(feed), RowLog if where == "disk" else MemoryLog)
    assert seen == list(range(1, 701))
    assert batches == [list(range(i, i + 100)) for i in range(0, 700, 100)]


def test_rows_take_the_fast_way_and_only_the_first_of_each_stage_the_general_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    general: list[int] = []
    accept = Logged._append

    def counted(self: Logged, block: Block, position: Any) -> None:
        general.append(block.count)
        accept(self, block, position)

    monkeypatch.setattr(Logged, "_append", counted)
    for name, constructor, value in (
        ("samples", ub.from_samples, 1),
        ("rows", ub.from_generator, np.ones(1)),
        ("memory", ub.from_samples, 1),
    ):
        general.clear()
        with ub.Feed(constructor(lambda value=value: itertools.repeat(value, 2570), passes=1).batch(257)) as feed:
            if name != "memory":
                feed.load(tmp_path / name)
            assert sum(1 for _ in feed.batches()) == 10
        assert sum(general) == 10, name


def test_rows_in_a_stage_go_on_in_it_when_the_log_moves_to_the_disk(tmp_path: Path) -> None:
    moved = threading.Event()

    def sensor() -> Iterator[Any]:
        for i in range(400):
            yield i
            if i == 150:
                assert moved.wait(30)

    with ub.Feed(ub.from_samples(sensor, passes=1).batch(50)) as feed:
        batches = feed.batches()
        found = []
        for _ in range(2):
            found.append(next(batches).tolist())
            feed.trained()
        wait_until(lambda: log_of(feed).stop.rows == 151)
        feed.save(tmp_path)
        moved.set()
        found += [batch.tolist() for batch in batches]
        log = log_of(feed)
        assert isinstance(log, RowLog)
        assert found == [list(range(i, i + 50)) for i in range(0, 400, 50)]
        at, logged = Offset(100), []
        while (read := log.read(at)) is not None:
            logged += read[0].rows.tolist() if read[0].count else []
            at = read[1]
        assert logged == list(range(100, 400))


def test_a_value_of_another_form_in_a_burst_is_the_error_it_was(tmp_path: Path) -> None:
    def sensor() -> Iterator[Any]:
        for i in range(300):
            yield {"x": float(i)}
        yield {"x": 1}

    with ub.Feed(ub.from_samples(sensor, passes=1).batch(100)) as feed:
        feed.load(tmp_path)
        batches = feed.batches()
        assert [next(batches)["x"][0] for _ in range(3)] == [0.0, 100.0, 200.0]
        with pytest.raises(ub.RowsError, match=r"Sample 300 of sensor\(\): leaf \['x'\] is now int64 and was float64"):
            next(batches)


def test_none_in_a_burst_is_an_error_and_no_row_is_lost(tmp_path: Path) -> None:
    def sensor() -> Iterator[Any]:
        yield from map(float, range(5))
        yield None
        yield 6.0

    with ub.Feed(ub.from_samples(sensor, passes=1).batch(1)) as feed:
        feed.load(tmp_path)
        batches = feed.batches()
        assert [next(batches).item() for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ub.RowsError, match="Sample 5"):
            next(batches)


def test_an_iterator_that_was_closed_in_a_burst_is_not_asked_again() -> None:
    asked = []

    def sensor() -> Iterator[Any]:
        for i in itertools.count():
            asked.append(i)
            yield float(i)

    form = Form("from_samples", "sensor", True, SYSTEM)
    iteration = Iteration(Made(sensor, form), form, 0, stack=1)

    def offer(value: Any, is_sample: bool) -> int:
        assert is_sample
        if value == 4:
            iteration.close()
        return 1

    block = iteration.next(offer)
    assert block is not None
    assert (block.count, iteration.row, asked) == (0, 5, [0, 1, 2, 3, 4])


def test_a_burst_ends_when_its_time_is_over() -> None:
    class Clock(ub.core.runtime.Runtime):
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    form = Form("from_samples", "sensor", True, clock)
    iteration = Iteration(Made(lambda: itertools.count(), form), form, 0, stack=1)

    def offer(value: Any, is_sample: bool) -> int:
        clock.now += 0.004
        return 1

    block = iteration.next(offer)
    assert block is not None
    assert (block.count, iteration.row) == (0, 3)


def test_after_a_write_that_failed_in_a_burst_the_row_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append, fails = RowLog.append_staged, [3, 7]

    def failing(self: RowLog, stage: RowStage, rows: int) -> None:
        if fails and self.stop.rows == fails[0]:
            fails.pop(0)
            raise OSError(28, "No space left on device")
        append(self, stage, rows)

    monkeypatch.setattr(RowLog, "append_staged", failing)
    with caplog.at_level(logging.WARNING), ub.Feed(ub.from_samples(lambda: iter(range(20)), passes=1).batch(5)) as feed:
        feed.load(tmp_path)
        assert [batch.tolist() for batch in feed.batches()] == [list(range(i, i + 5)) for i in (0, 5, 10, 15)]
    assert not fails
    assert not caplog.records


def test_without_batch_what_is_yielded_at_once_is_a_batch_however_fast_it_comes(tmp_path: Path) -> None:
    yielded = [list(range(i * i, (i + 1) * (i + 1))) for i in range(12)]
    come = threading.Event()

    def sensor() -> Iterator[Any]:
        yield from map(np.array, yielded)
        come.set()

    for where in ("memory", "disk"):
        come.clear()
        with ub.Feed(ub.from_generator(sensor, passes=1)) as feed:
            if where == "disk":
                feed.load(tmp_path)
            batches = feed.batches()
            found = [next(batches).tolist()]
            assert come.wait(30)
            assert [*found, *(batch.tolist() for batch in batches)] == yielded


@pytest.mark.parametrize("where", ["ahead", "memory"])
def test_rows_of_a_stage_are_passed_on_no_more_at_a_time_than_are_asked_for(where: str) -> None:
    first = Block(np.zeros((4, 1)), 4, None, np.zeros(4))
    stage = RowStage.like(first)
    assert stage is not None
    ahead, log = ReadAhead(AheadBound(64, 1 << 26, 4096)), MemoryLog(SYSTEM)
    ahead.add(Offset(0), Offset(4), first, first.nbytes)
    log.append(first)
    for i in range(1, 11):
        assert stage.put(np.full((4, 1), i), NOW, is_sample=False) == 0  # an int
        assert stage.put(np.full((4, 1), float(i)), NOW, is_sample=False) == 4
        log.append_staged(stage, 4)
        ahead.add_staged(Offset(4 * i), Offset(4 * i + 4), stage)
    found, at = [], Offset(0)
    while (read := ahead.joined(at, 16) if where == "ahead" else log.read(at, 16)) is not None:
        block, at = read
        found.append(block.rows[:, 0].tolist())
        ahead.drop_before(at)
    assert [len(rows) for rows in found] == [20, 16, 8]  # blocks until they have so many rows; then parts of the stage
    assert [row for rows in found for row in rows] == [i // 4 for i in range(44)]
    assert ahead.bound.has_room()


def test_rows_that_were_read_ahead_are_prefetched_some_batches_at_a_time() -> None:
    made, come = [], threading.Event()

    def sensor() -> Iterator[Any]:
        for i in range(2000):
            yield np.full(4, i)
            if i == 1000:
                come.set()

    def note(rows: Any) -> Any:
        assert come.wait(30)
        made.append(len(rows))
        return rows

    with ub.Feed(ub.from_generator(sensor).batch(2).map(note).prefetch(5)) as feed:
        next(feed.batches())
        wait_until(lambda: feed._opened.top._ahead >= 5)  # type: ignore[attr-defined]
        assert len(made) <= 24
