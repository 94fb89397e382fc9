"""Random chains of stages, made by hypothesis: each resumes exactly from any point, with disturbances."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import Counter, from_start, table
from unbounded.core import trees
from unbounded.testing import assert_same_rows


def _jitter(rows: Any, rng: np.random.Generator) -> Any:
    return {**rows, "x": rows["x"] + rng.normal(size=rows["x"].shape)}


def _double(rows: Any) -> Any:
    return {**rows, "x": rows["x"] * 2}


def _most(rows: Any) -> Any:
    # Works on windows as well: by the first of a row's ids.
    return rows["id"].reshape(len(rows["id"]), -1)[:, 0] % 4 != 3


def _gaps(rows: Any) -> Any:
    # Also what a column of tables may be: keys, text and times, of the first row of a window.
    first_id = rows["id"].reshape(len(rows["id"]), -1)[:, 0]
    text = np.where(first_id % 4 == 1, "", first_id.astype(str))
    x = np.where(rows["id"] % 5 == 2, np.nan, rows["x"])
    return {**rows, "x": x, "key": first_id % 3, "text": text, "at": first_id // 6 * 60 + first_id}


def _whole(rows: Any) -> Any:
    # The columns of all streams of a mix are the same.
    return {name: rows[name] for name in ("id", "k", "x")}


Word = Callable[[ub.Stream], ub.Stream]

small = st.integers(1, 40)
seeds = st.integers(0, 5)

FLAT: st.SearchStrategy[Word] = st.one_of(
    st.just(lambda s: s.map(_double)),
    st.builds(lambda n: lambda s: s.map(_double, workers=n), st.integers(1, 3)),
    st.builds(lambda n, k: lambda s: s.random_map(_jitter, seed=k, group=n), small, seeds),
    st.just(lambda s: s.filter(_most)),
    st.builds(lambda n, k: lambda s: s.shuffle(n, seed=k), small, seeds),
    st.builds(lambda n: lambda s: s.buffer(n), small),
    st.just(lambda s: s.normalize("x")),
    st.builds(
        lambda n, r, h: lambda s: s.replay(n, reuse=r, half_life=h),
        small,
        st.sampled_from([0.5, 1.0, 2.5]),
        st.sampled_from([None, 8.0]),
    ),
    st.just(lambda s: s.map(_gaps).fill({"x": "last", "text": "none"}).fill(0.0).encode("text", hash=9).map(_whole)),
    st.builds(
        lambda e: lambda s: s.map(_gaps).fill("last", by="key", expire=e).fill(0.0).map(_whole),
        st.sampled_from([None, 20]),
    ),
    st.just(lambda s: s.map(_gaps).drop_missing(["x", "text"]).time("at").encode("text", ["5", "7"]).map(_whole)),
    st.builds(lambda n: lambda s: s.encode("k", hash=n), small),
)

WORDS: st.SearchStrategy[Word] = st.one_of(
    FLAT,
    st.builds(lambda n, k: lambda s: s.windows(n, stride=k), st.integers(1, 5), st.integers(1, 7)),
    st.builds(
        lambda n, k, by: (
            lambda s: s.map(_gaps).fill(0.0).time("at").windows(n, stride=k, by=by, max_gap=90).map(_whole)
        ),
        st.integers(1, 3),
        st.integers(1, 4),
        st.sampled_from([None, "key"]),
    ),
)

AFTER: st.SearchStrategy[Word] = st.one_of(
    st.just(lambda s: s.map(_double)),
    st.builds(lambda k: lambda s: s.random_map(_jitter, seed=k), seeds),
    st.builds(lambda n: lambda s: s.prefetch(n), st.integers(1, 9)),
)


def _named(rows: Any) -> Any:
    return {"id": rows, "k": rows % 3, "x": rows / 7}


SIMPLE: st.SearchStrategy[ub.Stream] = st.one_of(
    st.builds(table, st.integers(30, 120), seed=seeds),
    st.builds(table, st.integers(30, 120), shuffle=st.just(False), passes=st.integers(4, 6)),
    st.just(ub.from_generator(from_start).map(_named)),
    st.just(ub.from_generator(Counter).map(_named)),
)


def _mixed(parts: list[tuple[ub.Stream, list[Word]]], weights: list[int], seed: int, ends: Any) -> ub.Stream:
    """A mix of chains."""
    streams = []
    for stream, words in parts:
        for word in words:
            stream = word(stream)
        streams.append(stream)
    return ub.mix(streams, weights=weights[: len(streams)], seed=seed, ends=ends)


def _twice(mixed: ub.Stream, other: ub.Stream, seed: int) -> ub.Stream:
    """A mix of a mix."""
    return ub.mix({"mixed": mixed, "other": other}, weights={"mixed": 3, "other": 1}, seed=seed)


MIXED: st.SearchStrategy[ub.Stream] = st.builds(
    _mixed,
    st.lists(st.tuples(SIMPLE, st.lists(FLAT, max_size=2)), min_size=2, max_size=3),
    st.lists(st.integers(1, 50), min_size=3, max_size=3),
    seeds,
    st.sampled_from(["first", "all"]),
)

SOURCES: st.SearchStrategy[ub.Stream] = st.one_of(SIMPLE, MIXED, st.builds(_twice, MIXED, SIMPLE, seeds))


def _chain(source: ub.Stream, words: list[Word], size: int, after: list[Word]) -> ub.Stream:
    stream = source
    for word in words:
        try:
            stream = word(stream)
        except ValueError as error:
            if "stands after ub.mix()" not in str(error):
                raise
    try:
        stream = stream.batch(size)
    except ValueError as error:
        assume("before the declared end" not in str(error))
        raise
    for word in after:
        stream = word(stream)
    return stream


@given(
    source=SOURCES,
    words=st.lists(WORDS, max_size=4),
    size=st.integers(1, 12),
    after=st.lists(AFTER, max_size=2),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=int(os.environ.get("STATE_WALKS", "300")) // 10,  # a chain takes as long as several walks
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_chain_goes_on_exactly_from_wherever_it_stood(
    source: ub.Stream, words: list[Word], size: int, after: list[Word], seed: int
) -> None:
    stream = _chain(source, words, size, after)
    try:
        ub.testing.assert_resumes(stream, steps=6, seed=seed, ahead=4)
    except AssertionError as error:
        # A chain that filters and slides everything away has nothing to go on with.
        if "no batch at all" not in str(error):
            raise


@given(source=SOURCES, words=st.lists(WORDS, max_size=3), size=st.integers(1, 12), after=st.lists(AFTER, max_size=1))
@settings(
    max_examples=int(os.environ.get("STATE_WALKS", "300")) // 5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_what_is_looked_up_of_any_chain_is_what_comes_there(
    source: ub.Stream, words: list[Word], size: int, after: list[Word]
) -> None:
    stream = _chain(source, words, size, after)
    try:
        stream.batch_at(0)
    except LookupError:
        return  # what comes depends on values, or on all rows before
    with ub.Feed(stream) as feed:
        for step, batch in enumerate(itertools.islice(feed.batches(), 90)):
            if step % 7 in (0, 3) and len(batch["id"]) == size:
                assert_same_rows(stream.batch_at(step), batch)
                for name in stream.leaves if len(stream.leaves) == 1 else ():
                    assert np.array_equal(stream.rows_at(step, source=name), batch["id"])


def test_a_long_chain_of_every_word_goes_on_exactly() -> None:
    stream = (
        table(100, seed=3)
        .filter(_most)
        .normalize("x")
        .random_map(_jitter, group=10)
        .windows(3)
        .shuffle(20)
        .replay(40, reuse=2)
        .take(1000)
        .buffer(20)
        .batch(6)
        .map(_double, workers=2)
        .prefetch(3)
    )
    ub.testing.assert_resumes(stream, steps=12)


def test_memory_that_was_handed_out_is_never_written_again() -> None:
    # A trainer may read a batch long after the call in which it was given it: JAX does, in a thread of its own.
    base = table(500, seed=1)
    for stream in (
        base,
        base.shuffle(70),
        base.replay(100, reuse=2.0),
        base.windows(5, by="k"),
        base.normalize("x"),
        base.filter(_most),
        ub.from_samples(lambda: ({"id": i, "k": i % 3} for i in itertools.count())),
    ):
        with ub.Feed(stream.batch(7)) as feed:
            batches = list(itertools.islice(feed.batches(), 200))
            copies = [trees.map_leaves(np.copy, batch) for batch in batches]
            for _ in itertools.islice(feed.batches(), 200):
                pass
            for batch, copy in zip(batches, copies, strict=True):
                assert_same_rows(batch, copy)
