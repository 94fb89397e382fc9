"""Loops over a feed: however one is left, the next begins with the first batch that was not trained on."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import Steps, ids, table
from unbounded.testing import Clock, shaken

pytestmark = pytest.mark.usefixtures("no_threads_left")

STREAMS: dict[str, ub.Stream] = {
    "batch": table(1000, shuffle=False).batch(10),
    "shuffle and prefetch": table(1000, seed=3).shuffle(30).batch(10).prefetch(2),
    "map after batch": table(1000, seed=3).batch(10).map(lambda rows: rows),
    "blocks": ub.from_generator(lambda: (np.arange(i, i + 10) for i in itertools.count(0, 10))),
    "live": ub.from_generator(lambda: (np.arange(i, i + 7) for i in itertools.count(0, 7))).batch(10),
}


class Ticking(Clock):
    """Time that goes on whenever it is looked at."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return super().monotonic()


class Stop(Exception):
    """What a body raises."""


def first_of(batch: Any) -> int:
    return ids(batch)[0]


def expected(stream: ub.Stream, steps: int) -> list[int]:
    with ub.Feed(stream) as feed:
        return [first_of(batch) for batch in itertools.islice(feed.batches(), steps)]


# -- ways to train on some batches and to leave the loop in the middle of a batch ------------------------------------


def _raises(loop: Callable[[], Iterator[Any]], trained: list[int], steps: int, error: type[BaseException]) -> None:
    for i, batch in enumerate(loop()):
        if i == steps:
            raise error
        trained.append(first_of(batch))


def by_exception(feed: ub.Feed, trained: list[int], steps: int) -> None:
    with pytest.raises(Stop):
        _raises(feed.batches, trained, steps, Stop)


def by_keyboard(feed: ub.Feed, trained: list[int], steps: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        _raises(feed.batches, trained, steps, KeyboardInterrupt)


def by_exception_in_epochs(feed: ub.Feed, trained: list[int], steps: int) -> None:
    def train() -> None:
        for epoch in feed.epochs():
            _raises(lambda epoch=epoch: iter(epoch), trained, steps, Stop)

    with pytest.raises(Stop):
        train()


def by_exception_in_a_named_loop(feed: ub.Feed, trained: list[int], steps: int) -> None:
    batches = feed.batches()
    KEPT.append(batches)  # as a traceback or a notebook keeps it: the loop is never closed
    with pytest.raises(Stop):
        _raises(lambda: batches, trained, steps, Stop)


KEPT: list[Any] = []


def by_break(feed: ub.Feed, trained: list[int], steps: int) -> None:
    for i, batch in enumerate(feed.batches()):
        if i == steps:
            break
        trained.append(first_of(batch))


def by_breaking_twice(feed: ub.Feed, trained: list[int], steps: int) -> None:
    for epoch in feed.epochs():
        for i, batch in enumerate(epoch):
            if i == steps:
                break
            trained.append(first_of(batch))
        break


def by_a_break_of_the_feed(feed: ub.Feed, trained: list[int], steps: int) -> None:
    for i, batch in enumerate(feed):
        if i == steps:
            break
        trained.append(first_of(batch))


def by_next(feed: ub.Feed, trained: list[int], steps: int) -> None:
    batches = feed.batches()
    for _ in range(steps):
        trained.append(first_of(next(batches)))
    next(batches)


def by_zip(feed: ub.Feed, trained: list[int], steps: int) -> None:
    # zip asks the feed for one more than it gives.
    trained += [first_of(batch) for batch, _ in zip(feed.batches(), range(steps), strict=False)]


WAYS = [
    by_exception,
    by_keyboard,
    by_exception_in_epochs,
    by_exception_in_a_named_loop,
    by_break,
    by_breaking_twice,
    by_a_break_of_the_feed,
    by_next,
    by_zip,
]


def the_rest(feed: ub.Feed) -> list[int]:
    """What the epoch at hand still has, by `epochs`."""
    return [first_of(batch) for batch in next(feed.epochs())]


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("leave", WAYS)
def test_a_batch_that_was_left_comes_again_and_the_epoch_goes_on_in_its_middle(
    name: str, leave: Callable[[ub.Feed, list[int], int], None]
) -> None:
    wanted = expected(STREAMS[name], 16)
    for steps in (0, 3, 7):
        trained: list[int] = []
        with ub.Feed(STREAMS[name], epoch=ub.Epoch(steps=8)) as feed:
            leave(feed, trained, steps)
            assert feed.steps == steps == len(trained)
            assert (feed.outstanding, feed.epoch_number) == (1, 0)
            assert feed.position.steps == steps
            trained += the_rest(feed)
            assert trained == wanted[:8]
            assert feed.stats.in_doubt == 1
            trained += [first_of(batch) for batch in feed]
            assert trained == wanted
            assert (feed.steps, feed.stats.in_doubt) == (16, 1)
        KEPT.clear()


@pytest.mark.parametrize("leave", [by_exception, by_break, by_next, by_exception_in_a_named_loop])
@pytest.mark.parametrize("again", [lambda f: f.batches(), iter, lambda f: iter(next(f.epochs()))])
def test_every_kind_of_loop_takes_back_what_another_left(leave: Any, again: Any) -> None:
    trained: list[int] = []
    with ub.Feed(table(100, shuffle=False).batch(10), epoch=ub.Epoch(steps=8)) as feed:
        leave(feed, trained, 4)
        if leave in (by_exception, by_break):
            assert first_of(feed.peek()) == 40  # the position and the next batch agree
        trained += [first_of(batch) for batch in again(feed)]
        assert trained == list(range(0, 80, 10))
        KEPT.clear()


def test_a_loop_that_is_left_again_and_again_loses_nothing() -> None:
    trained: list[int] = []
    with ub.Feed(table(100, shuffle=False).batch(10), epoch=ub.Epoch(steps=100)) as feed:
        for i in range(9):
            WAYS[i](feed, trained, i)
        assert trained == [10 * i % 100 for i in range(36)]
        assert feed.stats.in_doubt == 8
        KEPT.clear()


def test_of_two_loops_the_one_that_began_last_is_at_work_and_the_other_says_so() -> None:
    with ub.Feed(table(100, shuffle=False).batch(10)) as feed:
        one, other = feed.batches(), feed.batches()
        assert first_of(next(one)) == 0
        assert first_of(next(one)) == 10
        assert first_of(next(other)) == 10
        with pytest.raises(ub.StreamError, match="another loop over it began"):
            next(one)
        assert first_of(next(other)) == 20
        assert (feed.steps, feed.stats.in_doubt) == (2, 1)
        with pytest.raises(ub.StreamError, match="another loop"):
            list(zip(feed.batches(), feed.batches(), strict=False))


def test_an_old_loop_that_is_closed_late_leaves_the_new_ones_time_alone() -> None:
    clock = Clock()
    with ub.Feed(table(100).batch(10), runtime=clock) as feed:
        one, other = feed.batches(), feed.batches()
        next(one)
        next(other)
        clock.advance(2.0)
        one.close()  # type: ignore[attr-defined]
        clock.advance(3.0)
        next(other)
        assert feed.stats.worked == 5.0


@given(st.data())
@settings(max_examples=60)
def test_whatever_way_loops_are_left_each_batch_is_trained_once_in_order(data: st.DataObject) -> None:
    trained: list[int] = []
    steps = data.draw(st.integers(1, 7))
    feed = ub.Feed(table(70, shuffle=False).batch(7), epoch=ub.Epoch(steps=steps))
    wanted = [7 * i % 70 for i in range(400)]
    lengths: list[int] = []
    with feed:
        for _ in range(data.draw(st.integers(1, 6))):
            number = feed.epoch_number
            leave = data.draw(st.sampled_from([*WAYS, None]))
            if leave is None:
                left = steps * (number + 1) - feed.steps
                rest = [first_of(batch) for batch in feed]
                trained += rest
                lengths.append(len(rest))
                assert len(rest) == left
            else:
                leave(feed, trained, data.draw(st.integers(0, steps * (number + 1) - feed.steps - 1)))
            assert trained == wanted[: len(trained)]
            assert feed.steps == len(trained)
            assert feed.position.steps == feed.steps
        state = feed.state_dict() if feed.outstanding == 0 else None
        KEPT.clear()
    if state is not None:
        with ub.Feed(table(70, shuffle=False).batch(7), epoch=ub.Epoch(steps=steps)) as resumed:
            resumed.load_state_dict(state)
            assert first_of(next(resumed.batches())) == wanted[len(trained)]


# -- leaving an epoch on purpose -------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", [False, True])
def test_an_epoch_that_is_stopped_has_trained_its_last_batch(breaks: bool) -> None:
    seen: list[list[int]] = []
    with ub.Feed(table(1000, shuffle=False).batch(10), epoch=ub.Epoch(steps=8)) as feed:
        for epoch in feed.epochs(3):
            seen.append([])
            for batch in epoch:
                seen[-1].append(first_of(batch))
                if len(seen[-1]) == 3:
                    epoch.stop()
                    assert feed.outstanding == 0
                    if breaks:
                        break
            assert epoch.stats.steps == 3
        assert seen == [[0, 10, 20], [30, 40, 50], [60, 70, 80]]
        assert (feed.steps, feed.epoch_number, feed.stats.in_doubt) == (9, 3, 0)


def test_an_epoch_that_was_stopped_is_over_in_a_state_and_after_an_exception() -> None:
    stream = table(1000, shuffle=False).batch(10)
    with ub.Feed(stream, epoch=ub.Epoch(steps=8)) as feed:

        def train() -> None:
            for epoch in feed.epochs(3):
                for _ in itertools.islice(epoch, 2):
                    pass
                epoch.stop()
                raise Stop

        with pytest.raises(Stop):
            train()
        state = feed.state_dict()
        run = next(feed.epochs(3))
        assert (run.number, first_of(next(iter(run)))) == (1, 20)
    with ub.Feed(stream, epoch=ub.Epoch(steps=8)) as feed:
        feed.load_state_dict(state)
        run = next(feed.epochs(3))
        assert (run.number, [first_of(b) for b in run]) == (1, list(range(20, 100, 10)))


def test_an_epoch_that_is_over_can_not_be_stopped_or_iterated_over() -> None:
    with ub.Feed(table(1000).batch(10), epoch=ub.Epoch(steps=2)) as feed:
        runs = feed.epochs(2)
        one = next(runs)
        assert len(list(one)) == 2
        next(runs)
        with pytest.raises(ub.StreamError, match="Epoch 0 is over already"):
            one.stop()
        with pytest.raises(ub.StreamError, match=r"Epoch 0 is over: .*Iterate over each epoch in turn"):
            list(one)


def test_an_epoch_that_is_left_before_its_first_batch_is_an_error() -> None:
    with (
        ub.Feed(table(1000).batch(10), epoch=ub.Epoch(steps=2)) as feed,
        pytest.raises(ub.StreamError, match="Epoch 0 was left before its first batch"),
    ):
        list(feed.epochs(3))


# -- interrupting ----------------------------------------------------------------------------------------------------


def test_an_epoch_that_was_interrupted_goes_on_in_its_middle() -> None:
    seen: list[tuple[int, int]] = []
    with ub.Feed(table(1000, shuffle=False).batch(10), epoch=ub.Epoch(steps=5)) as feed:
        for _ in range(2):
            for epoch in feed.epochs(2):
                for batch in epoch:
                    seen.append((epoch.number, first_of(batch)))
                    if len(seen) == 3:
                        feed.interrupt()
            feed.resume()
        assert seen == [(i // 5, i * 10) for i in range(10)]
        assert feed.stats.in_doubt == 0


def test_an_interrupted_feed_does_not_say_that_the_stream_has_ended() -> None:
    steps = Steps()
    with ub.Feed(steps.stream().batch(4), epoch=ub.Epoch(steps=3)) as feed:
        feed.interrupt()
        with pytest.raises(ub.StreamError, match=r"interrupted before there was a batch.*feed\.resume\(\)"):
            feed.peek()
        assert list(feed.epochs(2)) == []
        feed.resume()
        steps.give(np.arange(8))
        assert first_of(feed.peek()) == 0
        steps.end()


# -- confirm="manual" ------------------------------------------------------------------------------------------------


def test_a_forgotten_trained_is_said_when_the_second_epoch_begins() -> None:
    stream = table(100, shuffle=False).batch(10)
    with ub.Feed(stream, epoch=ub.Epoch(steps=2), confirm="manual") as feed:
        runs = feed.epochs(3)
        assert [first_of(b) for b in next(runs)] == [0, 10]
        with pytest.raises(ub.StreamError, match=r"none of its 2 batches was confirmed.*feed\.trained\(\)"):
            next(runs)
        with pytest.raises(ub.StreamError, match=r"feed\.trained\(\)"):
            next(feed.epochs(3))
        feed.trained()
        assert [first_of(b) for b in next(feed.epochs(3))] == [20, 30]
    for loop in (lambda feed: feed.batches(), iter):
        with ub.Feed(stream, epoch=ub.Epoch(steps=2), confirm="manual") as feed:
            list(loop(feed))
            if feed.epoch_number == 0:
                feed.end_epoch()
            with pytest.raises(ub.StreamError, match=r"feed\.trained\(\)"):
                list(loop(feed))


def test_of_an_epoch_that_was_gone_on_with_in_its_middle_nothing_is_missed() -> None:
    stream = table(1000, shuffle=False).batch(10)
    with ub.Feed(stream, epoch=ub.Epoch(steps=6), confirm="manual") as feed:
        for _ in itertools.islice(feed.batches(), 5):
            feed.trained()
        state = feed.state_dict()
    with ub.Feed(stream, epoch=ub.Epoch(steps=6), confirm="manual") as feed:
        feed.load_state_dict(state)
        held: list[int] = []
        for epoch in feed.epochs(2):
            for batch in epoch:  # one is left of the first, and four are accumulated
                held.append(first_of(batch))
                if len(held) % 4 == 0:
                    feed.trained()
        assert held == list(range(50, 120, 10))


@pytest.mark.parametrize("name", STREAMS)
def test_gradients_accumulated_over_the_end_of_an_epoch_see_each_batch_once(name: str) -> None:
    wanted = expected(STREAMS[name], 44)
    with ub.Feed(STREAMS[name], epoch=ub.Epoch(steps=22), confirm="manual") as feed:
        handed: list[int] = []
        numbers = []
        for epoch in feed.epochs(2):
            for batch in epoch:
                handed.append(first_of(batch))
                numbers.append(epoch.number)
                if len(handed) % 4 == 0:
                    feed.trained()
                    assert feed.outstanding == 0
        assert handed == wanted
        assert numbers == [0] * 22 + [1] * 22
        assert (feed.steps, feed.outstanding, feed.stats.in_doubt) == (44, 0, 0)


def test_what_is_held_over_an_epochs_end_comes_again_after_a_restart_and_after_an_exception() -> None:
    stream = table(1000, shuffle=False).batch(10)
    epoch = ub.Epoch(steps=6)
    with ub.Feed(stream, epoch=epoch, confirm="manual") as feed:
        list(next(runs := feed.epochs(3)))
        feed.trained(4)
        run = next(runs)
        assert (feed.steps, feed.outstanding) == (4, 2)
        state = feed.state_dict()
        with pytest.raises(Stop):
            _raises(lambda: iter(run), [], 1, Stop)
        runs.close()  # type: ignore[attr-defined]
        run = next(feed.epochs(3))
        assert run.number == 1
        assert [first_of(b) for b in run] == list(range(40, 120, 10))  # the two, and six of its own
        assert feed.stats.in_doubt == 4
    with ub.Feed(stream, epoch=epoch, confirm="manual") as feed:
        feed.load_state_dict(state)
        run = next(feed.epochs(3))
        assert (run.number, [first_of(b) for b in run]) == (1, list(range(40, 120, 10)))


def test_stopping_by_hand_leaves_what_is_out_with_the_trainer() -> None:
    with ub.Feed(table(1000, shuffle=False).batch(10), epoch=ub.Epoch(steps=6), confirm="manual") as feed:
        runs = feed.epochs(2)
        run = next(runs)
        for i, _ in enumerate(run):
            if i == 2:
                run.stop()
        assert (feed.steps, feed.outstanding) == (0, 3)
        feed.trained(1)
        assert first_of(next(iter(next(runs)))) == 30
        assert feed.outstanding == 3


# -- a loop over the feed itself -------------------------------------------------------------------------------------


def test_a_loop_over_the_feed_is_an_epoch() -> None:
    with ub.Feed(table(100, shuffle=False).batch(10), epoch=ub.Epoch(steps=4)) as feed:
        assert [[first_of(b) for b in feed] for _ in range(3)] == [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 0, 10]]
        assert (feed.epoch_number, feed.steps) == (3, 12)
        assert str(feed.last_epoch) == "4 batches × 10 = 40 rows, 0.4 passes"


def test_epochs_need_no_number() -> None:
    with ub.Feed(table(100, shuffle=False).batch(10), epoch=ub.Epoch(steps=4)) as feed:
        for run in feed.epochs():
            assert len(list(run)) == 4
            if run.number == 20:
                break
        assert feed.steps == 84
    with ub.Feed(table(100, passes=1).batch(10), epoch=ub.Epoch(steps=4)) as feed:
        assert [len(list(run)) for run in feed.epochs()] == [4, 4, 2]


def test_without_an_epoch_a_loop_over_the_feed_goes_to_the_declared_end_or_says_what_is_missing() -> None:
    with ub.Feed(table(100, passes=2).batch(30)) as feed:
        assert len(feed) == 7
        assert len(list(feed)) == 7
        assert list(feed) == []
        assert feed.epoch_number == 1
    with ub.Feed(table(100).batch(30)) as feed, pytest.raises(ValueError, match=r"Epoch\(steps=1000\).*feed.batches"):
        iter(feed)


@pytest.mark.parametrize(
    ("stream", "epoch", "lengths"),
    [
        (table(100).batch(10), ub.Epoch(steps=7), [7, 7, 7]),
        (table(100).batch(32), ub.Epoch(rows=100), [4, 4, 4]),
        (table(100).batch(48), ub.Epoch(passes=1), [3, 2, 2, 2]),
        (table(100).batch(48), ub.Epoch(passes=1, steps=2), [2, 2, 2, 2]),
        (table(100).batch(300), ub.Epoch(passes=1), [1, 1, 1]),
        (table(100, passes=2).batch(48), ub.Epoch(steps=9), [5]),
        (table(100).take(250).batch(48), ub.Epoch(rows=200), [5, 1]),
        (table(100).windows(5).batch(10), ub.Epoch(passes=1), [10, 10, 9, 10]),
        (ub.from_generator(lambda: itertools.repeat(np.zeros(3))), ub.Epoch(steps=5), [5, 5]),
    ],
)
def test_a_feed_is_as_long_as_the_epoch_at_hand(stream: ub.Stream, epoch: ub.Epoch, lengths: list[int]) -> None:
    with ub.Feed(stream, epoch=epoch) as feed:
        for length in lengths:
            assert len(feed) == length
            assert len(list(feed)) == length


def test_in_the_middle_of_an_epoch_the_feed_has_its_whole_length_and_a_loop_that_of_the_rest() -> None:
    with ub.Feed(table(100).batch(10), epoch=ub.Epoch(steps=7)) as feed:
        list(itertools.islice(feed.batches(), 3))
        feed.trained()
        assert len(feed) == 7
        run = next(feed.epochs())
        assert len(run) == 4
        assert run
        assert len(list(run)) == 4


@pytest.mark.parametrize(
    ("stream", "epoch"),
    [
        (table(100).batch(10), None),
        (table(100).batch(10), ub.Epoch(seconds=7)),
        (table(100).filter(lambda r: r["id"] > 4).batch(10), ub.Epoch(passes=1)),
        (table(100, passes=2).filter(lambda r: r["id"] > 4).batch(10), ub.Epoch(steps=3)),
        (ub.from_generator(lambda: itertools.repeat(np.zeros(3))), ub.Epoch(rows=10)),
    ],
)
def test_a_feed_without_a_length_says_so_and_is_true_all_the_same(stream: ub.Stream, epoch: ub.Epoch | None) -> None:
    with ub.Feed(stream, epoch=epoch) as feed:
        with pytest.raises(TypeError, match=r"no length: .*Epoch\(steps=…\)"):
            len(feed)
        assert feed
        assert feed.length is None


def test_a_state_that_is_asked_for_in_a_loop_over_the_feed_takes_the_batch_at_hand_for_trained() -> None:
    stream = table(100, shuffle=False).batch(10)
    with ub.Feed(stream, epoch=ub.Epoch(steps=6)) as feed:
        for i, _ in enumerate(feed):
            if i == 2:
                state = feed.state_dict()
                break
        assert (feed.steps, feed.outstanding) == (3, 0)
    with ub.Feed(stream, epoch=ub.Epoch(steps=6)) as feed:
        feed.load_state_dict(state)
        assert [first_of(b) for b in feed] == [30, 40, 50]
        assert [first_of(b) for b in feed] == [60, 70, 80, 90, 0, 10]


def test_a_trainer_that_counts_by_the_length_trains_each_batch_once() -> None:
    with ub.Feed(table(1000, shuffle=False).batch(10), epoch=ub.Epoch(steps=6)) as feed:
        seen: list[int] = []
        loop: Any = None
        for _ in range(3):
            loop = iter(feed)
            seen += [first_of(next(loop)) for _ in range(len(feed))]
        assert seen == list(range(0, 180, 10))
        assert feed.stats.in_doubt == 0
        del loop


# -- what never comes ------------------------------------------------------------------------------------------------


def test_a_stream_that_ends_without_a_row_says_so() -> None:
    def nothing() -> Iterator[Any]:
        yield from ()

    uses: list[Callable[[ub.Feed], Any]] = [
        lambda feed: next(feed.epochs(1)),
        lambda feed: next(feed.batches()),
        lambda feed: list(feed),
        lambda feed: feed.peek(),
    ]
    for use in uses:
        with (
            ub.Feed(ub.from_generator(nothing, passes=1).batch(4), epoch=ub.Epoch(steps=2)) as feed,
            pytest.raises(ub.StreamError, match="ended without a row"),
        ):
            use(feed)
    with (
        ub.Feed(table(10, passes=1).filter(lambda r: r["id"] > 10).batch(2)) as feed,
        pytest.raises(ub.StreamError, match="ended without a row"),
    ):
        next(feed.batches())


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.filter(lambda r: r["id"] > 10).batch(2),
        lambda s: s.filter(lambda r: r["id"] > 3).windows(7).batch(2),
        lambda s: s.shuffle(3).filter(lambda r: r["id"] > 10).batch(2).prefetch(2),
        lambda s: s.filter(lambda r: r["id"] > 10),
    ],
)
def test_passes_that_give_no_batch_are_an_error_after_some_seconds_and_not_a_loop_without_end(words: Any) -> None:
    with ub.Feed(words(table(5)), runtime=Ticking()) as feed:
        for _ in range(2):
            with pytest.raises(ub.StreamError, match=r"passes over the rows have ended without a batch"):
                next(feed.batches())


def test_passes_that_give_a_batch_now_and_then_go_on() -> None:
    with ub.Feed(table(5).filter(lambda r: r["id"] == 4).batch(4)) as feed:
        assert [ids(b) for b in itertools.islice(feed.batches(), 3)] == [[4] * 4] * 3


def test_a_long_wait_is_said_once_with_what_is_waited_for_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    said: list[str | None] = []

    def numbers(start: int = 0) -> Iterator[Any]:
        while True:
            clock.advance(1.0)
            said.append(feed.waiting_for)
            yield np.arange(start, start + 5)
            start += 5

    stream = shaken(ub.from_generator(numbers).filter(lambda r: r >= 600).batch(5), stall=0.5, fail=0)
    with ub.Feed(stream, runtime=clock) as feed:
        assert ids(next(feed.batches())) == [600, 601, 602, 603, 604]
        assert feed.waiting_for is None
    assert said[0] is None
    assert said[-1] is not None
    messages = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(messages)
    waiting, again = messages
    assert re.match(r"No batch for 1\d seconds: numbers\(\) has given", waiting)
    assert ".filter(<lambda>)" in waiting
    assert again.startswith("Batches come again, after 1")
    assert waiting in said


def test_a_silent_source_is_named(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps()
    with ub.Feed(steps.stream().batch(4), epoch=ub.Epoch(seconds=60), runtime=Ticking()) as feed:
        steps.give(np.arange(4))
        for batch in feed:
            assert ids(batch) == [0, 1, 2, 3]
        assert feed.waiting_for is not None
        assert "from sensor(): waiting." in feed.waiting_for
        (said,) = [record.getMessage() for record in caplog.records]
        assert re.fullmatch(r"Nothing for 1\d seconds from sensor\(\): waiting\.", said)
        steps.give(np.arange(4))
        assert len(next(feed.batches())) == 4
        assert feed.waiting_for is None
        assert "Batches come again" in caplog.records[-1].getMessage()
        steps.end()


def test_a_declared_end_before_the_epochs_asked_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with ub.Feed(table(10, passes=3).batch(5), epoch=ub.Epoch(passes=1)) as feed:
        assert len([list(run) for run in feed.epochs(5)]) == 3
    assert "declared end in epoch 3 of the 5" in caplog.text
