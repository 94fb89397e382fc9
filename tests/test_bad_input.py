"""Bad input gets a sentence that says what was given, what was expected and what to do; and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import table


def _yields(*values: Any) -> ub.Stream:
    def sensor() -> Iterator[Any]:
        yield from values

    return ub.generate(sensor, passes=1)


BAD_WHEN_SAID: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unequal first dimensions": (
        lambda: ub.arrays({"x": np.zeros(3), "y": np.zeros(4)}),
        ub.RowsError,
        r"leaf \['x'\] has 3 rows and leaf \['y'\] has 4.*cut the longer one",
    ),
    "zero rows": (lambda: ub.arrays(np.zeros((0, 2))), ub.RowsError, "zero rows.*at least one"),
    "no rows at all": (lambda: ub.arrays(np.float32(3)), ub.RowsError, "has no rows.*first dimension"),
    "an empty tree": (lambda: ub.arrays({}), ub.RowsError, "no array in it"),
    "an epoch without a bound": (lambda: ub.Epoch(), ValueError, "no bound.*steps=, rows=, passes=, seconds="),
    "an epoch of zero steps": (lambda: ub.Epoch(steps=0), ValueError, "steps=0.*above 0"),
    "an epoch of half a step": (lambda: ub.Epoch(steps=1.5), ValueError, "whole number"),  # type: ignore[arg-type]
    "a batch of zero": (lambda: table().batch(0), ValueError, r"batch\(n\) was given 0. Expected at least 1"),
    "a negative batch": (lambda: table().batch(-3), ValueError, "given -3"),
    "a batch of 1.5": (lambda: table().batch(1.5), TypeError, "whole number.*1.5"),  # type: ignore[arg-type]
    "a shuffle of zero": (lambda: table().shuffle(0), ValueError, "shuffle"),
    "a buffer of zero": (lambda: table().buffer(0), ValueError, "buffer"),
    "another overflow": (lambda: table().buffer(3, overflow="explode"), ValueError, "drop_oldest"),  # type: ignore[arg-type]
    "windows of zero": (lambda: table().windows(0), ValueError, "windows"),
    "a stride of zero": (lambda: table().windows(3, stride=0), ValueError, "stride"),
    "expire without by": (lambda: table().windows(3, expire=5), ValueError, "without by="),
    "a reuse of zero": (lambda: table().replay(10, reuse=0), ValueError, "reuse=0.*above 0"),
    "a half life below zero": (lambda: table().replay(10, half_life=-1), ValueError, "half_life=-1"),
    "a take of zero": (lambda: table().take(0), ValueError, "take"),
    "a prefetch of zero": (lambda: table().batch(3).prefetch(0), ValueError, "prefetch"),
    "a negative seed": (lambda: table().shuffle(3, seed=-1), ValueError, r"shuffle\(seed=n\) was given -1"),
    "a seed of arrays that is no number": (lambda: table(seed="x"), TypeError, r"arrays\(seed=n\).*'x'"),
    "a negative seed of replay": (lambda: table().replay(3, seed=-1), ValueError, "at least 0"),
    "a negative seed of random_map": (lambda: table().random_map(print, seed=-1), ValueError, "at least 0"),  # type: ignore[arg-type]
    "passes of zero": (lambda: table(passes=0), ValueError, "passes"),
    "a rate of zero": (lambda: ub.machine(rate=0), ValueError, "rate=0"),
    "a batch larger than a declared end": (
        lambda: table(10, passes=2).batch(21),
        ValueError,
        r"\.batch\(21\) is larger than the 20 rows.*batch\(20\)",
    ),
    "a batch larger than what is taken": (lambda: table().take(5).batch(6), ValueError, "larger than the 5 rows"),
    "a stage that changes rows after batch": (
        lambda: table().batch(3).filter(lambda rows: rows["id"] > 3),
        ValueError,
        r"\.filter\(\) stands after \.batch\(\).*before \.batch\(\)",
    ),
    "two batches": (lambda: table().batch(3).batch(3), ValueError, "stands after"),
    "no function": (lambda: table().map(3), TypeError, "takes a function.*3"),  # type: ignore[arg-type]
    "no stream": (lambda: ub.Feed(np.zeros(3)), TypeError, r"Expected a stream"),  # type: ignore[arg-type]
    "an unknown confirm": (lambda: ub.Feed(table(), confirm="never"), ValueError, "'auto' or 'manual'"),  # type: ignore[arg-type]
    "passes of a stream that has none": (
        lambda: ub.Feed(_endless(), epoch=ub.Epoch(passes=1)),
        ValueError,
        "counts passes.*has none.*steps=, rows= or seconds=",
    ),
    "less than is required": (
        lambda: ub.Feed(_endless(), require="exact"),
        ValueError,
        "promises 'at_most_once'.*generate",
    ),
    "select without x": (lambda: table().select(None), ValueError, "no x"),
    "weight without y": (lambda: table().select("x", weight="k"), ValueError, "without y"),
}


UNKNOWN_WORDS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    **{
        word: (
            lambda word=word: getattr(table().batch(4), word)(2),
            AttributeError,
            rf"Stream has no '{word}'\. .*{hint}",
        )
        for word, hint in {
            "repeat": "passes=n",
            "cache": r"ub\.arrays",
            "zip": r"ub\.arrays\(\(x, y\)\)",
            "interleave": r"ub\.generate\(fn\)",
            "padded_batch": r"\.map\(\)",
            "shard": "x\\[rank::n\\]",
            "unbatch": r"\.batch\(n\)",
            "enumerate": r"enumerate\(feed",
            "with_options": r"\.prefetch\(n\)",
            "skip": r"\.filter\(fn\)",
            "as_numpy_iterator": r"ub\.Feed\(stream\)\.batches\(\)",
            "fit": r"model\.fit\(ub\.keras\.Feed",
            "state_dict": r"ub\.Feed\(stream",
            "suffle": "Did you mean 'shuffle'",
        }.items()
    },
    "a package's word": (lambda: ub.from_generator, AttributeError, r"ub\.generate\(fn\)"),
    "a package's misspelt word": (lambda: ub.array, AttributeError, "Did you mean 'arrays'"),
    "batch(batch_size=)": (
        lambda: table().batch(batch_size=4),
        TypeError,
        r"\.batch\(rows\).*batch_size is called rows",
    ),  # type: ignore[call-arg]
    "batch()": (lambda: table().batch(), TypeError, r"\.batch\(rows\).*'rows'"),  # type: ignore[call-arg]
    "shuffle(buffer_size=)": (lambda: table().shuffle(buffer_size=4), TypeError, "buffer_size is called rows"),  # type: ignore[call-arg]
    "map(num_parallel_calls=)": (lambda: table().map(_same, num_parallel_calls=4), TypeError, "called workers here"),  # type: ignore[call-arg]
    "windows(shift=)": (lambda: table().windows(4, shift=2), TypeError, "shift is called stride"),  # type: ignore[call-arg]
    "arrays(x, y)": (lambda: ub.arrays(np.ones(3), np.ones(3)), TypeError, r"one tree: ub\.arrays\(\(x, y\)\)"),  # type: ignore[misc]
    "arrays(x=, y=)": (lambda: ub.arrays(x=np.ones(3), y=np.ones(3)), TypeError, r"ub\.arrays\(rows"),  # type: ignore[call-arg]
    "generate(fn, 3)": (lambda: ub.generate(_endless, 3), TypeError, r"ub\.generate\(fn"),  # type: ignore[misc, arg-type]
    "Feed(stream, epoch)": (lambda: ub.Feed(table(), ub.Epoch(steps=3)), TypeError, r"epoch=ub\.Epoch"),  # type: ignore[misc]
    "for batch in stream": (lambda: list(table()), TypeError, r"for batch in ub\.Feed\(stream.*stream\.peek\(\)"),
    "len(stream)": (lambda: len(table()), TypeError, r"rows_per_pass.*len\(feed\)"),
    "stream[3]": (lambda: table()[3], TypeError, r"stream\.batch_at\(3\)"),
    "epochs of half an epoch": (lambda: _use(lambda feed: feed.epochs(1.5)), TypeError, r"epochs\(n\) takes a whole"),  # type: ignore[arg-type]
    "epochs without an Epoch": (
        lambda: _use(lambda feed: feed.epochs(), epoch=None),
        ValueError,
        r"Epoch\(steps=1000\)",
    ),
}


def _same(rows: Any) -> Any:
    return rows


def _use(use: Callable[[ub.Feed], Any], **given: Any) -> Any:
    with ub.Feed(table().batch(4), **{"epoch": ub.Epoch(steps=3), **given}) as feed:
        return use(feed)


@pytest.mark.parametrize("what", UNKNOWN_WORDS)
def test_words_and_arguments_of_other_libraries_are_told_with_what_to_write(what: str) -> None:
    make, error, sentence = UNKNOWN_WORDS[what]
    with pytest.raises(error, match=sentence):
        make()


def _endless() -> ub.Stream:
    def sensor() -> Iterator[Any]:
        while True:
            yield np.zeros(3)

    return ub.generate(sensor)


@pytest.mark.parametrize("what", BAD_WHEN_SAID)
def test_what_makes_no_sense_is_refused_when_it_is_said(what: str) -> None:
    make, error, sentence = BAD_WHEN_SAID[what]
    with pytest.raises(error, match=sentence):
        make()


def _next(stream: ub.Stream, **given: Any) -> Any:
    with ub.Feed(stream, **given) as feed:
        return list(feed.batches())


def _object(rows: Any) -> Any:
    return {"name": rows["id"].astype(object)}


BAD_ROWS: dict[str, tuple[ub.Stream, type[Exception], str]] = {
    "object dtype at the trainer": (
        table().map(_object).batch(4),
        ub.RowsError,
        r"leaf \['name'\] reaches the trainer as object.*\.select\(\)",
    ),
    "another number of rows from map": (table().map(lambda r: r["id"][:1]), ub.RowsError, "100 rows and returned 1"),
    "a mask of another kind": (table().filter(lambda r: r["id"]), ub.RowsError, r"Expected bool of shape \(100,\)"),
    "a column that is not there": (table().select("z"), ub.RowsError, "'z'.*'id', 'k', 'x'"),
    "select of a tuple": (ub.arrays((np.zeros(3),)).select("x"), ub.RowsError, "a tuple. Expected a dict"),
    "windows by a column that is not there": (table().windows(3, by="z"), ub.RowsError, "by='z'.*without that column"),
    "normalize by a column that is not there": (table().normalize("x", by="z"), ub.RowsError, "by='z'"),
    "normalize of integers": (table().normalize("id"), ub.RowsError, "normalize.*int64.*floating"),
    "another structure later": (
        _yields({"x": np.zeros(3)}, {"y": np.zeros(3)}),
        ub.RowsError,
        r"Row 3 of sensor\(\): leaf \['x'\] is missing",
    ),
    "another leaf later": (
        _yields({"x": np.zeros(3)}, {"x": np.zeros(3), "y": np.zeros(3)}),
        ub.RowsError,
        r"Row 3 of sensor\(\): leaf \['y'\] is new",
    ),
    "another dtype later": (
        _yields({"x": np.zeros(3)}, {"x": np.zeros(3, np.float32)}),
        ub.RowsError,
        r"Row 3 of sensor\(\): leaf \['x'\] is now float32 and was float64",
    ),
    "another trailing shape later": (
        _yields({"x": np.zeros((3, 2))}, {"x": np.zeros((3, 4))}),
        ub.RowsError,
        r"Row 3 of sensor\(\): leaf \['x'\] has rows of shape \(4,\) and they had \(2,\)",
    ),
    "a NaN at the feed": (
        ub.arrays({"x": np.array([0.0, 1.0, np.nan, 3.0])}, shuffle=False).batch(2),
        ValueError,
        r"leaf \['x'\] has a NaN or an infinity in row 0 of batch 1 \(row 2 of the run, row 2 of the arrays\)",
    ),
    "an infinity at the feed": (
        _yields(np.array([0.0, np.inf])),
        ValueError,
        "the array has a NaN or an infinity in row 1 of batch 0",
    ),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_rows_that_no_stage_can_use_are_refused_with_their_address(what: str) -> None:
    stream, error, sentence = BAD_ROWS[what]
    with pytest.raises(error, match=sentence):
        _next(stream)


def test_a_bad_row_loses_nothing_of_those_before_it() -> None:
    x = np.arange(10.0)
    x[7] = np.nan
    with ub.Feed(ub.arrays(x, shuffle=False).batch(2)) as feed:
        seen = []
        with pytest.raises(ValueError, match="row 7 of the run"):
            seen.extend(batch.tolist() for batch in feed.batches())
        assert seen == [[0, 1], [2, 3], [4, 5]]
        assert feed.steps == 3
        with pytest.raises(ValueError, match="row 7 of the run"):
            next(feed.batches())  # it is told again, and never skipped over in silence


def test_a_non_finite_value_passes_where_that_was_asked_for_and_is_counted() -> None:
    x = np.arange(10.0)
    x[7] = np.nan
    with ub.Feed(ub.arrays(x, shuffle=False, passes=1).batch(2), on_nan="pass") as feed:
        assert len(list(feed.batches())) == 5
        assert feed.stats.bad == 1


def test_a_feed_that_was_closed_says_so() -> None:
    feed = ub.Feed(table().batch(4))
    feed.close()
    feed.close()  # a second time does nothing
    for use in (feed.available, feed.state_dict, lambda: next(feed.batches()), feed.trained):
        with pytest.raises(ub.StreamError, match=r"closed.*Make a new one"):
            use()


def test_two_trainers_on_one_feed_are_refused() -> None:
    with ub.Feed(table().batch(4), epoch=ub.Epoch(steps=3)) as feed:
        one = feed.epochs(2)
        next(one)
        with pytest.raises(ub.StreamError, match=r"already at work.*second feed"):
            feed.epochs(2)
        del one
        assert [len(list(epoch)) for epoch in feed.epochs(2)] == [3, 3]


def test_another_streams_state_names_what_differs() -> None:
    with ub.Feed(table().shuffle(30).batch(4)) as feed:
        state = feed.state_dict()
    with (
        ub.Feed(table().shuffle(31).batch(4)) as other,
        pytest.raises(ValueError, match=r"another stream: shuffle\(rows\) was 30 and is 31.*accept_changes=True"),
    ):
        other.load_state_dict(state)
    with (
        ub.Feed(table().batch(4)) as other,
        pytest.raises(ValueError, match=r"it was arrays.shuffle.batch and is arrays.batch"),
    ):
        other.load_state_dict(state)
    with (
        ub.Feed(table().shuffle(31).batch(4)) as other,
        pytest.warns(UserWarning, match=r"shuffle\(rows\) was 30 and is 31"),
    ):
        other.load_state_dict(state, accept_changes=True)


def test_a_newer_state_is_refused() -> None:
    with ub.Feed(table().batch(4)) as feed:
        state = {**feed.state_dict(), "format": 99}
        with pytest.raises(ValueError, match=r"format 99.*reads up to 1"):
            feed.load_state_dict(state)
        with pytest.raises(ValueError, match="not the state of a feed"):
            feed.load_state_dict({"hello": 1})


def test_a_position_that_fits_no_stage_of_the_stream_is_refused_even_where_changes_are_accepted() -> None:
    def numbers(start: int = 0) -> Iterator[Any]:
        while True:
            yield np.arange(start, start + 5)
            start += 5

    with ub.Feed(ub.generate(numbers).batch(4)) as feed:
        state = feed.state_dict()
    with (
        pytest.warns(UserWarning, match="of another stream"),
        ub.Feed(table().shuffle(30).batch(4)) as other,
        pytest.raises(ValueError, match=r"does not fit.*Begin a new run"),
    ):
        other.load_state_dict(state, accept_changes=True)
