"""Feed: hands out batches and counts those trained on; batches in doubt come again, and are counted."""

from __future__ import annotations

import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, first, ids, table, wait_until
from unbounded.core.input_buffer import Address, compose_held
from unbounded.core.trees import Tree, leaves
from unbounded.feed.describe import RunFinished
from unbounded.testing import Clock

pytestmark = pytest.mark.usefixtures("no_threads_left")


def test_asking_for_the_next_batch_says_that_the_one_before_is_trained() -> None:
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=3)) as feed:
        run = next(feed.epochs(1))
        batches = iter(run)
        next(batches)
        assert (feed.steps, feed.outstanding) == (0, 1)
        next(batches)
        assert (feed.steps, feed.outstanding) == (1, 1)
        next(batches)
        assert next(batches, None) is None
        assert (feed.steps, feed.outstanding) == (3, 0)


def test_a_loop_that_is_left_puts_the_last_batch_in_doubt_and_it_comes_again_and_is_counted() -> None:
    seen = []
    with ub.Feed(table(100, shuffle=False).batch(4), epoch=ub.Epoch(steps=5)) as feed:
        for run in feed.epochs(2):
            for i, batch in enumerate(run):
                seen.append(ids(batch)[0] // 4)
                if run.number == 0 and i == 2:
                    break
        assert seen == [0, 1, 2, 2, 3, 4, 5, 6]
        assert feed.stats.in_doubt == 1
        assert feed.stats.steps == 7
        assert feed.stats.logs()["in_doubt"] == 1.0


def test_an_exception_in_the_loop_leaves_the_batch_in_doubt() -> None:
    seen: list[int] = []
    with ub.Feed(table(100, shuffle=False).batch(4), epoch=ub.Epoch(steps=50)) as feed:

        def train() -> None:
            for run in feed.epochs(1):
                for batch in run:
                    if len(seen) == 3:
                        seen.append(-1)
                        raise OSError("the disk")
                    seen.append(ids(batch)[0] // 4)
                    if len(seen) == 8:
                        return

        with pytest.raises(OSError, match="the disk"):
            train()
        feed.rewind()
        train()
    assert seen == [0, 1, 2, -1, 3, 4, 5, 6]


def test_with_confirm_manual_only_confirmed_batches_count() -> None:
    """Gradients of four batches are accumulated, and applied at once."""
    stream = table(100, shuffle=False).batch(4)
    with ub.Feed(stream, epoch=ub.Epoch(steps=12), confirm="manual") as feed:
        states = []
        for run in feed.epochs(1):
            for i, _ in enumerate(run):
                if i % 4 == 3:
                    feed.trained()
                states.append((feed.steps, feed.state_dict()))
        assert [steps for steps, _ in states] == [0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12]
    with ub.Feed(stream, confirm="manual") as feed:
        feed.load_state_dict(states[6][1])
        assert ids(next(feed.batches())) == [16, 17, 18, 19]


def test_by_hand_some_of_what_is_out_can_be_confirmed_and_no_more_than_that() -> None:
    with ub.Feed(table(100).batch(4), confirm="manual") as feed:
        list(itertools.islice(feed.batches(), 3))
        feed.trained(2)
        assert (feed.steps, feed.outstanding) == (2, 1)
        for wrong in (2, -1):
            with pytest.raises(ValueError, match="1 batches are out and not confirmed"):
                feed.trained(wrong)
        assert feed.rewind() == 1


def test_what_was_not_confirmed_by_hand_when_an_epoch_ends_stays_with_the_trainer() -> None:
    with ub.Feed(table(100, shuffle=False).batch(4), epoch=ub.Epoch(steps=2), confirm="manual") as feed:
        runs = feed.epochs(2)
        assert len(list(next(runs))) == 2
        feed.trained(1)
        assert ids(next(iter(next(runs)))) == [8, 9, 10, 11]
        assert (feed.outstanding, feed.stats.in_doubt) == (2, 0)
        assert feed.rewind() == 2
        assert ids(next(feed.batches())) == [4, 5, 6, 7]


def test_two_trainers_on_one_feed_are_refused() -> None:
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=3)) as feed:
        runs = feed.epochs(2)
        next(runs)
        with pytest.raises(ub.StreamError, match="already at work for another loop"):
            feed.epochs(2)
        runs.close()  # type: ignore[attr-defined]
        next(feed.epochs(2))


def test_a_loop_whose_feed_was_moved_says_so() -> None:
    with ub.Feed(table(100).batch(4)) as feed:
        batches = feed.batches()
        next(batches)
        feed.rewind()
        with pytest.raises(ub.StreamError, match="moved while this loop"):
            next(batches)


def test_a_closed_feed_says_so() -> None:
    feed = ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=3))
    batches = feed.batches()
    next(batches)
    feed.close()
    feed.close()
    assert "closed" in repr(feed)
    assert feed.stats.steps == 0
    uses: list[Any] = [
        lambda: feed.epochs(1),
        lambda: next(batches),
        lambda: next(feed.batches()),
        feed.trained,
        feed.state_dict,
        feed.available,
        feed.peek,
        lambda: feed.load_state_dict({}),
    ]
    for use in uses:
        with pytest.raises(ub.StreamError, match=r"The feed is closed\. Make a new one"):
            use()


def test_a_finished_run_warns_and_names_what_would_go_on() -> None:
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=3)) as feed:
        assert [run.number for run in feed.epochs(2) if list(run)] == [0, 1]
        said = r"trained 2 epochs already, and 2 were asked for.*feed\.epochs\(4\) would go on"
        with pytest.warns(RunFinished, match=said) as caught:
            assert list(feed.epochs(2)) == []
        assert caught[0].filename == __file__
        assert [run.number for run in feed.epochs(4) if list(run)] == [2, 3]


def test_a_position_is_described_in_words() -> None:
    with ub.Feed(table(10_000).batch(32), epoch=ub.Epoch(steps=1)) as feed:
        assert str(feed.position) == "pass 1, row 0 of 10,000"
        list(itertools.islice(feed.batches(), 1907))
        feed.trained()
        # 1907 confirmed: 61,024 rows
        assert str(feed.position).startswith("pass ")
    with ub.Feed(table(10_000).batch(32)) as feed:
        for _ in itertools.islice(feed.batches(), 1907):
            feed.trained()
        assert str(feed.position) == "pass 7, row 1,024 of 10,000"
        assert (feed.position.steps, feed.position.rows) == (1907, 61_024)
        assert "1,907 steps" in repr(feed.position)


def test_the_position_of_other_streams_says_what_is_known() -> None:
    with ub.Feed(table(100).filter(lambda r: r["id"] < 50).batch(10)) as feed:
        for _ in itertools.islice(feed.batches(), 7):
            feed.trained()
        assert str(feed.position) == "pass 2, 70 rows trained"

    def numbers(start: int = 0) -> Any:
        while True:
            yield np.arange(start, start + 10)
            start += 10

    with ub.Feed(ub.from_generator(numbers).shuffle(50).batch(4)) as feed:
        for _ in itertools.islice(feed.batches(), 5):
            feed.trained()
        assert str(feed.position) == "row 20, to be read again from row 0 of the source"


def test_peek_shows_the_next_batch_and_hands_nothing_out() -> None:
    with ub.Feed(table(100, shuffle=False).batch(4)) as feed:
        assert ids(feed.peek()) == ids(feed.peek()) == [0, 1, 2, 3]
        assert (feed.steps, feed.outstanding, feed.stats.in_doubt) == (0, 0, 0)
        assert ids(next(feed.batches())) == [0, 1, 2, 3]


def test_the_stats_say_what_really_happened() -> None:
    with ub.Feed(table(10_000).batch(32), epoch=ub.Epoch(steps=1000)) as feed:
        for run in feed.epochs(2):
            for _ in run:
                pass
            assert str(run.stats) == "1,000 batches × 32 = 32,000 rows, 3.2 passes"
        stats = feed.stats
        assert (stats.steps, stats.rows, stats.passes) == (2000, 64_000, 6.4)
        assert stats.fetched >= 64_000
        assert stats.logs()["passes"] == 6.4
    assert feed.stats == stats


def test_reuse_is_rows_trained_on_for_each_row_fetched() -> None:
    with ub.Feed(table(1000).replay(100, reuse=3).batch(10)) as feed:
        for _ in itertools.islice(feed.batches(), 3000):
            feed.trained()
        assert feed.stats.reuse is not None
        assert abs(feed.stats.reuse - 3) < 0.4


def test_waiting_and_working_are_told_apart() -> None:
    clock = Clock()
    slow = []

    def wait(rows: Tree) -> Tree:
        clock.advance(3.0)
        slow.append(1)
        return rows

    def numbers(start: int = 0) -> Any:
        while True:
            yield np.arange(start, start + 4)
            start += 4

    with ub.Feed(ub.from_generator(numbers).map(wait).batch(4), epoch=ub.Epoch(steps=5), runtime=clock) as feed:
        for run in feed.epochs(1):
            for _ in run:
                clock.advance(1.0)
        stats = feed.stats
    assert stats.waited == 3.0 * len(slow)
    assert stats.worked == 5.0
    assert stats.waiting == pytest.approx(3.0 * len(slow) / (3.0 * len(slow) + 5.0))


def test_the_age_of_the_rows_is_that_when_they_were_trained() -> None:
    clock = Clock(1000.0)
    steps = Steps()
    steps.give(np.arange(4))
    with ub.Feed(steps.stream().batch(4), epoch=ub.Epoch(steps=1), runtime=clock) as feed:
        assert feed.available()
        clock.advance(4.0)
        for run in feed.epochs(1):
            for _ in run:
                clock.advance(2.0)
        assert feed.stats.age == 6.0
        assert run.stats.logs()["age"] == 6.0
        steps.end()
    assert first(table(10).batch(2), 1)
    with ub.Feed(table(10).batch(2)) as feed:
        next(feed.batches())
        assert feed.stats.age is None


def test_a_value_that_is_not_finite_is_refused_with_its_rows_address_before_it_is_handed_out() -> None:
    x = np.zeros((100, 3), np.float32)
    x[77, 1] = np.nan
    stream = ub.from_arrays({"x": x, "id": np.arange(100)}, seed=1).batch(8)
    step = stream.step_of(77)
    with ub.Feed(stream) as feed:
        with pytest.raises(
            ValueError,
            match=rf"has a NaN or an infinity in row \d of batch {step:,} .*row 77 of the arrays.*on_nan='pass'",
        ):
            for _ in feed.batches():
                pass
        assert feed.steps == step
        assert feed.outstanding == 0
        with pytest.raises(ValueError, match="has a NaN"):
            next(feed.batches())
    with ub.Feed(stream, on_nan="pass") as feed:
        for _ in itertools.islice(feed.batches(), 25):
            feed.trained()
        assert feed.stats.bad == 2


def test_two_bad_batches_of_one_block_are_both_refused() -> None:
    x = np.zeros(100)
    x[[30, 60]] = np.inf
    with ub.Feed(ub.from_arrays(x, shuffle=False).batch(10)) as feed:
        for step, row in ((3, 30), (6, 60)):
            with pytest.raises(ValueError, match=f"row 0 of batch {step} .*row {row} of the arrays"):
                for _ in feed.batches():
                    pass
            assert feed.steps == step
            x[row] = 0  # mended
            feed.trained()


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.batch(8),
        lambda s: s.batch(8).map(lambda rows: rows),
        lambda s: s.batch(8).prefetch(3),
        lambda s: s.shuffle(30).batch(8),
        lambda s: s.buffer(20).batch(8),
    ],
)
@pytest.mark.parametrize("steps", [1, 5, 9])
def test_the_guard_against_nan_is_on_in_a_run_that_goes_on(words: Any, steps: int) -> None:
    x = np.zeros((100, 3), np.float32)
    x[:] = np.arange(100)[:, None]
    stream = words(ub.from_arrays({"x": x.copy()}, shuffle=False))
    with ub.Feed(stream) as feed:
        bad = next(i for i, batch in enumerate(feed.batches()) if (batch["x"] == 83).any())
    sick = x.copy()
    sick[83, 1] = np.inf
    stream = words(ub.from_arrays({"x": sick}, shuffle=False))
    assert bad >= 7
    with ub.Feed(stream) as feed:
        for _ in itertools.islice(feed.batches(), steps if steps < bad else bad):
            feed.trained()
        state = feed.state_dict()
        # One that was rewound in the middle of a block as well.
        feed.rewind()
        with pytest.raises(ValueError, match=f"row . of batch {bad}"):
            list(itertools.islice(feed.batches(), 20))
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        with pytest.raises(ValueError, match=f"row . of batch {bad}"):
            list(itertools.islice(feed.batches(), 20))
        assert feed.steps == bad
    with ub.Feed(stream, on_nan="pass") as feed:
        feed.load_state_dict(state)
        for _ in itertools.islice(feed.batches(), 12):
            feed.trained()
        assert feed.stats.bad == 1


def test_bad_rows_that_pass_are_counted_once_however_often_their_batch_comes() -> None:
    x = np.arange(40.0)
    x[[3, 12, 13]] = np.nan
    stream = ub.from_arrays(x, shuffle=False).batch(4)
    with ub.Feed(stream, on_nan="pass") as feed:
        for _ in range(3):
            next(feed.batches())  # and is left
        assert (feed.steps, feed.stats.bad, feed.stats.in_doubt) == (0, 0, 2)
        for _ in itertools.islice(feed.batches(), 4):
            feed.trained()
        assert (feed.steps, feed.stats.bad) == (4, 3)
        batches = feed.batches()
        for _ in range(9):
            next(batches)
        # In the second pass batch 10 is the first: it is out, and what was trained is 12 batches.
        assert feed.steps == 12
        assert feed.stats.bad == 4
        state = feed.state_dict()
    with ub.Feed(stream, on_nan="pass") as feed:
        feed.load_state_dict(state)
        assert feed.stats.bad == 4
        for _ in itertools.islice(feed.batches(), 2):
            feed.trained()
        assert feed.stats.bad == 6


def test_a_loop_of_ones_own_is_handed_columns_of_any_kind() -> None:
    rows = {
        "x": np.arange(3.0),
        "name": np.array(["a", "b", None], dtype=object),
        "text": np.array(["a", "bb", ""]),
        "at": np.array(["2026-01-01", "NaT", "2026-01-03"], "M8[s]"),
        "took": np.arange(3).astype("m8[s]"),
        "yes": np.array([True, False, True]),
    }
    stream = ub.from_arrays(rows, shuffle=False).shuffle(2).replay(3, reuse=2).batch(2)
    with ub.Feed(stream) as feed:
        for batch in itertools.islice(feed.batches(), 9):
            assert {name: leaf.dtype.kind for name, leaf in batch.items()} == {
                **{"x": "f", "name": "O", "text": "U", "at": "M", "took": "m", "yes": "b"}
            }
            for name in ("name", "text", "yes"):
                assert batch[name].tolist() == rows[name][batch["x"].astype(int)].tolist()
            feed.trained()
        state = feed.state_dict()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches())["at"].dtype == np.dtype("M8[s]")


def test_require_refuses_less_and_names_the_part() -> None:
    steps = Steps()
    stream = steps.stream()
    with pytest.raises(ValueError, match=r"promises 'at_most_once'\. from_generator\(\) promises"):
        ub.Feed(stream, require="exact")
    with pytest.raises(ValueError, match=r"buffer\(\) promises 'at_most_once'"):
        ub.Feed(table(10).buffer(5, overflow="drop_oldest").batch(2), require="at_least_once")
    ub.Feed(table(10).batch(2), require="exact").close()


def ten_stages() -> ub.Stream:
    return (
        table(1000)
        .filter(lambda r: r["id"] % 4 != 3)
        .normalize("x")
        .random_map(lambda r, rng: r, group=50)
        .windows(3)
        .shuffle(100)
        .replay(400, reuse=2)
        .buffer(50)
        .batch(8)
        .map(lambda r: r, workers=2)
        .prefetch(3)
    )


def test_a_state_is_small_plain_data_that_json_carries() -> None:
    with ub.Feed(ten_stages()) as feed:
        for i, _ in enumerate(feed.batches()):
            feed.trained()
            if i % 37 == 0:
                state = feed.state_dict()
                assert json.loads(json.dumps(state)) == state
                assert len(json.dumps(state)) <= 2048
            if i == 400:
                break
    assert not [p for p, leaf in leaves(state) if isinstance(leaf, np.ndarray)]


def test_the_position_is_as_small_at_row_10_to_the_12_and_as_soon_reached() -> None:
    stream = table(1000).shuffle(100).batch(8)
    with ub.Feed(stream) as feed:
        state = feed.state_dict()
        state["position"] = compose_held([Address(stream.cursor_at(10**12))], {})
        state["count"] = [10**12, 8 * 10**12, 8 * 10**9]
        feed.load_state_dict(state)
        assert (next(feed.batches())["id"] == stream.batch_at(10**12)["id"]).all()
        feed.trained()
        assert len(json.dumps(feed.state_dict()["position"])) < 600
        assert str(feed.position) == "pass 8,000,000,001, row 8 of 1,000"


def test_the_state_of_another_stream_is_refused_in_words() -> None:
    with ub.Feed(table(100, seed=1).shuffle(10).batch(4)) as feed:
        state = feed.state_dict()
    for other, words in (
        (table(100, seed=2).shuffle(10).batch(4), r"from_arrays\(seed\) was 1 and is 2"),
        (table(100, seed=1).shuffle(20).batch(4), r"shuffle\(rows\) was 10 and is 20"),
        (table(100, seed=1).batch(4), r"it was from_arrays\.shuffle\.batch and is from_arrays\.batch"),
        (table(99, seed=1).shuffle(10).batch(4), r"from_arrays\(rows\) was 100 and is 99"),
    ):
        with ub.Feed(other) as feed, pytest.raises(ValueError, match=rf"another stream: .*{words}.*accept_changes"):
            feed.load_state_dict(state)
    with ub.Feed(table(100, seed=1).shuffle(10).batch(4)) as feed:
        with pytest.raises(ValueError, match=r"format 99.*Use the version that wrote it"):
            feed.load_state_dict({**state, "format": 99})
        with pytest.raises(ValueError, match="not the state of a feed"):
            feed.load_state_dict({"a": 1})


def test_changes_that_are_accepted_are_named() -> None:
    with ub.Feed(table(100, seed=1).batch(4)) as feed:
        for _ in itertools.islice(feed.batches(), 5):
            feed.trained()
        state = feed.state_dict()
    with ub.Feed(table(100, seed=2).batch(4)) as feed:
        with pytest.warns(UserWarning, match=r"another stream: from_arrays\(seed\) was 1 and is 2"):
            feed.load_state_dict(state, accept_changes=True)
        assert feed.steps == 5
        assert (next(feed.batches())["id"] == table(100, seed=2).batch(4).batch_at(5)["id"]).all()


def test_stats_are_carried_over_a_restart() -> None:
    clock = Clock()
    stream = table(100).batch(4)
    with ub.Feed(stream, epoch=ub.Epoch(steps=6), runtime=clock) as feed:
        for run in feed.epochs(1):
            for _ in run:
                clock.advance(1.0)
                if feed.steps == 3:
                    break
        state = feed.state_dict()
        before = feed.stats
    assert before.worked > 0
    with ub.Feed(stream, epoch=ub.Epoch(steps=6), runtime=clock) as feed:
        feed.load_state_dict(state)
        assert feed.stats.worked == before.worked
        assert feed.stats.in_doubt == before.in_doubt == 1
        assert feed.stats.steps == before.steps


@pytest.mark.parametrize("words", [lambda s: s.batch(4), lambda s: s.shuffle(50).batch(4).prefetch(2)])
def test_waiting_is_interrupted_at_once_from_another_thread(words: Any) -> None:
    steps = Steps()
    steps.give(np.arange(60))
    seen = []
    with ub.Feed(words(steps.stream()), epoch=ub.Epoch(steps=1000)) as feed:
        ready = threading.Event()

        def stop() -> None:
            ready.wait(60)
            feed.interrupt()

        thread = threading.Thread(target=stop)
        thread.start()
        begun = 0.0
        for run in feed.epochs(1):
            for batch in run:
                seen += batch.tolist()
                if len(seen) >= 48:
                    begun = time.monotonic()
                    ready.set()
        assert time.monotonic() - begun < 30.0  # and not for ever, on the busiest machine
        thread.join()
        assert feed.interrupted
        assert feed.epoch_number == 1 or feed.epoch_number == 0
        feed.resume()
        steps.give(np.arange(60, 200))
        assert len(next(feed.batches())) == 4
        steps.end()


def test_closing_ends_every_thread_while_they_wait_and_while_they_work() -> None:
    steps = Steps()
    steps.give(np.arange(30))
    feed = ub.Feed(steps.stream().buffer(10).map(lambda r: r, workers=3).shuffle(20).batch(4).prefetch(2))
    next(feed.batches())
    steps.end()
    feed.close()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("unbounded")])


def sums(batches: list[Any]) -> list[bytes]:
    return [b"".join(np.ascontiguousarray(leaf).tobytes() for _, leaf in leaves(batch)) for batch in batches]


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.batch(7),
        lambda s: s.map(lambda r: {**r, "x": r["x"] * 2}).batch(7),
        lambda s: s.map(lambda r: r, workers=2).batch(7),
        lambda s: s.random_map(lambda r, rng: {**r, "x": rng.normal(size=len(r["x"]))}).batch(7),
        lambda s: s.filter(lambda r: r["id"] % 3 > 0).batch(7),
        lambda s: s.shuffle(30).batch(7),
        lambda s: s.buffer(30).batch(7),
        lambda s: s.windows(5).batch(7),
        lambda s: s.windows(3, by="k").batch(7),
        lambda s: s.normalize("x").batch(7),
        lambda s: s.replay(30).batch(7),
        lambda s: s.replay(40).shuffle(20).windows(2).batch(7).prefetch(3),
    ],
)
def test_memory_that_was_handed_out_is_never_written_again(words: Any) -> None:
    held, when = [], []
    with ub.Feed(words(table(100))) as feed:
        for batch in itertools.islice(feed.batches(), 150):
            held.append(batch)
            when += sums([batch])
            feed.trained()
    assert sums(held) == when


def test_objects_of_a_source_that_can_not_go_back_are_refused_at_the_first_batch_and_not_at_the_first_save() -> None:
    steps = Steps()
    steps.give({"x": np.zeros(4), "name": np.array(["a", "b", "c", None], object)})
    # They don't reach the trainer, but they would have to be saved.
    with ub.Feed(steps.stream().columns("x").batch(2)) as feed:
        for _ in range(2):
            with pytest.raises(ub.RowsError, match=r"leaf \['name'\] of the source is object.*dtype='U'"):
                next(feed.batches())
        assert feed.outstanding == 0
        steps.end()
    words = Steps()
    words.give({"x": np.zeros(4), "name": np.array(["a", "bcd", "c", ""])})
    with ub.Feed(words.stream().batch(2)) as feed:
        assert next(feed.batches())["name"].tolist() == ["a", "bcd"]
        feed.trained()
        state = json.loads(json.dumps(feed.state_dict()))
        words.end()
    with ub.Feed(words.stream().batch(2)) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches())["name"].tolist() == ["c", ""]


def test_two_feeds_of_one_live_function_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    steps, others = Steps(), Steps()
    for source in (steps, others):
        source.give(np.arange(8))
    one, two, other = steps.stream(), steps.stream(), others.stream()
    assert ub.Feed(one).sharing() == []  # dropped at once
    stream = one.batch(2)
    with ub.Feed(stream.map(lambda r: r)) as training, ub.Feed(stream) as validation, ub.Feed(other.batch(2)) as third:
        assert validation.sharing() == [training]
        assert training.sharing() == [validation]
        assert third.sharing() == []
        next(third.batches())
        assert not caplog.records
        next(validation.batches())
        next(validation.batches())
        assert [record.getMessage() for record in caplog.records if "two feeds" in record.getMessage()] == [
            caplog.records[0].getMessage()
        ]
        validation.close()
        assert training.sharing() == []
    with ub.Feed(table(10).batch(2)) as one_feed, ub.Feed(table(10).batch(2)) as other_feed:
        assert one_feed.sharing() == other_feed.sharing() == []  # each has its own place in them
    del two
    steps.end()
    others.end()


def test_a_load_in_the_middle_of_a_run_says_from_where_it_moved_the_feed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=5)) as feed:
        assert feed.load(tmp_path) is None
        list(feed)
        feed.save(tmp_path)
        feed.load(tmp_path)
        assert not caplog.messages
        list(feed)
        feed.load(tmp_path)
        assert feed.steps == 5
    (said,) = caplog.messages
    assert "had trained 10 batches, and stands after 5 now" in said


def test_replay_names_all_of_its_arguments_where_it_is_called_wrongly() -> None:
    with pytest.raises(TypeError, match=r"start_after=0\) was called with other arguments"):
        table(10).replay(5, after=3)  # type: ignore[call-arg]
