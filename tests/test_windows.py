"""windows: over all rows or each key's own, never across a boundary, equal for any cut into blocks."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import first, over_restarts, segments, table
from unbounded.core import trees
from unbounded.core.cursor import to_plain
from unbounded.core.node import EndOfStream
from unbounded.core.pages import split_pages
from unbounded.core.trees import RowsError
from unbounded.stages.changelog import SETTLED
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (5, 1), (5, 3), (3, 7), (60, 1), (7, 60)])
def test_windows_are_consecutive_rows_and_never_span_a_pass(length: int, stride: int) -> None:
    got = segments(table(50, shuffle=False, passes=2).windows(length, stride=stride))
    expected = [list(range(s, s + length)) for s in range(0, 50 - length + 1, stride)]
    for part in got:
        assert ([] if part is None else part["id"].tolist()) == expected
    assert len(got) == 2


def test_leaves_of_any_shape_get_the_window_as_their_second_dimension() -> None:
    (batch,) = first(
        ub.from_arrays({"x": np.zeros((20, 3, 2)), "y": np.arange(20)}, shuffle=False).windows(4).batch(5), 1
    )
    assert batch["x"].shape == (5, 4, 3, 2)
    assert batch["y"][2].tolist() == [2, 3, 4, 5]


def test_windows_never_span_a_gap() -> None:
    def some() -> Any:
        yield np.arange(5)
        yield np.arange(5, 7)

    got = segments(ub.from_generator(some, passes=3).windows(3))
    assert [part.tolist() for part in got] == [[[i, i + 1, i + 2] for i in range(5)]] * 3


def by_hand(keys: list[Any], length: int, stride: int, expire: int | None) -> list[list[int]]:
    """The rows of each window, one row after the other, by the words of the docs."""
    held: dict[Any, list[int]] = {}
    last: dict[Any, int] = {}
    over: dict[Any, int] = {}
    found = []
    for i, key in enumerate(keys):
        if expire is not None and key in last and i - last[key] > expire:
            held.pop(key, None)
            over.pop(key, None)
        last[key] = i
        if over.get(key, 0):
            over[key] -= 1
            continue
        held.setdefault(key, []).append(i)
        if len(held[key]) == length:
            found.append(held[key][:])
            over[key] = max(0, stride - length)
            held[key] = held[key][stride:]
    return found


@st.composite
def keyed(draw: Any) -> tuple[list[Any], int, int, int | None]:
    """Keys, and what windows() is given."""
    names = draw(st.sampled_from([[0, 1, 2, 3], list(range(40)), ["a", "bb", "ccc"], [0.5, float("inf"), -0.0]]))
    keys = draw(st.lists(st.sampled_from(names), min_size=1, max_size=120))
    return keys, draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.none() | st.integers(1, 12))


@given(keyed(), st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_keyed_windows_are_those_of_a_dict_and_a_loop_however_blocks_are_cut_and_wherever_it_resumes(
    given_: tuple[list[Any], int, int, int | None], cuts: list[int], passes: int
) -> None:
    keys, length, stride, expire = given_
    rows = {"k": np.array(keys), "id": np.arange(len(keys))}
    stream = ub.from_arrays(rows, shuffle=False, passes=passes).windows(length, stride=stride, by="k", expire=expire)
    got: list[Any] = []
    for block in over_restarts(stream, cuts):
        if block.count:
            assert (block.rows["k"] == block.rows["k"][:, :1]).all()
            got += block.rows["id"].tolist()
        if block.boundary:
            got.append("end of pass")
    assert got == [*by_hand(keys, length, stride, expire), "end of pass"] * passes


def drain(stream: ub.Stream, block_rows: int) -> list[Any]:
    """The ids in each window of a stream that ends."""
    top: Any = stream.open(block_rows=block_rows).top
    got: list[Any] = []
    with contextlib.closing(top), contextlib.suppress(EndOfStream):
        while True:
            block = top.pull(None)
            got += block.rows["id"].tolist() if block is not None and block.count else []
    return got


def test_keys_that_come_and_go_keep_their_rows_apart() -> None:
    random = np.random.default_rng(0)
    # Many keys, of which few come at a time, and text that becomes wider.
    keys = [f"k{'0' * (i // 1000)}{random.integers(0, 3) + i // 40 % 50}" for i in range(3_000)]
    rows = {"k": np.array(keys), "id": np.arange(3_000)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).map(lambda r: {**r, "k": np.array(r["k"].tolist())})
    for expire in (None, 500, 2_500):
        assert drain(stream.windows(4, by="k", expire=expire), 7) == by_hand(keys, 4, 1, expire)


def test_nan_is_a_key_like_any_other() -> None:
    rows = {"k": np.array([1.0, np.nan, 1.0, np.nan, np.nan]), "id": np.arange(5)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).windows(2, by="k")
    for size in (1, 5):
        assert drain(stream, size) == [[0, 2], [1, 3], [3, 4]]


def test_what_is_no_key_of_a_row_is_refused() -> None:
    for rows, sentence in (
        ({"id": np.arange(3), "n": np.arange(3)}, "without that column.*the rows have 'id', 'n'"),
        (np.arange(3), "without that column.*no columns: they are one array"),
        ({"k": np.zeros((3, 2)), "id": np.arange(3)}, r"rows of shape \(2,\).*one key in each row"),
    ):
        with pytest.raises(RowsError, match=sentence):
            first(ub.from_arrays(rows).windows(2, by="k").batch(1), 1)


def size_of(tree: Any) -> int:
    """The bytes of a tree's arrays."""
    return sum(each.nbytes for each in trees.arrays(tree))


@pytest.mark.parametrize(("expire", "most"), [(None, 1_001), (50, 51)])
def test_silent_keys_and_ever_new_ones_are_let_go_of_once_expired(expire: int | None, most: int) -> None:
    rows = {"k": np.arange(20_000), "id": np.arange(20_000)}
    if expire is None:
        rows["k"] %= 1_000  # for ever, so not ever-new ones
    stream = ub.from_arrays(rows, shuffle=False, passes=1).windows(3, stride=400, by="k", expire=expire)
    top: Any = stream.open(block_rows=7).top
    with contextlib.closing(top), contextlib.suppress(EndOfStream):
        while True:
            top.pull(None)
            own, taken = top.cursor()["own"], 0
            if own["snapshot"] is not None:
                assert len(own["snapshot"].tree["state"]["keys"]) <= most
                taken = size_of(own["snapshot"].tree)
            # A log may have twice the bytes of the snapshot, and some more.
            assert sum(size_of(page.tree) for page in own["log"]) <= 2 * taken + 16 * (SETTLED + 7)


def test_the_first_key_that_is_forgotten_is_said_and_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    keys = np.array([7, *[8] * 400, 7, 7, *[9] * 400, 7, 7])
    stream = ub.from_arrays({"k": keys, "id": np.arange(len(keys))}, shuffle=False, passes=1).windows(
        2, by="k", expire=300
    )
    with ub.Feed(stream.batch(1)) as feed:
        got = [batch["id"][0].tolist() for batch in feed.batches() if batch["k"][0, 0] == 7]
        assert got == [[401, 402], [803, 804]]
        assert feed.stats.expired == 2  # 7, twice; that 8 never came again was not noticed yet
    (said,) = caplog.messages
    assert "windows(by='k') forgets the key 7, which had no row among 300 rows" in said


def test_how_long_a_key_is_remembered_is_shown_though_it_was_not_given() -> None:
    assert "windows(3, by='k', expire=1000000)" in repr(table().windows(3, by="k"))
    assert "expire=None" in table().windows(3, by="k", expire=None).describe()
    assert "expire" not in repr(table().windows(3))


@pytest.mark.parametrize("dtype", ["datetime64[ns]", "S7", "U7", "float32", "bool", "timedelta64[s]", "complex64"])
def test_keys_of_any_dtype_are_told_apart(dtype: str) -> None:
    keys = [0, 1, 0, 1, 1, 0, 0, 1]
    rows = {"k": np.array(keys).astype(dtype), "id": np.arange(8)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).windows(3, by="k")
    assert drain(stream, 3) == by_hand(keys, 3, 1, None)
    assert_resumes(stream.batch(1), 3)


def test_no_time_is_a_key_like_any_other() -> None:
    keys = np.array(["NaT", "2020-01-01", "NaT", "2020-01-01"], "datetime64[s]")
    stream = ub.from_arrays({"k": keys, "id": np.arange(4)}, shuffle=False, passes=1).windows(2, by="k")
    assert drain(stream, 3) == [[0, 2], [1, 3]]


def test_what_a_cursor_refers_to_is_never_written_again() -> None:
    random = np.random.default_rng(0)
    rows = {"k": random.integers(0, 200, 6_000), "id": np.arange(6_000)}
    top: Any = (
        ub.from_arrays(rows, shuffle=False, passes=1).windows(4, stride=2, by="k", expire=900).open(block_rows=50).top
    )
    cursors, texts = [], []
    with contextlib.closing(top), contextlib.suppress(EndOfStream):
        while True:
            cursors.append(top.cursor())
            texts.append(json.dumps(to_plain(cursors[-1])))
            top.pull(None)
    assert [json.dumps(to_plain(cursor)) for cursor in cursors] == texts
    # And most of it is what the cursor before referred to, too.
    ids = [set(split_pages(cursor)[1]) for cursor in cursors]
    assert sum(len(after - before) for before, after in itertools.pairwise(ids)) < 2.2 * len(ids)


@pytest.mark.parametrize(("length", "stride"), [(5, 1), (5, 3), (3, 7)])
def test_what_a_step_contains_can_be_told(length: int, stride: int) -> None:
    stream = table(50).windows(length, stride=stride).batch(4)
    for step, batch in enumerate(first(stream, 30)):
        assert_same_rows(stream.batch_at(step), batch)


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.windows(5),
        lambda s: s.windows(5, stride=3),
        lambda s: s.windows(3, stride=7),
        lambda s: s.windows(55),
        lambda s: s.filter(lambda r: r["id"] < 50).windows(4),
        lambda s: s.windows(5, by="k"),
        lambda s: s.windows(3, stride=5, by="k", expire=4),
    ],
)
def test_it_resumes(words: Any) -> None:
    assert_resumes(words(table(60, passes=4)).batch(4), 9)


def test_a_key_that_was_forgotten_leaves_no_trace_however_often_memory_is_laid_out_anew() -> None:
    random = np.random.default_rng(3)
    # Blocks of few keys among many, so that keys go and come back at other places in memory.
    keys = (random.integers(0, 4, 8_000) + np.arange(8_000) // 300 % 9 * 3).tolist()
    rows = {"k": np.array(keys), "id": np.arange(8_000)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1)
    for length, stride, expire in ((5, 1, 40), (9, 20, 700), (40, 7, 2_000)):
        words = stream.windows(length, stride=stride, by="k", expire=expire)
        for size in (11, 400):
            assert drain(words, size) == by_hand(keys, length, stride, expire)


def test_integers_are_told_apart_however_far_from_each_other_they_are() -> None:
    random = np.random.default_rng(5)
    for dtype, low, high in (("int8", -128, 127), ("uint64", 0, 2**64 - 1), ("int64", -(2**63), 2**63 - 1)):
        few = random.integers(low, high, 20, dtype, endpoint=True)
        edges = np.array([low, high, high - 1], dtype)
        keys = np.concatenate([edges, few, random.permutation(np.tile(few, 9)), edges])
        stream = ub.from_arrays({"k": keys, "id": np.arange(len(keys))}, shuffle=False, passes=1)
        assert drain(stream.windows(2, by="k"), 17) == by_hand(keys.tolist(), 2, 1, None)
    rising = np.arange(400) * 7_000 % 2_000_003  # beyond what a table holds
    keys = np.concatenate([rising, rising[::-1], rising])
    stream = ub.from_arrays({"k": keys, "id": np.arange(len(keys))}, shuffle=False, passes=1)
    assert drain(stream.windows(2, by="k", expire=900), 50) == by_hand(keys.tolist(), 2, 1, 900)
