"""shuffle: a random order within buffers, which close at the end of a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, first, first_ids, segments, table
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("rows", [1, 7, 30, 100, 1000])
def test_each_row_comes_once_in_each_pass(rows: int) -> None:
    stream = table(100, passes=3).shuffle(rows)
    assert [sorted(s["id"].tolist()) for s in segments(stream)] == [list(range(100))] * 3
    assert sorted(first_ids(stream.batch(20), 5)) == list(range(100))


def test_a_row_moves_within_its_buffer_alone() -> None:
    seen = np.array(first_ids(table(100, shuffle=False).shuffle(20).batch(20), 5)).reshape(5, 20)
    assert (np.sort(seen, axis=1).ravel() == np.arange(100)).all()
    assert (seen != np.arange(100).reshape(5, 20)).any(axis=1).all()


def test_no_two_buffers_passes_seeds_or_places_have_the_same_order() -> None:
    base = table(100, shuffle=False)
    orders = [
        *np.array(first_ids(base.shuffle(50).batch(50), 6)).reshape(6, 50) % 50,
        np.array(first_ids(base.shuffle(50, seed=1).batch(50), 1)) % 50,
        np.array(first_ids(base.map(lambda r: r).shuffle(50).batch(50), 1)) % 50,
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_a_buffer_that_holds_a_pass_makes_its_order_uniform() -> None:
    seen = np.array(first_ids(table(10, shuffle=False).shuffle(10).batch(10), 4000)).reshape(4000, 10)
    counts = np.array([np.bincount(column, minlength=10) for column in seen.T])
    assert abs(((counts - 400) ** 2 / 400).sum() - 81) < 4 * np.sqrt(162)


def test_a_gap_closes_the_buffer() -> None:
    def some() -> Any:
        yield np.arange(7)

    seen = [s.tolist() for s in segments(ub.from_generator(some, passes=3).shuffle(5))]
    assert [sorted(s) for s in seen] == [list(range(7))] * 3


def test_a_buffer_that_is_not_full_waits_and_hands_out_the_rest_at_a_declared_end() -> None:
    steps = Steps()
    steps.give(np.arange(8))
    with ub.Feed(steps.stream(passes=1).shuffle(20).batch(3)) as feed:
        assert feed._reader.read() is None
        steps.end()
        assert sorted(i for b in feed.batches() for i in b.tolist()) == list(range(8))


@pytest.mark.parametrize(("rows", "passes"), [(30, None), (300, None), (7, 2), (50, 2)])
def test_what_a_step_contains_can_be_told(rows: int, passes: int | None) -> None:
    stream = table(50, passes=passes).shuffle(rows, seed=4).batch(6)
    batches = first(stream, 30)
    for step, batch in enumerate(batches[:-1]):
        assert_same_rows(stream.batch_at(step), batch)


@pytest.mark.parametrize(
    "words", [lambda s: s.shuffle(30), lambda s: s.shuffle(300), lambda s: s.shuffle(30).shuffle(7)]
)
@pytest.mark.parametrize("passes", [None, 2])
def test_it_resumes(words: Any, passes: int | None) -> None:
    assert_resumes(words(table(80, passes=passes)).batch(7), 12)
    assert_resumes(words(table(80, passes=passes).filter(lambda r: r["id"] < 70)).batch(7), 6)


@pytest.mark.parametrize(("rows", "size"), [(1_000, 32), (5_000, 32), (40, 16), (30, 64)])
def test_batches_begin_on_a_boundary_of_64_bytes_where_their_length_allows_it(rows: int, size: int) -> None:
    data = np.arange(20_000, dtype=np.float32).reshape(5_000, 4)  # 16 bytes a row
    for batch in first(ub.from_arrays(data, shuffle=False).shuffle(rows).batch(size), 10_000 // size):
        assert batch.ctypes.data % 64 == 0
