"""replay: each recent row about `reuse` times, with an exact ratio from the first row on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import blocks, first, table
from unbounded.stages.replay import Draw, Replay
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def numbered(n: int = 10**9) -> ub.Stream:
    def rows(start: int = 0) -> Any:
        while True:
            yield np.arange(start, start + 50)
            start += 50

    return ub.from_generator(rows)


def draw(capacity: int, **given: Any) -> Draw:
    return Replay(capacity, **given).draw(1)


@pytest.mark.parametrize("reuse", [4.0, 1.0, 2.5, 0.3, 1 / 3, 16.0, 0.001, 0.00004])
def test_the_ratio_is_exact_from_the_first_row_on(reuse: float) -> None:
    d = draw(1000, reuse=reuse)
    for rows in [*range(200), 12_345, 10**6, 10**9]:
        assert abs(d.due(rows) - rows * reuse) <= 1 + 1e-4 * rows * reuse
        if d.due(rows):
            assert d.newest(d.due(rows) - 1) < rows
        assert d.newest(d.due(rows)) >= rows
    # And so it is at work.
    rows_in = rows_out = 0
    for block in blocks(numbered().take(3000).replay(100, reuse=reuse)):
        rows_out += block.count
        rows_in = 3000
    assert rows_out == d.due(rows_in)


@pytest.mark.parametrize("reuse", [4.0, 16.0, 1.0])
def test_each_row_is_used_about_as_often_as_asked_for(reuse: float) -> None:
    capacity, rows = 500, 20_000
    d = draw(capacity, reuse=reuse)
    uses = np.bincount(d.rows(0, d.due(rows)), minlength=rows)[capacity : rows - capacity]
    assert abs(uses.mean() - reuse) < 0.05 * reuse
    assert uses.std() < 0.8 * np.sqrt(reuse)  # independent draws would have the root
    assert uses.max() <= reuse * 3 + 7
    if reuse >= 4:
        assert (uses > 0).mean() > 0.97


@pytest.mark.parametrize("half_life", [None, 50.0])
def test_no_row_is_older_than_the_capacity_nor_newer_than_what_came(half_life: float | None) -> None:
    d = draw(100, reuse=3.0, half_life=half_life)
    ordinals = np.arange(5000)
    age = d.newest(ordinals) - d.rows(0, 5000)
    assert (age >= 0).all()
    assert (age < 100).all()
    assert (d.rows(0, 5000) >= 0).all()
    for i in range(0, 5000, 97):
        assert d.rows(i, 5000).min() >= d.oldest(i)


def test_a_half_life_favours_the_new_and_none_is_uniform() -> None:
    ordinals = np.arange(20_000, 60_000)
    even, new = draw(1000, reuse=4.0), draw(1000, reuse=4.0, half_life=100.0)
    assert abs(np.median(even.newest(ordinals) - even.rows(20_000, 60_000)) - 500) < 20
    age = new.newest(ordinals) - new.rows(20_000, 60_000)
    assert abs(np.median(age) - 100) < 5
    # Twice the half life: a quarter is older.
    assert abs((age >= 200).mean() - 0.25) < 0.02


def test_an_output_row_is_a_function_of_the_seed_and_its_number() -> None:
    d = draw(300, reuse=2.5, half_life=40.0)
    whole = d.rows(0, 5000)
    for a, b in ((0, 1), (1000, 1030), (1023, 2049), (4999, 5000)):
        assert (d.rows(a, b) == whole[a:b]).all()
    assert (Replay(300, 2.5, 40.0, seed=1).draw(1).rows(0, 5000) != whole).any()
    assert (Replay(300, 2.5, 40.0).draw(2).rows(0, 5000) != whole).any()


def test_memory_is_bounded_by_the_capacity() -> None:
    opened = numbered().replay(200, reuse=2.0).batch(8).open()
    node: Any = opened.top._upstream  # type: ignore[attr-defined]
    for _ in range(500):
        opened.top.pull(None)
    assert len(node._ring) <= 200 + node._slack
    assert node._held.count == 0
    assert len(node._held._cursors) <= 65
    opened.top.close()


def test_what_comes_out_are_the_rows_that_were_drawn() -> None:
    d = draw(40, reuse=2.0)
    got = np.concatenate(first(numbered().replay(40, reuse=2.0).batch(25), 80))
    assert (got == d.rows(0, 2000)).all()


def test_a_break_goes_on_once_after_all_that_was_due_before_it() -> None:
    seen: list[Any] = []
    for block in blocks(table(50, shuffle=False, passes=3).replay(20, reuse=2.0)):
        seen += block.rows["id"].tolist() if block.count else []
        seen += ["pass"] if block.boundary else []
    assert [i for i, x in enumerate(seen) if x == "pass"] == [100, 201, 302]


def test_the_recent_rows_may_be_of_the_pass_before() -> None:
    counts = Counter(
        np.concatenate([b["id"] for b in first(table(50, passes=20).replay(1000, reuse=2.0).batch(50), 40)]).tolist()
    )
    assert min(counts.values()) > 10


def test_what_a_step_contains_can_be_told() -> None:
    stream = table(50).replay(30, reuse=2.5, half_life=9).batch(6)
    for step, batch in enumerate(first(stream, 40)):
        assert_same_rows(stream.batch_at(step), batch)
    far = stream.batch_at(10**12)
    assert_same_rows(far, stream.batch_at(10**12))


@pytest.mark.parametrize(
    "given", [{"reuse": 3}, {"reuse": 0.3}, {"reuse": 2.5, "half_life": 5}, {"reuse": 1}, {"reuse": 20}]
)
@pytest.mark.parametrize("passes", [None, 3])
def test_it_resumes(given: dict[str, float], passes: int | None) -> None:
    assert_resumes(table(60, passes=passes).replay(30, **given).batch(7), 8)
    assert_resumes(table(60, passes=passes).filter(lambda r: r["id"] < 50).replay(30, **given).batch(4), 5)


@pytest.mark.parametrize(
    ("capacity", "reuse", "most"), [(5000, 4.0, 0.8), (500, 4.0, 1.1), (5000, 16.0, 0.9), (50, 4.0, 1.1)]
)
def test_rows_are_used_far_more_evenly_than_by_independent_draws(capacity: int, reuse: float, most: float) -> None:
    d = draw(capacity, reuse=reuse)
    rows = 8 * capacity
    uses = np.bincount(d.rows(0, d.due(rows)), minlength=rows)[capacity : rows - capacity]
    assert uses.std() < most  # independent draws: the root of `reuse`


def test_no_row_comes_out_before_enough_have_come_in_and_the_ratio_counts_from_there() -> None:
    d = draw(100, reuse=2.5, start_after=60)
    assert [d.due(n) for n in (0, 1, 59, 60, 61, 62, 160)] == [0, 0, 0, 2, 5, 7, 252]
    for rows in range(59, 300):
        if d.due(rows):
            assert d.newest(d.due(rows) - 1) < rows
        assert d.newest(d.due(rows)) >= rows
    seen = blocks(numbered().take(400).replay(100, reuse=2.5, start_after=60))
    assert sum(block.count for block in seen) == d.due(400)
    assert draw(100, start_after=0).due(7) == draw(100, start_after=1).due(7) == 28


def test_a_buffer_that_may_fill_first_uses_no_row_many_times_over() -> None:
    # Without it, the first row is nearly alone in the buffer for a while.
    for start_after, most in ((0, 150), (100, 24)):
        d = draw(100, reuse=16.0, start_after=start_after)
        uses = np.bincount(d.rows(0, d.due(2000)), minlength=2000)
        assert (uses.max() > 60) == (start_after == 0)
        assert uses.max() <= most
        assert abs(uses[100:1900].mean() - 16) < 0.1


@pytest.mark.parametrize("start_after", [1, 40, 100])
def test_a_delayed_start_resumes_before_and_after_it(start_after: int) -> None:
    stream = numbered().replay(100, reuse=3, start_after=start_after).batch(8)
    assert_resumes(stream, 16)
    assert_resumes(table(30).replay(20, reuse=2, start_after=min(start_after, 20)).batch(4), 16)
    for step in (0, 3, 50):
        assert_same_rows(stream.batch_at(step), first(stream, step + 1)[step])
    # Put back before the first row has come out.
    with ub.Feed(stream) as feed:
        feed._reader.read()
        state = feed.state_dict()
        expected = next(feed.batches()).tolist()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches()).tolist() == expected


def test_when_it_starts_is_part_of_what_the_stream_is() -> None:
    prints = {numbered().replay(100, start_after=n).fingerprint for n in (0, 50, 100)}
    assert len(prints) == 3
    assert "start_after=50" in repr(numbered().replay(100, start_after=50))


@pytest.mark.parametrize(
    ("given", "sentence"), [(101, "holds 100 rows.*start_after=100"), (-1, "at least 0"), (1.5, "a whole number")]
)
def test_a_start_that_cannot_be_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        numbered().replay(100, start_after=given)
