"""Excluded rows keep their numbers and places with weight 0; the rows of a step can be looked up."""

import itertools

import numpy as np
import pytest

import unbounded as ub
from lines import Lines, places
from unbounded.core.block import Run
from unbounded.core.runtime import SYSTEM
from unbounded.feed.excluded import ExcludedNewRows, Weights
from unbounded.stages.exclude import Exclude

N = 60
X = np.arange(N)


def numbers(start=0):
    for i in itertools.count(start):
        yield np.array([i])


def arrays():
    return ub.from_arrays((X, X), seed=3)


STREAMS = {
    "arrays": lambda: arrays().batch(8),
    "shuffle": lambda: arrays().shuffle(25).batch(8).prefetch(2),
    "replay": lambda: ub.from_generator(numbers).map(lambda r: (r, r)).replay(30, reuse=3).batch(8),
    "mapped": lambda: ub.from_generator(numbers).shuffle(16).batch(8).map(lambda r: (r, r)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_the_rows_at_a_step_are_those_that_its_batch_has(name):
    stream = STREAMS[name]()
    with ub.Feed(stream) as feed:
        for step, (x, _) in zip(range(30), feed.batches(), strict=False):
            assert (feed.rows_at(step) == x).all()


def test_the_rows_at_a_step_of_a_mix_are_told_by_source():
    mixed = ub.mix({"old": arrays(), "new": ub.from_generator(numbers).map(lambda r: (r + 1000, r))}).batch(8)
    with ub.Feed(mixed) as feed:
        for step, (x, _) in zip(range(20), feed.batches(), strict=False):
            assert (feed.rows_at(step, source="old") == x[x < 1000]).all()
            assert (feed.rows_at(step, source="new") == x[x >= 1000] - 1000).all()
        with pytest.raises(ValueError, match="'old', 'new'"):
            feed.rows_at(3)


def test_the_rows_of_windows_are_told_for_each_of_their_rows():
    stream = ub.from_arrays(X * 10, shuffle=False).windows(4).batch(5)
    assert (stream.rows_at(2) * 10 == stream.batch_at(2)).all()


def test_rows_that_depend_on_values_cannot_be_looked_up():
    with pytest.raises(LookupError, match="depends on their values"):
        ub.from_arrays(X).filter(lambda r: r > 3).batch(4).rows_at(0)
    with pytest.raises(ValueError, match=r"exclude\(\) needs to know which rows"):
        ub.Feed(ub.from_arrays(X).filter(lambda r: r > 3).batch(4).exclude([1]))


@pytest.mark.parametrize("reuse", [0.5, 1, 1.5, 2])
def test_where_the_passes_of_replayed_rows_end_is_not_known_beforehand(reuse):
    replayed = ub.from_arrays(X, seed=3).replay(20, reuse=reuse)
    for stream in (replayed.shuffle(7), replayed.windows(3), replayed.random_map(lambda rows, rng: rows)):
        stream = stream.batch(4)
        with pytest.raises(LookupError, match=r"how many rows of a pass come out of replay\(\)"):
            stream.batch_at(0)
    with pytest.raises(ValueError, match=r"exclude\(\) needs to know .* come out of replay\(\) is not known"):
        ub.Feed(replayed.windows(3).batch(4).exclude([1]))
    plain = replayed.batch(4)
    endless = ub.from_generator(numbers).replay(20, reuse=reuse).shuffle(7).batch(4)
    for stream in (plain, endless):
        with ub.Feed(stream) as feed:
            for step, batch in zip(range(60), feed.batches(), strict=False):
                assert np.array_equal(stream.batch_at(step) if stream is plain else stream.rows_at(step), batch)


@pytest.mark.parametrize("name", STREAMS)
def test_excluded_rows_weigh_nothing_and_move_no_row(name):
    stream = STREAMS[name]()
    out = stream.exclude([3, range(10, 20), 50])
    assert out.fingerprint == stream.fingerprint
    with ub.Feed(stream) as plain, ub.Feed(out) as feed:
        for step, (x, _), (x2, y2, w) in zip(range(30), plain.batches(), feed.batches(), strict=False):
            assert (x == x2).all(), step
            assert (y2 == x2).all(), step
            assert w.dtype == np.float32
            assert (w == ~np.isin(x, [3, *range(10, 20), 50])).all()


def test_weights_that_were_there_are_kept_and_other_batches_are_given_some():
    weighted = ub.from_arrays((X, X, np.full(N, 0.5)), shuffle=False).batch(4).exclude([1])
    with ub.Feed(weighted) as feed:
        assert feed.peek()[2].tolist() == [0.5, 0.0, 0.5, 0.5]
    with ub.Feed(ub.from_arrays(X, shuffle=False).batch(4).exclude([1])) as feed:
        x, y, w = feed.peek()
        assert (x.tolist(), y, w.tolist()) == ([0, 1, 2, 3], None, [1, 0, 1, 1])
    with ub.Feed(ub.from_arrays({"a": X}, shuffle=False).batch(4).exclude(range(2))) as feed:
        assert feed.peek()["sample_weight"].tolist() == [0, 0, 1, 1]
    with ub.Feed(ub.from_arrays(X, shuffle=False).windows(3).batch(4).exclude([3])) as feed:
        assert feed.peek()[2].tolist() == [1, 0, 0, 0]


def test_a_mix_excludes_rows_of_the_source_that_is_named():
    mixed = ub.mix({"old": arrays(), "new": ub.from_arrays((X + 1000, X))}).batch(8)
    with pytest.raises(ValueError, match="'old', 'new'"):
        mixed.exclude([3])
    with ub.Feed(mixed.exclude([3, 5], source="new").exclude([7], source="old")) as feed:
        for _, (x, _, w) in zip(range(20), feed.batches(), strict=False):
            assert (w == ~np.isin(x, [1003, 1005, 7])).all()


def test_rows_that_an_input_of_a_mix_excludes_weigh_nothing():
    mixed = ub.mix({"old": arrays().exclude([7]), "new": ub.from_arrays((X + 1000, X)).exclude([3, 5])}).batch(8)
    with ub.Feed(mixed) as feed:
        assert feed.excluded == [[0, [["old", [[7, 8]]], ["new", [[3, 4], [5, 6]]]]]]
        for _, (x, _, w) in zip(range(20), feed.batches(), strict=False):
            assert (w == ~np.isin(x, [1003, 1005, 7])).all()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_with_excluded_rows_resumes_exactly(name):
    ub.testing.assert_resumes(STREAMS[name]().exclude([3, range(10, 20)]), steps=15)


def test_a_run_goes_on_with_rows_excluded_and_its_checkpoints_record_since_when(tmp_path):
    stream = STREAMS["replay"]()

    def run(described, steps):
        with ub.Feed(described, epoch=ub.Epoch(steps=steps)) as feed:
            feed.load(tmp_path)
            out = list(next(iter(feed.epochs())))
            feed.save(tmp_path)
            return out, feed.excluded

    first, record = run(stream, 5)
    assert record == []
    second, record = run(stream.exclude([4]), 5)
    assert record == [[5, [[None, [[4, 5]]]]]]
    third, record = run(stream.exclude([4, range(20, 22)]), 5)
    assert record == [[5, [[None, [[4, 5]]]]], [10, [[None, [[4, 5], [20, 22]]]]]]
    with ub.Feed(stream) as feed:
        for (x, _), one in zip(feed.batches(), [*first, *second, *third], strict=False):
            assert (one[0] == x).all()
    assert all((w == (x != 4)).all() for x, _, w in second)
    with pytest.warns(UserWarning, match="from step 15 on"):
        _, record = run(stream, 5)
    assert record[-1] == [15, []]


def test_rows_that_make_no_sense_are_refused():
    stream = arrays().batch(4)
    for rows, words in (([], "no row"), ([range(0, 9, 2)], "without a step"), ([-1], "at least 0")):
        with pytest.raises(ValueError, match=words):
            stream.exclude(rows)


def test_a_signal_at_any_line_leaves_the_weights_of_no_other_step():
    stream = ub.from_arrays((X, X), seed=3).windows(2).batch(4).exclude([5, 17, range(30, 40)])
    excluded = [stage for stage in stream.stages if isinstance(stage, Exclude)]

    def read(weights, step):
        run = Run([(np.zeros(4), np.zeros(4))], 4, 4)
        return weights.weigh(run, step).items[0][2].tolist()

    def attempt(lines, first=3):
        weights = Weights(stream, excluded, SYSTEM)
        try:
            before = [read(weights, step) for step in range(3)]
            with lines:
                for step in (3, 9):
                    before.append(read(weights, step))
        except KeyboardInterrupt:
            pass
        found = {step: read(weights, step) for step in (first, 9, 10, 0, 3, 4)}
        weights.close()
        return found

    def interrupt():
        raise KeyboardInterrupt

    every = Lines()
    expected = attempt(every)
    assert len({tuple(weight) for weight in expected.values()}) > 2
    for at in places(every.times):
        for first in (3, 4):
            assert attempt(Lines(interrupt, at), first) == expected, at


def test_a_signal_at_any_line_leaves_new_rows_excluded_as_they_were():
    stream = ub.from_generator(numbers).windows(3).batch(4).exclude([5, 17, range(30, 40), range(200_000, 300_000)])
    excluded = [stage for stage in stream.stages if isinstance(stage, Exclude)]

    def attempt(lines):
        new = ExcludedNewRows(stream, excluded, SYSTEM)
        new.mask(np.arange(2, 10))
        try:
            with lines:
                new.mask(np.array([10, 200_000]))
        except KeyboardInterrupt:
            pass
        return [new.mask(np.array([first, stop])).tolist() for first, stop in [(10, 200_000), (20, 28), (2, 199_999)]]

    def interrupt():
        raise KeyboardInterrupt

    every = Lines()
    expected = attempt(every)
    for at in places(every.times):
        assert attempt(Lines(interrupt, at)) == expected, at
