"""mix: rows of several streams in exact shares, in a keyed order, from any position."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, Steps, first, from_start, once
from unbounded.core.block import Block
from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.node import EndOfStream
from unbounded.stages.mix_rows import scattered
from unbounded.testing import Clock, assert_resumes


def tagged(value: int, n: int = 100, **given: Any) -> ub.Stream:
    """n rows that say whose they are, and which row."""
    return ub.from_arrays({"of": np.full(n, value), "row": np.arange(n)}, **{"shuffle": False, **given})


def counts(stream: ub.Stream, rows: int, of: int = 2) -> list[int]:
    """How many of the first rows are of each input."""
    size = stream.batch_size or 1
    batches = first(stream, -(-rows // size))
    return np.bincount(np.concatenate([b["of"] for b in batches])[:rows], minlength=of).tolist()


OLD_NEW = {"old": 0.25, "new": 0.75}


# Patient enough for any machine: an input that a busy one holds up is not silent.
LEAVE_OUT: dict[str, Any] = {"on_silence": "leave_out", "patience": 3600.0}


def two(**given: Any) -> ub.Stream:
    return ub.mix({"old": tagged(0), "new": tagged(1, 70)}, **{"weights": OLD_NEW, **given})


# -- shares -----------------------------------------------------------------------------------------------------------


def test_each_group_of_1024_rows_has_its_quotas() -> None:
    for batch in first(two().batch(1024), 5):
        assert np.bincount(batch["of"]).tolist() == [256, 768]


def test_shares_are_exact_over_a_million_rows_however_unequal() -> None:
    stream = ub.mix({"most": tagged(0), "few": tagged(1, 7)}, weights={"most": 0.999, "few": 0.001})
    rows = 1000 * 1024
    found = counts(stream.batch(10_240), rows)
    assert found == [rows * 999 // 1000, rows // 1000]
    third = ub.mix([tagged(0), tagged(1), tagged(2)])
    assert sorted(counts(third.batch(10_240), rows, 3)) == [rows // 3, rows // 3, rows // 3 + 1]


def test_rows_of_each_input_come_in_its_own_order_and_none_is_left_out() -> None:
    batches = first(two().batch(100), 40)
    of, row = (np.concatenate([b[name] for b in batches]) for name in ("of", "row"))
    for value, n in ((0, 100), (1, 70)):
        rows = row[of == value]
        assert (rows == np.arange(len(rows)) % n).all()


def test_the_order_within_a_group_is_random_and_differs_from_group_to_group_and_by_the_seed() -> None:
    one, other = first(two().batch(1024), 2)
    assert (one["of"] != other["of"]).any()
    assert (first(two(seed=1).batch(1024), 1)[0]["of"] != one["of"]).any()
    runs = np.diff(np.flatnonzero(np.diff(one["of"]))).max()
    assert runs < 64


def test_a_table_of_weights_is_read_at_the_edges_of_groups() -> None:
    weights = [(0, {"old": 1, "new": 0}), (1500, {"old": 1, "new": 3}), (4096, {"old": 0, "new": 1})]
    found = [np.bincount(b["of"], minlength=2).tolist() for b in first(two(weights=weights).batch(1024), 6)]
    assert found == [[1024, 0], [1024, 0], [256, 768], [256, 768], [0, 1024], [0, 1024]]


def test_an_input_that_has_no_share_yet_is_not_read() -> None:
    opened: list[int] = []

    def later(start: int = 0) -> Iterator[Any]:
        opened.append(start)
        yield from from_start(start)

    stream = ub.mix(
        [ub.from_generator(from_start), ub.from_generator(later)], weights=[(0, [1, 0]), (100_000, [1, 1])]
    ).batch(1000)
    first(stream, 60)
    assert not opened
    first(stream, 101)
    assert opened


# -- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "steps"),
    [
        (two().batch(7), 12),
        (two(seed=3).shuffle(50).batch(6).prefetch(3), 12),
        (
            ub.mix([tagged(0).shuffle(30), tagged(1, 40).filter(lambda r: r["row"] % 3 > 0)])
            .replay(60, reuse=2)
            .batch(8),
            12,
        ),
        (ub.mix([ub.from_generator(Counter), ub.from_generator(from_start)], weights=[3, 1]).batch(5), 12),
        (ub.mix({"a": ub.mix([tagged(0), tagged(1, 30)]), "b": tagged(2, 50).prefetch(2)}).batch(9), 12),
        (ub.mix([tagged(0, passes=2), tagged(1, 300, passes=1)], ends="all").batch(11), 12),
        (ub.mix([tagged(0, passes=2), tagged(1, 3000)], ends="first").batch(11), 12),
        # Over the edges of groups.
        (two().batch(300), 5),
        (two(weights=[(0, [1, 1]), (1024, [1, 9])]).batch(300), 5),
        (ub.mix([two(**LEAVE_OUT), tagged(2)], **LEAVE_OUT).shuffle(30).batch(300), 5),
        (ub.mix([tagged(0, passes=40), tagged(1, 3000, passes=1), tagged(2, 10, passes=1)], ends="all").batch(400), 9),
    ],
    ids=["plain", "shuffled", "stages", "functions", "nested", "all", "first", "wide", "table", "leave_out", "groups"],
)
def test_a_mix_goes_on_exactly_from_wherever_it_stood(stream: ub.Stream, steps: int) -> None:
    assert_resumes(stream, steps)


def test_one_live_input_among_others_is_put_back_with_its_rows() -> None:
    live = ub.from_generator(once).map(lambda rows: {"of": np.ones_like(rows), "row": rows})
    assert_resumes(ub.mix({"old": tagged(0), "new": live}).batch(8), steps=8)


def test_any_batch_is_told_without_running_up_to_it() -> None:
    nested = ub.mix({"a": two(), "b": tagged(2, 50).shuffle(20)}, weights=[(0, [1, 1]), (1024, [3, 1])])
    for stream in (two(), two(weights=[(0, [1, 1]), (1024, [1, 9])]), nested, nested.shuffle(30)):
        batches = first(stream.batch(50), 60)
        for step in (0, 1, 19, 20, 21, 41, 59):
            for name in ("of", "row"):
                assert (stream.batch(50).batch_at(step)[name] == batches[step][name]).all()
    assert len(two().batch(10).batch_at(10**12)["of"]) == 10


def test_the_step_of_a_row_of_any_source_is_told() -> None:
    nested = ub.mix({"a": two(), "b": tagged(2, 50, shuffle=True)}).shuffle(30).batch(16)
    batches = first(nested, 200)
    for source, of in (("a/old", 0), ("a/new", 1), ("b", 2)):
        for row in (0, 17, 49):
            for after in (0, 3, 64, 100):
                step = nested.step_of(row, source=source, after=after)
                where = [i for i, b in enumerate(batches) if ((b["of"] == of) & (b["row"] == row)).any()]
                assert step == next(i for i in where if i >= after)
    with pytest.raises(ValueError, match="'a/old', 'a/new', 'b'"):
        nested.step_of(3)


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_mix_ends_with_the_first_of_its_inputs_or_goes_on_to_the_last() -> None:
    def ends(policy: Any) -> ub.Stream:
        return ub.mix([tagged(0, passes=1), tagged(1, 5000, passes=1)], ends=policy).batch(10)

    of = np.concatenate([b["of"] for b in first(ends("first"), 10**6)])
    assert (of == 0).sum() == 100
    assert 80 < (of == 1).sum() < 125
    of = np.concatenate([b["of"] for b in first(ends("all"), 10**6)])
    assert np.bincount(of).tolist() == [100, 5000]
    assert ends("all").declared_rows() == 5100


def test_a_declared_end_is_known_beforehand() -> None:
    stream = ub.mix([tagged(0, passes=3), tagged(1)], weights=[1, 2]).batch(7)
    with ub.Feed(stream) as feed:
        assert len(list(feed.batches())) == -(-stream.declared_rows() // 7) == feed.length
    assert stream.has_end
    assert not ub.mix([tagged(0, passes=3), tagged(1)], ends="all").has_end


# -- silence ----------------------------------------------------------------------------------------------------------


def rows_of(value: int, n: int) -> Any:
    return {"of": np.full(n, value), "row": np.arange(n)}


def pull(top: Any, rows: int) -> list[int]:
    """Pull so many rows, without waiting; fewer where there are none."""
    found: list[int] = []
    while len(found) < rows:
        block = next((b for b in (top.pull(0.0) for _ in range(3)) if b is not None), None)
        if block is None:
            return found
        found += block.rows["of"].tolist()
    return found


def test_an_input_without_rows_is_waited_for() -> None:
    steps = Steps()
    stream = ub.mix({"old": tagged(0), "new": steps.stream()})
    opened = stream.open()
    try:
        steps.give(rows_of(1, 5))
        got = pull(opened.top, 1)
        steps.await_taken(1)
        while sum(got) < 5:
            got += pull(opened.top, 1)
        got += pull(opened.top, 2000)
        assert sum(got) == 5  # and then the sixth is waited for
        assert opened.top.waits_for == "new"  # type: ignore[attr-defined]
        steps.give(rows_of(1, 1))
        while sum(got) < 6:
            got += pull(opened.top, 1)
    finally:
        steps.end()
        opened.top.close()


def test_a_silent_input_is_left_out_from_the_edge_of_a_group_and_comes_back_at_one() -> None:
    steps, clock = Steps(), Clock(100.0)
    stream = ub.mix({"old": tagged(0), "new": steps.stream()}, on_silence="leave_out", patience=2.0, weights=[1, 1])
    opened = stream.open(clock)
    top: Any = opened.top
    try:
        steps.give(rows_of(1, 512))
        got = pull(top, 1)
        steps.await_taken(1)
        while len(got) < 1024:
            got += pull(top, 1024)
        assert np.bincount(got).tolist() == [512, 512]
        assert pull(top, 1) == []  # its patience is not over
        clock.advance(2.5)
        assert sum(pull(top, 2048)[:2048]) == 0
        steps.give(rows_of(1, 100))
        steps.await_taken(2)
        cursor = json.loads(json.dumps(top.cursor()))
        assert sum(pull(top, 1024)) == 0  # it has not its share of a group yet
        arrivals = json.loads(json.dumps(to_plain(opened.arrivals.state())))
        steps.give(rows_of(1, 1000))
        steps.await_taken(3)
        got = []
        while not sum(got):
            got = pull(top, 1024)
        assert sum(got) == 512  # and no more: what it did not give is not owed
        # It does the same again; and so does another process, as far as was decided.
        top.restore(cursor)
        assert sum(pull(top, 1024)) == 0
        opened.arrivals.id = "another process"
        opened.arrivals.restore(from_plain(arrivals))
        top.restore(cursor)
        assert sum(pull(top, 1024)) == 0
    finally:
        steps.end()
        top.close()


@pytest.mark.parametrize("ends", ["first", "all"])
@pytest.mark.parametrize("rest", [0, 100])
def test_an_input_that_ends_while_it_is_left_out_gives_the_rest_of_its_rows(ends: Any, rest: int) -> None:
    steps, clock = Steps(), Clock(100.0)
    new = steps.stream(passes=1)
    stream = ub.mix({"old": tagged(0), "new": new}, on_silence="leave_out", patience=2.0, weights=[1, 1], ends=ends)
    opened = stream.open(clock)
    top: Any = opened.top

    def until_the_end(most: int) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(EndOfStream):
            while len(found) < most:
                found += pull(top, 1)
        return found

    try:
        steps.give(rows_of(1, 512))
        got = pull(top, 1)
        steps.await_taken(1)
        while len(got) < 1024:
            got += pull(top, 1024 - len(got))
        assert pull(top, 1) == []
        clock.advance(2.5)
        assert sum(pull(top, 2048)) == 0
        cursor = json.loads(json.dumps(top.cursor()))
        if rest:
            steps.give(rows_of(1, rest))
        steps.end()
        got = []
        if ends == "first":
            got = until_the_end(10**9)
        else:
            while sum(got) < rest:
                got += pull(top, 1)
            got += until_the_end(5_000)
        assert sum(got) == rest
        # Another process does the same.
        arrivals = json.loads(json.dumps(to_plain(opened.arrivals.state())))
        opened.arrivals.id = "another process"
        opened.arrivals.restore(from_plain(arrivals))
        top.restore(cursor)
        assert until_the_end(len(got) + (ends == "first"))[: len(got)] == got
    finally:
        steps.end()
        top.close()


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ub.mix({"a": tagged(0)}), "Expected 2 to 16"),
        (lambda: ub.mix(tagged(0)), "Expected a dict of streams"),
        (lambda: ub.mix({"a": tagged(0), "b/c": tagged(1)}), "by the name of 'b/c'"),
        (lambda: ub.mix([tagged(0), tagged(1).batch(3)]), r"'1' has \.batch\(3\)"),
        (lambda: ub.mix([tagged(0), np.arange(3)]), "given a ndarray for '1'"),
        (lambda: two(weights={"old": 1}), "one weight for each"),
        (lambda: two(weights=[1, 2, 3]), "3 weights for 2 streams"),
        (lambda: two(weights=[1, -2]), "the weight -2"),
        (lambda: two(weights=[0, 0]), "all streams the weight 0"),
        (lambda: two(weights=[1, 0]), "'new' the weight 0 throughout"),
        (lambda: two(weights=[(5, [1, 1])]), "row 5 first"),
        (lambda: two(weights=[(0, [1, 1]), (0, [1, 2])]), "row 0 after 0"),
        (lambda: two(weights=0.5), "expected a weight for each stream"),
        (lambda: two(on_silence="skip"), "expected 'wait' or 'leave_out'"),
        (lambda: two(ends="last"), "expected 'first' or 'all'"),
        (lambda: two(patience=-1), "patience"),
        (lambda: two().windows(3), r"Put \.windows\(\) before the mix"),
    ],
)
def test_what_makes_no_mix_is_refused_in_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        make()


def test_rows_of_two_structures_are_refused_in_a_sentence() -> None:
    stream = ub.mix({"old": tagged(0), "new": tagged(1).map(lambda r: {**r, "of": r["of"].astype("f4")})}).batch(8)
    with pytest.raises(ub.RowsError, match=r"'new' \(.*float32.*'old' \(.*int64.*\.map\(\)"):
        first(stream, 1)


def test_text_of_two_widths_is_of_one_structure() -> None:
    stream = ub.mix([ub.from_arrays(np.array(["a"])), ub.from_arrays(np.array(["long"]))]).batch(16)
    assert set(first(stream, 1)[0].tolist()) == {"a", "long"}


def test_rows_of_text_are_put_into_memory_that_holds_no_text_yet() -> None:
    memory = np.full(100, 0x110000, np.uint32).view("<U1")  # what uninitialised memory may hold: no character
    with pytest.raises(SystemError):
        memory[0]
    texts = np.array([str(i % 10) for i in range(50)])
    parts = [(np.arange(at, 100, 2), Block({"t": texts}, 50)) for at in (0, 1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("unbounded.core.trees.empty", lambda shape, dtype: memory)
        rows = scattered(100, parts, np.zeros(100, np.int64), timed=False).rows
    assert rows["t"].tolist() == np.repeat(texts, 2).tolist()
