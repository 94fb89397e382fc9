"""Keys and the state of keyed stages: slots as a dict gives them, and snapshots taken whole or not at all."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from unbounded.core import trees
from unbounded.core.node import EndOfStream
from unbounded.stages.keys import Slots, sequences


@st.composite
def blocks_of_keys(draw: Any) -> list[Any]:
    """Keys of several blocks, of one dtype: integers near and far, floats with NaN, text that becomes wider."""
    kind = draw(st.sampled_from(["near", "far", "float", "text"]))
    some = {
        "near": st.integers(-50, 2_000),
        "far": st.sampled_from([0, 3, -7, 2**20 - 1, 2**20, 2**40, -(2**63), 2**63 - 1]) | st.integers(0, 30),
        "float": st.sampled_from([0.0, -0.0, 1.5, np.inf, np.nan]) | st.integers(0, 30).map(float),
        "text": st.text("ab", max_size=6),
    }[kind]
    dtype = {"near": "int32", "far": "int64", "float": "float64", "text": None}[kind]
    found = draw(st.lists(st.lists(some, min_size=1, max_size=40), min_size=1, max_size=8))
    return [np.array(each, dtype) for each in found]


@given(blocks_of_keys(), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_slots_are_those_of_a_dict_also_after_they_were_made_anew(blocks: list[Any], anew: int) -> None:
    slots, known = Slots(np.empty(0, np.int64)), {}
    for i, keys in enumerate(blocks):
        named = [None if key != key else key for key in keys.tolist()]
        assert slots.of(keys).tolist() == [known.setdefault(key, len(known)) for key in named]
        assert [None if key != key else key for key in slots.names.tolist()] == list(known)
        if i == anew:
            slots = Slots(slots.names)
    assert len(slots) == len(known)


@pytest.mark.parametrize("keys", [5, 70_000])
@pytest.mark.parametrize("expire", [None, 3, 10**6])
def test_rows_are_put_together_by_slots_and_cut_where_a_key_was_silent(keys: int, expire: int | None) -> None:
    slots = np.random.default_rng(0).integers(0, keys, 3_000)
    slots[-1] = keys - 1
    expected: dict[int, list[list[int]]] = {}
    for i, slot in enumerate(slots.tolist()):
        mine = expected.setdefault(slot, [[]])
        if expire is not None and mine[-1] and i - mine[-1][-1] > expire:
            mine.append([])
        mine[-1].append(i)
    found = sequences(slots, expire)
    each = [found.order[at : at + n].tolist() for at, n in zip(found.start.tolist(), found.fresh.tolist(), strict=True)]
    assert each == [each for slot in sorted(expected) for each in expected[slot]]
    assert found.slots.tolist() == sorted(expected)
    numbers = np.arange(len(each))
    for index, of_key in ((found.leads, 0), (found.ends, -1)):
        assert [each[i] for i in numbers[index]] == [expected[slot][of_key] for slot in sorted(expected)]
    assert found.first.tolist() == [expected[slot][0][0] for slot in sorted(expected)]
    assert found.last.tolist() == [expected[slot][-1][-1] for slot in sorted(expected)]


def table(rows: int = 3_000) -> ub.Stream:
    random = np.random.default_rng(4)
    keys = random.integers(0, 40, rows) + np.arange(rows) // 500 * 40
    return ub.from_arrays({"k": keys, "id": np.arange(rows), "x": random.random(rows)}, shuffle=False, passes=1)


@pytest.mark.parametrize(
    "words",
    [
        lambda: table().windows(4, by="k", expire=600),
        lambda: table().windows(3, stride=5, by="k", expire=200),
        lambda: table().normalize("x", by="k", expire=600),
        lambda: table().join(table().map(lambda r: {"k": r["k"] + 1, "y": r["x"]}), on="k", within=300),
    ],
)
def test_where_memory_runs_out_nothing_is_lost(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = 0
    real = trees.empty
    random = np.random.default_rng(0)

    def scarce(shape: tuple[int, ...], dtype: Any) -> Any:
        nonlocal failed
        if random.random() < 0.1:
            failed += 1
            raise MemoryError
        return real(shape, dtype)

    def drained() -> list[Any]:
        top: Any = words().open(block_rows=60).top
        got: list[Any] = []
        with contextlib.closing(top):
            while True:
                try:
                    block = top.pull(None)
                except MemoryError:
                    continue
                except EndOfStream:
                    return [np.concatenate(each).tolist() for each in zip(*got, strict=True)]
                if block is not None and block.count:
                    got.append(trees.arrays(block.rows))

    expected = drained()
    monkeypatch.setattr(trees, "empty", scarce)
    assert drained() == expected
    assert failed > 5


def test_a_key_of_several_columns_is_refused_with_what_to_write() -> None:
    for words in (lambda s: s.windows(2, by=("k", "id")), lambda s: s.normalize("x", by=["k", "id"])):
        with pytest.raises(TypeError, match="the name of one column"):
            words(table())
    made = table().map(lambda rows: {**rows, "key": rows["k"] * 10_000 + rows["id"] % 2}).windows(2, by="key")
    assert (np.diff(made.batch(50).peek()["key"]) == 0).all()
