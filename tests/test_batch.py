"""batch: batches of one size for any cut into blocks; only a declared end makes a shorter one."""

from __future__ import annotations

import numpy as np
import pytest

import unbounded as ub
from helpers import blocks, first, first_ids, ids, table
from unbounded.core.block import Run
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("size", [1, 7, 32, 100, 250])
def test_each_batch_is_whole_and_the_rows_are_in_order(size: int) -> None:
    batches = first(table(100, shuffle=False).batch(size), 20)
    assert {len(ids(b)) for b in batches} == {size}
    assert [i for b in batches for i in ids(b)] == [i % 100 for i in range(20 * size)]


@pytest.mark.parametrize("block_rows", [1, 3, 16, 64])
def test_the_cut_of_blocks_carries_no_meaning(block_rows: int) -> None:
    opened = table(100, passes=3).batch(7).open(block_rows=block_rows)
    rows: list[int] = []
    ends = []
    while len(rows) < 300:
        run = opened.top.pull(None)
        if run is not None:
            assert isinstance(run, Run)
            ends += [len(rows) // 7 + at for at, _ in run.boundaries]
            rows += [i for item in run.items for i in ids(item)]
    assert rows == first_ids(table(100, passes=3).batch(7), 99)
    # The batch in which a pass ends carries its boundary: the batches 14, 28 and 42 (from 0).
    assert ends in ([15, 29, 43], [15, 29])


def test_each_end_of_a_pass_comes_after_the_batch_whose_last_row_it_follows() -> None:
    def some() -> object:
        yield np.arange(4)

    runs = list(blocks(ub.from_generator(some, passes=2).batch(4)))
    # Alone, where it comes when the batch is gone already.
    found = [what for r in runs if isinstance(r, Run) for what in "b" * r.count + "e" * len(r.boundaries)]
    assert found == ["b", "e", "b", "e"]


def test_a_large_batch_of_contiguous_rows_is_a_view() -> None:
    x = np.arange(1000.0)
    (batch,) = first(ub.from_arrays(x, shuffle=False).batch(500), 1)
    assert np.shares_memory(batch, x)


@pytest.mark.parametrize(("size", "passes"), [(7, None), (7, 2), (50, 1), (49, 2), (1, 1)])
def test_it_resumes(size: int, passes: int | None) -> None:
    assert_resumes(table(50, passes=passes).batch(size), 9)
