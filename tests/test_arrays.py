"""arrays: finite rows repeated forever; each comes once in each pass, and any position costs the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import unbounded as ub
from helpers import blocks, first, first_ids, ids, table
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def test_each_row_comes_once_in_each_pass_in_a_new_order() -> None:
    seen = np.array(first_ids(table(100, seed=3).batch(20), 15)).reshape(3, 100)
    assert (np.sort(seen, axis=1) == np.arange(100)).all()
    assert len({tuple(p) for p in seen.tolist()}) == 3


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    one, again, other = (first_ids(table(100, seed=s).batch(10), 20) for s in (3, 3, 4))
    assert one == again != other


def test_seed_7_pass_1_is_not_seed_8_pass_0() -> None:
    assert first_ids(table(100, seed=7).batch(100), 2)[100:] != first_ids(table(100, seed=8).batch(100), 1)


def test_without_shuffle_rows_keep_their_order_over_the_seam_of_two_passes() -> None:
    assert first_ids(table(10, shuffle=False).batch(4), 5) == [*range(10), *range(10)]


def test_a_declared_end_gives_a_short_last_batch_neither_padded_nor_mixed() -> None:
    batches = first(table(10, shuffle=False, passes=2).batch(8), 99)
    assert [ids(b) for b in batches] == [[*range(8)], [8, 9, *range(6)], [6, 7, 8, 9]]


def test_columns_of_a_row_stay_together() -> None:
    x = np.arange(50)
    for batch in first(ub.from_arrays({"x": x, "y": (x * 2, [x * 3])}).batch(16), 10):
        assert (batch["y"][0] == batch["x"] * 2).all()
        assert (batch["y"][1][0] == batch["x"] * 3).all()


def test_a_position_at_row_10_to_the_12_is_reached_at_once() -> None:
    stream = table(1000, seed=5).batch(7)
    step = 10**12
    rows = np.array([ids(stream.batch_at(step + i)) for i in range(143)]).ravel()
    assert len(set(rows[:999].tolist())) > 600
    passed, within = divmod(step * 7, 1000)
    order = stream.parts[0].source.order(passed)  # type: ignore[union-attr]
    assert ids(stream.batch_at(step)) == order.at(np.arange(within, within + 7)).tolist()


def test_the_end_of_a_pass_is_a_break() -> None:
    ends = list(itertools.islice((b.boundary for b in blocks(table(10)) if b.boundary), 3))
    assert [(e.kind, e.missed) for e in ends] == [("pass", 0)] * 3


def test_a_memmap_is_read_where_it_lies(tmp_path: object) -> None:
    mapped = np.lib.format.open_memmap(f"{tmp_path}/x.npy", "w+", np.int64, (40,))
    mapped[:] = np.arange(40)
    assert sorted(first_ids(ub.from_arrays(mapped).batch(10), 4)) == list(range(40))


@pytest.mark.parametrize("given", [{}, {"shuffle": False}, {"passes": 2}, {"shuffle": False, "passes": 2}])
def test_it_resumes(given: dict[str, int]) -> None:
    assert_resumes(table(50, **given).batch(7), 12)


def test_without_batch_its_own_blocks_are_the_batches_and_resume() -> None:
    assert [len(ids(b)) for b in first(table(100), 3)] == [100, 100, 100]
    assert_resumes(table(100), 5)


@pytest.mark.parametrize(("n", "size"), [(10_000, 32), (1_000, 32), (50_001, 16), (40, 32)])
def test_batches_begin_on_a_boundary_of_64_bytes_where_their_length_allows_it(n: int, size: int) -> None:
    rows = np.arange(n * 4, dtype=np.float32).reshape(n, 4)  # 16 bytes a row
    batches = first(ub.from_arrays(rows).batch(size), 3 * n // size)
    assert all(batch.ctypes.data % 64 == 0 for batch in batches)
    seen = np.concatenate(batches)[: n * 2, 0].astype(np.int64) // 4
    assert sorted(seen[:n].tolist()) == sorted(seen[n:].tolist()) == list(range(n))
