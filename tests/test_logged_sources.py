"""Sources that can't seek are read in a thread, and their rows are kept while a position needs them."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, once, train_all, wait_until
from unbounded.core.block import Offset
from unbounded.core.runtime import Runtime
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def test_the_rows_that_were_read_and_not_trained_on_travel_with_the_state() -> None:
    steps = Steps()
    with ub.Feed(steps.stream().batch(2)) as feed:
        steps.give(*(np.arange(3 * i, 3 * i + 3) for i in range(4)))
        batches = feed.batches()
        assert [next(batches).tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
        steps.await_taken(4)
        state = json.loads(json.dumps(feed.state_dict()))
        batches.close()
        steps.end()
    after = Steps()
    after.give(np.array([100, 101]))
    with ub.Feed(after.stream().batch(2)) as feed:
        feed.load_state_dict(state)
        batches = feed.batches()
        # The third batch was out and not confirmed: it comes again.
        assert [next(batches).tolist() for _ in range(5)] == [[4, 5], [6, 7], [8, 9], [10, 11], [100, 101]]
        batches.close()
        after.end()


def test_a_state_with_nothing_left_to_train_on_goes_on_with_the_next_row() -> None:
    steps = Steps()
    steps.give(np.arange(4))
    with ub.Feed(steps.stream().batch(4)) as feed:
        next(feed.batches())
        feed.trained()
        state = feed.state_dict()
        steps.end()
    after = Steps()
    after.give(np.arange(10, 14))
    with ub.Feed(after.stream().batch(4)) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches()).tolist() == [10, 11, 12, 13]
        assert feed.stats.fetched == 8
        after.end()


def test_a_state_at_the_end_of_a_pass_goes_on() -> None:
    def some() -> Iterator[Any]:
        yield np.arange(4)
        yield np.arange(4, 8)

    stream = ub.from_generator(some, passes=3).batch(4)
    for trained in range(6):
        with ub.Feed(stream) as feed:
            assert feed.available()
            batches = feed.batches()
            for _ in range(trained):
                next(batches)
                feed.trained()
            wait_until(lambda: feed._opened.sources[0].log.stop == Offset(24, 1))
            state = json.loads(json.dumps(feed.state_dict()))
            batches.close()
        # The function is not called a fourth time by the new process.
        with ub.Feed(stream) as feed:
            feed.load_state_dict(state)
            rest = [b.tolist() for b in feed.batches()]
            assert rest == ([[0, 1, 2, 3], [4, 5, 6, 7]] * 3)[trained:]


def test_passes_that_ended_are_not_made_again_by_the_next_process() -> None:
    steps = Steps()
    steps.give(np.arange(4))
    with ub.Feed(steps.stream(passes=3).batch(2)) as feed:
        next(feed.batches())
        feed.trained()
        steps.end()
        source = feed._opened.sources[0]
        wait_until(lambda: source.log.stop.boundaries == 1)
        # All three passes are read, as the source is done at once when it is called again.
        wait_until(lambda: source._error is not None)
        state = feed.state_dict()
    after = Steps()
    after.give(np.arange(100, 104))
    with ub.Feed(after.stream(passes=3).batch(2)) as feed:
        feed.load_state_dict(state)
        assert [b.tolist() for b in feed.batches()] == [[2, 3], *[[0, 1], [2, 3]] * 2]
    assert after.taken == 0


def test_it_reads_ahead_so_that_nothing_is_missed_and_no_further_than_it_may() -> None:
    read = []

    def sensor() -> Iterator[Any]:
        for i in range(10_000):
            read.append(i)
            yield np.array([i])

    with ub.Feed(ub.from_generator(sensor).batch(1)) as feed:
        next(feed.batches())
        wait_until(lambda: len(read) >= 4096)
        assert len(read) <= 2 * 4096 + 64


class _Still(Runtime):
    """All rows come at the same moment."""

    def monotonic(self) -> float:
        return 0.0


def test_a_row_that_came_at_once_after_others_is_handed_on_though_no_more_follow() -> None:
    steps = Steps()
    with ub.Feed(steps.stream().batch(10), runtime=_Still()) as feed:
        source, begun = feed.opened.sources[0], time.monotonic()
        for row in range(3):
            # The row comes while it is waited for: the first ones are told of, the others found.
            later = threading.Thread(
                target=lambda: wait_until(lambda: source._state._waiters) or steps.give(np.ones(1))
            )
            later.start()
            assert source.pull(60.0).count == 1, row
            later.join()
        assert time.monotonic() - begun < 30
        steps.end()


def test_what_was_trained_on_is_forgotten_and_what_a_position_needs_is_kept() -> None:
    with ub.Feed(ub.from_generator(once).batch(3)) as feed:
        log = feed.opened.sources[0].log
        for i, _ in enumerate(feed.batches()):
            if i == 2000:
                break
        assert log.start.rows >= 6000 - 4100  # a cursor goes back to the beginning of what was read at once
        assert len(log._blocks) < 6500
    with ub.Feed(ub.from_generator(once).batch(3)) as feed:
        feed.releases.hold()  # as a checkpoint does
        for i, _ in enumerate(feed.batches()):
            if i == 300:
                break
        assert feed.opened.sources[0].log.start.rows == 0


def test_rows_that_are_out_and_not_confirmed_are_not_let_go() -> None:
    with ub.Feed(ub.from_generator(once).batch(3), confirm="manual") as feed:
        for i, _ in enumerate(feed.batches()):
            if i >= 5:
                feed.trained(1)
            if i == 100:
                break
        feed._settle()
        state = feed.state_dict()
    with ub.Feed(ub.from_generator(once).batch(3)) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches()).tolist() == [288, 289, 290]


def test_a_position_that_is_no_longer_kept_is_data_loss() -> None:
    with ub.Feed(ub.from_generator(once).batch(3)) as feed:
        state = feed.state_dict()
        for i, _ in enumerate(feed.batches()):
            if i == 2000:
                break
        with pytest.raises(ub.StreamError, match="being read already"):
            feed.load_state_dict(state)


def test_a_failure_of_the_generator_comes_after_the_rows_before_it() -> None:
    steps = Steps()
    steps.give(np.arange(2), RuntimeError("the cable"))
    seen: list[int] = []
    with ub.Feed(steps.stream().batch(1)) as feed, pytest.raises(RuntimeError, match="the cable"):
        train_all(feed, seen)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.batch(4),
        lambda s: s.shuffle(100).batch(4),
        lambda s: s.batch(4).prefetch(2),
        lambda s: s.buffer(20).map(lambda r: r, workers=2).batch(4),
        lambda s: s.random_map(lambda r, rng: r).batch(4),
        lambda s: s.windows(50).replay(100).batch(4),
    ],
    ids=["batch", "shuffle", "prefetch", "threads", "random_map", "windows"],
)
def test_waiting_for_a_quiet_source_is_interrupted_and_asked_of_its_state_at_once(words: Any) -> None:
    steps = Steps()
    steps.give(np.arange(3))
    with ub.Feed(words(steps.stream())) as feed:
        threading.Timer(0.1, feed.interrupt).start()
        begun = time.monotonic()
        assert list(feed.batches()) == []
        assert feed.interrupted
        for _ in range(5):
            feed.state_dict()
        assert time.monotonic() - begun < 30.0  # and not for ever, on the busiest machine
        steps.end()


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.shuffle(100_000).batch(4),
        lambda s: s.batch(100_000),
        lambda s: s.filter(lambda r: r < 0).batch(1),
        lambda s: s.random_map(lambda r, rng: r, group=100_000).batch(1),
        lambda s: s.windows(100_000).batch(1),
        lambda s: s.replay(10, reuse=0.00001).batch(1),
        lambda s: s.filter(lambda r: r < 0).shuffle(3).batch(1).prefetch(2),
    ],
    ids=["shuffle", "batch", "filter", "random_map", "windows", "replay", "prefetch"],
)
def test_a_source_that_trickles_does_not_keep_a_loop_from_ending(words: Any) -> None:
    stop = threading.Event()

    def sensor() -> Iterator[Any]:
        i = 0
        while not stop.is_set():
            yield np.array([i])
            i += 1
            stop.wait(0.005)

    with ub.Feed(words(ub.from_generator(sensor, passes=1))) as feed:
        threading.Timer(0.1, feed.interrupt).start()
        begun = time.monotonic()
        assert list(feed.batches()) == []
        assert time.monotonic() - begun < 30.0  # and not for ever, on the busiest machine
        feed.state_dict()
        stop.set()


def test_a_source_that_never_fits_is_interrupted_too() -> None:
    with ub.Feed(ub.from_arrays(np.arange(100)).filter(lambda r: r < 0).batch(1)) as feed:
        threading.Timer(0.1, feed.interrupt).start()
        assert list(feed.batches()) == []


def test_closing_ends_the_thread_and_closes_the_generator() -> None:
    closed = []

    def sensor() -> Iterator[Any]:
        try:
            yield from once()
        finally:
            closed.append(True)

    with ub.Feed(ub.from_generator(sensor).batch(4).prefetch(3)) as feed:
        next(feed.batches())
    assert closed == [True]


def test_times_of_arrival_travel_with_the_rows() -> None:
    clock = ub.testing.Clock(1000.0)
    steps = Steps()
    steps.give(np.arange(4))
    with ub.Feed(steps.stream().batch(4), runtime=clock) as feed:
        assert feed.available()
        clock.advance(5.0)
        next(feed.batches())
        feed.trained()
        feed._settle()
        assert feed.stats.age == 5.0
        steps.end()


def test_a_live_source_resumes_within_its_run() -> None:
    assert_resumes(ub.from_generator(once).batch(4), 10)
    assert_resumes(ub.from_generator(once).filter(lambda r: r % 3 > 0).windows(4, stride=2).batch(4), 10)


def test_a_source_that_failed_is_opened_again_by_whoever_asks_again_and_a_gap_stands_in_between() -> None:
    calls: list[int] = []

    def sensor() -> Iterator[Any]:
        calls.append(len(calls))
        first = 10 * len(calls)
        yield np.arange(first, first + 4)
        raise RuntimeError(f"failure {len(calls)}")

    def train(feed: ub.Feed, seen: list[Any]) -> None:
        for batch in feed.batches():
            seen += batch.tolist()
            feed.trained()

    seen: list[Any] = []
    with ub.Feed(ub.from_generator(sensor).windows(2).batch(3)) as feed:
        for number in (1, 2, 3):
            with pytest.raises(RuntimeError, match=f"failure {number}"):
                train(feed, seen)
        assert calls == [0, 1, 2]
    # No window has rows from before and after.
    assert seen == [[i, i + 1] for first in (10, 20, 30) for i in range(first, first + 3)]


def test_a_source_that_fails_before_its_first_row_is_asked_again_without_an_end() -> None:
    calls: list[int] = []

    def sensor() -> Iterator[Any]:
        calls.append(1)
        if len(calls) < 4:
            raise RuntimeError("not yet")
        yield np.arange(4)

    with ub.Feed(ub.from_generator(sensor, passes=1).batch(4)) as feed:
        for _ in range(3):
            with pytest.raises(RuntimeError):
                feed.available()
        assert next(feed.batches()).tolist() == [0, 1, 2, 3]
        assert feed._opened.sources[0].counts()["missed"] == 0


def test_what_may_pass_is_waited_for_longer_each_time_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Rests()
    calls: list[int] = []

    def sensor() -> Iterator[Any]:
        calls.append(len(calls))
        if len(calls) in (2, 3, 4):
            raise ConnectionError("not yet")
        yield np.arange(4)
        if len(calls) == 1:
            raise TimeoutError("the cable")
        yield np.arange(4, 8)

    with ub.Feed(ub.from_generator(sensor, passes=1).batch(2), runtime=clock) as feed:
        assert [b.tolist() for b in itertools.islice(feed.batches(), 6)] == [
            [0, 1],
            [2, 3],
            *[[0, 1], [2, 3], [4, 5], [6, 7]],
        ]
        assert feed.opened.sources[0].counts()["retries"] == 4
    assert clock.rests == [0.1, 0.2, 0.4, 0.8]
    (said,) = [record.getMessage() for record in caplog.records if "opened again" in record.getMessage()]
    assert said.startswith("sensor() failed: TimeoutError: the cable. It is opened again")


@pytest.mark.parametrize(
    "error", [FileNotFoundError("no such device"), PermissionError("not yours"), ValueError("a bug")]
)
def test_what_does_not_pass_ends_the_run_at_once(error: Exception) -> None:
    def sensor() -> Iterator[Any]:
        raise error
        yield np.arange(4)

    with ub.Feed(ub.from_generator(sensor).batch(2)) as feed, pytest.raises(type(error), match=str(error)):
        feed.available()


class Rests(Runtime):
    """Notes how long the reader's thread rests after failures, and does not wait."""

    def __init__(self) -> None:
        self.rests: list[float] = []

    def condition(self, lock: Any) -> Any:
        condition = super().condition(lock)
        wait_for = condition.wait_for

        def noted(predicate: Any, timeout: float | None = None) -> Any:
            if timeout is not None and timeout >= 0.1:
                self.rests.append(timeout)
                timeout = 0
            return wait_for(predicate, timeout)

        condition.wait_for = noted
        return condition
