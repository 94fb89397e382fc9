"""flat_map: any number of rows of each record, with a position that is a record and a row of it."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import blocks, first, first_ids, segments, table, train_all
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def _some(record: Any) -> Iterator[Any]:
    """As many rows as the id's remainder by 4: the records 0, 4, 8 have none."""
    for i in range(int(record["id"]) % 4):
        yield {"id": record["id"], "row": i, "x": record["x"] * i}


def _tree(record: Any) -> Any:
    rows = np.arange(int(record["id"]) % 4)
    return {"id": np.full(len(rows), record["id"]), "row": rows, "x": record["x"] * rows}


def _listed(record: Any) -> Any:
    return list(_some(record))


@pytest.mark.parametrize("fn", [_some, _tree, _listed])
@pytest.mark.parametrize("rows", [1, 7, None])
def test_the_rows_of_each_record_come_in_order(fn: Any, rows: int | None) -> None:
    stream = table(40, shuffle=False, passes=2).flat_map(fn)
    opened = stream.open(block_rows=rows)
    opened.top.close()
    (one, other) = segments(stream)
    assert one["id"].tolist() == [i for i in range(40) for _ in range(i % 4)]
    assert one["row"].tolist() == [k for i in range(40) for k in range(i % 4)]
    assert_same_rows(one, other)


@pytest.mark.parametrize("fn", [_some, _tree, _listed])
def test_it_resumes_within_a_record_and_between_two(fn: Any) -> None:
    assert_resumes(table(40, passes=3).flat_map(fn).batch(5), 12)
    assert_resumes(table(40).flat_map(fn).shuffle(20).flat_map(fn).batch(5), 6)


def test_a_pass_ends_after_the_rows_of_its_last_record() -> None:
    stream = table(9, shuffle=False, passes=3).flat_map(_some)  # record 8 has no rows
    ends = [block for block in blocks(stream) if block.boundary]
    assert len(ends) == 3
    assert [len(rows["id"]) for rows in segments(stream)] == [12] * 3


def test_a_resume_calls_the_function_for_its_record_alone() -> None:
    called: list[int] = []

    def many(record: Any) -> Iterator[Any]:
        called.append(int(record["id"]))
        return ({"id": record["id"], "row": i} for i in range(100))

    stream = table(1000, shuffle=False).flat_map(many).batch(10)
    with ub.Feed(stream) as feed:
        for _ in itertools.islice(feed.batches(), 215):
            feed.trained()
        state = feed.state_dict()
    called.clear()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        batch = next(feed.batches())
    assert (batch["id"].tolist(), batch["row"].tolist()) == ([21] * 10, list(range(50, 60)))
    assert 18 <= called[0] <= 21  # that of the first batch of the block that was cut into batches
    assert called[-1] < 25


def test_the_rows_of_a_large_record_are_not_in_memory_together() -> None:
    def large(record: Any) -> Iterator[Any]:
        for i in range(20_000):
            yield np.full(100, i)

    tracemalloc.start()
    try:
        for batch in itertools.islice(ub.Feed(ub.from_arrays(np.arange(1)).flat_map(large).batch(50)).batches(), 390):
            assert len(batch) == 50
        assert tracemalloc.get_traced_memory()[1] < 4_000_000  # all rows have 16 MB
    finally:
        tracemalloc.stop()


def test_a_function_that_raises_is_called_again_for_that_record() -> None:
    failures = [ValueError("once")]

    def fails(record: Any) -> Iterator[Any]:
        yield record["id"]
        if record["id"] == 5 and failures:
            raise failures.pop()
        yield record["id"] + 100

    seen: list[int] = []
    with ub.Feed(table(8, shuffle=False, passes=1).flat_map(fails).batch(2)) as feed:
        with pytest.raises(ValueError, match="once"):
            train_all(feed, seen)
        assert seen[:8] == [0, 100, 1, 101, 2, 102, 3, 103]
        train_all(feed, seen)
    assert seen == [i + k for i in range(8) for k in (0, 100)]


def test_what_a_function_yields_may_be_its_own_memory() -> None:
    memory, table_of_rows = np.zeros(2), np.zeros((3, 2))

    def yields(record: Any) -> Iterator[Any]:
        for i in range(3):
            memory[:] = record["id"] + i
            yield memory

    def returns(record: Any) -> Any:
        table_of_rows[:] = record["id"] + np.arange(3)[:, None]
        return table_of_rows

    one, other = (first(table(9, shuffle=False).flat_map(fn).batch(9), 2) for fn in (yields, returns))
    assert one[0][:, 0].tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4]
    assert_same_rows(one, other)


def test_a_function_may_write_to_its_record() -> None:
    def writes(record: Any) -> Any:
        record += 1
        return record[None]

    stream = ub.from_arrays(np.zeros((6, 2)), shuffle=False).flat_map(writes).batch(6)
    for batch in first(stream, 3):
        assert (batch == 1).all()


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda record: None, r"returned None\. Expected the rows of a record.*gives \[\]"),
        (lambda record: 3, "returned a int"),
        (lambda record: "text", "returned a str"),
        (lambda record: {"a": np.zeros(2), "b": np.zeros(3)}, "b"),
        (lambda record: [np.zeros(int(record["id"]) + 1)], "rows of shape"),
        (lambda record: [{}], "without an array"),
    ],
)
def test_what_is_no_rows_is_an_error_with_the_way(fn: Any, message: str) -> None:
    with pytest.raises(ub.RowsError, match=message):
        first(table(9, shuffle=False).flat_map(fn).batch(2), 3)


def test_where_a_row_comes_can_not_be_told() -> None:
    with pytest.raises(ub.CannotTell, match="flat_map"):
        table(9).flat_map(_some).batch(2).batch_at(3)
    assert first_ids(table(9, shuffle=False).flat_map(_some).batch(3), 1) == [1, 2, 2]
