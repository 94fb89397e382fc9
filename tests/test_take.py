"""take: the first rows, followed by a declared end."""

from __future__ import annotations

import pytest

from helpers import first, first_ids, table
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("rows", [1, 99, 100, 101, 250])
def test_the_first_rows_come_and_then_the_end(rows: int) -> None:
    expected = first_ids(table(100).batch(1), rows)
    assert first_ids(table(100).take(rows).batch(1), 999) == expected


def test_the_last_batch_may_be_short() -> None:
    assert [len(b["id"]) for b in first(table(100).take(25).batch(10), 99)] == [10, 10, 5]


def test_it_takes_what_there_is() -> None:
    assert len(first_ids(table(10, passes=2).take(100).batch(5), 99)) == 20


def test_a_step_after_the_end_can_not_be_told() -> None:
    stream = table(100).take(20).batch(10)
    assert len(stream.batch_at(1)["id"]) == 10
    with pytest.raises(LookupError, match="ends before row 20"):
        stream.batch_at(2)


@pytest.mark.parametrize("rows", [7, 50, 111])
def test_it_resumes(rows: int) -> None:
    assert_resumes(table(50).take(rows).batch(7), 20)
    assert_resumes(table(50).shuffle(20).take(rows).batch(7), 6)
