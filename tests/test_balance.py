"""balance: equal shares of classes within groups of rows; no row of a rare class is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unbounded as ub
from helpers import Steps, first, segments
from unbounded.stages.balance import quotas
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def _rows(n: int, rare: int = 10, **given: Any) -> ub.Stream:
    ids = np.arange(n)
    return ub.from_arrays({"id": ids, "label": np.where(ids % rare == 0, "rare", "usual")}, **given)


def test_classes_have_equal_shares_and_no_rare_row_is_lost() -> None:
    groups = segments(_rows(400, passes=3).balance("label"))
    left_out = []
    for rows in groups:
        assert len(rows["id"]) == 400
        assert (rows["label"] == "rare").sum() == 200
        counts = np.bincount(rows["id"], minlength=400)
        assert set(counts[::10]) == {5}  # each of the 40 rare rows equally often
        assert counts[np.arange(400) % 10 > 0].max() == 1
        left_out.append(frozenset(np.flatnonzero(counts == 0)))
    assert len(set(left_out)) == 3


def test_a_group_has_so_many_rows_and_ends_with_the_pass() -> None:
    parts = segments(_rows(250, shuffle=False, passes=2).balance("label", rows=100))
    assert [len(rows["id"]) for rows in parts] == [250, 250]
    for begin, end in ((0, 100), (100, 200), (200, 250)):
        ids = parts[0]["id"][begin:end]
        assert begin <= ids.min() <= ids.max() < end
        assert (parts[0]["label"][begin:end] == "rare").sum() == (end - begin) // 2


def test_a_class_that_is_too_rare_has_a_smaller_share() -> None:
    rows = segments(_rows(1000, rare=1000, passes=1).balance("label", repeats=7))[0]
    assert (rows["label"] == "rare").sum() == 7


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 30))
def test_shares_are_as_equal_as_they_may_be(counts: list[int], repeats: int) -> None:
    given_rows = np.array(counts)
    found = quotas(given_rows, given_rows.sum(), repeats)
    assert found.sum() == given_rows.sum()
    assert (found <= given_rows * repeats).all()
    free = found < given_rows * repeats
    if free.any():
        assert found[free].max() - found[free].min() <= 1
        assert found[~free].max(initial=0) <= found[free].max()
    assert (found[given_rows <= found] >= given_rows[given_rows <= found]).all()


@pytest.mark.parametrize("passes", [None, 2])
def test_it_resumes(passes: int | None) -> None:
    assert_resumes(_rows(130, passes=passes).balance("label", rows=50).batch(7), 14)
    stream = _rows(130, passes=passes).filter(lambda rows: rows["id"] % 7 > 0).balance("label", rows=40, repeats=3)
    assert_resumes(stream.shuffle(20).batch(7), 8)


def test_a_group_that_is_not_full_waits_and_comes_at_a_declared_end() -> None:
    steps = Steps()
    steps.give({"label": np.array([0, 0, 0, 1])})
    with ub.Feed(steps.stream(passes=1).balance("label", rows=20).batch(2)) as feed:
        assert feed._reader.read() is None
        steps.end()
        labels = [i for batch in feed.batches() for i in batch["label"].tolist()]
    assert sorted(labels) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: s.balance("no"), ub.RowsError, r"balance\(by='no'\).*'id', 'label'"),
        (lambda s: s.balance(["id", "label"]), TypeError, "name of one column"),
        (lambda s: s.balance(3), TypeError, "name of a column"),
        (lambda s: s.balance("label", rows=1), ValueError, "at least 2"),
        (lambda s: s.balance("label", repeats=0), ValueError, "at least 1"),
    ],
)
def test_arguments_are_checked(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(_rows(9)).batch(2).peek()


def test_where_a_row_comes_can_not_be_told() -> None:
    with pytest.raises(ub.CannotTell, match="balance"):
        _rows(40).balance("label").batch(2).batch_at(3)
    assert len(first(_rows(40).balance("label").batch(4), 3)) == 3
