"""split: two streams by a hash of each row, or of its key, that is stable for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, first_ids, segments, table
from unbounded.stages.row_hash import fractions, row_hashes
from unbounded.testing import assert_resumes

GOLDEN_INTEGERS = [5608744127182820641, 661530831560635079, 15670185292317225658]
GOLDEN_TEXTS = [12382787585833770363, 4319958750196375051, 372076588347430798]
GOLDEN_FLOATS = [5858255653658837586, 7959901941470334456, 461169829219832998]
GOLDEN_FRACTIONS = ["0.567471", "0.440213"]

pytestmark = pytest.mark.usefixtures("no_threads_left")


def _hashes(column: Any) -> list[int]:
    return row_hashes({"key": np.asarray(column)}, "the test").tolist()


def test_each_row_is_in_exactly_one_part_the_same_in_each_pass() -> None:
    parts = table(1000, passes=3).split(0.7)
    passes = [[set(rows["id"].tolist()) for rows in segments(part)] for part in parts]
    for one, other in zip(*passes, strict=True):
        assert one == passes[0][0]
        assert not one & other
        assert one | other == set(range(1000))
    assert abs(len(passes[0][0]) - 700) < 60


def test_a_part_does_not_depend_on_the_order_of_rows() -> None:
    parts = [
        {*first_ids(stream.split(0.5)[0].take(400).batch(100), 4)}
        for stream in (table(800, shuffle=False), table(800, seed=3), table(800, shuffle=False).shuffle(100))
    ]
    whole = {i for (rows,) in [segments(table(800, passes=1).split(0.5)[0])] for i in rows["id"].tolist()}
    assert all(part <= whole for part in parts)


def test_a_key_is_never_in_both_parts() -> None:
    rows = {"user": np.array([f"user {i % 97}" for i in range(5000)]), "x": np.arange(5000.0)}
    one, other = (segments(part)[0] for part in ub.from_arrays(rows, passes=1).split(0.6, by="user"))
    assert not {*one["user"]} & {*other["user"]}
    assert len(one["x"]) + len(other["x"]) == 5000


def test_several_columns_are_one_key() -> None:
    rows = {"a": np.arange(400) % 20, "b": np.arange(400) // 20, "c": np.arange(400) % 7}
    one, other = (segments(part)[0] for part in ub.from_arrays(rows, passes=1).split(0.5, by=["a", "b"]))
    keys = [set(zip(part["a"].tolist(), part["b"].tolist(), strict=True)) for part in (one, other)]
    assert not keys[0] & keys[1]
    assert 100 < len(keys[0]) < 300


@pytest.mark.parametrize("keys", [np.arange(20_000), np.arange(20_000) * 1e-3, [f"{i}" for i in range(20_000)]])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_of_keys_is_as_asked(keys: Any, share: float) -> None:
    # Chi-square with one degree of freedom, for each of ten groups of neighbours, and for all together.
    found = fractions(row_hashes({"key": np.asarray(keys)}, "the test"), 0, 0)
    groups = (found < share).reshape(10, -1).sum(axis=1)
    expected = 2000 * share
    statistic = ((groups - expected) ** 2 / expected + (groups - expected) ** 2 / (2000 - expected)).sum()
    assert statistic < 29.6  # of ten degrees of freedom, one in a thousand
    counts = np.bincount((found * 20).astype(int), minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # of nineteen


def test_the_hash_is_the_same_for_ever() -> None:
    # A change of these numbers would move rows from the validation of a run into its training.
    assert _hashes([0, 1, -1]) == GOLDEN_INTEGERS
    assert _hashes(["", "a", "sensor 7"]) == GOLDEN_TEXTS
    assert _hashes([0.5, np.nan, -np.inf]) == GOLDEN_FLOATS
    assert [f"{x:.6f}" for x in fractions(np.array([1, 2], np.uint64), 3, 0)] == GOLDEN_FRACTIONS


def test_equal_values_have_one_hash_whatever_holds_them() -> None:
    assert _hashes(np.array([7, 300], np.int16)) == _hashes(np.array([7, 300], np.uint64)) == _hashes([7.0, 300.0])
    assert _hashes(np.array([0.5], np.float32)) == _hashes([0.5])
    assert _hashes([-0.0]) == _hashes([0.0])
    assert (
        _hashes(np.array(["ab", "c"])) == _hashes(np.array(["ab", "c"], "U40")) == _hashes(np.array(["ab", "c"], "O"))
    )
    assert _hashes(np.array([b"ab"], object)) == _hashes(np.array([b"ab"], "S9"))
    times = np.array(["2026-01-01"], "datetime64[D]")
    assert _hashes(times) == _hashes(times.astype("datetime64[us]"))
    assert _hashes([np.nan]) == _hashes([-np.nan])


def test_the_place_of_a_value_counts() -> None:
    assert len({*_hashes([[1, 2], [2, 1], [1, 1], [2, 2]])}) == 4
    assert len({*_hashes(np.array([[1.0] * 99 + [2.0], [2.0] + [1.0] * 99]))}) == 2
    assert row_hashes({"a": np.array([1]), "b": np.array([2])}, "") != row_hashes(
        {"a": np.array([2]), "b": np.array([1])}, ""
    )
    assert row_hashes({"a": np.array([1]), "b": np.array([2])}, "") == row_hashes(
        {"b": np.array([2]), "a": np.array([1])}, ""
    )


def test_a_part_can_be_split_again() -> None:
    training, rest = table(3000, passes=1).split(0.8)
    validation, test = rest.split(0.5)
    counts = [len(segments(part)[0]["id"]) for part in (training, validation, test)]
    assert sum(counts) == 3000
    assert abs(counts[1] - 300) < 60
    assert abs(counts[2] - 300) < 60


def test_another_seed_gives_another_split() -> None:
    one, other = (segments(table(1000, passes=1).split(0.5, seed=seed)[0])[0]["id"] for seed in (0, 1))
    assert 150 < len({*one} & {*other}) < 350


def test_both_parts_resume() -> None:
    for part in table(80).shuffle(30).split(0.7):
        assert_resumes(part.shuffle(20).batch(7), 8)
    keys = ub.from_arrays({"id": np.arange(80), "k": np.arange(80) % 9}, passes=2)
    assert_resumes(keys.split(0.5, by="k")[1].batch(3), 8)


def test_the_parts_of_a_function_that_can_not_seek_have_no_row_in_common(caplog: pytest.LogCaptureFixture) -> None:
    def device() -> Iterator[Any]:
        for i in itertools.count():
            yield np.arange(4 * i, 4 * i + 4)

    training, validation = ub.from_generator(device).split(0.5)
    with ub.Feed(training.batch(10)) as one, ub.Feed(validation.batch(10)) as other:
        ours = [i for batch in itertools.islice(one.batches(), 5) for i in batch.tolist()]
        theirs = [i for batch in itertools.islice(other.batches(), 5) for i in batch.tolist()]
    assert not {*ours} & {*theirs}
    assert "device" in caplog.text  # a second feed calls the same function


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"split\(share\): expected a number between 0 and 1"):
        table(9).split(share)


def test_what_has_no_stable_part_is_refused() -> None:
    with pytest.raises(TypeError, match="between 0 and 1"):
        table(9).split("0.9")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name of a column"):
        table(9).split(0.5, by=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"after \.normalize\(\).*by='id'"):
        table(9).normalize("x").split(0.5)
    with pytest.raises(ValueError, match=r"after \.windows\(\), which share rows"):
        table(9).windows(3).split(0.5)
    with pytest.raises(ub.RowsError, match=r"split\(by='user'\).*'id', 'k', 'x'"):
        table(9).split(0.5, by="user")[0].batch(2).peek()
    with pytest.raises(ub.RowsError, match="no stable hash"):
        ub.from_arrays({"a": np.array([1, None, {}], object)}).split(0.5)[0].batch(1).peek()
    assert [len(b["id"]) for b in first(table(90).normalize("x").split(0.5, by="id")[0].batch(4), 2)] == [4, 4]
