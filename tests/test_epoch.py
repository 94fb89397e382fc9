"""Epoch: the first bound that is reached ends it, after at least one batch; the data never starts over."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import Steps, ids, table
from unbounded.testing import Clock

pytestmark = pytest.mark.usefixtures("no_threads_left")


def lengths(stream: ub.Stream, epoch: ub.Epoch, epochs: int) -> list[int]:
    with ub.Feed(stream, epoch=epoch) as feed:
        return [len(list(run)) for run in feed.epochs(epochs)]


def test_epochs_of_steps_are_exact_and_the_data_goes_on() -> None:
    seen = []
    with ub.Feed(table(10, shuffle=False).batch(4), epoch=ub.Epoch(steps=3)) as feed:
        for epoch in feed.epochs(3):
            seen.append([i for b in epoch for i in ids(b)])
        assert [len(epoch) for epoch in seen] == [12, 12, 12]
    assert list(itertools.chain(*seen)) == [i % 10 for i in range(36)]


def test_an_epoch_of_rows_ends_with_the_batch_that_reaches_them() -> None:
    assert lengths(table(100).batch(32), ub.Epoch(rows=100), 4) == [4, 4, 4, 4]
    assert lengths(table(100).batch(32), ub.Epoch(rows=96), 3) == [3, 3, 3]
    assert lengths(table(100).batch(32), ub.Epoch(rows=1), 3) == [1, 1, 1]


def test_25_epochs_of_one_pass_over_1000_rows_in_batches_of_48_are_521_batches() -> None:
    found = lengths(table(1000).batch(48), ub.Epoch(passes=1), 25)
    assert sum(found) == 521
    assert set(found) == {20, 21}


@pytest.mark.parametrize("passes", [0.5, 1.5, 0.1, 3])
def test_passes_may_be_fractions_and_are_carried(passes: float) -> None:
    found = lengths(table(1000).batch(48), ub.Epoch(passes=passes), 10)
    assert sum(found) == -(-int(10 * passes * 1000) // 48)


def test_passes_are_carried_over_a_restart() -> None:
    stream, epoch = table(1000).batch(48), ub.Epoch(passes=1)
    found: list[int] = []
    state: Any = None
    for until in range(1, 26):
        with ub.Feed(stream, epoch=epoch) as feed:
            if state:
                feed.load_state_dict(state)
            for run in feed.epochs(until):
                assert run.number == until - 1
                found.append(len(list(run)))
            state = feed.state_dict()
    assert sum(found) == 521


def test_passes_of_a_stream_whose_rows_are_not_counted_beforehand_follow_its_breaks() -> None:
    stream = table(100).filter(lambda r: r["id"] % 4 != 3).batch(20)
    found = lengths(stream, ub.Epoch(passes=1), 8)
    assert sum(found) == 30
    assert set(found) == {3, 4}


def test_a_batch_larger_than_a_pass_makes_epochs_of_one_step() -> None:
    assert lengths(table(10).batch(32), ub.Epoch(passes=1), 6) == [1] * 6


def test_seconds_are_those_of_the_clock_waiting_included() -> None:
    clock = Clock()
    found = []
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(seconds=10), runtime=clock) as feed:
        for run in feed.epochs(3):
            steps = 0
            for _ in run:
                clock.advance(2.5)
                steps += 1
            found.append(steps)
            clock.advance(100.0)  # validation, say: it is in no epoch
    assert found == [4, 4, 4]


def test_an_epoch_of_seconds_ends_while_the_model_waits() -> None:
    clock = Clock()
    steps = Steps()
    steps.give(np.arange(4))
    with ub.Feed(steps.stream().batch(4), epoch=ub.Epoch(seconds=10), runtime=clock) as feed:
        run = next(feed.epochs(1))
        batches = iter(run)
        next(batches)
        clock.advance(11.0)
        assert list(batches) == []
        steps.end()


def test_no_epoch_ends_before_one_batch_was_trained() -> None:
    clock = Clock()
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(seconds=0.001), runtime=clock) as feed:
        for run in feed.epochs(3):
            count = 0
            for _ in run:
                clock.advance(5)
                count += 1
            assert count == 1


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (ub.Epoch(steps=5, rows=12), 3),
        (ub.Epoch(steps=2, rows=12), 2),
        (ub.Epoch(steps=50, passes=1), 25),
        (ub.Epoch(rows=41, passes=1, seconds=1000), 11),
        (ub.Epoch(steps=9, rows=90, passes=5, seconds=5.0), 5),
    ],
)
def test_the_first_bound_that_is_reached_ends_it(epoch: ub.Epoch, expected: int) -> None:
    clock = Clock()
    with ub.Feed(table(100).batch(4), epoch=epoch, runtime=clock) as feed:
        count = 0
        for _ in next(feed.epochs(1)):
            clock.advance(1.0)
            count += 1
    assert count == expected


def test_epochs_of_changing_length_are_exact() -> None:
    seen, found = [], []
    with ub.Feed(table(7, shuffle=False).batch(1), epoch=ub.Epoch(steps=3)) as feed:
        wanted = iter([5, 2, 6])
        for run in feed.epochs(4):
            batch = [ids(b)[0] for b in run]
            found.append(len(batch))
            seen += batch
            if (steps := next(wanted, None)) is not None:
                feed.epoch = ub.Epoch(steps=steps)
    assert found == [3, 5, 2, 6]
    assert seen == [i % 7 for i in range(16)]


def test_a_declared_end_inside_an_epoch_gives_a_short_last_batch_and_no_empty_epoch() -> None:
    found = []
    with ub.Feed(table(10, passes=2).batch(4), epoch=ub.Epoch(steps=3)) as feed:
        for run in feed.epochs(10):
            found.append([len(ids(b)) for b in run])
        assert feed.epoch_number == 2
    assert found == [[4, 4, 4], [4, 4]]
    assert lengths(table(10, passes=2).batch(8), ub.Epoch(steps=2), 10) == [2, 1]
    # The end falls on an epoch's end.
    assert lengths(table(10, passes=2).batch(5), ub.Epoch(steps=2), 10) == [2, 2]
    assert lengths(table(10, passes=2).batch(5), ub.Epoch(passes=1), 10) == [2, 2]


@given(
    st.integers(1, 60), st.integers(1, 20), st.integers(1, 7), st.sampled_from([0.3, 0.5, 1, 1.7, 2]), st.integers(0, 5)
)
@settings(max_examples=30)
def test_epochs_hold_their_bounds_whatever_the_sizes(n: int, size: int, steps: int, passes: float, cut: int) -> None:
    for epoch in (ub.Epoch(steps=steps), ub.Epoch(passes=passes), ub.Epoch(rows=steps * 3)):
        stream = table(n).batch(size)
        whole = lengths(stream, epoch, 6)
        assert min(whole) >= 1
        if epoch.steps:
            assert whole == [steps] * 6
        if epoch.rows:
            assert whole == [-(-epoch.rows // size)] * 6
        # Stopped in the middle of an epoch and gone on with, the epochs are the same.
        stop = min(cut, sum(whole) - 1)
        with ub.Feed(stream, epoch=epoch) as feed:
            found = []
            for run in feed.epochs(6):
                found.append(len(list(itertools.islice(run, max(0, stop - sum(found))))))
                if sum(found) >= stop:
                    break
            feed.trained()
            state = feed.state_dict()
        with ub.Feed(stream, epoch=epoch) as feed:
            feed.load_state_dict(state)
            later = {run.number: len(list(run)) for run in feed.epochs(6)}
        done = dict(enumerate(found))
        # Whether an epoch that is full was over when it was left is up to who left it.
        total = [done.get(i, 0) + later.get(i, 0) for i in range(6)]
        assert sum(total) == sum(whole), (total, whole)


def test_it_shows_its_bounds() -> None:
    assert repr(ub.Epoch(steps=3, seconds=1.5)) == "Epoch(steps=3, seconds=1.5)"
