"""random_map: draws depend on seed, place and ordinal only: equal after any resume and for any cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, table
from unbounded.core.trees import Tree
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def noise(rows: Tree, rng: np.random.Generator) -> Tree:
    return {**rows, "x": rng.normal(size=len(rows["x"]))}


def drawn(stream: ub.Stream, steps: int = 10) -> np.ndarray:
    return np.concatenate([b["x"] for b in first(stream, steps)])


def test_draws_are_a_function_of_the_seed_and_the_place() -> None:
    base = table(100)
    one = drawn(base.random_map(noise, seed=1).batch(10))
    assert (one == drawn(base.random_map(noise, seed=1).batch(10))).all()
    assert (one != drawn(base.random_map(noise, seed=2).batch(10))).all()
    assert (one != drawn(base.map(lambda r: r).random_map(noise, seed=1).batch(10))).all()
    # A prefetch or a buffer moves no row, and so no draw.
    assert (one == drawn(base.buffer(10).random_map(noise, seed=1).batch(10).prefetch(2))).all()


def test_no_draw_comes_twice_over_groups_batches_and_passes() -> None:
    for stream in (table(100).random_map(noise, group=16).batch(10), table(100).batch(10).random_map(noise)):
        x = drawn(stream, 60)
        assert len(np.unique(x)) == len(x)
        assert abs(x.mean()) < 0.2
        assert abs(x.std() - 1) < 0.1


def test_a_group_closes_at_a_break_so_that_a_pass_begins_with_a_new_one() -> None:
    sizes: list[int] = []

    def note(rows: Tree, rng: np.random.Generator) -> Tree:
        sizes.append(len(rows["x"]))
        return rows

    drawn(table(40, passes=2).random_map(note, group=16).batch(8))
    assert sizes == [16, 16, 8, 16, 16, 8]


@pytest.mark.parametrize("group", [1, 16, 64])
def test_what_a_step_draws_can_be_told_without_running_up_to_it(group: int) -> None:
    stream = table(100).random_map(noise, group=group).batch(7).random_map(noise, seed=3)
    for step, batch in enumerate(first(stream, 40)):
        assert_same_rows(stream.batch_at(step), batch)


@pytest.mark.parametrize("passes", [None, 2])
@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.random_map(noise, group=16).batch(7),
        lambda s: s.batch(7).random_map(noise),
        lambda s: s.filter(lambda r: r["id"] % 3 > 0).random_map(noise, group=5).batch(4).prefetch(2).random_map(noise),
    ],
)
def test_it_resumes_with_the_same_draws(words: Any, passes: int | None) -> None:
    assert_resumes(words(table(60, passes=passes)), 10)
