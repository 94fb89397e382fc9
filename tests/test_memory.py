"""Ownership of memory: no write to what was handed out changes the user's arrays or later batches."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first
from unbounded.core import trees

pytestmark = pytest.mark.usefixtures("no_threads_left")

N = 24


def spoil(batch: Any) -> None:
    """What a careless trainer does: write into each leaf, where that is possible."""
    for _, leaf in trees.leaves(batch):
        if leaf.flags.writeable:
            leaf[...] = -1


def add_100(rows: Any) -> Any:
    return np.add(rows, 100, out=rows)


def numbers(start: int = 0) -> Iterator[Any]:
    while True:
        yield np.arange(start, start + 5)
        start += 5


class Buffer:
    """An iterator that fills one buffer again and again; it can be put back."""

    def __init__(self) -> None:
        self.i = 0
        self.buffer = np.empty(5, np.int64)

    def __iter__(self) -> Buffer:
        return self

    def __next__(self) -> Any:
        self.buffer[:] = np.arange(self.i, self.i + 5)
        self.i += 5
        return self.buffer

    def state_dict(self) -> Any:
        return {"i": self.i}

    def load_state_dict(self, state: Any) -> None:
        self.i = state["i"]


SOURCES: dict[str, Callable[[], ub.Stream]] = {
    "arrays": lambda: ub.from_arrays(np.arange(N), shuffle=False),
    "shuffled": lambda: ub.from_arrays(np.arange(N)),
    "start": lambda: ub.from_generator(numbers),
    "state": lambda: ub.from_generator(Buffer),
    "live": lambda: ub.from_generator(lambda: (np.arange(i, i + 5) for i in itertools.count(0, 5))),
    "samples": lambda: ub.from_samples(lambda start=0: itertools.count(start)),
}
STAGES: dict[str, Callable[[ub.Stream], ub.Stream]] = {
    "nothing": lambda s: s.batch(4),
    "shuffle": lambda s: s.shuffle(7).batch(4),
    "map": lambda s: s.map(lambda r: r + 0).batch(4),
    "identity": lambda s: s.map(lambda r: r).batch(4).map(lambda r: r),
    "replay": lambda s: s.replay(6, reuse=2).batch(4),
    "windows": lambda s: s.windows(3).batch(4),
    "prefetch": lambda s: s.shuffle(7).batch(4).prefetch(2),
    "no batch": lambda s: s,
}

# Without batch, how many single samples are handed on at once is a matter of time.
PAIRS = [(a, b) for a in SOURCES for b in STAGES if (a, b) != ("samples", "no batch")]


@pytest.mark.parametrize(("source", "stages"), PAIRS)
def test_what_a_trainer_does_to_a_batch_reaches_no_other_batch(source: str, stages: str) -> None:
    stream = STAGES[stages](SOURCES[source]())
    expected = [np.array(b) for b in first(stream, 16)]
    got = []
    with ub.Feed(STAGES[stages](SOURCES[source]())) as feed:
        for batch in itertools.islice(feed.batches(), 16):
            got.append(np.array(batch))
            spoil(batch)
    np.testing.assert_equal(got, expected)


@pytest.mark.parametrize(("source", "stages"), PAIRS)
def test_a_batch_that_comes_again_is_as_it_was(source: str, stages: str) -> None:
    expected = [np.array(b) for b in first(STAGES[stages](SOURCES[source]()), 12)]
    with ub.Feed(STAGES[stages](SOURCES[source]()), confirm="manual") as feed:
        for kept in (0, 1, 5):  # of six that are out, so many are confirmed
            at = feed.steps
            got = []
            for batch in itertools.islice(feed.batches(), 6):
                got.append(np.array(batch))
                spoil(batch)
            np.testing.assert_equal(got, expected[at : at + 6])
            feed.trained(kept)
            state = feed.state_dict()
            assert feed.rewind() == 6 - kept
            assert feed.state_dict()["count"] == state["count"]
        assert feed.steps == 6
        np.testing.assert_equal([np.array(b) for b in itertools.islice(feed.batches(), 6)], expected[6:])
        assert feed.stats.in_doubt == 6 + 5 + 1


def test_a_batch_after_the_declared_end_comes_again_as_it_was() -> None:
    with ub.Feed(ub.from_arrays(np.arange(N), passes=1).batch(5)) as feed:
        seen = []
        for batch in feed.batches():
            seen.append(np.array(batch))
            spoil(batch)
            if len(seen) == 5:
                break
        again = [np.array(b) for b in feed.batches()]
        np.testing.assert_equal(again, seen[4:])
        assert not feed.available()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_function_that_writes_into_its_rows_changes_none_but_its_own(workers: int) -> None:
    mine = np.arange(N)
    stream = ub.from_arrays(mine, shuffle=False).map(add_100, workers=workers).batch(6)
    np.testing.assert_equal(np.concatenate(first(stream, 12)), np.tile(np.arange(100, 124), 3))
    np.testing.assert_equal(mine, np.arange(N))


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.map(add_100).batch(6),
        lambda s: s.batch(6).map(add_100),
        lambda s: s.windows(1).map_rows(add_100).map(lambda r: r[:, 0]).batch(6),
        lambda s: s.random_map(lambda r, rng: add_100(r)).batch(6),
        lambda s: s.batch(6).random_map(lambda r, rng: add_100(r)),
        lambda s: s.filter(lambda r: add_100(r) > 0).map(lambda r: r + 100).batch(6),
        lambda s: s.windows(1).map(add_100).map(lambda r: r[:, 0]).batch(6),
        lambda s: s.replay(1, reuse=1).map(add_100).batch(6),
    ],
)
@pytest.mark.parametrize("source", list(SOURCES))
def test_each_stage_that_calls_a_function_keeps_its_input(source: str, words: Any) -> None:
    expected = np.concatenate(first(SOURCES[source]().batch(6), 9)) + 100
    np.testing.assert_equal(np.concatenate(first(words(SOURCES[source]()), 9)), expected)


def test_a_function_that_fails_half_way_is_given_the_rows_as_they_were() -> None:
    failed = []

    def half(rows: Any) -> Any:
        rows["a"] += 100
        if not failed:
            failed.append(True)
            raise RuntimeError("half way")
        rows["b"] += 100
        return rows

    rows = {"a": np.arange(N), "b": np.arange(N)}
    with ub.Feed(ub.from_arrays(rows, shuffle=False).shuffle(N).map(half).batch(N)) as feed:
        with pytest.raises(RuntimeError, match="half way"):
            next(feed.batches())
        batch = next(feed.batches())
        assert sorted(batch["a"]) == sorted(batch["b"]) == list(range(100, 124))


def test_the_draws_of_a_random_map_that_writes_into_its_rows_are_those_of_one_that_does_not() -> None:
    def noise(rows: Any, rng: np.random.Generator) -> Any:
        return rows + rng.integers(1000, size=rows.shape)

    def inplace(rows: Any, rng: np.random.Generator) -> Any:
        rows += rng.integers(1000, size=rows.shape)
        return rows

    rows = ub.from_arrays(np.arange(N), shuffle=False)
    np.testing.assert_equal(first(rows.random_map(inplace).batch(6), 9), first(rows.random_map(noise).batch(6), 9))


def test_an_error_of_the_function_is_not_taken_for_one_of_read_only_memory() -> None:
    calls = []

    def wrong(rows: Any) -> Any:
        calls.append(1)
        raise ValueError("wrong")

    with ub.Feed(ub.from_arrays(np.arange(N)).map(wrong).batch(6)) as feed, pytest.raises(ValueError, match="wrong"):
        next(feed.batches())
    assert len(calls) == 1


def test_the_users_arrays_are_handed_out_read_only_and_stay_writable_themselves() -> None:
    mine = (np.arange(N), np.zeros((N, 2)))
    for batch in first(ub.from_arrays(mine, shuffle=False).batch(6), 3):
        assert not any(leaf.flags.writeable for leaf in batch)
        with pytest.raises(ValueError, match="read-only"):
            batch[0][:] = 0
    assert all(leaf.flags.writeable for leaf in mine)
    assert all(leaf.flags.writeable for leaf in first(ub.from_arrays(mine).batch(6), 1)[0])


# -- generators that use their memory again --------------------------------------------------------------------------


def one_buffer(start: int = 0) -> Iterator[Any]:
    buffer = np.empty(5, np.int64)
    while True:
        buffer[:] = np.arange(start, start + 5)
        yield buffer
        start += 5


def ring(start: int = 0) -> Iterator[Any]:
    memory = np.empty((4, 5), np.int64)
    for i in itertools.count():
        memory[i % 4] = np.arange(start, start + 5)
        yield memory[i % 4]
        start += 5


def one_dict(start: int = 0) -> Iterator[Any]:
    row: dict[str, Any] = {}
    while True:
        row["id"] = np.arange(start, start + 5)
        yield row
        start += 5


def shared_leaves(start: int = 0) -> Iterator[Any]:
    buffer = np.empty((5, 2), np.int64)
    while True:
        buffer[:, 0] = buffer[:, 1] = np.arange(start, start + 5)
        yield {"id": buffer[:, 0], "again": buffer[:, 1], "both": buffer}
        start += 5


def backwards(start: int = 0) -> Iterator[Any]:
    buffer = np.empty(5, np.int64)
    while True:
        buffer[:] = np.arange(start, start + 5)[::-1]
        yield buffer[::-1]
        start += 5


REUSED = [one_buffer, ring, one_dict, shared_leaves, backwards]


@pytest.mark.parametrize("grade", ["start", "live"])
@pytest.mark.parametrize("fn", REUSED)
@pytest.mark.parametrize(
    "words", [lambda s: s.batch(5), lambda s: s.shuffle(30).batch(6), lambda s: s.batch(20).prefetch(4), lambda s: s]
)
def test_a_generator_may_fill_its_memory_again(fn: Any, grade: str, words: Any) -> None:
    source = fn if grade == "start" else lambda: fn()
    got = [b["id"] if isinstance(b, dict) else b for b in first(words(ub.from_generator(source)), 10)]
    rows = np.concatenate(got)
    assert sorted(rows.tolist()) == list(range(len(rows)))


def test_an_iterator_with_state_may_fill_its_memory_again() -> None:
    rows = np.concatenate(first(ub.from_generator(Buffer).shuffle(30).batch(6), 10))
    assert sorted(rows.tolist()) == list(range(60))


def test_single_samples_may_be_one_buffer() -> None:
    def sensor() -> Iterator[Any]:
        buffer = np.zeros(2)
        for i in itertools.count():
            buffer[:] = i
            yield {"x": buffer, "y": buffer[:1]}

    rows = np.concatenate([b["x"] for b in first(ub.from_samples(sensor).batch(3), 100)])
    np.testing.assert_equal(rows[:, 0], np.arange(300))


def test_a_live_generators_memory_is_read_before_it_goes_on() -> None:
    # Its thread may be far ahead of who pulls.
    ahead = threading.Event()

    def sensor() -> Iterator[Any]:
        buffer = np.zeros(1, np.int64)
        for i in range(50):
            buffer[0] = i
            yield buffer
        ahead.set()

    with ub.Feed(ub.from_generator(sensor, passes=1).batch(1)) as feed:
        assert feed.available()
        assert ahead.wait(60)
        assert [int(b[0]) for b in feed.batches()] == list(range(50))
