"""Mixes of sources that can't seek: their logs, silent inputs, and resumes after a kill."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps
from test_mix import rows_of, tagged
from unbounded.testing import Clock, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def once(value: int, numbers: Iterator[int], size: int = 5) -> ub.Stream:
    """A counter that hands out each number once, whatever the process; it can't go back."""

    def sensor() -> Any:
        while True:
            yield {"of": np.full(size, value), "row": np.array([next(numbers) for _ in range(size)])}

    return ub.from_generator(sensor)


def test_each_source_of_a_mix_has_its_log_and_a_kill_loses_no_row_and_gives_none_twice(tmp_path: Path) -> None:
    counters = [itertools.count(), itertools.count()]

    def stream() -> ub.Stream:
        live = [once(value, numbers) for value, numbers in enumerate(counters)]
        inner = ub.mix({"a": live[0], "old": tagged(2)}, weights=[2, 1])
        return ub.mix({"in": inner, "b": live[1].prefetch(1)}).shuffle(30).batch(16)

    seen: list[Any] = []
    for steps, save in ((20, True), (15, False), (9, True), (30, True)):
        feed = ub.Feed(stream())
        feed.load(tmp_path)
        del seen[feed.steps :]
        for batch in itertools.islice(feed.batches(), steps):
            feed.trained()
            seen.append(batch)
        if save:
            feed.save(tmp_path)
        feed._top.close()  # as a kill does, nothing else is done
        feed._dropped.detach()
        feed._closed = True
        for source in feed._opened.sources:
            source.close()
    assert {path.name for path in (tmp_path / "log" / "feed").iterdir() if path.is_dir()} == {"in", "b"}
    of, row = (np.concatenate([batch[name] for batch in seen]) for name in ("of", "row"))
    for value in (0, 1):
        rows = np.sort(row[of == value])
        assert len(np.unique(rows)) == len(rows)
        # But for those that still lie in the shuffle buffer, none is missing.
        assert rows[-1] - len(rows) < 30


def test_rows_that_wait_for_their_source_travel_with_a_state(tmp_path: Path) -> None:
    counters = [itertools.count(), itertools.count()]

    def stream() -> ub.Stream:
        return ub.mix([once(value, numbers, 3) for value, numbers in enumerate(counters)], weights=[3, 1]).batch(8)

    seen: list[int] = []
    state: Any = None
    for _ in range(4):
        with ub.Feed(stream()) as feed:
            if state is not None:
                feed.load_state_dict(json.loads(json.dumps(state)))
            for batch in itertools.islice(feed.batches(), 10):
                feed.trained()
                seen += batch["row"][batch["of"] == 0].tolist()
            state = feed.state_dict()
    # What a process read after its state was taken is lost with it, and no row comes twice.
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


def test_rows_of_each_source_are_forgotten_once_they_are_trained() -> None:
    live = [once(value, itertools.count()) for value in (0, 1)]
    with ub.Feed(ub.mix(live, weights=[9, 1]).shuffle(64).batch(32)) as feed:
        for _ in itertools.islice(feed.batches(), 1000):
            feed.trained()
        for source, count in zip(feed.opened.sources, feed.count.inputs, strict=True):
            assert 0.7 * count.rows <= source.log.start.rows <= count.rows  # type: ignore[attr-defined]


def test_a_source_that_is_too_slow_for_its_share_is_waited_for_once_and_not_in_each_group() -> None:
    steps, clock = Steps(), Clock(50.0)
    mixed = ub.mix({"old": tagged(0), "new": steps.stream()}, on_silence="leave_out", patience=5.0, weights=[3, 1])
    with ub.Feed(mixed.batch(1024), runtime=clock) as feed:
        shares, waits = [], 0
        for step in range(12):
            if step % 3 == 0:
                steps.give(rows_of(1, 256))
                if step:  # it is read from the first pull on
                    steps.await_taken(step // 3 + 1)
            while feed._handed >= feed._reader.tail.steps:
                if feed._reader.read() is None and feed.opened.waited_for():
                    waits += 1
                    clock.advance(6.0)
            shares.append(int(next(iter(feed.batches()))["of"].sum()))
            feed.trained()
        assert set(shares) == {0, 256}
        assert waits <= 3
        steps.end()


def test_what_was_decided_in_silence_is_done_again_from_any_step() -> None:
    steps, clock = Steps(), Clock(50.0)
    mixed = ub.mix({"old": tagged(0), "new": steps.stream()}, on_silence="leave_out", weights=[7, 1])
    rng = np.random.default_rng(0)
    seen: list[Any] = []
    row = 0
    with ub.Feed(mixed.shuffle(40).batch(256).prefetch(2), runtime=clock) as feed:
        feed.releases.hold()
        states = [feed.state_dict()]
        for _ in range(60):
            if rng.random() < 0.3:
                n = int(rng.integers(1, 300))
                steps.give({"of": np.ones(n, np.int64), "row": np.arange(row, row + n)})
                row += n
            while feed._handed >= feed._reader.tail.steps:
                clock.advance(0.7)  # the trainer waits: a source that has no rows falls silent
                feed._reader.read()
            seen.append(next(iter(feed.batches())))
            feed.trained()
            states.append(feed.state_dict())
        shares = [int(batch["of"].sum()) for batch in seen]
        assert 0 in shares
        assert max(shares) > 20
        assert len(json.dumps(states[-1]["arrivals"])) < 1000
        for step in range(0, 58, 3):
            feed.load_state_dict(json.loads(json.dumps(states[step])))
            for i, batch in zip(range(step, min(step + 4, 60)), feed.batches(), strict=False):
                assert_same_rows(batch, seen[i], f"batch {i} after a resume at step {step}")
                feed.trained()
        steps.end()
