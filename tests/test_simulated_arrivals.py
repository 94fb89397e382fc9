"""What was decided by what had arrived, under thousands of schedules, with faults and kills at each door."""

from __future__ import annotations

import itertools
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from unbounded.feed import directories, snapshot  # now: in a walk, their import would be lines of the first one alone
from unbounded.simulation.scheduler import Killed
from unbounded.store.writer import Pending
from unbounded.testing import Faults, Simulation

assert directories
assert snapshot
pytestmark = pytest.mark.usefixtures("one_core", "no_log")

SEEDS = int(os.environ.get("SIMULATED_SEEDS", "200")) // 4
FIRST = int(os.environ.get("SIMULATED_FIRST", "0"))
DIRECTORY = Path("/simulated/run")
ROWS = 10**6  # the numbers of each partition's rows begin with a multiple of it


class Topic:
    """A topic of two partitions: which of them has rows, and how many, is chance."""

    replayable = True
    partitions = True

    def __init__(self, walk: ArrivalWalk) -> None:
        self.walk = walk

    def identity(self) -> Any:
        return "topic"

    def open(self) -> ub.Reader:
        return TopicReader(self.walk)


class TopicReader:
    def __init__(self, walk: ArrivalWalk) -> None:
        self.walk = walk
        self.at = [0, 0]

    def position(self) -> Any:
        return list(self.at)

    def seek(self, position: Any) -> None:
        self.at = list(position)

    def read(self, timeout: float, only: Any = None) -> Any:
        rng = self.walk.rng
        self.walk.rest()
        if rng.random() < 0.1:
            return None
        if rng.random() < self.walk.fails:
            raise ConnectionError("the topic is gone for a moment")
        which = rng.randrange(2) if only is None else only
        first, self.at[which] = self.at[which], self.at[which] + rng.choice((1, 7, 300))
        return ub.Rows(np.arange(first, self.at[which]) + ROWS * which, partition=which)

    def close(self) -> None:
        pass


class ArrivalWalk:
    """One run of training through all of its processes: a batch of one number has the same rows in all of them."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.simulation = Simulation(seed)
        self.fails = rng.choice((0.0, 0.02))
        self.faulty = rng.random() < 0.5
        self.power_cuts = rng.choice((0.0, 0.0, 0.5))
        self.size, self.ahead, self.steps = rng.randint(20, 200), rng.randint(0, 3), rng.randint(30, 60)
        self.mixed, self.drops, self.live = rng.random() < 0.7, rng.random() < 0.6, rng.random() < 0.5
        self.seen: dict[int, list[int]] = {}  # what was handed out, since the power was cut last
        self.again = self.lives = 0
        self.done = False

    def rest(self) -> None:
        """A source takes its time, now and then much of it."""
        self.simulation.switch()
        if self.rng.random() < 0.1:
            self.simulation.sleep(self.rng.choice((0.01, 0.5, 3.0)))

    def stream(self) -> ub.Stream:
        """The stream, described anew."""

        def sensor(start: int = 0) -> Iterator[Any]:
            for row in itertools.count(start, 100):
                self.rest()
                yield np.arange(row, row + 100) + 2 * ROWS

        def live(past: Any) -> Iterator[Any]:
            for row in itertools.count(past.rows, 100):
                self.rest()
                yield np.arange(row, row + 100) + 2 * ROWS

        stream = ub.from_source(Topic(self))
        if self.mixed:
            beside = ub.from_generator(live if self.live else sensor)
            inputs = {"topic": stream.prefetch(1) if self.ahead else stream, "beside": beside}
            stream = ub.mix(inputs, weights=[2, 1], on_silence="leave_out", patience=1.0)
        if self.drops:
            stream = stream.buffer(700, overflow="drop_oldest")
        stream = stream.batch(self.size)
        return stream.prefetch(self.ahead) if self.ahead else stream

    def run(self) -> None:
        """Walk until all of it is trained."""
        rng = self.rng
        while not self.done:
            self.lives += 1
            self.pending: list[Pending[Any]] = []
            assert self.lives < 14, "it does not come to its end"
            errors, syncs = (rng.choice((0.0, 0.005)), rng.choice((0.0, 0.1))) if self.faulty else (0.0, 0.0)
            kills = rng.choice((300, 1000, 3000))
            self.simulation.faults = Faults(
                kills=kills, power_cuts=self.power_cuts, errors=errors, lost_syncs=syncs, short_writes=0.1
            )
            if self.lives > 8:
                self.simulation.faults, self.fails = Faults(), 0.0
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the disk refuses
                self.simulation.run(self.process)
            for pending in self.pending:
                with suppress(ub.CheckpointError, OSError, Killed):
                    if pending.done:
                        pending.wait()
            if self.simulation.was_power_cut:
                self.seen.clear()  # what was not synced is decided anew

    def process(self) -> None:
        feed = ub.Feed(self.stream(), runtime=self.simulation)
        try:
            with feed:
                state = feed.load(DIRECTORY)
                self.trained: list[int] = [] if state is None else state["trained"].tolist()
                while not self.done:
                    self.leg(feed)
        except (ub.CheckpointError, OSError):
            if not self.faulty:
                raise

    def leg(self, feed: ub.Feed) -> None:
        """One loop over the feed."""
        try:
            for batch in feed.batches():
                self.look(feed, batch.tolist())
                if self.rng.random() < 0.1:
                    self.simulation.sleep(self.rng.random() * 3)
                feed.trained()
                self.done = feed.steps >= self.steps
                chance = self.rng.random()
                if chance < 0.1:
                    state = {"trained": np.array(self.trained)}
                    try:
                        wait = self.rng.random() < 0.5
                        saved = feed.save(DIRECTORY, state=state, keep=2, wait=wait)
                        self.pending += [] if wait else [saved]
                    except ub.CheckpointError:
                        if not self.faulty:
                            raise
                elif chance < 0.15:
                    feed.load_state_dict(feed.state_dict())
                    return
                elif chance < 0.2:
                    feed.rewind()
                    return
                if self.done:
                    return
        except ub.StreamError as error:
            if not (self.faulty and "log in" in str(error)):
                raise

    def look(self, feed: ub.Feed, rows: list[int]) -> None:
        """A batch was handed out."""
        step = feed.steps
        self.again += step in self.seen
        assert self.seen.setdefault(step, rows) == rows, f"batch {step} is another one than it was"
        self.trained += rows
        assert len(set(self.trained)) == len(self.trained), "a row came twice"
        for kind in range(2):
            ours = [row for row in self.trained if row // ROWS == kind]
            assert ours == sorted(ours), "a partition is out of order"
            assert self.drops or ours == [*range(kind * ROWS, kind * ROWS + len(ours))], "a row is missing"


@pytest.mark.parametrize("group", range(5))
def test_a_run_is_handed_the_same_batches_again_wherever_its_processes_were_killed(group: int) -> None:
    again = 0
    for seed in range(FIRST + group, FIRST + SEEDS, 5):
        walk = ArrivalWalk(seed)
        try:
            walk.run()
        except Exception as error:
            raise AssertionError(f"Seed {seed} fails in process {walk.lives}: {error}") from error
        again += walk.again
    assert again > SEEDS // 5
