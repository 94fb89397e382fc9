"""windows: sliding, over all rows or each key's own, never over a break, the same whatever the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, segments, table
from unbounded._node import EndOfStream
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
    (batch,) = first(ub.arrays({"x": np.zeros((20, 3, 2)), "y": np.arange(20)}, shuffle=False).windows(4).batch(5), 1)
    assert batch["x"].shape == (5, 4, 3, 2)
    assert batch["y"][2].tolist() == [2, 3, 4, 5]


def test_windows_never_span_a_gap() -> None:
    def some() -> Any:
        yield np.arange(5)
        yield np.arange(5, 7)

    got = segments(ub.generate(some, passes=3).windows(3))
    assert [part.tolist() for part in got] == [[[i, i + 1, i + 2] for i in range(5)]] * 3


def by_hand(keys: np.ndarray, length: int, stride: int, expire: int | None) -> list[tuple[int, list[int]]]:
    """Each window's last row and its rows, one key at a time, by the words of the docs."""
    held: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    over: dict[int, int] = {}
    found = []
    for i, key in enumerate(keys.tolist()):
        if expire is not None and key in last and i - last[key] > expire:
            held.pop(key), over.pop(key, None)
        last[key] = i
        if over.get(key, 0):
            over[key] -= 1
            continue
        held.setdefault(key, []).append(i)
        if len(held[key]) == length:
            found.append((i, held[key][:]))
            over[key] = max(0, stride - length)
            held[key] = held[key][stride:]
    return found


@pytest.mark.parametrize(
    ("length", "stride", "expire"), [(3, 1, None), (3, 2, None), (2, 5, None), (3, 1, 4), (4, 3, 7)]
)
def test_keyed_windows_hold_one_key_each_in_the_order_of_their_last_rows(
    length: int, stride: int, expire: int | None
) -> None:
    keys = np.random.default_rng(0).integers(0, 4, 200)
    stream = ub.arrays({"k": keys, "id": np.arange(200)}, shuffle=False, passes=1).windows(
        length, stride=stride, by="k", expire=expire
    )
    expected = by_hand(keys, length, stride, expire)
    for block_rows in (1, 7, 64, 200):
        opened = stream.open(block_rows=block_rows)
        got: list[list[int]] = []
        try:
            while True:
                block: Any = opened.top.pull(None)
                if block is not None and block.count:
                    got += block.rows["id"].tolist()
        except EndOfStream:
            pass
        assert got == [rows for _, rows in expected]


def test_a_silent_keys_rows_are_in_the_mark_and_let_go_of_once_expired() -> None:
    def some(start: int = 0) -> Any:
        while True:
            yield {"k": np.array([start % 1000]), "id": np.array([start])}
            start += 1

    for expire, most in ((None, 301), (50, 52)):
        with ub.Feed(ub.generate(some).windows(1, stride=400, by="k", expire=expire).batch(1)) as feed:
            for i, _ in enumerate(feed.batches()):
                feed.trained()
                if i == 300:
                    break
            assert len(feed._opened.top.mark()["from"]["tails"]) <= most + 1


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
