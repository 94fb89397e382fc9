"""fill and drop_missing: missing values are replaced by a constant or the last value, or their rows are left out."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import first, over_restarts
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")

NAN, NAT = np.nan, np.datetime64("NaT")


def table() -> dict[str, Any]:
    return {
        "k": np.array([1, 2, 1, 2, 3]),
        "x": np.array([NAN, 2.0, NAN, NAN, 5.0]),
        "v": np.array([[1.0, NAN], [NAN, NAN], [NAN, 3.0], [NAN, 4.0], [5.0, NAN]], np.float32),
        "at": np.array(["2026-01-01", "NaT", "NaT", "2026-01-04", "NaT"], "M8[D]"),
        "room": np.array(["", "hall", "", "", "attic"]),
        "ok": np.array([True, False, True, False, True]),
    }


def filled(*args: Any, rows: Any = None, **given: Any) -> tuple[Any, Any]:
    """The rows, and the stats of a feed that trained on them."""
    rows = table() if rows is None else rows
    stream = ub.from_arrays(rows, shuffle=False, passes=1).fill(*args, **given).batch(len(rows["k"]))
    with ub.Feed(stream, on_nan="pass") as feed:
        (batch,) = feed.batches()
        feed.trained()
        return batch, feed.stats


def test_a_constant_goes_into_all_columns_of_its_kind() -> None:
    batch, stats = filled(0)
    assert batch["x"].tolist() == [0, 2, 0, 0, 5]
    assert batch["v"].dtype == np.float32
    assert batch["v"].tolist() == [[1, 0], [0, 0], [0, 3], [0, 4], [5, 0]]
    assert batch["room"].tolist()[0] == ""
    assert np.isnat(batch["at"][1])
    assert stats.unfilled == 0
    batch, _ = filled("a longer text")
    assert batch["room"].tolist() == ["a longer text", "hall", "a longer text", "a longer text", "attic"]
    assert np.isnan(batch["x"][0])
    for day in (datetime.date(2026, 2, 1), np.datetime64("2026-02-01"), datetime.datetime(2026, 2, 1)):
        batch, _ = filled(day)
        assert batch["at"].astype(str).tolist()[1] == "2026-02-01"


def test_each_column_may_have_a_value_of_its_own() -> None:
    batch, _ = filled({"x": -1.0, "room": "none", "at": "last", "k": 7})
    assert batch["x"].tolist() == [-1, 2, -1, -1, 5]
    assert batch["room"].tolist() == ["none", "hall", "none", "none", "attic"]
    assert batch["at"].astype(str).tolist() == ["2026-01-01"] * 3 + ["2026-01-04"] * 2
    assert np.isnan(batch["v"][0, 1])
    assert batch["k"].tolist() == [1, 2, 1, 2, 3]


def test_the_last_value_is_that_of_the_row_before_and_what_has_none_is_counted() -> None:
    batch, stats = filled("last")
    assert batch["x"].tolist()[1:] == [2, 2, 2, 5]
    assert np.isnan(batch["x"][0])
    assert np.array_equal(batch["v"], [[1, NAN], [1, NAN], [1, 3], [1, 4], [5, 4]], equal_nan=True)
    assert batch["room"].tolist() == ["", "hall", "hall", "hall", "attic"]
    assert stats.unfilled == 2


def test_with_keys_it_is_that_of_the_same_key() -> None:
    batch, stats = filled("last", by="k")
    assert np.array_equal(batch["x"], [NAN, 2, NAN, 2, 5], equal_nan=True)
    assert batch["room"].tolist() == ["", "hall", "", "hall", "attic"]
    assert batch["at"].astype(str).tolist() == ["2026-01-01", "NaT", "2026-01-01", "2026-01-04", "NaT"]
    assert np.array_equal(batch["v"], [[1, NAN], [NAN, NAN], [1, 3], [NAN, 4], [5, NAN]], equal_nan=True)
    assert stats.unfilled == 5


def test_memory_of_the_user_is_not_written_to() -> None:
    rows = table()
    rows["x"].flags.writeable = False
    filled({"x": 0.0, "room": "none"}, rows=rows)
    filled("last", rows=rows)
    assert np.isnan(rows["x"][0])
    assert rows["room"][0] == ""


@pytest.mark.parametrize(
    ("args", "given_", "kind", "words"),
    [
        (({},), {}, ValueError, "names no column"),
        ((None,), {}, TypeError, "was given None. Expected a number, a text or a time"),
        (({"x": [1]},), {}, TypeError, r"was given \[1\]"),
        ((0.0,), {"by": "k"}, ValueError, 'without "last"'),
        (("last",), {"expire": 5}, ValueError, "without by="),
        (("last",), {"by": ("a", "b")}, TypeError, "the name of one column"),
        (("last",), {"by": "k", "expire": 0}, ValueError, "Expected at least 1"),
        (({"y": 0.0},), {}, ub.RowsError, r"fill\(\{'y': …\}\) was given rows without that column"),
        (({"x": "a"},), {}, ub.RowsError, r"fill\(\{'x': 'a'\}\): the column is float64.*Expected one for floats"),
        (({"room": 0},), {}, ub.RowsError, "the column is <U5.*for text"),
        (("last",), {"by": "none"}, ub.RowsError, r"fill\(by='none'\) was given rows without that column"),
    ],
)
def test_what_can_not_be_filled_so_is_refused(args: Any, given_: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        filled(*args, **given_)


def test_a_value_that_fits_no_column_is_refused() -> None:
    with pytest.raises(ub.RowsError, match=r"fill\(0\) found no column that it fits. Expected one of floats: whole"):
        filled(0, rows={"k": np.arange(3)})
    with pytest.raises(ub.RowsError, match="rows without names of columns"):
        ub.from_arrays(np.zeros(3)).fill("last").batch(3).peek()


def by_hand(keys: list[int], values: list[Any], expire: int | None) -> list[Any]:
    """The last values, by the words of the docs; None is a missing one."""
    last: dict[int, Any] = {}
    seen: dict[int, int] = {}
    out = []
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        if expire is not None and key in seen and i - seen[key] > expire:
            del last[key]
        seen[key] = i
        last[key] = last.get(key) if value is None else value
        out.append(last[key])
    return out


@given(
    st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(1, 99)), min_size=1, max_size=80),
    st.none() | st.integers(1, 9),
    st.sampled_from(["k", None]),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 3),
)
@settings(max_examples=120, deadline=None)
def test_last_values_are_those_of_a_dict_and_a_loop_however_blocks_are_cut_and_wherever_it_resumes(
    made: list[tuple[int, int | None]], expire: int | None, by: str | None, cuts: list[int], passes: int
) -> None:
    keys, values = [key for key, _ in made], [value for _, value in made]
    rows = {
        "k": np.array(keys),
        "x": np.array([NAN if value is None else value for value in values], float),
        "t": np.array(["" if value is None else str(value) * (value % 5) + "x" for value in values]),
    }
    given_: Any = {} if by is None else {"by": by, "expire": expire}
    stream = ub.from_arrays(rows, shuffle=False, passes=passes).fill("last", **given_)
    expected = by_hand(keys if by else [0] * len(keys), values, expire if by else None)
    got: list[Any] = []
    counts: dict[str, int] = {}
    for block in over_restarts(stream, cuts, at_end=lambda top: counts.update(top.counts())):
        if block.count:
            got += zip(block.rows["x"].tolist(), block.rows["t"].tolist(), strict=True)
    want = [(NAN, "") if value is None else (float(value), str(value) * (value % 5) + "x") for value in expected]
    assert repr(got) == repr(want * passes)  # NaN is not equal to itself
    assert counts["unfilled"] == passes * expected.count(None)


@pytest.mark.parametrize("expire", [None, 300])
def test_snapshots_of_many_keys_have_what_they_need(expire: int | None) -> None:
    random = np.random.default_rng(0)
    keys = random.integers(0, 60, 4000) + np.arange(4000) // 1500 * 30
    values = [None if missing else i for i, missing in enumerate((random.random(4000) < 0.7).tolist())]
    rows = {"k": keys, "x": np.array([NAN if value is None else value for value in values], float)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).fill("last", by="k", expire=expire)
    got = [x for block in over_restarts(stream, [40, 170], pulls=9) if block.count for x in block.rows["x"].tolist()]
    want = by_hand(keys.tolist(), values, expire)
    assert got == pytest.approx([NAN if value is None else value for value in want], nan_ok=True)


def test_keys_that_come_and_go_are_let_go_of() -> None:
    count = 20_000
    rows = {"k": np.arange(count) // 2, "x": np.where(np.arange(count) % 2, NAN, np.arange(count))}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).fill("last", by="k", expire=100)
    top: Any = stream.open(block_rows=50).top
    most = 0
    seen = 0
    while seen < count:
        block = top.pull(None)
        if block is None:
            continue
        seen += block.count
        assert block.rows["x"].tolist() == (block.rows["k"] * 2).tolist()
        most = max(most, sum(len(page[1]["seen"]) for page in top.cursor()["own"]["log"]))
    assert most < 3_000
    assert top.counts()["expired"] > 9_000
    top.close()


def test_a_gap_ends_what_is_carried() -> None:
    def some() -> Any:
        yield ub.Rows({"x": np.array([1.0, NAN])}, ub.Boundary("gap", missed=3))
        yield ub.Rows({"x": np.array([NAN, 2.0, NAN])})

    class Once:
        replayable = False

        def identity(self) -> Any:
            return "once"

        def open(self) -> Any:
            return OnceReader()

    class OnceReader:
        def __init__(self) -> None:
            self.rows = some()

        def position(self) -> Any:
            return 0

        def read(self, timeout: float) -> Any:
            try:
                return next(self.rows)
            except StopIteration:
                raise ub.EndOfStream from None

        def close(self) -> None:
            pass

    (batch,) = first(ub.from_source(Once()).fill("last").batch(5), 1)
    assert np.array_equal(batch["x"], [1, 1, NAN, 2, 2], equal_nan=True)


def test_rows_with_missing_values_are_left_out_and_counted() -> None:
    def left(*columns: str) -> tuple[Any, int]:
        stream = ub.from_arrays(table() | {"id": np.arange(5)}, shuffle=False, passes=1).drop_missing(list(columns))
        with ub.Feed(stream.batch(1), on_nan="pass") as feed:
            ids = [int(batch["id"][0]) for batch in feed.batches()]
            return ids, feed.stats.left_out

    assert left("x") == ([1, 4], 3)
    assert left("room", "x") == ([1, 4], 3)
    assert left("at") == ([0, 3], 3)
    assert left("k", "ok") == ([0, 1, 2, 3, 4], 0)
    assert left("room") == ([1, 4], 3)


def test_without_names_a_row_needs_all_values() -> None:
    rows = {"x": np.array([1.0, 2.0, NAN]), "pair": (np.array(["a", "", "c"]), np.zeros((3, 2)))}
    (batch,) = first(ub.from_arrays(rows, shuffle=False, passes=1).drop_missing().batch(1), 5)
    assert batch["x"].tolist() == [1.0]
    rows_of_arrays = ub.from_arrays(np.array([[1.0, NAN], [1.0, 2.0]]), shuffle=False, passes=1)
    (batch,) = first(rows_of_arrays.drop_missing().batch(1), 5)
    assert batch.tolist() == [[1.0, 2.0]]


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match=r"drop_missing\(columns\) was given 1.5. Expected the name of one column"):
        ub.from_arrays(table()).drop_missing([1.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="names no column"):
        ub.from_arrays(table()).drop_missing([])
    with pytest.raises(TypeError, match=r'Several columns are one list: \.drop_missing\(\["a", "b"\]\)'):
        ub.from_arrays(table()).drop_missing("x", "room")  # type: ignore[call-arg]
    assert repr(ub.from_arrays(table()).drop_missing("x").drop_missing(["x", "at"])).endswith(
        ".drop_missing('x').drop_missing(['x', 'at'])"
    )
    with pytest.raises(ub.RowsError, match=r"drop_missing\('y'\) was given rows without that column"):
        ub.from_arrays(table()).drop_missing("y").batch(2).peek()


def gaps(start: int = 0) -> Any:
    for i in itertools.count(start):
        yield {"id": i, "k": i % 3, "x": NAN if i % 5 in (1, 2) else float(i), "room": "" if i % 4 else f"r{i}"}


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "stages",
    [
        lambda s: s.fill("last"),
        lambda s: s.fill("last", by="k", expire=40),
        lambda s: s.fill({"x": 0.0, "room": "last"}).drop_missing("room"),
        lambda s: s.drop_missing("x").shuffle(10),
        lambda s: s.shuffle(7).fill("last").windows(3),
    ],
)
def test_they_resume(stages: Any, live: bool) -> None:
    source = ub.from_samples(lambda: gaps()) if live else ub.from_samples(gaps)
    assert_resumes(stages(source).batch(4), 8)


def test_counts_go_on_where_a_run_resumes(tmp_path: Any) -> None:
    stream = ub.from_samples(gaps).fill("last", by="k").drop_missing("room").batch(4)
    with ub.Feed(stream, on_nan="pass") as feed:
        for _ in itertools.islice(feed.batches(), 10):
            feed.trained()
        feed.save(tmp_path)
        before = feed.stats
    assert before.unfilled > 0
    assert before.left_out > 0
    with ub.Feed(stream, on_nan="pass") as feed:
        feed.load(tmp_path)
        next(feed.batches())  # the rows of the block at hand are read again, and counted again
        assert (feed.stats.unfilled, feed.stats.left_out) == (before.unfilled, before.left_out)
