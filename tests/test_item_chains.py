"""Random chains of stages for items, made by hypothesis: each resumes exactly from any point, with disturbances."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import unbounded as ub
from unbounded.testing import assert_resumes


def _row(i: int) -> Any:
    return np.arange(i, i + i % 7, dtype=np.int32)


def _items(n: int, **given: Any) -> ub.Stream:
    rows = {"id": np.arange(n), "k": np.arange(n) % 5 // 2, "x": ub.ragged([_row(i) for i in range(n)])}
    return ub.from_arrays(rows, **given)


def _samples(start: int = 0) -> Iterator[Any]:
    for i in itertools.count(start):
        yield {"id": i, "k": i % 3, "x": _row(i)}


def _pieces(record: Any) -> Iterator[Any]:
    for i in range(int(record["id"]) % 3):
        yield {**record, "x": record["x"][i:]}


def _whole(record: Any) -> Any:
    """A tree of rows: two of each second record."""
    many = 1 + int(record["id"]) % 2
    return {"id": np.full(many, record["id"]), "k": np.full(many, record["k"]), "x": ub.ragged([record["x"]] * many)}


def _longer(rows: Any) -> Any:
    return {**rows, "x": ub.ragged([np.concatenate([row, row[:1]]) for row in rows["x"]])}


Word = Callable[[ub.Stream], ub.Stream]
small, seeds = st.integers(2, 40), st.integers(0, 5)

SOURCES: st.SearchStrategy[ub.Stream] = st.one_of(
    st.builds(_items, st.integers(30, 120), seed=seeds),
    st.builds(_items, st.integers(30, 120), shuffle=st.just(False), passes=st.integers(3, 5)),
    st.just(ub.from_samples(_samples, ragged="x")),
    st.builds(
        lambda a, b: ub.mix([a, b]), st.builds(_items, st.integers(30, 60)), st.builds(_items, st.integers(20, 90))
    ),
)

WORDS: st.SearchStrategy[Word] = st.one_of(
    st.builds(lambda fn: lambda s: s.flat_map(fn), st.sampled_from([_pieces, _whole])),
    st.builds(lambda p, k: lambda s: s.split(p, seed=k)[0], st.sampled_from([0.3, 0.8]), seeds),
    st.builds(lambda p: lambda s: s.split(p, by=["id"])[1], st.sampled_from([0.2, 0.5])),
    st.builds(lambda n, r, k: lambda s: s.balance("k", rows=n, repeats=r, seed=k), small, st.integers(1, 9), seeds),
    st.builds(lambda n, k: lambda s: s.shuffle(n, seed=k), small, seeds),
    st.builds(lambda n, r: lambda s: s.replay(n, reuse=r), small, st.sampled_from([0.5, 2.5])),
    st.builds(lambda n: lambda s: s.buffer(n), small),
    st.just(lambda s: s.map(_longer)),
    st.just(lambda s: s.filter(lambda rows: rows["id"] % 4 != 3)),
    st.builds(lambda n: lambda s: s.map(lambda rows: rows, workers=n), st.integers(1, 3)),
)

ENDS: st.SearchStrategy[Word] = st.one_of(
    st.builds(lambda n, m: lambda s: s.pad(n, lengths="n", truncate=True).batch(m), st.integers(1, 12), small),
    st.builds(
        lambda bounds, m, within: lambda s: s.batch(m, bucket=ub.Buckets(bounds, truncate=True, within=within)),
        st.sampled_from([[3], [2, 5], [1, 2, 4, 9]]),
        st.integers(1, 9),
        st.sampled_from([None, 5, 30]),
    ),
)


@given(source=SOURCES, words=st.lists(WORDS, max_size=4), end=ENDS, seed=st.integers(0, 1000))
@settings(
    max_examples=int(os.environ.get("STATE_WALKS", "300")) // 10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_chain_of_items_goes_on_exactly_from_wherever_it_stood(
    source: ub.Stream, words: list[Word], end: Word, seed: int
) -> None:
    stream = source
    for word in words:
        stream = word(stream)
    try:
        stream = end(stream)
    except ValueError as error:
        assume("before the declared end" not in str(error))
        raise
    try:
        assert_resumes(stream, steps=6, seed=seed, ahead=4)
    except AssertionError as error:
        # A chain that leaves everything out has nothing to go on with.
        if "no batch at all" not in str(error):
            raise
    except ub.StreamError as error:
        if "without a batch" not in str(error) and "ended without a row" not in str(error):
            raise


def test_a_long_chain_of_every_word_for_items_goes_on_exactly() -> None:
    stream = (
        _items(100, seed=3)
        .split(0.8, by="id")[0]
        .flat_map(_pieces)
        .balance("k", rows=50, repeats=3)
        .shuffle(20)
        .replay(40, reuse=2)
        .map(_longer, workers=2)
        .take(1000)
        .buffer(20)
        .batch(6, bucket=ub.Buckets([2, 5, 9], lengths="n", within=40))
        .prefetch(3)
    )
    assert_resumes(stream, steps=12)
