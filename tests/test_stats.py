"""Stats of a run, and of a part of it."""

from __future__ import annotations

from unbounded.feed.stats import Stats


def test_they_read_as_a_sentence() -> None:
    assert str(Stats(steps=1000, rows=32_000, passes=3.2)) == "1,000 batches × 32 = 32,000 rows, 3.2 passes"
    assert str(Stats(steps=3, rows=10, passes=1.0)) == "3 batches, 10 rows, 1 pass"
    assert str(Stats(steps=1, rows=7)) == "1 batch × 7 = 7 rows"


def test_what_happened_after_a_moment_is_the_difference() -> None:
    more = Stats(steps=5, rows=20, passes=2.0, fetched=60, waited=3.0).since(
        Stats(steps=2, rows=8, passes=0.5, waited=1.0)
    )
    assert (more.steps, more.rows, more.passes, more.fetched, more.waited) == (3, 12, 1.5, 60, 2.0)


def test_rows_that_a_resumed_run_fetches_again_are_not_fewer_than_none() -> None:
    # Before the kill 100 rows were fetched for 40 trained; the resumed run stands at 60 fetched.
    more = Stats(rows=44, fetched=60).since(Stats(rows=40, fetched=100))
    assert more.fetched == 0
    assert more.reuse is None
    assert "reuse" not in more.logs()


def test_shares_and_means_are_of_what_there_was() -> None:
    stats = Stats(rows=40, fetched=10, waited=1.0, worked=3.0, aged=20.0, aged_rows=40)
    assert (stats.reuse, stats.waiting, stats.age) == (4.0, 0.25, 0.5)
    assert (Stats().reuse, Stats().waiting, Stats().age) == (None, 0.0, None)
