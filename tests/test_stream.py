"""Stream: methods, representations, and the content of a step without running up to it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, first, from_start, once, table
from unbounded.core.trees import Tree
from unbounded.testing import assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def noise(rows: Tree, rng: np.random.Generator) -> Tree:
    return {**rows, "x": rows["x"] + rng.normal(size=rows["x"].shape)}


def from_some(start: int = 0) -> Any:
    for rows in from_start(start):
        yield {"id": rows, "x": rows / 2, "k": rows % 3}


TELLING = {
    "arrays": table(100).batch(7),
    "in order": table(100, shuffle=False).batch(7),
    "map": table(100).map(lambda r: r).map_rows(lambda r: r).batch(7).map(lambda r: r),
    "shuffle": table(100).shuffle(30, seed=3).batch(7),
    "shuffle of passes": table(100).shuffle(64).shuffle(10).batch(7).prefetch(2),
    "windows": table(100).windows(5, stride=2).batch(7),
    "replay": table(100).replay(40, reuse=2.5).batch(7),
    "random_map": table(100).random_map(noise, group=16).batch(7).random_map(noise),
    "take": table(100).take(250).batch(7),
    "buffer": table(100).buffer(20).batch(7),
    "data set": ub.from_dataset([{"id": i, "k": i % 3, "x": i / 10} for i in range(100)]).shuffle(30).batch(7),
    "start": ub.from_generator(from_some).shuffle(50).windows(2).batch(7),
    "all": table(100)
    .random_map(noise, group=10)
    .windows(3)
    .shuffle(20)
    .replay(40, reuse=2)
    .take(400)
    .buffer(20)
    .batch(6)
    .map(lambda r: r, workers=2)
    .prefetch(3),
}


@pytest.mark.parametrize("name", TELLING)
def test_a_step_contains_what_a_run_then_finds_there(name: str) -> None:
    stream = TELLING[name]
    batches = first(stream, 40)
    assert len(batches) > 30
    for step in range(0, len(batches), 3):
        assert_same_rows(stream.batch_at(step), batches[step], f"step {step}")


@pytest.mark.parametrize("name", ["arrays", "in order", "map", "shuffle", "shuffle of passes", "random_map", "buffer"])
def test_a_row_comes_next_where_step_of_says(name: str) -> None:
    stream = TELLING[name]
    batches = [b["id"].tolist() for b in first(stream, 60)]
    for row in range(0, 100, 7):
        for after in (0, 1, 13, 14, 15, 20):
            step = stream.step_of(row, after=after)
            expected = next(i for i in range(after, 60) if row in batches[i])
            # Rows of one batch stand in it together: a row is found at its first batch from `after` on.
            assert step == expected, (row, after)


def test_a_row_of_a_function_comes_where_step_of_says() -> None:
    stream = ub.from_generator(from_some).shuffle(50).batch(7)
    batches = [b["id"].tolist() for b in first(stream, 60)]
    for row in range(0, 400, 13):
        assert row in batches[stream.step_of(row)]


@pytest.mark.parametrize("name", ["arrays", "shuffle of passes", "random_map", "windows", "replay", "start"])
def test_numbers_around_10_to_the_12_are_told_and_tell_each_other(name: str) -> None:
    stream = TELLING[name]
    for step in (10**12 - 1, 10**12, 10**12 + 1):
        assert_same_rows(stream.batch_at(step), stream.batch_at(step))
        if name in ("arrays", "shuffle of passes", "random_map"):
            row = int(stream.batch_at(step)["id"][3])
            assert stream.step_of(row, after=step) == step


CANNOT = {
    "filter": table(100).filter(lambda r: r["id"] > 3).batch(7),
    "normalize": table(100).normalize("x").batch(7),
    "keyed windows": table(100).windows(3, by="k").batch(7),
    "state": ub.from_generator(Counter).batch(7),
    "live": ub.from_generator(once).batch(7),
    "drops": table(100).buffer(5, overflow="drop_oldest").batch(7),
    "passes": ub.from_generator(from_start, passes=2).batch(7),
    "no batch": table(100),
}


@pytest.mark.parametrize("name", CANNOT)
def test_streams_that_can_not_tell_say_why(name: str) -> None:
    with pytest.raises(LookupError, match=r"depends on|can't go to|has no \.batch|does not know"):
        CANNOT[name].batch_at(3)
    if name not in ("state", "live"):  # whose rows are numbered as they come
        with pytest.raises(LookupError):
            CANNOT[name].step_of(3)


@pytest.mark.parametrize("name", ["windows", "replay"])
def test_where_a_row_comes_out_of_some_stages_can_not_be_told(name: str) -> None:
    with pytest.raises(LookupError, match="depends on all rows before it"):
        TELLING[name].step_of(3)


def test_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step_of\(row=100\): the arrays have the rows 0 to 99"):
        table(100).batch(4).step_of(100)


def test_it_reads_as_the_chain() -> None:
    def double(rows: Tree) -> Tree:
        return rows

    stream = (
        table(1000, seed=3)
        .map(double)
        .normalize("x")
        .shuffle(100, seed=2)
        .windows(4, stride=2)
        .batch(32)
        .map(double, workers=2)
        .prefetch(4)
    )
    assert repr(stream) == (
        "from_arrays(1,000 rows, seed=3).map(double).normalize('x').shuffle(100, seed=2).windows(4, stride=2).batch(32)"
        ".map(double, workers=2).prefetch(4)"
    )
    assert repr(ub.from_generator(once, passes=2)) == "from_generator(once, passes=2)"


def test_it_describes_itself_a_line_for_each_word() -> None:
    lines = table(1000).shuffle(100).buffer(50, overflow="drop_oldest").batch(8).describe().splitlines()
    assert lines[0].startswith("from_arrays(1,000 rows)")
    assert lines[0].endswith("1,000 rows a pass")
    assert "at most once" in lines[2]
    live = ub.from_generator(once).batch(4).describe().splitlines()
    assert live[0].endswith("at most once at the source, exact from the row log on")
    assert lines[-1].startswith("guarantee: at most once; fingerprint ")


def test_its_promise_is_that_of_its_weakest_part() -> None:
    assert table(10).shuffle(3).batch(2).guarantee == "exact"
    assert ub.from_generator(once).shuffle(3).batch(2).guarantee == "at_most_once"
    assert table(10).buffer(3, overflow="drop_oldest").batch(2).guarantee == "at_most_once"


def test_a_word_gives_a_new_stream_and_leaves_the_old_one() -> None:
    base = table(100)
    base.shuffle(10).batch(3)
    assert repr(base) == "from_arrays(100 rows)"
    assert base.batch(3).batch_size == 3
    assert base.batch_size is None


def test_the_fingerprint_holds_what_moves_rows_and_nothing_else() -> None:
    def one(rows: Tree) -> Tree:
        return rows

    def two(rows: Tree) -> Tree:
        return rows

    base = table(100).map(one).batch(4)
    assert base.fingerprint == table(100).map(one, workers=3).batch(4).prefetch(9).fingerprint
    others = [
        table(100).map(two).batch(4),
        table(100).map(one).batch(5),
        table(100, seed=1).map(one).batch(4),
        table(101).map(one).batch(4),
        table(100, passes=3).map(one).batch(4),
        table(100).map(one).shuffle(3).batch(4),
        ub.from_arrays({"id": np.arange(100)}).map(one).batch(4),
    ]
    assert len({base.fingerprint, *(o.fingerprint for o in others)}) == len(others) + 1
    assert len(base.fingerprint) == 16


def test_a_stream_that_was_looked_at_does_not_lend_its_fingerprint_to_what_is_made_of_it() -> None:
    looked_at = table(100)
    shorter = looked_at.fingerprint
    looked_at.describe()
    assert looked_at.batch(4).fingerprint == table(100).batch(4).fingerprint != shorter
    assert looked_at.batch(4).fingerprint != looked_at.batch(5).fingerprint
    fed = table(100).batch(4)
    ub.Feed(fed).close()
    assert fed.random_map(noise).fingerprint == table(100).batch(4).random_map(noise).fingerprint != fed.fingerprint
    with ub.Feed(looked_at.batch(4)) as feed:
        state = feed.state_dict()
    with ub.Feed(looked_at.batch(5)) as feed, pytest.raises(ValueError, match=r"batch\(rows\) was 4"):
        feed.load_state_dict(state)


def test_rows_of_a_pass_are_known_where_they_can_be() -> None:
    assert table(100).shuffle(7).batch(4).rows_per_pass == 100
    assert table(100).windows(5, stride=2).batch(4).rows_per_pass == 48
    assert table(100).filter(lambda r: r["id"] > 0).batch(4).rows_per_pass is None


def test_importing_it_imports_numpy_and_no_framework() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import unbounded; "
        "new = {m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names); "
        "assert new <= {'unbounded', 'numpy'}, new; "
        "heavy = {'keras', 'jax', 'torch', 'tensorflow', 'psutil', 'rich', 'unbounded.keras', 'unbounded.testing'}; "
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=600)


# -- what it shows of itself, and of its batches -----------------------------------------------------------------------


def test_peek_gives_the_first_batch_and_shapes_what_it_is_like() -> None:
    stream = table(10, shuffle=False).map(lambda r: {**r, "x": np.stack([r["x"]] * 2, 1)}).batch(4)
    assert stream.peek()["id"].tolist() == [0, 1, 2, 3]
    assert stream.peek()["id"].tolist() == [0, 1, 2, 3]
    assert repr(stream.shapes()) == "{'id': int64[4], 'k': int64[4], 'x': float64[4, 2]}"
    assert stream.shapes()["x"].shape == (4, 2)
    assert len(table(10).peek()["id"]) == 10
    assert len(ub.from_generator(once).shuffle(10).batch(4).prefetch(2).peek()) == 4
    with pytest.raises(ub.StreamError, match="ended without a row"):
        table(5, passes=1).filter(lambda r: r["id"] > 10).batch(2).peek()


def test_a_notebook_shows_each_stage_with_what_it_holds_and_what_it_promises() -> None:
    text = table(100).filter(lambda r: r["id"] > 3).shuffle(50).windows(5).replay(40).batch(4).prefetch(2)._repr_html_()
    assert "<code>from_arrays(100 rows)</code>" in text
    assert "<code>.filter(&lt;lambda&gt;)</code>" in text
    assert "50 rows, 1.2 kB" in text  # of 24 bytes each
    assert "8 rows, 192 bytes" in text
    assert "guarantee: <b>exact</b>" in text
    assert "at most once" in ub.from_generator(once).batch(4)._repr_html_()


def test_a_notebook_shows_where_a_feed_stands_and_what_it_has_at_hand() -> None:
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=5)) as feed:
        next(iter(feed))
        text = feed._repr_html_()
        assert "pass 1, row 0 of 100" in text
        assert "Epoch(steps=5), number 0, 5 batches" in text
        assert "<td style='text-align:left'>1 batches</td>" in text
        assert "25 batches, 2.4 kB" in text
        assert "<code>.batch(4)</code>" in text
    assert "closed" in feed._repr_html_()


def test_a_word_that_is_not_there_is_an_attribute_error_for_whoever_asks() -> None:
    stream = table(10)
    assert not hasattr(stream, "repeat")
    assert getattr(stream, "__dlpack__", None) is None
    assert getattr(stream, "cache", 3) == 3


def test_the_number_of_a_row_is_told_behind_functions_that_change_rows() -> None:
    x = np.arange(100.0)
    x[17] = np.nan
    stream = ub.from_arrays(x, seed=5).map(np.abs).shuffle(30).batch(10)
    step = stream.step_of(17)
    with ub.Feed(stream) as feed, pytest.raises(ValueError, match=rf"of batch {step} .*, row 17 of the arrays\)"):
        list(feed.batches())
