"""join: rows and labels are matched by fixed ordinals, for any cut into blocks and from any resume."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import first, over_restarts
from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.node import CannotTell, EndOfStream
from unbounded.core.trees import RowsError
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def rows_of(ids: Any, **more: Any) -> ub.Stream:
    ids = np.asarray(ids)
    return ub.from_arrays({"id": ids, "row": np.arange(len(ids)), **more}, shuffle=False, passes=1)


def labels_of(ids: Any, **more: Any) -> ub.Stream:
    ids = np.asarray(ids)
    return ub.from_arrays({"id": ids, "label": np.arange(len(ids)) * 1.0, **more}, shuffle=False, passes=1)


def pairs(stream: ub.Stream, block_rows: int = 7) -> list[tuple[int, float]]:
    """The numbers of the rows that come out, and of their labels."""
    top: Any = stream.open(block_rows=block_rows).top
    got: list[tuple[int, float]] = []
    with contextlib.closing(top), contextlib.suppress(EndOfStream):
        while True:
            block = top.pull(None)
            if block is not None and block.count:
                got += zip(block.rows["row"].tolist(), block.rows["label"].tolist(), strict=True)
    return got


def by_hand(
    rows: list[Any], labels: list[Any], times: list[tuple[float, int, int]], within: float
) -> tuple[list[tuple[int, int]], int]:
    """Pairs by the words of the docs, rows without a label as (row, -1); and how many labels had no row.

    `times` are (time, 0 for a row and 1 for a label, number), in order.
    """
    waiting: list[list[tuple[float, int]]] = [[], []]
    found, strays = [], 0
    for time, side, number in times:
        for entry in [e for e in waiting[0] if e[0] < time - within]:
            waiting[0].remove(entry)
            found.append((entry[1], -1))
        for entry in [e for e in waiting[1] if e[0] < time - within]:
            waiting[1].remove(entry)
            strays += 1
        key = (labels if side else rows)[number]
        for entry in waiting[1 - side]:
            if (rows if side else labels)[entry[1]] == key:
                waiting[1 - side].remove(entry)
                found.append((entry[1], number) if side else (number, entry[1]))
                break
        else:
            waiting[side].append((time, number))
    return found + [(number, -1) for _, number in waiting[0]], strays + len(waiting[1])


@st.composite
def joined(draw: Any) -> tuple[list[int], list[int], float, list[float] | None, list[float] | None]:
    """Keys of rows and labels, within, and times of both or None."""
    many = draw(st.sampled_from([3, 50]))
    rows = draw(st.lists(st.integers(0, many), min_size=1, max_size=80))
    labels = draw(st.lists(st.integers(0, many), min_size=1, max_size=80))
    within = draw(st.integers(1, 30))
    if draw(st.booleans()):
        return rows, labels, within, None, None
    steps = st.lists(st.integers(0, 3), min_size=80, max_size=80)
    times = [list(itertools.accumulate(draw(steps)[: len(each)], initial=0))[1:] for each in (rows, labels)]
    return rows, labels, within, times[0], times[1]


@given(joined(), st.lists(st.integers(1, 30), min_size=1, max_size=5), st.sampled_from(["drop", "keep"]))
@settings(max_examples=120, deadline=None)
def test_pairs_are_those_of_a_loop_however_blocks_are_cut_and_wherever_it_resumes(
    case: Any, cuts: list[int], unmatched: Any
) -> None:
    rows, labels, within, row_times, label_times = case
    sides = zip((rows, labels), (row_times, label_times), strict=True)
    order = sorted(
        (i if times is None else times[i], side, i) for side, (ids, times) in enumerate(sides) for i in range(len(ids))
    )
    expected, strays = by_hand(rows, labels, order, within)
    given_up = [row for row, label in expected if label < 0]
    more: list[dict[str, Any]] = [{}, {}]
    if row_times is not None:
        more = [{"t": np.array(row_times)}, {"t": np.array(label_times)}]
    sunk: list[int] = []
    stream = rows_of(rows, **more[0]).join(
        labels_of(labels, **more[1]),
        on="id",
        within=within,
        time=None if row_times is None else "t",
        unmatched=unmatched if unmatched == "keep" else lambda lost: sunk.extend(lost["row"].tolist()),
    )
    got: list[tuple[int, float]] = []
    counts: dict[str, int] = {}
    for block in over_restarts(stream, cuts, pulls=1, at_end=lambda top: counts.update(top.counts())):
        if block.count:
            label = np.nan_to_num(block.rows["label"], nan=-1)
            got += zip(block.rows["row"].tolist(), label.tolist(), strict=True)
    assert counts["unmatched"] == len(given_up)
    if unmatched == "keep":
        assert got == expected
    else:
        assert got == [pair for pair in expected if pair[1] >= 0]
        # What was given up at the very end may be given again after a restart: here, by the run that found the end.
        assert sunk[: len(given_up)] == given_up
    assert counts["unmatched_labels"] <= strays


def test_labels_before_and_after_their_row_twice_and_never() -> None:
    stream = rows_of([5, 6, 7, 8]).join(labels_of([6, 5, 5, 9]), on="id")
    assert pairs(stream) == [(1, 0), (0, 1)]
    with ub.Feed(stream.batch(1)) as feed:
        assert [batch["row"][0] for batch in feed.batches()] == [1, 0]
        assert feed.stats.unmatched == 2  # 7 and 8
        assert feed.stats.unmatched_labels == 2  # one of 5, and 9


def counted(stream: ub.Stream) -> tuple[list[int], int, int]:
    """The numbers of the rows that come out, and how many rows and labels waited in vain."""
    with ub.Feed(stream.batch(1), on_nan="pass") as feed:
        got = [int(batch["row"][0]) for batch in feed.batches()]
        return got, feed.stats.unmatched, feed.stats.unmatched_labels


def test_what_still_waits_at_the_end_is_counted() -> None:
    assert counted(rows_of([1, 1, 1]).join(labels_of([1, 2, 1]), on="id")) == ([0, 1], 1, 1)
    # The labels are over, and with them the stream: the third row is not read.
    assert counted(rows_of([1, 1, 1]).join(labels_of([1, 1]), on="id")) == ([0, 1], 0, 0)
    assert counted(rows_of([5, 6, 7, 8]).join(labels_of([6, 5, 5, 9]), on="id")) == ([1, 0], 2, 2)
    late = labels_of([1, 2], t=np.array([10.5, 11.0]))  # the first one 10.5 s after its row
    assert counted(rows_of([1, 2], t=np.array([0.0, 10.0])).join(late, on="id", time="t", within=10)) == ([1], 1, 1)
    seen: list[int] = []
    sunk = rows_of([1, 2, 3]).join(labels_of([2]), on="id", unmatched=lambda lost: seen.extend(lost["row"].tolist()))
    assert counted(sunk) == ([1], 2, 0)
    assert seen == [0, 2]
    kept = rows_of([1, 2, 3]).join(labels_of([9, 2, 9]), on="id", unmatched="keep")
    assert counted(kept) == ([1, 0, 2], 2, 2)


def test_a_time_that_is_infinite_or_none_counts_as_that_of_the_row_before() -> None:
    labels = labels_of([1, 2, 3], t=np.array([1.0, 2.0, 3.0]))
    for odd in (np.inf, -np.inf, np.nan):
        rows = rows_of([1, 2, 3], t=np.array([0.0, odd, 2.0]))
        assert sorted(pairs(rows.join(labels, on="id", time="t", within=10))) == [(0, 0), (1, 1), (2, 2)]
    far = np.array(["2020-01-01", "NaT", "9999-12-31"], "M8[D]")  # out of the range of nanoseconds
    rows, labels = rows_of([1, 2, 3], t=far), labels_of([1, 2, 3], t=far)
    assert pairs(rows.join(labels, on="id", time="t", within=10)) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(
    "words",
    [
        lambda: rows_of([1, 2]).join(rows_of([1]), on="id"),
        lambda: rows_of([1, 2]).join(ub.from_arrays({"key": np.arange(3)}, passes=1), on="id"),
        lambda: rows_of([1, 2], t=np.array(["a", "b"])).join(labels_of([1], t=np.array([1.0])), on="id", time="t"),
        lambda: rows_of([1, 2], t=np.zeros(2)).join(labels_of([1]), on="id", time="t"),
        lambda: rows_of([1, 2]).join(labels_of(["1"]), on="id"),
    ],
)
def test_rows_that_can_not_be_joined_are_refused_whenever_they_are_asked_for(words: Any) -> None:
    top: Any = words().open(block_rows=7).top
    sentences = set()
    with contextlib.closing(top):
        for _ in range(3):
            with pytest.raises(RowsError) as caught:
                top.pull(None)
            sentences.add(str(caught.value))
    assert len(sentences) == 1


def test_of_one_key_the_first_row_has_the_first_label() -> None:
    rows, labels = [1, 1, 2, 1, 2], [2, 1, 2, 1, 1]
    waiting: dict[int, deque[int]] = defaultdict(deque)
    for i, key in enumerate(labels):
        waiting[key].append(i)
    expected = {(i, float(waiting[key].popleft())) for i, key in enumerate(rows)}
    for size in (1, 2, 5):
        assert set(pairs(rows_of(rows).join(labels_of(labels), on="id"), size)) == expected


def test_rows_wait_for_so_many_rows_or_seconds_and_no_longer() -> None:
    ids = np.arange(40)
    late = np.concatenate([np.full(10, 99), ids[:30]])  # each label ten rows after its row
    assert len(pairs(rows_of(ids).join(labels_of(late), on="id", within=10))) == 30
    assert pairs(rows_of(ids).join(labels_of(late), on="id", within=9)) == []
    start = np.datetime64("2020-01-01", "ms")
    for unit in (lambda seconds: seconds, lambda seconds: start + (seconds * 1000).astype("m8[ms]")):
        rows = rows_of(ids, t=unit(ids * 60.0))
        labels = labels_of(ids[::4], t=unit(ids[::4] * 60.0 + 3600))
        assert len(pairs(rows.join(labels, on="id", time="t", within=3600))) == 10
        assert pairs(rows.join(labels, on="id", time="t", within=3599)) == []


def test_rows_without_a_label_are_kept_with_nan_or_given_to_a_function() -> None:
    rows, labels = rows_of([0, 1, 2, 3, 4, 5]), labels_of([0, 2, 2])
    kept = pairs(rows.join(labels, on="id", within=2, unmatched="keep"))
    assert [row for row, label in kept if np.isnan(label)] == [1, 3, 4, 5]
    seen: list[Any] = []
    got = pairs(rows.join(labels, on="id", within=2, unmatched=lambda lost: seen.append(lost)))
    assert got == [(0, 0.0), (2, 1.0)]
    assert [i for lost in seen for i in lost["id"].tolist()] == [1, 3, 4, 5]
    assert not seen[0]["id"].flags.writeable
    with pytest.raises(RowsError, match="'y' is int64, which has no NaN"):
        first(
            rows.join(rows_of([9]).map(lambda r: {"id": r["id"], "y": r["row"]}), on="id", unmatched="keep").batch(1), 1
        )


def test_a_function_for_rows_without_a_label_that_fails_is_asked_again_and_nothing_is_lost() -> None:
    calls = itertools.count()
    seen: list[int] = []

    def sink(rows: Any) -> None:
        if next(calls) % 2 == 0:
            raise OSError("full")
        seen.extend(rows["id"].tolist())

    stream = rows_of(np.arange(50)).join(labels_of(np.arange(0, 50, 2)), on="id", within=20, unmatched=sink)
    top: Any = stream.open(block_rows=5).top
    got: list[int] = []
    with contextlib.closing(top):
        while True:
            try:
                block = top.pull(None)
            except OSError:
                top.restore(from_plain(to_plain(top.cursor())))  # it stands before what could not be given away
                continue
            except EndOfStream:
                break
            got += block.rows["id"].tolist() if block is not None and block.count else []
    assert sorted(got + seen) == list(range(50))


def test_keys_of_any_dtype_are_joined_and_those_that_can_not_be_equal_refused() -> None:
    ids = np.array([3, 1, 2])
    for rows, labels in (
        (ids.astype("U3"), ids[::-1].astype("U9")),
        (ids.astype("S3"), ids[::-1].astype("S1")),
        (ids.astype("M8[s]"), ids[::-1].astype("M8[s]").astype("M8[ms]")),
        (ids, ids[::-1].astype(np.float64)),
        (np.array([np.nan, 1, 2]), np.array([2, 1, np.nan])),
    ):
        assert sorted(pairs(rows_of(rows).join(labels_of(labels), on="id"))) == [(0, 2), (1, 1), (2, 0)]
    with pytest.raises(RowsError, match="int64 in the rows and <U1 in the labels"):
        pairs(rows_of(ids).join(labels_of(ids.astype("U1")), on="id"))


def test_what_makes_no_join_is_refused() -> None:
    rows, labels = rows_of([1]), labels_of([1])
    with pytest.raises(TypeError, match="given a dict for the labels"):
        rows.join({"id": [1]}, on="id")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the labels has .batch\(1\)"):
        rows.join(labels.batch(1), on="id")
    with pytest.raises(ValueError, match="within=0"):
        rows.join(labels, on="id", within=0)
    with pytest.raises(ValueError, match="unmatched='sink'"):
        rows.join(labels, on="id", unmatched="sink")  # type: ignore[arg-type]
    with pytest.raises(RowsError, match="both have a column 'row'"):
        pairs(rows.join(rows_of([1]), on="id"))
    with pytest.raises(RowsError, match="for its labels, was given rows without that column"):
        pairs(rows.join(ub.from_arrays({"key": np.arange(3)}, passes=1), on="id"))
    with pytest.raises(CannotTell, match="join"):
        rows.join(labels, on="id").batch(1).batch_at(0)


def test_how_long_rows_wait_is_shown_and_each_source_has_a_name() -> None:
    stream = rows_of([1]).join(labels_of([1]), on="id")
    assert repr(stream).endswith("on='id', within=100000)")
    assert "rows: from_arrays" in stream.describe()
    assert list(stream.leaves) == ["rows", "labels"]
    assert stream.fingerprint != rows_of([1]).join(labels_of([1]), on="id", within=9).fingerprint


def endless(**given: Any) -> ub.Stream:
    """Rows for ever, and labels for two of three of them, out of order."""
    random = np.random.default_rng(0)
    ids = np.arange(90)
    labelled = random.permutation(ids)[:60]
    rows = ub.from_arrays({"id": ids, "x": ids * 1.0}, shuffle=False)
    return rows.join(ub.from_arrays({"id": labelled, "y": labelled * 2.0}, shuffle=False), on="id", **given)


@pytest.mark.parametrize(
    "words",
    [
        lambda: endless(within=40).batch(7),
        lambda: endless(within=25, unmatched="keep").batch(7),
        lambda: endless().shuffle(20).batch(7),
        lambda: endless().windows(3, by="id").batch(2),
        lambda: rows_of(np.arange(90)).join(labels_of(np.arange(0, 90, 2)), on="id", within=9).batch(4),
    ],
)
def test_it_resumes(words: Any) -> None:
    assert_resumes(words(), 10)


def test_a_source_that_can_not_go_back_is_joined_exactly_after_a_restart(tmp_path: Path) -> None:
    def numbered() -> Iterator[Any]:
        for i in itertools.count():
            yield {"id": np.arange(i * 10, i * 10 + 10), "t": np.arange(i * 10, i * 10 + 10) * 1.0}

    def later() -> Iterator[Any]:
        for i in itertools.count():
            yield {"id": np.array([i * 3]), "t": np.array([i * 3 + 25.0]), "y": np.array([i * 30.0])}

    stream = ub.from_generator(numbered).join(ub.from_generator(later), on="id", time="t", within=60).batch(5)
    with ub.Feed(stream) as feed:
        feed.releases.hold()  # it goes back to where it was
        seen = []
        for batch in itertools.islice(feed.batches(), 10):
            seen += batch["id"].tolist()
            assert (batch["y"] == batch["id"] * 10).all()
            feed.trained()
        state = feed.state_dict()
        ahead = [batch["id"].tolist() for batch in itertools.islice(feed.batches(), 6)]
        feed.load_state_dict(json.loads(json.dumps(state)))
        assert [batch["id"].tolist() for batch in itertools.islice(feed.batches(), 6)] == ahead
    assert seen == list(range(0, 150, 3))


def test_what_waits_is_kept_in_files_of_arrays_and_forgotten_once_it_is_paired(tmp_path: Path) -> None:
    ids = np.arange(60_000)
    rows = ub.from_arrays({"id": ids, "x": np.zeros((60_000, 8))}, shuffle=False, passes=1)
    labels = ub.from_arrays({"id": np.maximum(ids - 500, 0), "y": ids * 1.0}, shuffle=False, passes=1)
    stream = rows.join(labels, on="id", within=2_000).batch(50)
    with ub.Feed(stream) as feed:
        got = []
        for step, batch in enumerate(feed.batches()):
            got.append(batch["id"].copy())
            feed.trained()
            if step == 900:
                path = feed.save(tmp_path)
                break
    assert (path / "manifest.json").stat().st_size < 20_000
    with ub.Feed(stream) as feed:
        feed.load(tmp_path)
        got += [batch["id"].copy() for batch in feed.batches()]
        assert feed.stats.unmatched == 500
    assert np.concatenate(got).tolist() == list(range(59_500))
    assert sum(file.stat().st_size for file in (tmp_path / "segments").iterdir()) < 60_000 * 72 / 2
