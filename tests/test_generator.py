"""from_generator and from_samples: how each kind of function resumes, and errors for functions that can't be used."""

from __future__ import annotations

import functools
import itertools
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, first, first_ids, from_start, once, train_all
from unbounded.core.runtime import Runtime
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def rows_in(stream: ub.Stream, steps: int = 6) -> list[int]:
    return np.concatenate(first(stream, steps)).tolist()


@pytest.mark.parametrize(
    ("fn", "guarantee"),
    [(from_start, "exact"), (Counter, "exact"), (lambda: Counter(), "exact"), (once, "at_most_once")],
)
def test_each_grade_gives_all_rows_in_order_and_promises_what_it_can(fn: Any, guarantee: str) -> None:
    stream = ub.from_generator(fn)
    assert stream.guarantee == guarantee
    assert rows_in(stream.batch(7)) == list(range(42))


@pytest.mark.parametrize("fn", [from_start, Counter, once])
def test_each_grade_resumes_twice_in_a_row(fn: Any) -> None:
    assert_resumes(ub.from_generator(fn).batch(7), 12)
    assert_resumes(ub.from_generator(fn).shuffle(10).batch(4), 12)
    assert_resumes(ub.from_generator(fn).shuffle(10).replay(20).batch(7), 8)


def test_without_batch_what_it_yields_is_the_batches_and_resumes() -> None:
    assert [len(b) for b in first(ub.from_generator(from_start), 4)] == [1, 2, 4, 3]
    assert_resumes(ub.from_generator(from_start), 8)


def test_a_function_with_start_is_asked_for_the_first_row_to_make() -> None:
    asked = []

    def rows(start: int = 0) -> Iterator[Any]:
        asked.append(start)
        yield from from_start(start)

    stream = ub.from_generator(rows).batch(4)
    with ub.Feed(stream) as feed:
        for _ in itertools.islice(feed.batches(), 5):
            feed.trained()
        state = feed.state_dict()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches()).tolist() == [20, 21, 22, 23]
    assert asked[0] == 0
    assert 16 <= asked[-1] <= 20


def test_a_start_without_default_is_no_other_required_parameter() -> None:
    def rows(start: int) -> Iterator[Any]:
        yield from from_start(start)

    assert rows_in(ub.from_generator(rows).batch(5), 3) == list(range(15))
    assert ub.from_generator(rows).batch(4).batch_at(1000).tolist() == [4000, 4001, 4002, 4003]


def test_an_iterator_with_state_is_put_back_and_not_run_up() -> None:
    made = []

    class Noted(Counter):
        def __next__(self) -> Any:
            rows = super().__next__()
            made.append(int(rows[0]))
            return rows

    class Ticks(Runtime):
        """A clock on which each row takes as long as a state: how often one is taken depends on nothing else."""

        def __init__(self) -> None:
            self.ticks = itertools.count()

        def monotonic(self) -> float:
            return float(next(self.ticks))

    stream = ub.from_generator(Noted).batch(3)
    with ub.Feed(stream, runtime=Ticks()) as feed:
        for _ in itertools.islice(feed.batches(), 500):
            feed.trained()
        state = feed.state_dict()
    made.clear()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches()).tolist() == [1500, 1501, 1502]
    assert made[0] > 1000


def test_the_state_that_was_taken_is_not_changed_by_the_iterator() -> None:
    class Shared(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.inner = {"i": 0}

        def __next__(self) -> Any:
            rows = super().__next__()
            self.inner["i"] = self.i
            return rows

        def state_dict(self) -> dict[str, int]:
            return self.inner

    assert_resumes(ub.from_generator(Shared).batch(4), 6)


def finite(n: int, fn: Any = from_start) -> Any:
    def some() -> Iterator[Any]:
        yield from (np.arange(3 * i, 3 * i + 3) for i in range(n))

    return some


def test_an_end_that_nobody_declared_says_how_many_rows_came_and_what_to_write() -> None:
    def sensor() -> Iterator[Any]:
        yield np.arange(1024)
        yield np.arange(6)

    def forward(start: int = 0) -> Iterator[Any]:
        yield np.arange(start, 1030)

    for fn in (sensor, forward):
        with (
            ub.Feed(ub.from_generator(fn).batch(10)) as feed,
            pytest.raises(ub.StreamError, match=rf"{fn.__name__}\(\) ended after 1,030 rows.*passes=1"),
        ):
            train_all(feed)
        assert feed._trained == 103


def test_passes_repeats_the_function_and_then_ends() -> None:
    batches = first(ub.from_generator(finite(3), passes=2).batch(7), 99)
    assert [len(b) for b in batches] == [7, 7, 4]
    assert np.concatenate(batches).tolist() == [*range(9), *range(9)]


def test_passes_with_start_counts_the_rows_of_the_pass() -> None:
    def forward(start: int = 0) -> Iterator[Any]:
        for i in range(start, 10):
            yield np.array([i])

    stream = ub.from_generator(forward, passes=3).batch(4)
    assert np.concatenate(first(stream, 99)).tolist() == [*range(10)] * 3
    assert_resumes(stream, 8)


def test_passes_with_state_resumes() -> None:
    class Ending(Counter):
        def __next__(self) -> Any:
            if self.i >= 12:
                raise StopIteration
            return super().__next__()

    stream = ub.from_generator(Ending, passes=3).batch(5)
    assert np.concatenate(first(stream, 99)).tolist() == [*range(12)] * 3
    assert_resumes(stream, 8)


def test_passes_of_one_that_cannot_go_back_resumes() -> None:
    assert_resumes(ub.from_generator(finite(11), passes=3).shuffle(20).batch(7), 14)


def test_a_generator_object_is_refused_with_the_lambda_to_write() -> None:
    def readings(port: int) -> Iterator[Any]:
        yield np.zeros(port)

    with pytest.raises(TypeError, match=r"already running.*ub\.from_generator\(lambda: readings\(…\)\)"):
        ub.from_generator(readings(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ub\.from_samples\(readings\)"):
        ub.from_samples(readings(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="already running"):
        ub.from_generator(iter([np.zeros(3)]))  # type: ignore[arg-type]


def test_other_required_parameters_are_refused_with_the_lambda_to_write() -> None:
    def readings(port: int, baud: int, start: int = 0) -> Iterator[Any]:
        yield np.zeros(port)

    with pytest.raises(
        TypeError, match=r"requires port, baud.*ub\.from_generator\(lambda: readings\(port=…, baud=…\)\)"
    ):
        ub.from_generator(readings)
    with pytest.raises(TypeError, match="takes a function"):
        ub.from_generator(5)  # type: ignore[arg-type]
    assert rows_in(ub.from_generator(functools.partial(lambda n: from_start(0), 3)).batch(2), 2) == [0, 1, 2, 3]


X = {"x": np.zeros((4, 2), np.float32), "y": np.zeros(4, int)}


@pytest.mark.parametrize(
    ("later", "sentence"),
    [
        ({"x": X["x"]}, r"leaf \['y'\] is missing"),
        ({**X, "z": X["y"]}, r"leaf \['z'\] is new"),
        ({**X, "x": X["x"].astype(float)}, r"leaf \['x'\] is now float64 and was float32"),
        ({**X, "x": X["x"][:, :1]}, r"leaf \['x'\] has rows of shape \(1,\) and they had \(2,\)"),
        ({**X, "x": X["x"][:2]}, r"leaf \['x'\] has 2 rows and leaf \['y'\] has 4"),
        ({"x": 3.0, "y": 5}, r"leaf \['x'\] has no rows .*ub\.from_samples"),
    ],
)
@pytest.mark.parametrize("with_start", [False, True])
def test_rows_that_change_name_the_row_and_the_leaf(later: Any, sentence: str, with_start: bool) -> None:
    def sensor() -> Iterator[Any]:
        yield X
        yield X
        while True:
            yield later

    def forward(start: int = 0) -> Iterator[Any]:
        yield from sensor()

    fn = forward if with_start else sensor
    with (
        ub.Feed(ub.from_generator(fn).batch(4)) as feed,
        pytest.raises(ub.RowsError, match=rf"Row 8 of {fn.__name__}\(\): {sentence}"),
    ):
        train_all(feed)
    assert feed._trained == 2


def test_blocks_without_rows_are_passed_over() -> None:
    def sensor() -> Iterator[Any]:
        for i in itertools.count():
            yield np.arange(i, i + i % 2)

    assert rows_in(ub.from_generator(sensor).batch(2), 2) == [1, 3, 5, 7]


def squares(start: int = 0) -> Iterator[Any]:
    while True:
        yield {"x": start, "y": (float(start) ** 2, np.full(2, start))}
        start += 1


def test_single_samples_become_rows_and_resume() -> None:
    stream = ub.from_samples(squares).batch(5)
    second = first(stream, 2)[1]
    assert second["x"].tolist() == [5, 6, 7, 8, 9]
    assert second["y"][1].shape == (5, 2)
    assert_resumes(stream, 10)


def test_single_samples_that_change_name_the_sample() -> None:
    def sensor() -> Iterator[Any]:
        yield from (1.0, 2.0, 3.0)
        yield np.zeros(2)

    with (
        ub.Feed(ub.from_samples(sensor).batch(3)) as feed,
        pytest.raises(ub.RowsError, match=r"Sample 3 of sensor\(\): .* shape \(2,\)"),
    ):
        train_all(feed)
    assert feed._trained == 1


def test_samples_that_came_before_a_failure_are_not_lost() -> None:
    def sensor() -> Iterator[Any]:
        yield from (1, 2, 3)
        raise RuntimeError("the cable")

    seen: list[int] = []
    with ub.Feed(ub.from_samples(sensor).batch(1)) as feed, pytest.raises(RuntimeError, match="the cable"):
        train_all(feed, seen)
    assert seen == [1, 2, 3]


def test_a_function_that_fails_is_asked_again_from_where_it_stood() -> None:
    failed = []

    def rows(start: int = 0) -> Iterator[Any]:
        for i in itertools.count(start):
            if i == 7 and not failed:
                failed.append(i)
                raise OSError("once")
            yield np.array([i])

    seen: list[int] = []
    with ub.Feed(ub.from_generator(rows).batch(2)) as feed:
        with pytest.raises(OSError, match="once"):
            train_all(feed, seen)
        feed.trained()
        for batch in itertools.islice(feed.batches(), 3):
            seen += batch.tolist()
    assert seen == list(range(12))


def test_the_ids_come_once_each_through_a_chain() -> None:
    def rows(start: int = 0) -> Iterator[Any]:
        for block in from_start(start):
            yield {"id": block}

    seen = first_ids(ub.from_generator(rows).shuffle(10).batch(10), 20)
    assert sorted(seen) == list(range(200))


class Consumer:
    """A client that opens a connection when it is made."""

    opened = 0
    closed = 0

    def __init__(self) -> None:
        Consumer.opened += 1
        self.i = 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        self.i += 1
        return np.arange(4)

    def close(self) -> None:
        Consumer.closed += 1


class KeptConsumer(Consumer):
    def state_dict(self) -> Any:
        return {"i": self.i}

    def load_state_dict(self, state: Any) -> None:
        self.i = state["i"]


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("kind", [Consumer, KeptConsumer])
def test_to_look_at_what_a_function_returns_opens_no_second_connection(kind: Any, looked: bool) -> None:
    Consumer.opened = Consumer.closed = 0
    stream = ub.from_generator(lambda: kind()).batch(4)
    if looked:
        assert stream.guarantee == ("exact" if kind is KeptConsumer else "at_most_once")
        stream.describe()
    with ub.Feed(stream, require="at_most_once") as feed:
        next(feed.batches())
    assert (Consumer.opened, Consumer.closed) == (1, 1)
    with ub.Feed(stream) as feed:
        next(feed.batches())
    assert (Consumer.opened, Consumer.closed) == (2, 2)


def test_what_was_opened_and_never_read_is_closed_with_the_feed() -> None:
    Consumer.opened = Consumer.closed = 0
    with ub.Feed(ub.from_generator(lambda: Consumer()).batch(4)):
        pass
    assert Consumer.opened == Consumer.closed


@pytest.mark.parametrize("made", [{"x": 1.0}, "text", b"bytes", np.zeros((3, 2)), 5, None])
def test_a_function_that_returns_rows_in_place_of_yielding_them_is_told_so(made: Any) -> None:
    def sensor(start: int = 0) -> Any:
        return made

    for fn in (sensor, lambda: made):
        with pytest.raises(TypeError, match=r"which returned a .*Expected a function that yields"):
            ub.Feed(ub.from_generator(fn).batch(2)).peek()
    if not isinstance(made, np.ndarray):
        with pytest.raises(TypeError, match="that yields one sample"):
            ub.Feed(ub.from_samples(sensor).batch(2)).peek()


@pytest.mark.parametrize("grade", ["start", "state", "live"])
def test_blocks_without_rows_for_ever_leave_the_feed_to_look_and_to_end(grade: str) -> None:
    class Empty(Counter):
        def __next__(self) -> Any:
            return np.arange(0)

    def start(start: int = 0) -> Any:
        return Empty()

    fn: Any = {"start": start, "state": Empty, "live": lambda: itertools.repeat(np.arange(0))}[grade]
    with ub.Feed(ub.from_generator(fn).batch(2)) as feed:
        for _ in range(3):
            assert feed._reader.read() is None
        feed.interrupt()
        assert list(feed.batches()) == []


@pytest.mark.parametrize("who", ["another thread", "a signal handler"])
def test_a_feed_may_be_closed_while_its_generator_runs(who: str) -> None:
    closed = threading.Event()

    def rows(start: int = 0) -> Iterator[Any]:
        try:
            while True:
                yield np.arange(start, start + 4)
                start += 4
                if start == 12:
                    close()
        finally:
            closed.set()

    feed = ub.Feed(ub.from_generator(rows).batch(4))

    def close() -> None:
        if who == "another thread":
            thread = threading.Thread(target=feed.close)
            thread.start()
            thread.join()
        else:
            before = signal.signal(signal.SIGTERM, lambda number, frame: feed.close())
            signal.raise_signal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)

    with pytest.raises(ub.StreamError, match="closed"):
        train_all(feed)
    assert closed.is_set()
