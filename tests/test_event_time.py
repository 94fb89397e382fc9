"""time: the event time of rows, of text, numbers and datetimes; and windows(max_gap=), which counts by it."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unbounded as ub
from helpers import first, over_restarts, segments
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def times(column: Any, *args: Any) -> list[str]:
    rows = {"at": np.asarray(column), "id": np.arange(len(column))}
    (batch,) = first(ub.from_arrays(rows, shuffle=False).time("at", *args).batch(len(column)), 1)
    assert batch["at"].dtype == np.dtype("M8[us]")
    return [str(each).removesuffix(".000000") for each in batch["at"].astype(str).tolist()]


NOON = "2026-01-31T12:00:00"


def test_text_is_read_as_iso_8601_and_a_zone_becomes_utc() -> None:
    assert times([NOON, "2026-01-31", "2026-01-31 12:00:00.25"]) == [
        NOON,
        "2026-01-31T00:00:00",
        "2026-01-31T12:00:00.250000",
    ]
    assert times(["2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"]) == [NOON, "2026-02-01T00:00:00"]
    assert times(["2026-01-31T12:00:00Z", "2026-01-31T14:00:00+02:00", "2026-01-31T07:00-05:00", NOON]) == [NOON] * 4
    # Of one form, they are read at once.
    assert times(["2026-01-31T14:00:00+02:00", "2026-01-31T07:30:00-04:30", "2026-01-31T12:00:00+00:00"]) == [NOON] * 3
    assert times(["2026-01-31T14:00+02:00", "2026-01-31T12:00-00:00"]) == [NOON] * 2
    assert times(np.array(["2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00+00:00"], "U40")) == [NOON] * 2
    assert times(["2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00+00"]) == [NOON] * 2
    assert times(["2026-01-31T14:00:00.500+02:00"]) == ["2026-01-31T12:00:00.500000"]
    assert times(["2026-01-31T14:00:00+0200", "2026-01-31T12:00:00z"]) == [NOON] * 2
    assert times([b"2026-01-31T12:00:00"]) == [NOON]
    assert times(np.array([NOON], object)) == [NOON]


def test_a_form_of_text_may_be_given() -> None:
    assert times(["31.01.2026 12:00", "01.02.2026 00:00", "31.01.2026 12:00"], "%d.%m.%Y %H:%M") == [
        NOON,
        "2026-02-01T00:00:00",
        NOON,
    ]
    assert times(["31.01.2026 13:00 +0100"], "%d.%m.%Y %H:%M %z") == [NOON]


def test_numbers_count_seconds_or_the_unit_that_is_given() -> None:
    seconds = 1_769_860_800
    for kind in ("i8", "u4", "f8", ">i4"):
        assert times(np.array([seconds], kind)) == [NOON]
    assert times([seconds + 0.25]) == ["2026-01-31T12:00:00.250000"]
    assert times([seconds * 1000], "ms") == [NOON]
    assert times([seconds * 1e6], "us") == [NOON]
    assert times(np.array([seconds * 10**9], np.int64), "ns") == [NOON]
    assert times([-1]) == ["1969-12-31T23:59:59"]


def test_datetimes_of_any_unit_are_taken() -> None:
    for unit in ("D", "s", "ms", "us", "ns"):
        assert times(np.array(["2026-01-31"], f"M8[{unit}]")) == ["2026-01-31T00:00:00"]


@pytest.mark.parametrize(
    ("column", "args", "words"),
    [
        (["2026-01-01", "soon"], (), r"time\('at'\) was given 'soon' in row 1 of the stream.*ISO 8601.*format="),
        # NumPy alone takes these: the clock decides what two of them are.
        (["today"], (), "was given 'today' in row 0"),
        (["now-------"], (), "was given 'now-------'"),
        (["2026-01-31T12:00:00+99:00"], (), "was given"),
        (["2026-01-31T12:00:00+0a:00"], (), "was given"),
        (["2026-01-31T25:00:00+02:00", "2026-01-31T12:00:00+02:00"], (), "was given '2026-01-31T25:00:00.*in row 0"),
        ([b"2026", b"\xff"], (), "bytes that are no text in UTF-8"),
        (["2026-01-31ZZ"], (), "was given '2026-01-31ZZ'"),
        (["20260131"], (), "was given '20260131'"),
        (["2026-01-01", "2026-13-01"], (), "was given '2026-13-01' in row 1"),
        (["2026-01-01", ""], (), r"was given '' in row 1 of the stream, which is a missing value.*drop_missing"),
        (np.array(["NaT"], "M8[s]"), (), "was given 'NaT' in row 0.*missing"),
        ([1.0, np.nan], (), "was given nan in row 1.*missing"),
        ([1.0, np.inf], (), "was given inf in row 1.*after the year 9999"),
        ([1_769_860_800_000], (), "was given 1769860800000 in row 0.*after the year 9999.*'ms'"),
        (np.array([2**63], np.uint64), (), "was given 9223372036854775808"),
        (["31.01.2026"], ("%d.%m.%y",), "was given '31.01.2026' in row 0 .*Expected text as '%d.%m.%y'"),
        ([NOON], ("ms",), "was given text, and format='ms', a unit of numbers"),
        ([3], ("%d",), r"was given numbers \(int64\), and format='%d', a form of text"),
        ([True], (), "was given bool. Expected text, numbers of seconds"),
        (np.zeros((2, 2)), (), r"rows of shape \(2,\). Expected one time"),
    ],
)
def test_what_is_no_time_is_named_with_its_row(column: Any, args: Any, words: str) -> None:
    with pytest.raises(ub.RowsError, match=words):
        times(column, *args)


def test_the_row_that_is_named_counts_from_the_beginning_of_the_run() -> None:
    rows = {"at": np.array(["2026-01-01"] * 70 + ["x"])}
    stream = ub.from_arrays(rows, shuffle=False).time("at")
    top: Any = stream.open(block_rows=50).top
    top.pull(None)
    cursor = top.cursor()
    top.close()
    top = stream.open(block_rows=50).top
    top.restore(cursor)
    for _ in range(2):  # a pull that raised leaves the position
        with pytest.raises(ub.RowsError, match="in row 70 of the stream"):
            top.pull(None)
    top.close()


def test_a_form_that_is_none_is_refused() -> None:
    for form, kind in (("iso", ValueError), (3, TypeError)):
        with pytest.raises(kind, match=r"time\(format=.*%d.%m.%Y"):
            ub.from_arrays({"at": np.arange(3)}).time("at", form)  # type: ignore[arg-type]


def test_the_age_of_rows_counts_from_their_event_time() -> None:
    clock = ub.testing.Clock(1_769_860_800.0)

    def sensor() -> Any:
        yield {"at": np.array(["2026-01-31T11:59:00", "2026-01-31T11:59:30"]), "x": np.zeros(2)}
        yield {"at": np.array(["2026-01-31T11:58:00", "2026-01-31T11:57:30"]), "x": np.zeros(2)}

    ages = {}
    for name, stages in {
        "arrival": lambda s: s,
        "event": lambda s: s.time("at"),
        "through other stages": lambda s: s.time("at").fill("last").windows(1).shuffle(2).map(lambda r: r["x"]),
    }.items():
        with ub.Feed(stages(ub.from_generator(sensor, passes=1)).batch(2), runtime=clock) as feed:
            for _ in feed.batches():
                feed.trained()
            ages[name] = feed.stats.age
            assert feed.stats.logs()["age"] == feed.stats.age
    assert ages == {"arrival": 0.0, "event": 90.0, "through other stages": 90.0}


def test_it_resumes_and_can_be_looked_up() -> None:
    start = np.datetime64("2026-01-01", "s")
    rows = {"at": (start + np.arange(90)).astype(str), "id": np.arange(90)}
    stream = ub.from_arrays(rows, seed=3).time("at").shuffle(20).batch(7)
    assert_resumes(stream, 12)
    batch = stream.batch_at(20)
    assert batch["at"].tolist() == (start + batch["id"]).astype("M8[us]").tolist()
    assert stream.rows_at(20).tolist() == batch["id"].tolist()


# -- windows(max_gap=) -------------------------------------------------------------------------------------------------


def by_hand(
    keys: list[int], at: list[float], length: int, stride: int, expire: int | None, most: float
) -> list[list[int]]:
    """The rows of each window, one row after the other, by the words of the docs."""
    held: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    over: dict[int, int] = {}
    found = []
    for i, key in enumerate(keys):
        gone = key in last and expire is not None and i - last[key] > expire
        if gone or (key in last and abs(at[i] - at[last[key]]) > most):
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


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 8)), min_size=1, max_size=100),
    st.integers(1, 5),
    st.integers(1, 7),
    st.none() | st.integers(1, 12),
    st.sampled_from(["k", None]),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(1, 3),
)
@settings(max_examples=200, deadline=None)
def test_no_window_spans_a_gap_in_time_however_blocks_are_cut_and_wherever_it_resumes(
    made: list[tuple[int, int]],
    length: int,
    stride: int,
    expire: int | None,
    by: str | None,
    cuts: list[int],
    passes: int,
) -> None:
    keys, at = [key for key, _ in made], np.cumsum([step for _, step in made]).astype(float)
    rows = {"k": np.array(keys), "at": at, "id": np.arange(len(keys))}
    given_: Any = {} if by is None else {"by": by, "expire": expire}
    stream = (
        ub.from_arrays(rows, shuffle=False, passes=passes)
        .time("at")
        .windows(length, stride=stride, max_gap=5, **given_)
    )
    want = by_hand(keys if by else [0] * len(keys), at.tolist(), length, stride, expire if by else None, 5)
    got: list[Any] = []
    for block in over_restarts(stream, cuts):
        if block.count:
            got += block.rows["id"].tolist()
        if block.boundary is not None and block.boundary.kind == "pass":
            got.append("end of pass")
    assert got == [*want, "end of pass"] * passes


@pytest.mark.parametrize("expire", [None, 300])
def test_snapshots_of_many_keys_have_their_times(expire: int | None) -> None:
    random = np.random.default_rng(0)
    keys = random.integers(0, 60, 4000) + np.arange(4000) // 1500 * 30
    at = np.cumsum(random.integers(0, 3, 4000)).astype(float)
    rows = {"k": keys, "at": at, "id": np.arange(4000)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).time("at").windows(3, by="k", max_gap=90, expire=expire)
    got = [
        ids for block in over_restarts(stream, [40, 170], pulls=9) if block.count for ids in block.rows["id"].tolist()
    ]
    assert got == by_hand(keys.tolist(), at.tolist(), 3, 1, expire, 90)


def test_keys_are_apart_by_their_own_times() -> None:
    minutes = np.array([0, 0, 2, 9, 4, 10, 11])
    rows = {"at": minutes * 60, "k": np.array(list("abababa")), "id": np.arange(7)}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).time("at")
    for gap in ("5min", 300, datetime.timedelta(minutes=5), np.timedelta64(5, "m")):
        got = segments(stream.windows(2, by="k", max_gap=gap))[0]["id"].tolist()
        assert got == [[0, 2], [2, 4], [3, 5]]
    assert segments(stream.windows(2, by="k", max_gap="1h"))[0]["id"].tolist() == [
        [0, 2],
        [1, 3],
        [2, 4],
        [3, 5],
        [4, 6],
    ]


def test_a_gap_that_ends_what_a_key_had_is_not_an_expired_key() -> None:
    at = np.arange(2000) * 10
    stream = ub.from_arrays({"at": at, "k": at // 10 % 3, "id": at}, shuffle=False, passes=1).time("at")
    top: Any = stream.windows(2, by="k", max_gap=20, expire=500).open(block_rows=70).top
    with contextlib.suppress(ub.EndOfStream):
        while True:
            block = top.pull(None)
            assert block is None or not block.count
    assert top.counts()["expired"] == 0
    top.close()


@pytest.mark.parametrize("given_", [{}, {"by": "k"}, {"by": "k", "expire": 9}])
def test_windows_without_gaps_resume(given_: Any) -> None:
    rows = {"at": np.cumsum(np.arange(100) % 7), "k": np.arange(100) // 2 % 3, "id": np.arange(100)}
    stream = ub.from_arrays(rows, shuffle=False).time("at").windows(3, max_gap=15, **given_)
    assert_resumes(stream.shuffle(5).batch(4), 12)


def test_a_gap_in_time_closes_what_a_later_stage_holds() -> None:
    # As any gap: boundaries come from the event time.
    rows = {"at": np.array([0, 1, 2, 50, 51, 52]), "id": np.arange(6)}
    got = segments(ub.from_arrays(rows, shuffle=False, passes=1).time("at").windows(1, max_gap=5))
    assert [part["id"].tolist() for part in got] == [[[0], [1], [2]], [[3], [4], [5]]]


@pytest.mark.parametrize(
    ("gap", "kind", "words"),
    [
        ("5 parsecs", ValueError, r"windows\(max_gap=…\) was given '5 parsecs'.*such as '5min'.*ms, s, min, h and d"),
        ("five", ValueError, "was given 'five'"),
        (0, ValueError, "was given 0. Expected a length of time above 0"),
        (float("nan"), ValueError, "was given nan"),
        (datetime.timedelta(0), ValueError, "above 0"),
        (True, TypeError, "was given True"),
        ([5], TypeError, r"was given \[5\]"),
    ],
)
def test_what_is_no_length_of_time_is_refused(gap: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ub.from_arrays({"at": np.arange(3)}).time("at").windows(2, max_gap=gap)


def test_without_a_time_there_is_no_gap() -> None:
    with pytest.raises(ValueError, match=r"no column was declared to be that. Put \.time\(\"at\"\) before it"):
        ub.from_arrays({"at": np.arange(3)}).windows(2, max_gap="5min")
    with pytest.raises(LookupError, match="depends on the times of all rows before them"):
        ub.from_arrays({"at": np.arange(9)}).time("at").windows(2, max_gap=5).batch(2).batch_at(1)
