"""on_nan="skip": rows with a NaN or an infinity are left out before batch and counted; a warning names the first."""

from __future__ import annotations

import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps
from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.testing import shaken

pytestmark = pytest.mark.usefixtures("no_threads_left")

BAD = (7, 8, 30, 99)


def sick(n: int = 100, **given: Any) -> ub.Stream:
    """Rows 0 … n-1 of a dict, some of them not finite in one column."""
    x = np.zeros((n, 3), np.float32)
    x[[7, 99], 1] = np.nan
    x[8, 0], x[30, 2] = np.inf, -np.inf
    return ub.from_arrays({"id": np.arange(n), "x": x}, **given)


def skipped(stream: ub.Stream, steps: int | None = None, **given: Any) -> list[Tree]:
    with ub.Feed(stream, on_nan="skip", **given) as feed, warnings.catch_warnings():
        warnings.simplefilter("ignore", ub.NonFiniteRows)
        return list(itertools.islice(feed.batches(), steps))


def column(batches: list[Tree], name: str = "id") -> list[int]:
    return [int(i) for batch in batches for i in np.ravel(batch[name])]


def test_bad_rows_are_left_out_and_batches_keep_their_size() -> None:
    with pytest.warns(ub.NonFiniteRows), ub.Feed(sick(shuffle=False).batch(10), on_nan="skip") as feed:  # noqa: PT031
        batches = list(itertools.islice(feed.batches(), 20))
        assert feed.stats.bad >= 8
    assert {len(batch["id"]) for batch in batches} == {10}
    assert column(batches)[:192] == [i for i in range(100) if i not in BAD] * 2


def test_without_batch_the_blocks_come_without_them() -> None:
    assert column(skipped(sick(shuffle=False, passes=1))) == [i for i in range(100) if i not in BAD]


def test_the_first_is_named_once_with_its_row_and_its_column_and_the_rest_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "unbounded")
    with (  # noqa: PT031
        pytest.warns(
            ub.NonFiniteRows,
            match=r"leaf \['x'\] has a NaN or an infinity in row \d+ of the stream, row (7|8|30|99) of the arrays",
        ) as said,
        ub.Feed(sick(seed=3).shuffle(20).batch(8), on_nan="skip") as feed,
    ):
        for _ in itertools.islice(feed.batches(), 36):
            feed.trained()
    assert len(said) == 1
    assert "logging.getLogger('unbounded')" in str(said[0].message)
    ordinals = [n for record in caplog.records for n in record.args[1]]  # type: ignore[index, union-attr]
    assert len(ordinals) == feed.stats.bad >= 8


def test_a_row_that_was_named_is_the_row_of_the_arrays(recwarn: pytest.WarningsRecorder) -> None:
    x = np.arange(50.0)
    x[33] = np.inf
    with ub.Feed(ub.from_arrays(x, seed=5).batch(10), on_nan="skip") as feed:
        list(itertools.islice(feed.batches(), 5))
    assert "row 33 of the arrays" in str(recwarn.pop(ub.NonFiniteRows).message)


def test_where_warnings_are_errors_the_row_is_still_only_left_out() -> None:
    seen: list[int] = []
    with ub.Feed(sick(shuffle=False, passes=1).batch(10), on_nan="skip") as feed:
        with pytest.raises(ub.NonFiniteRows):
            seen += column([next(feed.batches())])
        seen += column(list(feed.batches()))
    assert seen == [i for i in range(100) if i not in BAD]


WORDS: dict[str, Callable[[ub.Stream], ub.Stream]] = {
    "plain": lambda s: s.batch(7),
    "no batch": lambda s: s,
    "map": lambda s: s.map(lambda r: {**r, "y": r["x"] * 2}).batch(7).map(lambda r: r),
    "filter": lambda s: s.filter(lambda r: r["id"] % 5 > 0).batch(7),
    "shuffle": lambda s: s.shuffle(30).batch(7),
    "normalize": lambda s: s.normalize("x").batch(7),
    "windows": lambda s: s.windows(3).batch(7),
    "replay": lambda s: s.replay(40, reuse=2).batch(7),
    "random_map": lambda s: s.random_map(lambda r, rng: r, group=16).batch(7).random_map(lambda r, rng: r),
    "prefetch": lambda s: s.buffer(20).batch(7).prefetch(3),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_resume_at_any_step_gives_the_same_batches_whatever_the_blocks(name: str, seed: int) -> None:
    stream = WORDS[name](sick(seed=1))
    if name == "no batch":
        stream = stream.batch(7)
    whole = skipped(stream, 60)
    for step in (0, 1, 5, 13, 29, 45):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ub.NonFiniteRows)
            cut = shaken(stream, seed=seed, stall=0.0, fail=0.0)
            with ub.Feed(cut, on_nan="skip") as feed:
                for _ in itertools.islice(feed.batches(), step):
                    feed.trained()
                state, bad = feed.state_dict(), feed.stats.bad
            with ub.Feed(shaken(stream, seed=seed + 7, stall=0.1, fail=0.0), on_nan="skip") as feed:
                feed.load_state_dict(state)
                assert feed.stats.bad <= bad
                found = list(itertools.islice(feed.batches(), 10))
        for one, other in zip(whole[step : step + 10], found, strict=True):
            for (path, a), (_, b) in zip(trees.leaves(one), trees.leaves(other), strict=True):
                assert (a == b).all(), (step, path)


def test_what_was_left_out_is_counted_once_however_often_a_run_is_resumed() -> None:
    stream, state, bads = sick(shuffle=False).batch(5), None, []
    for _ in range(8):
        with ub.Feed(stream, on_nan="skip") as feed, warnings.catch_warnings():
            warnings.simplefilter("ignore", ub.NonFiniteRows)
            if state:
                feed.load_state_dict(state)
            for _ in itertools.islice(feed.batches(), 12):
                feed.trained()
            state = feed.state_dict()
            bads.append(feed.stats.bad)
    # 480 finite rows were trained: up to row 499, and blocks are read whole, up to the pass's end.
    assert bads == sorted(bads)
    assert bads[-1] == 20


def test_it_is_part_of_what_a_state_is_of() -> None:
    with ub.Feed(sick().batch(5), on_nan="skip") as feed:
        state = feed.state_dict()
    with (
        ub.Feed(sick().batch(5)) as feed,
        pytest.raises(ValueError, match=r"it was from_arrays\.on_nan\.batch and is from_arrays\.batch"),
    ):
        feed.load_state_dict(state)


@pytest.mark.parametrize("name", [name for name in WORDS if name not in ("no batch", "normalize")])
def test_a_run_that_a_bad_row_ended_goes_on_without_it(name: str) -> None:
    stream = WORDS[name](sick(shuffle=False))
    trained: list[Tree] = []
    with ub.Feed(stream) as feed:
        with pytest.raises(ValueError, match=r"on_nan='skip'\) leaves such rows out, and continues from here"):
            trained.extend(feed.batches())
        state = json.loads(json.dumps(feed.state_dict()))
    with ub.Feed(stream, on_nan="skip") as feed, warnings.catch_warnings():
        warnings.simplefilter("ignore", ub.NonFiniteRows)
        feed.load_state_dict(state)
        trained += itertools.islice(feed.batches(), 20)
    whole = skipped(stream, len(trained))
    for one, other in zip(trained, whole, strict=True):
        assert (one["id"] == other["id"]).all()


def test_a_run_that_goes_on_without_bad_rows_outlives_its_older_checkpoints(tmp_path: Path) -> None:
    stream = sick().shuffle(20).batch(5)
    with ub.Feed(stream) as feed:
        feed.load(tmp_path)
        with pytest.raises(ValueError, match="has a NaN"):
            for _ in feed.batches():
                pass
        feed.save(tmp_path, keep=2)
    with ub.Feed(stream, on_nan="skip") as feed:
        feed.load(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ub.NonFiniteRows)
            for _, _ in zip(range(6), feed.batches(), strict=False):
                feed.trained()
                feed.save(tmp_path, keep=2)  # what the first checkpoint needs is released by and by


def test_a_run_that_let_bad_rows_pass_does_not_go_on_without_them_unasked() -> None:
    with ub.Feed(sick().batch(5), on_nan="pass") as feed:
        state = feed.state_dict()
    with ub.Feed(sick().batch(5), on_nan="skip") as feed, pytest.raises(ValueError, match="another stream"):
        feed.load_state_dict(state)


def test_it_changes_no_random_choice() -> None:
    def noisy(rows: Tree, rng: np.random.Generator) -> Tree:
        return {**rows, "n": rng.normal(size=len(rows["id"]))}

    stream = ub.from_arrays({"id": np.arange(40)}, seed=2).shuffle(20).batch(8).random_map(noisy)
    with ub.Feed(stream) as feed:
        plain = list(itertools.islice(feed.batches(), 10))
    for one, other in zip(plain, skipped(stream, 10), strict=True):
        assert (one["id"] == other["id"]).all()
        assert (one["n"] == other["n"]).all()


def test_a_window_with_a_bad_row_in_it_goes() -> None:
    batches = skipped(sick(shuffle=False, passes=1).windows(3).batch(4))
    starts = [int(w[0]) for batch in batches for w in batch["id"]]
    assert starts == [i for i in range(98) if not {i, i + 1, i + 2} & set(BAD)]


def test_normalized_rows_that_were_not_finite_go_and_are_counted_once() -> None:
    with (  # noqa: PT031
        pytest.warns(ub.NonFiniteRows),
        ub.Feed(sick(shuffle=False, passes=1).normalize("x").batch(4), on_nan="skip") as f,
    ):
        assert column(list(f.batches())) == [i for i in range(100) if i not in BAD]
        assert f.stats.bad == 4


def test_of_a_window_all_rows_are_named() -> None:
    stream = sick(shuffle=False).windows(3).batch(4)
    with ub.Feed(stream) as feed, pytest.raises(ValueError, match=r"row 1 of batch 1 .*, rows 5 to 7 of the arrays"):
        list(feed.batches())
    with pytest.warns(ub.NonFiniteRows, match="in row 5 of the stream, rows 5 to 7 of the arrays"):
        first = next(ub.Feed(stream, on_nan="skip").batches())
    assert len(first["id"]) == 4


def test_what_becomes_non_finite_after_batch_is_refused() -> None:
    def divide(rows: Tree) -> Tree:
        with np.errstate(divide="ignore"):
            return {"id": rows["id"], "y": 1 / (rows["id"] - 3.0)}

    stream = ub.from_arrays({"id": np.arange(20)}, shuffle=False).batch(5).map(divide)
    with (
        ub.Feed(stream, on_nan="skip") as feed,
        pytest.raises(ValueError, match=r"\['y'\] has .* row 3 of batch 0 .*a function after \.batch\(\) has made it"),
    ):
        next(feed.batches())


@pytest.mark.parametrize("passes", [None, 2])
@pytest.mark.parametrize("late", [False, True])
def test_a_pass_of_bad_rows_only_is_an_error(passes: int | None, late: bool) -> None:
    rows = np.full((30, 2), np.nan)

    def chunks() -> Iterator[Any]:  # its passes end in a block without rows
        for i in range(0, 30, 7):
            yield rows[i : i + 7]

    stream = ub.from_generator(chunks, passes=passes or 10**9) if late else ub.from_arrays(rows, passes=passes)
    with pytest.warns(ub.NonFiniteRows), ub.Feed(stream.batch(4), on_nan="skip") as feed:  # noqa: PT031
        for _ in range(2):  # and it is said again
            with pytest.raises(ub.StreamError, match=r"Each of the 30 rows of a pass.*\.map\(\)"):
                next(feed.batches())


def test_rows_of_a_source_that_can_not_go_back_that_are_all_bad_let_themselves_be_interrupted() -> None:
    steps = Steps()
    steps.give(*[np.full(4, np.nan)] * 50)
    with pytest.warns(ub.NonFiniteRows), ub.Feed(steps.stream().batch(4), on_nan="skip") as feed:  # noqa: PT031
        steps.give(np.arange(4.0))
        assert next(feed.batches()).tolist() == [0, 1, 2, 3]
        assert feed.stats.bad == 200
        steps.end()


def test_an_epoch_of_passes_ends_where_a_pass_does() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ub.NonFiniteRows)
        with ub.Feed(sick().batch(12), epoch=ub.Epoch(passes=1), on_nan="skip") as feed:
            assert [len(list(run)) for run in feed.epochs(3)] == [8, 8, 8]
            assert feed.stats.passes == 3


def test_numbers_that_are_no_floats_and_large_sums_are_no_fault() -> None:
    big = np.full(1000, 1e38, np.float32)  # its sum is infinite, it is not
    stream = ub.from_arrays({"id": np.arange(1000), "x": big, "s": np.array(["a"] * 1000)}, shuffle=False, passes=1)
    assert column(skipped(stream.batch(100))) == list(range(1000))


def test_bfloat16_has_nan_too() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.arange(8, dtype=np.float32)
    x[3] = np.nan
    rows = {"id": np.arange(8), "x": x.astype(ml_dtypes.bfloat16)}
    assert column(skipped(ub.from_arrays(rows, shuffle=False, passes=1).batch(7))) == [0, 1, 2, 4, 5, 6, 7]
    with (
        ub.Feed(ub.from_arrays(rows, shuffle=False).batch(8)) as feed,
        pytest.raises(ValueError, match="row 3 of batch 0"),
    ):
        next(feed.batches())
