"""Errors for wrong input: each says what was given, what was expected and what to do; no row is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import table


def _yields(*values: Any) -> ub.Stream:
    def sensor() -> Iterator[Any]:
        yield from values

    return ub.from_generator(sensor, passes=1)


BAD_WHEN_SAID: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unequal first dimensions": (
        lambda: ub.from_arrays({"x": np.zeros(3), "y": np.zeros(4)}),
        ub.RowsError,
        r"leaf \['x'\] has 3 rows and leaf \['y'\] has 4.*cut the longer one",
    ),
    "zero rows": (lambda: ub.from_arrays(np.zeros((0, 2))), ub.RowsError, "zero rows.*at least one"),
    "no rows at all": (lambda: ub.from_arrays(np.float32(3)), ub.RowsError, "has no rows.*first dimension"),
    "an empty tree": (lambda: ub.from_arrays({}), ub.RowsError, "it contains no array"),
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
    "a seed of arrays that is no number": (lambda: table(seed="x"), TypeError, r"from_arrays\(seed=n\).*'x'"),
    "a negative seed of replay": (lambda: table().replay(3, seed=-1), ValueError, "at least 0"),
    "a negative seed of random_map": (lambda: table().random_map(print, seed=-1), ValueError, "at least 0"),  # type: ignore[arg-type]
    "a buffer as the shuffle of arrays": (lambda: table(shuffle=100), TypeError, r"shuffle=100.*\.shuffle\(rows\)"),
    "True as a number of rows": (lambda: table().shuffle(True), TypeError, "whole number, and was given True"),
    "a reuse that is text": (lambda: table().replay(10, reuse="4"), TypeError, "reuse='4'.*above 0"),  # type: ignore[arg-type]
    "a half life that is a list": (lambda: table().replay(10, half_life=[1]), TypeError, "half_life"),  # type: ignore[arg-type]
    "a number as an epoch": (lambda: ub.Feed(table().batch(3), epoch=5), TypeError, r"epoch=5.*ub\.Epoch\(steps"),  # type: ignore[arg-type]
    "the class as an epoch": (lambda: ub.Feed(table().batch(3), epoch=ub.Epoch), TypeError, "expected an epoch"),  # type: ignore[arg-type]
    "another guarantee": (lambda: ub.Feed(table().batch(3), require="exactly"), ValueError, "'exact', or None"),  # type: ignore[arg-type]
    "a number as a clock": (lambda: ub.Feed(table().batch(3), runtime=3), TypeError, "runtime=3"),  # type: ignore[arg-type]
    "a step before the first": (lambda: table().batch(3).batch_at(-1), ValueError, "at least 0"),
    "half a step": (lambda: table().batch(3).batch_at(1.5), TypeError, r"batch_at\(step\).*1.5"),  # type: ignore[arg-type]
    "half a row": (lambda: table().batch(3).step_of(1.5), TypeError, r"step_of\(row\).*1.5"),  # type: ignore[arg-type]
    "a search from before the first step": (lambda: table().batch(3).step_of(1, after=-1), ValueError, "after"),
    "no column at all": (lambda: table().columns([]), TypeError, "name of a column"),
    "a function as a column": (lambda: table().columns(lambda rows: rows), TypeError, "name of a column"),
    "a size of batches given to the source": (
        lambda: ub.from_arrays(np.arange(3), batch_size=3),  # type: ignore[call-arg]
        TypeError,
        "unexpected keyword argument 'batch_size'.$",
    ),
    "passes of zero": (lambda: table(passes=0), ValueError, "passes"),
    "a rate of zero": (lambda: ub.from_machine(rate=0), ValueError, "rate=0"),
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
        "promises 'at_most_once'.*from_generator",
    ),
    "select without x": (lambda: table().columns(None), ValueError, "no x"),
    "weight without y": (lambda: table().columns("x", sample_weight="k"), ValueError, "without y"),
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
            "cache": r"ub\.from_arrays",
            "zip": r"ub\.from_arrays\(\(x, y\)\)",
            "interleave": r"ub\.mix\(\{",
            "padded_batch": r"\.pad\(length\)",
            "shard": "x\\[rank::n\\]",
            "unbatch": r"\.batch\(n\)",
            "enumerate": r"enumerate\(feed",
            "with_options": r"\.prefetch\(n\)",
            "skip": r"\.filter\(fn\)",
            "select": r"\.columns\(x=",
            "as_numpy_iterator": r"ub\.Feed\(stream\)\.batches\(\)",
            "fit": r"model\.fit\(ub\.keras\.Feed",
            "state_dict": r"ub\.Feed\(stream",
            "suffle": "Did you mean 'shuffle'",
        }.items()
    },
    "a package's word": (lambda: ub.from_tensor_slices, AttributeError, r"ub\.from_arrays\(\(x, y\)\)"),
    **{
        f"ub.{word}": (
            lambda word=word: getattr(ub, word),
            AttributeError,
            rf"no '{word}'\. Write ub\.from_{instead}\(",
        )
        for word, instead in {
            "arrays": "arrays",
            "generate": "generator",
            "samples": "samples",
            "machine": "machine",
        }.items()
    },
    "columns(weight=)": (
        lambda: table().columns(**{"x": "x", "y": "k", "weight": "id"}),
        TypeError,
        "weight is called sample_weight",
    ),
    "a package's misspelt word": (lambda: ub.array, AttributeError, "Did you mean 'from_arrays'"),
    "batch(batch_size=)": (
        lambda: table().batch(batch_size=4),
        TypeError,
        r"\.batch\(rows.*batch_size is called rows",
    ),  # type: ignore[call-arg]
    "batch()": (lambda: table().batch(), TypeError, r"\.batch\(rows.*'rows'"),  # type: ignore[call-arg]
    "shuffle(buffer_size=)": (lambda: table().shuffle(buffer_size=4), TypeError, "buffer_size is called rows"),  # type: ignore[call-arg]
    "map(num_parallel_calls=)": (lambda: table().map(_same, num_parallel_calls=4), TypeError, "called workers here"),  # type: ignore[call-arg]
    "windows(shift=)": (lambda: table().windows(4, shift=2), TypeError, "shift is called stride"),  # type: ignore[call-arg]
    "from_arrays(x, y)": (
        lambda: ub.from_arrays(np.ones(3), np.ones(3)),
        TypeError,
        r"one tree: ub\.from_arrays\(\(x, y\)\)",
    ),  # type: ignore[misc]
    "from_arrays(x=, y=)": (lambda: ub.from_arrays(x=np.ones(3), y=np.ones(3)), TypeError, r"ub\.from_arrays\(rows"),  # type: ignore[call-arg]
    "from_generator(fn, 3)": (lambda: ub.from_generator(_endless, 3), TypeError, r"ub\.from_generator\(fn"),  # type: ignore[misc, arg-type]
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

    return ub.from_generator(sensor)


@pytest.mark.parametrize("what", BAD_WHEN_SAID)
def test_wrong_arguments_are_refused_at_once(what: str) -> None:
    make, error, sentence = BAD_WHEN_SAID[what]
    with pytest.raises(error, match=sentence):
        make()


def _next(stream: ub.Stream, **given: Any) -> Any:
    with ub.Feed(stream, **given) as feed:
        return list(feed.batches())


BAD_ROWS: dict[str, tuple[ub.Stream, type[Exception], str]] = {
    "another number of rows from map": (table().map(lambda r: r["id"][:1]), ub.RowsError, "100 rows and returned 1"),
    "a mask of another kind": (table().filter(lambda r: r["id"]), ub.RowsError, r"Expected bool of shape \(100,\)"),
    "a column that is not there": (table().columns("z"), ub.RowsError, "'z'.*'id', 'k', 'x'"),
    "select of a tuple": (ub.from_arrays((np.zeros(3),)).columns("x"), ub.RowsError, "a tuple. Expected a dict"),
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
        ub.from_arrays({"x": np.array([0.0, 1.0, np.nan, 3.0])}, shuffle=False).batch(2),
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
    with ub.Feed(ub.from_arrays(x, shuffle=False).batch(2)) as feed:
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
    with ub.Feed(ub.from_arrays(x, shuffle=False, passes=1).batch(2), on_nan="pass") as feed:
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
        pytest.raises(ValueError, match=r"it was from_arrays.shuffle.batch and is from_arrays.batch"),
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

    with ub.Feed(ub.from_generator(numbers).batch(4)) as feed:
        state = feed.state_dict()
    with (
        pytest.warns(UserWarning, match="of another stream"),
        ub.Feed(table().shuffle(30).batch(4)) as other,
        pytest.raises(ValueError, match=r"does not fit.*Begin a new run"),
    ):
        other.load_state_dict(state, accept_changes=True)


class _DataSet:
    """As torch's data sets are."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return np.zeros(3), index


class _TensorDataset(_DataSet):
    def __init__(self) -> None:
        self.tensors = (np.zeros((3, 3)), np.arange(3))


NO_ARRAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "a TensorDataset": (
        lambda: ub.from_arrays(_TensorDataset()),
        r"_TensorDataset in place.*ub\.from_arrays\(dataset\.tensors\)",
    ),
    "a data set": (lambda: ub.from_arrays(_DataSet()), r"rows of a data set are ub\.from_dataset\(dataset\)"),
    "a data set in a tuple": (lambda: ub.from_arrays((_DataSet(), np.zeros(3))), r"at \[0\] in place of an array"),
    "a path": (lambda: ub.from_arrays("x.npy"), r"'x\.npy'.*np\.load\(path, mmap_mode='r'\)"),
    "a generator": (lambda: ub.from_arrays(i for i in range(3)), r"generator.*ub\.from_generator\(fn\)"),
    "a function": (lambda: ub.from_arrays({"x": _endless}), r"at \['x'\].*ub\.from_samples"),
    "a stream": (lambda: ub.from_arrays(table()), "a Stream in place of an array"),
}


@pytest.mark.parametrize("what", NO_ARRAYS)
def test_what_is_no_array_is_told_with_what_to_write(what: str) -> None:
    make, sentence = NO_ARRAYS[what]
    with pytest.raises(TypeError, match=sentence):
        make()


def test_lists_of_plain_numbers_and_texts_are_arrays() -> None:
    stream = ub.from_arrays(([[1, 2], [3, 4], [5, 6]], [1.5, 2, 3], {"n": ["a", "bc", "d"]}), shuffle=False).batch(3)
    x, y, more = stream.peek()
    assert x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert y.tolist() == [1.5, 2, 3]
    assert more["n"].tolist() == ["a", "bc", "d"]
    assert ub.from_arrays([1, 2, 3], shuffle=False).batch(3).peek().tolist() == [1, 2, 3]
    both = ub.from_arrays([np.zeros(3), np.ones(3)]).batch(3).peek()  # a list of arrays is a tree, as before
    assert [leaf.shape for leaf in both] == [(3,), (3,)]
    with pytest.raises(ub.RowsError, match=r"a list at \['x'\] whose parts have unequal lengths"):
        ub.from_arrays({"x": [[1, 2], [3]]})


FUNCTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "map(lambda x, y)": (
        lambda: table().map(lambda x, y: x),
        r"map\(fn\).*rows.*takes \(x, y\).*lambda rows: \(rows\[0\], rows\[1\]\)",
    ),  # type: ignore[misc, arg-type]
    "map(lambda)": (lambda: table().map(lambda: 3), r"map\(fn\) calls its function with rows, .*takes \(\)"),  # type: ignore[misc, arg-type]
    "map after batch": (lambda: table().batch(2).map(lambda x, y, w: x), r"rows\[2\]"),  # type: ignore[misc, arg-type]
    "map_rows": (lambda: table().map_rows(lambda x, y: x), r"with row, .*lambda row: \(row\[0\], row\[1\]\)"),  # type: ignore[misc, arg-type]
    "filter": (lambda: table().filter(lambda x, y: x), r"filter\(fn\).*lambda rows"),  # type: ignore[misc, arg-type]
    "random_map": (lambda: table().random_map(lambda rows: rows), r"with rows and rng, .*takes \(rows\)"),  # type: ignore[misc, arg-type]
    "random_map of a pair": (lambda: table().random_map(lambda x, y, rng: x), r"lambda rows, rng: \(rows\[0\]"),  # type: ignore[misc, arg-type]
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_function_of_other_arguments_is_told_what_it_will_be_given(what: str) -> None:
    make, sentence = FUNCTIONS[what]
    with pytest.raises(TypeError, match=sentence):
        make()


def test_functions_that_fit_are_taken_whatever_they_are() -> None:
    class Doubled:
        def __call__(self, rows: Any, by: int = 2) -> Any:
            return rows * by

    for fn in (np.negative, abs, Doubled(), lambda *all_of_them: all_of_them[0], lambda rows, k=3: rows):
        assert len(ub.from_arrays(np.arange(4.0)).map(fn).batch(4).peek()) == 4


def test_batch_after_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\.batch\(3\) stands after \.batch\(4\): rows are put into batches once"):
        table().batch(4).batch(3)


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (table(5).windows(7).batch(2), r"\.windows\(7\) gives nothing of a pass of 5 rows.*\.windows\(5\)"),
        (table(5).shuffle(3).windows(7).map(lambda r: r).batch(2).prefetch(2), r"\.windows\(7\)"),
        (table(20).windows(4).windows(18).batch(2), r"\.windows\(18\) gives nothing of a pass of 17 rows"),
        (ub.from_generator(_endless).take(3).windows(7), "no row before its declared end"),
    ],
)
def test_what_can_never_give_a_batch_is_refused_at_once(stream: ub.Stream, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ub.Feed(stream)
    with pytest.raises(ValueError, match=sentence):
        stream.peek()


def test_a_column_to_normalize_that_is_not_there_is_named_with_those_that_are() -> None:
    rows = {"a": np.zeros(3), "b": np.zeros(3)}
    for stream, sentence in (
        (ub.from_arrays(rows).normalize("zz"), r"column 'zz', and the rows have 'a', 'b'"),
        (ub.from_arrays(rows).normalize("a", "zz"), r"column 'zz'"),
        (ub.from_arrays((np.zeros(3), np.ones(3))).normalize(5), "column 5, and the rows have positions 0 to 1"),
        (ub.from_arrays(np.zeros(3)).normalize("x"), "no columns: they are one array"),
    ):
        with pytest.raises(ub.RowsError, match=sentence):
            stream.batch(2).peek()


def test_batch_at_of_a_plain_generator_names_the_parameter_that_it_needs() -> None:
    with pytest.raises(ub.CannotTell, match=r"give numbers\(\) a parameter `start`"):
        ub.from_generator(numbers).batch(4).batch_at(3)


def numbers() -> Iterator[Any]:
    while True:
        yield np.zeros(4)


def test_a_missing_batch_stage_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ub.Feed(table().map(_same)).close()
    assert r".batch(n) makes batches of one size" in caplog.text
    caplog.clear()
    ub.Feed(table().batch(4)).close()
    ub.Feed(ub.from_generator(numbers)).close()  # whole batches may be what it yields
    assert not caplog.records


@pytest.mark.parametrize(
    "words", [lambda s: s.batch(4), lambda s: s.shuffle(9).batch(4).prefetch(2), lambda s: s.replay(9).batch(3)]
)
def test_none_holds_the_place_of_what_is_not_there(words: Any) -> None:
    rows = (np.arange(10.0), None, {"w": np.ones(10), "none": (None, None)})
    for stream in (
        ub.from_arrays(rows, shuffle=False),
        ub.from_arrays(np.arange(10.0)).map(lambda x: (x, None, {"w": np.ones(len(x)), "none": (None, None)})),
        ub.from_generator(lambda start=0: iter([rows] * 9), passes=3),
    ):
        with ub.Feed(words(stream)) as feed:
            for _ in range(5):
                x, y, w = next(feed.batches())
                feed.trained()
                assert (y, w["none"], len(w["w"])) == (None, (None, None), len(x))
            state = feed.state_dict()
            after = next(feed.batches())[0].tolist()
        with ub.Feed(words(stream)) as feed:
            feed.load_state_dict(state)
            assert next(feed.batches())[0].tolist() == after


def test_columns_of_text_reach_the_trainer_and_python_objects_do_not() -> None:
    names = np.array(["a", "bcd", "e" * 40])
    with ub.Feed(ub.from_arrays({"n": names}, shuffle=False).batch(3)) as feed:
        assert next(feed.batches())["n"].tolist() == names.tolist()


def test_a_value_that_was_mended_where_it_lies_is_no_longer_refused() -> None:
    rows = np.arange(12.0)
    rows[7] = np.nan
    feed = ub.Feed(ub.from_arrays(rows, shuffle=False).batch(4), epoch=ub.Epoch(steps=3))
    with pytest.raises(ValueError, match="row 3 of batch 1"):
        list(feed)
    rows[7] = 7.0
    assert np.concatenate(list(feed)).tolist() == list(range(4, 12))
    feed.close()


def test_a_peek_at_a_stream_that_can_never_give_a_batch_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbounded.waiting.LONG", 1e-6)
    with pytest.raises(ub.StreamError, match=r"passes over the rows have ended without a batch"):
        table(100).filter(lambda rows: rows["id"] < 0).batch(3).peek()


@pytest.mark.parametrize("state", [None, 5, {}, {"format": 1}, {"format": "x"}, [("format", 1)]])
def test_what_is_no_state_of_a_feed_is_told_in_a_sentence(state: Any) -> None:
    with ub.Feed(table().batch(3)) as feed, pytest.raises(ValueError, match="state of a feed"):
        feed.load_state_dict(state)


def test_a_feed_is_told_what_it_was_asked_for_in_a_sentence(tmp_path: Path) -> None:
    with ub.Feed(table().batch(3), epoch=ub.Epoch(steps=4)) as feed:
        next(iter(feed))
        for wrong in ("x", 1.0, True):
            with pytest.raises(TypeError, match=r"trained\(batches\) takes a whole number"):
                feed.trained(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="None was given as a path"):
            feed.load(None)
        with pytest.raises(TypeError, match=r"The state is named: feed\.save\(directory, state="):
            feed.save(tmp_path, {"weights": np.zeros(3)})  # type: ignore[misc]
        with pytest.raises(AttributeError, match="belongs to the stream"):
            feed.map(lambda rows: rows)
        with pytest.raises(AttributeError, match=r"model\.fit"):
            feed.fit(epochs=3)
        feed.trained()
    with pytest.raises(ub.StreamError, match="closed"):
        feed.load(tmp_path)


def test_an_epoch_takes_the_numbers_of_numpy() -> None:
    assert ub.Epoch(steps=np.int64(5)) == ub.Epoch(steps=5)  # type: ignore[arg-type]
    assert repr(ub.Epoch(rows=1e3)) == "Epoch(rows=1000)"  # type: ignore[arg-type]
    assert json.dumps(ub.Epoch(passes=np.float32(0.5)).identity())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fn",
    [
        lambda row: [1, 2] if row["id"] < 5 else [1],
        lambda row: {"a": 1} if row["id"] < 5 else {"b": 1},
        lambda row: np.zeros(1 + int(row["id"])),
        lambda row: None if row["id"] > 5 else row,
    ],
)
def test_rows_of_two_kinds_out_of_map_rows_are_told_with_the_row(fn: Any) -> None:
    with pytest.raises(ub.RowsError, match=r"map_rows\(<lambda>\) returned rows of two kinds: leaf|the array"):
        table(shuffle=False).map_rows(fn).batch(3).peek()


def test_a_function_of_single_rows_may_fill_one_memory_again_and_again() -> None:
    memory = np.zeros(1)

    def filled(row: Any) -> Any:
        memory[0] = row["id"]
        return memory

    assert table(shuffle=False).map_rows(filled).batch(3).batch_at(1).ravel().tolist() == [3, 4, 5]


def test_a_record_with_a_nan_in_a_field_is_refused() -> None:
    rows = np.zeros(20, dtype=[("a", "f4"), ("n", "i4"), ("b", "f8", (2,))])
    rows["b"][13, 1] = np.nan
    with (
        ub.Feed(ub.from_arrays(rows, shuffle=False).batch(4)) as feed,
        pytest.raises(ValueError, match="row 1 of batch 3"),
    ):
        list(feed.batches())
    with ub.Feed(ub.from_arrays(rows, shuffle=False, passes=1).batch(4), on_nan="pass") as feed:
        list(feed.batches())
        assert feed.stats.bad == 1
