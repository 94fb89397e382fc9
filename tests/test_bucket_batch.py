"""batch(n, bucket=…): rows of about one length together, padded to the bound of their bucket."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import blocks, first, train_all
from unbounded.core.block import Run
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def _lengths(rows: int, seed: int = 0, most: int = 12) -> list[int]:
    return np.random.default_rng(seed).integers(0, most + 1, rows).tolist()


def _stream(lengths: list[int], **given: Any) -> ub.Stream:
    rows = {"id": np.arange(len(lengths)), "x": ub.ragged([[i + 1] * n for i, n in enumerate(lengths)])}
    return ub.from_arrays(rows, **{"shuffle": False, **given})


def _expected(lengths: list[int], bounds: list[int], size: int, within: int) -> list[list[int]]:
    """The rows of each batch, one row after the other."""
    waiting: dict[int, list[int]] = {bound: [] for bound in bounds}
    made = []
    for row, length in enumerate(lengths):
        bound = next(bound for bound in bounds if length <= bound)
        waiting[bound].append(row)
        oldest = min(rows[0] for rows in waiting.values() if rows)
        if len(waiting[bound]) == size:
            made.append(waiting[bound])
            waiting[bound] = []
        elif row - oldest >= within and sum(map(len, waiting.values())) >= size:
            late = next(bound for bound in bounds if waiting[bound][:1] == [oldest])
            taken: list[int] = []
            for each in [*(b for b in reversed(bounds) if b <= late), *(b for b in bounds if b > late)]:
                n = size - len(taken)
                taken, waiting[each] = taken + waiting[each][:n], waiting[each][n:]
            made.append(sorted(taken))
    return made + [rows for rows in waiting.values() if rows]


@pytest.mark.parametrize("within", [6, 40, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_each_batch_has_the_rows_that_filled_its_bucket(seed: int, within: int) -> None:
    lengths = _lengths(400, seed)
    buckets = ub.Buckets([3, 6, 12], within=within, lengths="n")
    batches = first(_stream(lengths, passes=1).batch(5, bucket=buckets), 1000)
    assert [batch["id"].tolist() for batch in batches] == _expected(lengths, [3, 6, 12], 5, within)
    for batch in batches:
        longest = max(lengths[i] for i in batch["id"])
        assert batch["x"].shape == (len(batch["id"]), next(bound for bound in (3, 6, 12) if bound >= longest))
        assert batch["n"].tolist() == [lengths[i] for i in batch["id"]]
        assert ((batch["x"] > 0).sum(axis=1) == batch["n"]).all()
        assert (batch["x"].max(axis=1) == np.where(batch["n"] > 0, batch["id"] + 1, 0)).all()


@pytest.mark.parametrize("within", [7, 1000])
@pytest.mark.parametrize("passes", [None, 2])
def test_it_resumes(within: int, passes: int | None) -> None:
    buckets = ub.Buckets([2, 5, 9, 12], within=within)
    stream = _stream(_lengths(70), shuffle=True, passes=passes)
    assert_resumes(stream.batch(4, bucket=buckets), 20)
    assert_resumes(stream.filter(lambda rows: rows["id"] % 5 > 0).shuffle(20).batch(3, bucket=buckets), 10, seed=3)
    assert_resumes(stream.batch(4, bucket=buckets).map(lambda b: {**b, "y": b["id"] * 2}, workers=2).prefetch(3), 8)


def test_a_resume_at_each_batch_of_the_end_has_the_rest_of_the_buckets() -> None:
    stream = _stream([1, 1, 5, 5, 9, 1, 9, 5, 5, 1], passes=1).batch(4, bucket=[2, 6, 10])
    assert [batch["id"].tolist() for batch in first(stream, 9)] == [[2, 3, 7, 8], [0, 1, 5, 9], [4, 6]]
    stream = _stream([1, 5, 9], passes=1).batch(2, bucket=[2, 6, 10])
    assert [batch["id"].tolist() for batch in first(stream, 9)] == [[0], [1], [2]]
    assert_resumes(stream, 5)


def test_the_ends_of_passes_come_and_are_counted() -> None:
    stream = _stream(_lengths(50), passes=3).batch(4, bucket=[4, 8, 12])
    runs = [run for run in blocks(stream) if isinstance(run, Run)]
    assert sum(len(run.boundaries) for run in runs) == 3
    with ub.Feed(stream) as feed:
        train_all(feed, None)
        assert (feed.stats.rows, feed.stats.passes) == (150, 3)


def test_a_rare_length_waits_no_longer_than_asked_for() -> None:
    lengths = [9 if i == 10 else 2 for i in range(4000)]
    stream = _stream(lengths).batch(8, bucket=ub.Buckets([3, 12], within=100))
    for step, batch in enumerate(itertools.islice(first(stream, 100), 100)):
        if 10 in batch["id"]:
            assert 100 <= step * 8 <= 130
            assert batch["x"].shape == (8, 12)
            return
    raise AssertionError("it did not come")


def test_a_position_is_small_and_a_resume_reads_no_more_than_what_waits() -> None:
    read: list[int] = []

    def source(start: int = 0) -> Any:
        for i in itertools.count(start):
            read.append(i)
            yield {"id": i, "x": np.ones(i % 12)}

    stream = ub.from_samples(source, ragged="x").batch(8, bucket=[3, 6, 12])
    with ub.Feed(stream) as feed:
        for _ in itertools.islice(feed.batches(), 600):
            feed.trained()
        state = feed.state_dict()
    assert len(str(state)) < 2500
    read.clear()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        next(feed.batches())
    assert min(read) > 600 * 8 - 400


def test_several_columns_share_a_bucket() -> None:
    rows = {"a": ub.ragged([[1], [1, 2, 3], [2], [4]]), "b": ub.ragged([["x"] * 4, ["y"], ["z"], []])}
    stream = ub.from_arrays(rows, shuffle=False).batch(2, bucket=[2, 4])
    with ub.Feed(stream) as feed:
        batches = list(itertools.islice(feed.batches(), 2))
    assert batches[0]["a"].tolist() == [[1, 0, 0, 0], [1, 2, 3, 0]]
    assert batches[0]["b"].tolist() == [["x"] * 4, ["y", "", "", ""]]
    assert batches[1]["b"].tolist() == [["z", ""], ["", ""]]
    one = ub.from_arrays(rows, shuffle=False).pad(4, "b").batch(2, bucket=ub.Buckets([2, 4], "a"))
    assert first(one, 1)[0]["a"].tolist() == [[1, 0], [2, 0]]


def test_rows_that_are_cut_are_counted() -> None:
    buckets = ub.Buckets([3, 6], truncate=True)
    lengths = _lengths(60)
    with ub.Feed(_stream(lengths, passes=1).batch(4, bucket=buckets)) as feed:
        train_all(feed, None)
        assert feed.stats.cut == sum(n > 6 for n in lengths)
    assert_resumes(_stream(lengths).batch(4, bucket=buckets), 6)


def test_rows_of_a_tuple_and_memory_that_was_handed_out() -> None:
    rows = (ub.ragged([[i] * (i % 5) for i in range(40)]), np.arange(40))
    with ub.Feed(ub.from_arrays(rows).batch(3, bucket=[2, 4])) as feed:
        batches = list(itertools.islice(feed.batches(), 30))
        copies = [(x.copy(), y.copy()) for x, y in batches]
        for _ in itertools.islice(feed.batches(), 30):
            pass
        for batch, copy in zip(batches, copies, strict=True):
            assert_same_rows(batch, copy)


def test_a_longer_row_is_an_error_and_nothing_is_lost() -> None:
    seen: list[int] = []
    with ub.Feed(_stream([1, 2, 1, 2, 9, 1]).batch(2, bucket=[2, 4])) as feed:
        for _ in range(2):
            with pytest.raises(ub.RowsError, match=r"\['x'\] has 9 values in row 4 of the stream.*truncate=True"):
                train_all(feed, seen)


@pytest.mark.parametrize(
    ("bucket", "error", "message"),
    [
        ([], ValueError, "ascending"),
        ([3, 3], ValueError, "ascending"),
        ([0, 3], ValueError, "at least 1"),
        (32, TypeError, "a list of lengths"),
        (["a"], TypeError, "a list of lengths"),
    ],
)
def test_buckets_that_are_none_are_refused(bucket: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        _stream([1, 2]).batch(2, bucket=bucket)


def test_it_stands_where_batch_does() -> None:
    stream = _stream(_lengths(30)).batch(2, bucket=[12])
    assert repr(stream).endswith(".batch(2, bucket=[12])")
    with pytest.raises(ValueError, match=r"\.shuffle\(\) stands after \.batch\(\)"):
        stream.shuffle(3)
    with pytest.raises(ub.CannotTell, match="lengths of all rows"):
        stream.batch_at(3)
    with pytest.raises(ub.RowsError, match="without a column of several lengths"):
        ub.from_arrays(np.zeros(9)).batch(2, bucket=[3]).peek()
    assert stream.fingerprint != _stream(_lengths(30)).batch(2, bucket=[13]).fingerprint
