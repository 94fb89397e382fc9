"""map, map_rows, filter and columns: equal results for any cut into blocks, in order with any number of workers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, first_ids, ids, segments, table
from unbounded.core.trees import Tree
from unbounded.testing import assert_resumes, assert_same_rows, shaken

pytestmark = pytest.mark.usefixtures("no_threads_left")


def twice(rows: Tree) -> Tree:
    return {**rows, "x": rows["x"] * 2}


def test_map_is_given_whole_columns() -> None:
    sizes = []

    def note(rows: Tree) -> Tree:
        sizes.append(len(rows["x"]))
        return twice(rows)

    plain, changed = first(table(100).batch(10), 20), first(table(100).map(note).batch(10), 20)
    assert min(sizes) > 10
    for a, b in zip(plain, changed, strict=True):
        assert (b["x"] == a["x"] * 2).all()


def test_map_after_batch_is_given_one_batch_at_a_time() -> None:
    centred = first(table(100).batch(10).map(lambda r: {**r, "x": r["x"] - r["x"].mean()}), 10)
    assert all(abs(b["x"].mean()) < 1e-12 for b in centred)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_keep_the_order(workers: int) -> None:
    slow = threading.Event()

    def uneven(rows: Tree) -> Tree:
        slow.wait(0.002 * (int(rows[0]) % 3))
        return rows

    stream = ub.from_arrays(np.arange(300), shuffle=False).batch(5).map(uneven, workers=workers)
    assert first_ids(stream, 60) == list(range(300))


def test_workers_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def meet(rows: Tree) -> Tree:
        if rows[0] < 3:
            meeting.wait()
        return rows

    def ones(start: int = 0) -> Any:
        while True:
            yield np.array([start])
            start += 1

    assert first_ids(ub.from_generator(ones).map(meet, workers=3).batch(1), 3) == [0, 1, 2]


def test_map_rows_is_given_one_row_and_is_the_same_as_map() -> None:
    by_row = first(table(50).map_rows(lambda r: {**r, "x": r["x"] * 2}).batch(7), 10)
    for a, b in zip(by_row, first(table(50).map(twice).batch(7), 10), strict=True):
        assert_same_rows(a, b)


def test_a_filter_keeps_what_it_says_true_for_and_each_row_comes_once_in_each_pass() -> None:
    stream = table(100, passes=3).filter(lambda r: r["id"] % 4 != 3).shuffle(30)
    assert [len(rows["id"]) for rows in segments(stream)] == [75, 75, 75]
    seen = np.concatenate([b["id"] for b in first(stream.batch(25), 99)]).reshape(3, 75)
    assert (np.sort(seen, axis=1) == [i for i in range(100) if i % 4 != 3]).all()


def test_a_pass_of_which_a_filter_leaves_the_end_out_still_ends_there() -> None:
    kept = table(100, shuffle=False, passes=2).filter(lambda r: r["id"] < 90)
    assert [len(s["id"]) for s in segments(kept)] == [90, 90]
    with ub.Feed(kept.batch(30), epoch=ub.Epoch(passes=1)) as feed:
        lengths = [sum(len(b["id"]) for b in epoch) for epoch in feed.epochs(2)]
    assert lengths == [90, 90]


def test_select_gives_what_fit_takes() -> None:
    (batch,) = first(table(10, shuffle=False).columns(x="x", y="k", sample_weight="id").batch(4), 1)
    assert isinstance(batch, tuple)
    assert batch[2].tolist() == [0, 1, 2, 3]
    (batch,) = first(table(10).columns(x="x").batch(4), 1)
    assert isinstance(batch, np.ndarray)
    (batch,) = first(table(10).columns(x=["x", {"a": "k"}], y={"out": "id"}).batch(4), 1)
    assert isinstance(batch[0], list)
    assert set(batch[0][1]) == {"a"}
    assert set(batch[1]) == {"out"}
    (batch,) = first(table(10).columns(x=["x", "k"]).batch(4), 1)
    assert isinstance(batch, tuple)
    assert len(batch) == 1


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.map(twice).batch(7),
        lambda s: s.map(twice, workers=3).batch(7),
        lambda s: s.batch(7).map(twice, workers=2),
        lambda s: s.map_rows(lambda r: r).batch(7),
        lambda s: s.filter(lambda r: r["id"] % 4 != 3).batch(7),
        lambda s: s.filter(lambda r: r["id"] < 40).batch(7),
        lambda s: table(60, shuffle=False).filter(lambda r: r["id"] < 40).windows(3).batch(7),
        lambda s: s.columns(x="x", y="id").batch(7),
    ],
)
@pytest.mark.parametrize("passes", [None, 2])
def test_it_resumes_and_gives_the_same_rows_whatever_the_blocks(words: Any, passes: int | None) -> None:
    assert_resumes(words(table(60, passes=passes)), 10)


def test_a_function_that_fails_leaves_the_position_before_its_rows() -> None:
    failures = [True]

    def once(rows: Tree) -> Tree:
        if failures.pop() if failures else False:
            raise OSError("once")
        return rows

    with ub.Feed(table(100, shuffle=False).map(once).batch(10)) as feed:
        before = feed.state_dict()["position"]
        with pytest.raises(OSError, match="once"):
            next(feed.batches())
        assert feed.state_dict()["position"] == before
        assert ids(next(feed.batches())) == list(range(10))


def test_shaken_rows_are_the_rows() -> None:
    def run(stream: ub.Stream) -> list[int]:
        seen: list[int] = []
        with ub.Feed(stream) as feed:
            while len(seen) < 300:
                try:
                    for batch in feed.batches():
                        feed.trained()
                        seen += ids(batch)
                        if len(seen) >= 300:
                            break
                except ub.testing.Flaky:
                    feed.rewind()
        return seen[:300]

    stream = table(100).filter(lambda r: r["id"] % 5 > 0).map(twice, workers=2).batch(10)
    assert run(shaken(stream, seed=4)) == run(stream)


@pytest.mark.parametrize(
    "words",
    [
        lambda s, f: s.batch(6).map(f),
        lambda s, f: s.batch(6).random_map(lambda r, rng: f(r)),
        lambda s, f: s.map(f).batch(6),
        lambda s, f: s.random_map(lambda r, rng: f(r), group=6).batch(6),
        lambda s, f: s.batch(6).map(f, workers=2).prefetch(2),
    ],
    ids=["after batch", "random after batch", "map", "random", "workers"],
)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: {**r, "x": r["x"][:-1]}, "leaf .* has .+ rows and leaf .* has"),
        (lambda r: {**r, "x": np.concatenate([r["x"], r["x"]])}, "leaf .* has .+ rows and leaf .* has"),
        (lambda r: {k: v[:-1] for k, v in r.items()}, "was given .+ rows and returned"),
        (lambda r: {**r, "x": r["x"].sum()}, "leaf .'x'. has no rows"),
        (lambda r: {}, "it contains no array"),
        (lambda r: None, "it contains no array|returned None"),
    ],
    ids=["one leaf shorter", "one leaf longer", "all shorter", "a sum", "nothing", "None"],
)
def test_each_leaf_that_a_function_returns_has_the_rows_that_it_was_given(
    words: Any, change: Any, sentence: str
) -> None:
    source = table(12, shuffle=False).columns({"id": "id", "x": "x"})
    with ub.Feed(words(source, change)) as feed, pytest.raises(ub.RowsError, match=sentence):
        next(feed.batches())


def test_a_function_may_change_its_rows_shapes_and_structure_after_batch() -> None:
    stream = table(12, shuffle=False).batch(4).map(lambda r: (np.stack([r["x"]] * 3, axis=1), r["id"] > 3))
    x, y = first(stream, 2)[1]
    assert x.shape == (4, 3)
    assert y.all()


@pytest.mark.parametrize("words", [lambda s, f: s.batch(4).map(f), lambda s, f: s.map(f).batch(4).map(lambda r: r)])
def test_a_function_may_leave_the_place_of_a_leaf_empty(words: Any) -> None:
    x, y, w = first(words(table(12, shuffle=False), lambda r: (r["x"], None, r["id"])), 2)[1]
    assert y is None
    assert w.tolist() == [4, 5, 6, 7]
    assert x.shape == (4,)
