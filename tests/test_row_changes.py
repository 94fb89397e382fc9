"""RowChanges: rows as they arrive, through the stages behind a shuffle that change single rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unbounded as ub
from unbounded.core.block import Block
from unbounded.feed.row_changes import RowChanges

pytestmark = pytest.mark.usefixtures("no_threads_left")


def changed(stream: ub.Stream, rows: dict[str, Any]) -> Any:
    """What the stages make of rows, and the numbers of the rows that are left."""
    with ub.Feed(stream.batch(2), on_nan="pass") as feed:
        block = Block(rows, 4, seen=np.arange(1, 5))
        kept = RowChanges(feed.stream.stages, None, feed).kept(block, rows)
        assert kept is not None
        return kept[1].rows, kept[0].seen


def test_stages_of_tables_that_look_at_one_row_are_applied() -> None:
    rows = {
        "id": np.arange(4),
        "room": np.array(["hall", "", "attic", "hall"]),
        "x": np.array([1.0, np.nan, 3.0, np.nan]),
        "at": np.array(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]),
    }
    stream = ub.from_arrays(rows).shuffle(3)
    made, seen = changed(stream.drop_missing("room").fill({"x": 0.0}).encode("room", ["hall"]).time("at"), rows)
    assert seen.tolist() == [1, 3, 4]
    assert made["room"].tolist() == [0, 1, 0]
    assert made["x"].tolist() == [1.0, 3.0, 0.0]
    assert made["at"].dtype == np.dtype("M8[us]")


def test_a_value_that_is_carried_on_from_the_row_before_is_refused() -> None:
    rows = {"id": np.arange(4), "x": np.array([1.0, np.nan, 3.0, np.nan])}
    with pytest.raises(ValueError, match=r"\.fill\(\) stands after a \.shuffle\(\).*depends on the rows before it"):
        changed(ub.from_arrays(rows).shuffle(3).fill("last"), rows)
