"""A feed of a mix: passes, positions, stats, states and messages for each source."""

from __future__ import annotations

import itertools
import json
import logging
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, first
from test_mix import rows_of, tagged, two
from unbounded.feed.describe import StreamChanged
from unbounded.feed.stats import InputStats
from unbounded.testing import Clock


def rows_until(stream: ub.Stream, of: int, rows: int) -> int:
    """How many rows there are up to the one that is the so manieth of an input."""
    found = np.concatenate([batch["of"] for batch in first(stream.batch(1), 5000)])
    return int(np.flatnonzero(found == of)[rows - 1]) + 1


def test_an_epoch_is_a_pass_over_one_source_of_a_mix_and_passes_are_carried() -> None:
    stream = two().batch(16)
    with ub.Feed(stream, epoch=ub.Epoch(passes={"old": 1})) as feed:
        ends = []
        for epoch in feed.epochs(3):
            for _ in epoch:
                pass
            ends.append(feed.steps)
    assert ends == [-(-rows_until(two(), 0, 100 * n) // 16) for n in (1, 2, 3)]


def test_the_first_source_that_has_made_its_passes_ends_the_epoch() -> None:
    with ub.Feed(two().batch(16), epoch=ub.Epoch(passes={"old": 1, "new": 2.5})) as feed:
        list(next(feed.epochs(1)))
        assert feed.steps == -(-rows_until(two(), 1, 175) // 16)


def test_passes_are_counted_by_the_rows_that_are_trained_where_a_filter_follows() -> None:
    stream = two().filter(lambda rows: rows["row"] % 2 == 0).shuffle(40).batch(4)
    with ub.Feed(stream, epoch=ub.Epoch(passes={"old": 1})) as feed:
        seen = np.concatenate([batch["row"][batch["of"] == 0] for batch in next(feed.epochs(1))])
        # Up to the batch with the first row of the second pass: the shuffle buffer brings it some rows early or late.
        assert 30 <= len(seen) <= 70
        assert feed.stats.inputs["old"].passes == 1.0


def test_passes_resume_exactly_for_each_source() -> None:
    stream = two().shuffle(30).batch(16).prefetch(2)

    def epochs(feed: ub.Feed, n: int) -> list[int]:
        return [len(list(epoch)) for epoch in feed.epochs(n)]

    with ub.Feed(stream, epoch=ub.Epoch(passes={"new": 1})) as feed:
        expected = epochs(feed, 5)
    with ub.Feed(stream, epoch=ub.Epoch(passes={"new": 1})) as feed:
        got = epochs(feed, 2)
        for _ in itertools.islice(next(feed.epochs(3)), 2):
            feed.trained()
        given = feed.state_dict()
        state = json.loads(json.dumps(given))
        assert state == given
    with ub.Feed(stream, epoch=ub.Epoch(passes={"new": 1})) as feed:
        feed.load_state_dict(state)
        more = epochs(feed, 5)
    assert [*got, more[0] + 2, *more[1:]] == expected


def test_stats_count_rows_and_passes_of_each_source() -> None:
    nested = ub.mix({"a": two(), "b": tagged(2, 50)}).replay(100, reuse=2).batch(64)
    with ub.Feed(nested) as feed:
        batches = []
        for batch in itertools.islice(feed.batches(), 20):
            feed.trained()
            batches.append(batch["of"])
        counted = np.bincount(np.concatenate(batches), minlength=3).tolist()
        stats = feed.stats
        assert [stats.inputs[name].rows for name in ("a/old", "a/new", "b")] == counted
        assert sum(counted) == stats.rows == 1280
        assert stats.passes is None
        logs = stats.logs()
        assert logs["rows/b"] == counted[2]
        assert logs["passes/b"] == stats.inputs["b"].passes
        assert feed._opened.names == ["a/old", "a/new", "b"]
    with ub.Feed(two().batch(1024), epoch=ub.Epoch(steps=1)) as feed:
        for epoch in feed.epochs(2):
            list(epoch)
        assert feed.last_epoch is not None
        assert feed.last_epoch.inputs == {"old": InputStats(256, 2.56), "new": InputStats(768, 768 / 70)}


def test_a_position_names_each_source_and_the_oldest_row_to_read_again() -> None:
    with ub.Feed(two().shuffle(512).batch(64)) as feed:
        for _ in itertools.islice(feed.batches(), 15):
            feed.trained()
        rows = feed.count.inputs
        passed, row = divmod(rows[0].rows, 100)
        text = str(feed.position)
        assert text.startswith(f"row 960: old pass {passed + 1}, row {row} of 100; new pass ")
        assert "new to be read again from its row" in text
        assert "rows back" in text


def test_a_stream_of_streams_is_described_as_a_tree() -> None:
    nested = ub.mix({"a": two().shuffle(9), "b": tagged(2, 50)}).batch(8)
    lines = nested.describe().splitlines()
    assert lines[0].startswith("mix({…}, weights={'a': 1, 'b': 1})")
    assert [line.split()[0] for line in lines[1:]] == [
        "a:",
        "old:",
        "new:",
        ".shuffle(9)",
        "b:",
        ".batch(8)",
        "guarantee:",
    ]
    assert "shuffle=False) 100 rows a pass" in lines[2]
    assert repr(two()) == (
        "mix({'old': from_arrays(100 rows, shuffle=False), 'new': from_arrays(70 rows, shuffle=False)}, "
        "weights={'old': 0.25, 'new': 0.75})"
    )
    html = nested._repr_html_()
    assert html.count("<tr>") == 8
    assert "old" in html


def test_the_weakest_source_is_the_guarantee_and_is_named() -> None:
    stream = ub.mix({"old": tagged(0), "new": Steps().stream()}).batch(8)
    assert stream.guarantee == "at_most_once"
    with pytest.raises(ValueError, match=r"from_generator\(\) promises 'at_most_once'"):
        ub.Feed(stream, require="exact")


@pytest.mark.parametrize(
    ("stream", "passes", "sentence"),
    [
        (two().batch(8), 1, r"Count those of its sources: passes=\{'old': 1\}"),
        (two().batch(8), {"older": 1}, "Expected a source of the mix: 'old', 'new'"),
        (tagged(0).batch(8), {"old": 1}, "is no mix"),
        (ub.mix({"old": tagged(0), "new": Steps().stream()}).batch(8), {"new": 1}, "passes of 'new', which has none"),
        (two().filter(lambda r: r["row"] > 3).batch(8), {"old": 0.5}, "Use whole passes"),
    ],
)
def test_passes_that_cannot_be_counted_are_refused_in_a_sentence(stream: ub.Stream, passes: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ub.Feed(stream, epoch=ub.Epoch(passes=passes))


def test_an_epoch_of_passes_by_name_checks_its_numbers() -> None:
    assert repr(ub.Epoch(passes={"old": 1})) == "Epoch(passes={'old': 1})"
    with pytest.raises(ValueError, match=r"passes=\{'old': 0\}\): expected a number above 0"):
        ub.Epoch(passes={"old": 0})
    with pytest.raises(ValueError, match="names of sources"):
        ub.Epoch(passes={})


def test_the_state_of_another_mix_is_refused_with_what_differs() -> None:
    def state(stream: ub.Stream) -> Any:
        with ub.Feed(stream.batch(8)) as feed:
            return feed.state_dict()

    given = state(two())
    for other, sentence in (
        (two(weights=[1, 1]), r"mix\(weights\) was"),
        (two(seed=4), r"mix\(seed\) was 0 and is 4"),
        (ub.mix({"old": tagged(0), "more": tagged(1, 70)}, weights=[1, 3]), "it mixed old, new and mixes old, more"),
        (
            ub.mix({"old": tagged(0, 90), "new": tagged(1, 70)}, weights=[0.25, 0.75]),
            r"of 'old', from_arrays\(rows\) was 100",
        ),
    ):
        with ub.Feed(other.batch(8)) as feed, pytest.raises(ValueError, match=sentence):
            feed.load_state_dict(given)


def test_a_run_goes_on_with_other_weights_where_that_is_asked_for_and_with_other_streams_never() -> None:
    with ub.Feed(two().batch(512)) as feed:
        for _ in itertools.islice(feed.batches(), 3):
            feed.trained()
        state = feed.state_dict()
    with ub.Feed(two(weights=[1, 1]).batch(512)) as feed:
        with pytest.warns(StreamChanged, match=r"mix\(weights\)"):
            feed.load_state_dict(state, accept_changes=True)
        rest = list(itertools.islice(feed.batches(), 5))
        assert np.bincount(np.concatenate([b["of"] for b in rest])[512:]).tolist() == [1024, 1024]
    three = ub.mix({"old": tagged(0), "new": tagged(1, 70), "more": tagged(2)}).batch(512)
    with ub.Feed(three) as feed, pytest.raises(ValueError, match="position does not fit"), pytest.warns(StreamChanged):
        feed.load_state_dict(state, accept_changes=True)


def test_random_choices_of_two_branches_are_unrelated() -> None:
    # Each stage has a place of its own in the tree.
    one = tagged(0, 100).shuffle(100)
    stream = ub.mix([one, tagged(1, 100).shuffle(100)]).batch(2048)
    batch = first(stream, 1)[0]
    orders = [batch["row"][batch["of"] == value][:100].tolist() for value in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(100))
    assert orders[0] != orders[1]


def test_a_row_that_is_not_finite_is_named_with_its_source() -> None:
    x = np.ones(50)
    x[17] = np.nan
    stream = ub.mix(
        {"good": ub.from_arrays(np.ones(40)), "bad": ub.from_arrays(x, seed=3).map(abs).shuffle(20)}
    ).shuffle(30)
    step = stream.batch(8).step_of(17, source="bad")
    with ub.Feed(stream.batch(8)) as feed, pytest.raises(ValueError, match=rf"batch {step:,} .*, row 17 of 'bad'\)"):
        list(feed.batches())
    with ub.Feed(stream.batch(8), on_nan="skip") as feed, pytest.warns(ub.NonFiniteRows, match="row 17 of 'bad'"):
        list(itertools.islice(feed.batches(), 20))


def test_a_feed_says_for_which_source_of_a_mix_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    steps, clock = Steps(), Clock()
    stream = ub.mix({"a": ub.mix({"old": tagged(0), "new": steps.stream()}), "b": tagged(2)}).batch(512)
    feed = ub.Feed(stream, runtime=clock)
    caplog.set_level(logging.WARNING, "unbounded")
    try:
        steps.give(rows_of(1, 5))
        while feed.waiting_for is None:
            clock.advance(3.0)
            feed._waiting.begin()
            feed._reader.read()
            clock.advance(3.0)
            feed._waiting.look()
        assert "from sensor() ('a/new'): waiting" in feed.waiting_for
        assert "'b'" not in feed.waiting_for
    finally:
        steps.end()
        feed.close()
