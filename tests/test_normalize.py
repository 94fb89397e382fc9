"""normalize: each row by the statistics of all rows up to it, bit-equal for any cut into blocks."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import first, over_restarts, table
from unbounded.core import trees
from unbounded.core.node import EndOfStream
from unbounded.stages.changelog import SETTLED
from unbounded.stages.moments import GROUP, normalized, start
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def by_numpy(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for i in range(len(x)):
        past = x[: i + 1]
        known = past[np.isfinite(past)]
        mean, std = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
        out[i] = (x[i] - mean) / (std if std > 0 else 1.0)
    return out


def running(x: np.ndarray, cuts: Any = ()) -> tuple[np.ndarray, Any]:
    state, parts = start(1), []
    for part in np.split(x, list(cuts)):
        if len(part):
            out, state = normalized(part[:, None], state)
            parts.append(out[:, 0])
    return np.concatenate(parts), state


def test_it_is_numpys_mean_and_variance_prefix_by_prefix() -> None:
    x = np.random.default_rng(0).normal(3, 2, 2 * GROUP + 100)
    assert np.allclose(running(x)[0], by_numpy(x), rtol=1e-9, atol=1e-9)


def test_nan_and_infinity_stay_out_pass_through_and_are_counted() -> None:
    x = np.random.default_rng(1).normal(size=400)
    x[[0, 1, 7, 200]] = np.nan
    x[50] = np.inf
    out = running(x)[0]
    assert np.allclose(out, by_numpy(x), equal_nan=True)
    assert np.isnan(out[[0, 1, 7, 200]]).all()
    assert out[50] == np.inf
    with ub.Feed(ub.from_arrays({"x": x}, shuffle=False, passes=1).normalize().batch(50), on_nan="pass") as feed:
        seen = [b["x"] for b in feed.batches()]
        assert np.array_equal(np.concatenate(seen), out, equal_nan=True)
        assert feed.stats.bad == 5


def test_a_large_offset_with_small_noise_does_not_cancel() -> None:
    noise = np.random.default_rng(2).normal(0, 1e-3, 5 * GROUP)
    out = running(1e9 + noise)[0]
    assert np.allclose(out[100:], by_numpy(noise)[100:], atol=1e-3)


def test_after_a_million_rows_the_statistics_are_still_those_of_all() -> None:
    x = np.random.default_rng(3).normal(1e6, 3.0, 1_000_000)
    x[500_000:] += 10
    out, state = running(x)
    assert np.isclose(out[-1], (x[-1] - x.mean()) / x.std(), rtol=1e-9)
    assert np.isclose((state.mean + state.sum / np.maximum(1, state.known + state.more))[0], x.mean(), rtol=1e-13)


def test_it_is_bit_equal_however_the_rows_are_cut() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(5, 2, 3 * GROUP)
    x[rng.integers(0, len(x), 100)] = np.nan
    x[:3] = np.nan
    whole = running(x)[0]
    for _ in range(30):
        cuts = np.sort(rng.integers(0, len(x), rng.integers(0, 200)))
        assert running(x, cuts)[0].tobytes() == whole.tobytes()
    assert running(x[:200], range(1, 200))[0].tobytes() == whole[:200].tobytes()


def test_each_key_has_statistics_of_its_own() -> None:
    x = np.random.default_rng(5).normal(size=300) * np.repeat([1, 10, 100], 100)
    keys = np.repeat([0, 1, 2], 100)
    mix = np.random.default_rng(6).permutation(300)
    (batch,) = first(ub.from_arrays({"x": x[mix], "k": keys[mix]}, shuffle=False).normalize("x", by="k").batch(300), 1)
    for key in range(3):
        mine = keys[mix] == key
        assert np.allclose(batch["x"][mine], by_numpy(x[mix][mine]))


def test_only_the_columns_named_are_changed_and_dtypes_stay() -> None:
    rows = {
        "a": np.arange(6, dtype=np.float32),
        "b": np.arange(6.0),
        "n": np.arange(6),
        "w": np.ones((6, 2, 2), np.float32),
    }
    (named,) = first(ub.from_arrays(rows, shuffle=False).normalize("a").batch(6), 1)
    assert named["a"].dtype == np.float32
    assert (named["b"] == rows["b"]).all()
    (every,) = first(ub.from_arrays(rows, shuffle=False).normalize().batch(6), 1)
    assert (every["b"] != rows["b"]).any()
    assert (every["n"] == rows["n"]).all()
    assert (every["w"] == 0).all()
    (pair,) = first(ub.from_arrays((rows["a"], rows["b"]), shuffle=False).normalize(1).batch(6), 1)
    assert (pair[0] == rows["a"]).all()
    assert (pair[1] != rows["b"]).any()


def by_key(keys: list[Any], x: np.ndarray, expire: int | None) -> np.ndarray:
    """Key by key and row by row, by the words of the docs."""
    states: dict[Any, Any] = {}
    last: dict[Any, int] = {}
    out = np.empty_like(x)
    for i, key in enumerate(keys):
        if expire is not None and key in last and i - last[key] > expire:
            del states[key]
        last[key] = i
        out[i : i + 1], states[key] = normalized(x[i : i + 1], states.get(key) or start(x.shape[1]))
    return out


@given(st.data(), st.sampled_from([2, 40]), st.none() | st.integers(1, 30), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_keyed_statistics_are_those_of_a_dict_and_a_loop_however_blocks_are_cut_and_wherever_it_resumes(
    data: Any, many: int, expire: int | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 400))
    keys = random.integers(0, random.integers(1, many + 1), n)
    x = random.normal(5, 2, (n, 2))
    x[random.integers(0, n, n // 10)] = np.nan
    rows = {"k": keys, "x": x, "y": x[:, 0].astype(np.float32)}
    cuts = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=4))
    stream = ub.from_arrays(rows, shuffle=False, passes=1).normalize(by="k", expire=expire)
    got = [block.rows for block in over_restarts(stream, cuts) if block.count]
    assert np.concatenate([g["x"] for g in got]).tobytes() == by_key(keys.tolist(), x, expire).tobytes()
    expected = by_key(keys.tolist(), rows["y"][:, None].astype(np.float64), expire)[:, 0].astype(np.float32)
    assert np.concatenate([g["y"] for g in got]).tobytes() == expected.tobytes()


def test_keys_with_thousands_of_rows_and_keys_with_one_come_out_as_key_by_key() -> None:
    random = np.random.default_rng(7)
    keys = np.where(
        random.random(9_000) < 0.4,
        0,
        np.where(random.random(9_000) < 0.5, 1 + random.integers(0, 60, 9_000), np.arange(9_000)),
    )
    x = random.normal(size=(9_000, 1)) * 10 ** random.integers(0, 6, (9_000, 1))
    expected = by_key(keys.tolist(), x, None)
    for size in (37, 2_000, 9_000):
        top: Any = (
            ub.from_arrays({"k": keys, "x": x}, shuffle=False, passes=1).normalize(by="k").open(block_rows=size).top
        )
        with contextlib.closing(top):
            got: list[Any] = []
            while sum(map(len, got)) < 9_000:
                block = top.pull(None)
                got += [block.rows["x"]] if block is not None and block.count else []
        assert np.concatenate(got).tobytes() == expected.tobytes()


def test_a_key_that_was_silent_for_long_begins_anew_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = {"k": np.array([1, 2, 2, 1, *[2] * 500, 1]), "x": np.arange(505.0)}
    with ub.Feed(ub.from_arrays(rows, shuffle=False, passes=1).normalize(by="k", expire=400).batch(505)) as feed:
        (batch,) = feed.batches()
        assert batch["x"][3] == 1.0  # one standard deviation above the mean of two
        assert batch["x"][504] == 0.0  # the first of its statistics
        assert feed.stats.expired == 1
    (said,) = caplog.messages
    assert "normalize(by='k') forgets the key 1, which had no row among 400 rows" in said


def test_how_long_a_key_is_remembered_is_shown_and_needs_keys() -> None:
    assert "expire=1000000" in repr(table().normalize("x", by="k"))
    with pytest.raises(ValueError, match="without by="):
        table().normalize("x", expire=5)


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.normalize("x"),
        lambda s: s.normalize("x", by="k"),
        lambda s: s.normalize(by="id", expire=9),
        lambda s: s.normalize().shuffle(20),
    ],
)
def test_it_resumes(words: Any) -> None:
    assert_resumes(words(table(70)).batch(7), 12)


@pytest.mark.parametrize(
    ("rows", "have"),
    [
        ({"a": np.ones(4), "b": np.ones(4)}, "'a', 'b'"),
        ((np.ones(4), np.ones(4)), "positions 0 to 1"),
        (np.ones(4), "one array"),
    ],
)
def test_a_key_that_is_not_there_says_which_columns_are(rows: Any, have: str) -> None:
    with (
        ub.Feed(ub.from_arrays(rows).normalize(by="zz").batch(2)) as feed,
        pytest.raises(ub.RowsError, match=rf"by='zz'.*without that column.*the rows have .*{have}"),
    ):
        next(feed.batches())


def test_keys_that_come_once_are_let_go_of_once_expired() -> None:
    rows = {"k": np.arange(30_000), "x": np.zeros((30_000, 8))}
    top: Any = ub.from_arrays(rows, shuffle=False, passes=1).normalize("x", by="k", expire=500).open(block_rows=100).top
    most = 0
    with contextlib.closing(top), contextlib.suppress(EndOfStream):
        while True:
            top.pull(None)
            own = top.cursor()["own"]
            most = max(most, sum(map(trees.count, (page.tree for page in own["log"]))))
            assert own["snapshot"] is None or len(own["snapshot"].tree["state"]["keys"]) <= 501
    # The rows since the snapshot are no more than what its keys and those that came since explain.
    assert 500 < most < 4 * 501 + SETTLED + 200
