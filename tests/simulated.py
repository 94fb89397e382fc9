"""Walks of a training run through simulated crashes: `python -m tests.simulated 17` runs the one of seed 17 again.

A model is a list of what it was trained on. Whatever the schedule and the faults, it must be what an undisturbed run
trains on, in that order: after each crash a process goes on from a checkpoint that is no older than the last one that
was said to be on the disk.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests.helpers import from_start

import unbounded as ub
from unbounded.core import trees
from unbounded.feed import directories, snapshot  # now: in a walk, their import would be lines of the first one alone
from unbounded.simulation.scheduler import Killed
from unbounded.store.writer import Pending
from unbounded.testing import Faults, Simulation

assert directories
assert snapshot
DIRECTORY = Path("/simulated/run")
# Where each line of a walk in five is a switch: what threads share is here.
LINES = ("core/prefetcher.py", "stages/prefetch.py", "store/writer.py")


def fingerprint(batch: Any) -> int:
    """Tells one batch from another."""
    return zlib.crc32(b"".join(np.ascontiguousarray(leaf).tobytes() for _, leaf in trees.leaves(batch)))


class Flaky(RuntimeError):
    """A function of the user's fails."""


@dataclass
class Plan:
    """What a walk is made of.

    Args:
        words: of the stream, for messages.
        stream: makes it.
        steps: how far to train.
    """

    words: str
    stream: Callable[[Callable[[Any], Any]], ub.Stream]
    steps: int


def plan(rng: random.Random) -> Plan:
    """A stream of some stages, chosen by chance."""
    words: list[str] = []
    stages: list[Callable[[ub.Stream, Callable[[Any], Any]], ub.Stream]] = []

    def add(text: str, stage: Callable[[ub.Stream, Callable[[Any], Any]], ub.Stream]) -> None:
        words.append(text)
        stages.append(stage)

    rows = rng.randint(5, 400)
    seed = rng.randint(0, 9)
    source = rng.choice(("arrays", "arrays in order", "generator", "mix"))
    for _ in range(rng.randint(0, 4)):
        n, workers = rng.randint(1, 60), rng.randint(0, 3)
        choice = rng.choice(
            ("map", "map", "shuffle", "filter", "replay", "windows", "buffer", "random_map", "prefetch")
        )
        if choice == "map":
            add(f"map(workers={workers})", lambda s, f, w=workers: s.map(lambda a: f(a) * 2, workers=w))
        elif choice == "shuffle":
            add(f"shuffle({n})", lambda s, f, n=n: s.shuffle(n))
        elif choice == "filter":
            add("filter(…)", lambda s, f: s.filter(lambda a: f(a).reshape(len(a), -1)[:, 0] % 3 > 0))
        elif choice == "replay":
            add(f"replay({n}, 2)", lambda s, f, n=n: s.replay(n, reuse=2))
        elif choice == "windows" and source == "generator" and not any("windows" in word for word in words):
            add("windows(3)", lambda s, f: s.windows(3))
        elif choice == "buffer":
            add(f"buffer({n})", lambda s, f, n=n: s.buffer(n))
        elif choice == "random_map":
            add(
                "random_map",
                lambda s, f: s.random_map(
                    lambda a, rng: f(a) + rng.integers(0, 5, len(a)).reshape(-1, *[1] * (a.ndim - 1))
                ),
            )
    size, ahead = rng.randint(1, 20), rng.randint(0, 6)
    add(f"batch({size})", lambda s, f: s.batch(size))
    if ahead:
        add(f"prefetch({ahead})", lambda s, f: s.prefetch(ahead))

    def make(touch: Callable[[Any], Any]) -> ub.Stream:
        if source == "generator":
            stream = ub.from_generator(from_start)
        else:
            stream = ub.from_arrays(np.arange(rows), shuffle=source != "arrays in order", seed=seed)
        if source == "mix":
            stream = ub.mix(
                [stream.map(touch), ub.from_generator(from_start).prefetch(2)], weights=[1, 1 + seed], seed=seed
            )
        for stage in stages:
            stream = stage(stream, touch)
        return stream

    return Plan(f"{source}({rows}).{'.'.join(words)}", make, rng.randint(5, 40))


def faults(rng: random.Random) -> Faults:
    """What goes wrong in a walk."""
    return Faults(
        kills=rng.choice((0, 300, 1_000, 3_000)),
        power_cuts=rng.choice((0.0, 0.5, 1.0)),
        errors=rng.choice((0.0, 0.0, 0.003, 0.03)),
        lost_syncs=rng.choice((0.0, 0.0, 0.05)),
        short_writes=rng.choice((0.0, 0.3)),
        delays=rng.choice((0.0, 0.02)),
    )


class Walk:
    """One run of training through all of its processes.

    Args:
        seed: decides.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed * 2 + 1)
        self.plan = self.make_plan()
        lines = LINES if self.rng.random() < 0.2 and "drop_oldest" not in self.plan.words else ()
        self.simulation = Simulation(seed, faults(self.rng), lines=lines)
        self.fails = self.rng.choice((0.0, 0.0, 0.02))  # how often the user's functions do
        self.prepare()
        self.durable = 0  # the step of the last checkpoint that was said to be on the disk
        self.pending: list[tuple[int, int, Pending[Any]]] = []
        self.lives = 0

    # -- what a kind of walk decides -----------------------------------------------------------------------------------

    def make_plan(self) -> Plan:
        """The stream."""
        return plan(self.rng)

    def prepare(self) -> None:
        """Before the first process."""
        self.expected = self._undisturbed()

    def note(self, batch: Any) -> None:
        """A batch is trained."""
        self.trained.append(fingerprint(batch))

    def check(self) -> None:
        """What was trained is what it must be.

        Raises:
            AssertionError: it is not.
        """
        found = self.trained
        expected = self.expected[: len(found)]
        if found != expected:
            step = next(i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
            raise AssertionError(f"batch {step} of {len(found)} is another one than without trouble")

    def saving(self) -> int:
        """A checkpoint is about to be cut; gives what `on_disk` is told when it is there."""
        return 0

    def on_disk(self, step: int, cut: int) -> None:
        """A checkpoint of this step is on the disk."""
        self.durable = max(self.durable, step)

    def ended(self, *, power_cut: bool) -> None:
        """A process was killed, or gave up."""

    # -- the walk ------------------------------------------------------------------------------------------------------

    def _undisturbed(self) -> list[int]:
        with ub.Feed(self.plan.stream(lambda rows: rows)) as feed:
            found = []
            for batch in feed.batches():
                found.append(fingerprint(batch))
                if len(found) == self.plan.steps:
                    break
        return found

    def _touch(self, rows: Any) -> Any:
        self.simulation.switch()
        if self.rng.random() < self.fails:
            raise Flaky
        return rows

    def run(self) -> None:
        """Walk until all of it is trained.

        Raises:
            AssertionError: something is not as it must be.
        """
        while True:
            self.lives += 1
            if self.lives > 8:  # from here on nothing goes wrong, and it must come to its end
                self.simulation.faults = Faults()
                self.fails = 0.0
            assert self.lives < 12, "it does not come to its end"
            self.trained: list[int] = []
            self.pending = []
            self.done = self.went_back = False
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                alive = self.simulation.run(self._process)
            self._settle()
            told = any(issubclass(one.category, ub.DamagedCheckpoint) for one in said)
            assert told or not self.went_back, "an older checkpoint was taken, and nothing was said"
            if alive and self.done:
                return
            self.ended(power_cut=self.simulation.was_power_cut)

    def _settle(self) -> None:
        """Checkpoints that were said to be on the disk."""
        for step, cut, pending in self.pending:
            if pending.done:
                try:
                    pending.wait()
                except (ub.CheckpointError, OSError, Killed):
                    continue
                self.on_disk(step, cut)

    @property
    def faulty(self) -> bool:
        """Whether file calls fail."""
        return self.simulation.faults.errors + self.simulation.faults.lost_syncs > 0

    def _process(self) -> None:
        feed = ub.Feed(self.plan.stream(self._touch), runtime=self.simulation)
        try:
            with feed:
                state = feed.load(DIRECTORY)
                if state is not None:
                    self.trained = state["trained"].tolist()
                    steps = int(state["steps"])
                    assert feed.steps == steps, f"at step {feed.steps} with a model of step {steps}"
                if feed.steps < self.durable:
                    # What the disk can't read is passed over, and that is said.
                    assert self.faulty, f"at step {feed.steps}; {self.durable} was on the disk"
                    self.durable, self.went_back = feed.steps, True
                self.check()
                while not self.done:
                    self._leg(feed)
        except (ub.CheckpointError, OSError):
            if not self.faulty:
                raise

    def _leg(self, feed: ub.Feed) -> None:
        """One loop over the feed."""
        try:
            for batch in feed.batches():
                self._train(feed, batch)
                if self.done or self._now_and_then(feed) or self.rng.random() < 0.1:
                    return
        except Flaky:
            pass
        except ub.StreamError as error:
            if not (self.faulty and "the row log in" in str(error)):
                raise

    def _train(self, feed: ub.Feed, batch: Any) -> None:
        self.note(batch)
        feed.trained()
        self.check()
        self.done = feed.steps >= self.plan.steps

    def _now_and_then(self, feed: ub.Feed) -> bool:
        """Something that a trainer may do between two batches; says whether the loop is over with it."""
        chance = self.rng.random()
        if chance < 0.2:
            wait = self.rng.random() < 0.5
            step, model = feed.steps, np.array(self.trained, np.int64)
            cut = self.saving()
            try:
                saved = feed.save(DIRECTORY, state={"trained": model, "steps": step}, keep=2, wait=wait)
            except ub.CheckpointError:
                if not self.faulty:
                    raise
                return False
            if wait:
                self._settle()
                self.on_disk(step, cut)
            else:
                model.fill(-1)  # what is written is what was there
                self.pending.append((step, cut, saved))
        elif chance < 0.24:
            state = feed.state_dict()
            feed.load_state_dict(state)
            return True
        elif chance < 0.26:
            feed.rewind()
            return True
        elif chance < 0.28:
            self.simulation.sleep(self.rng.random() * 10)
        elif chance < 0.30:
            stopper = self.simulation.thread(feed.interrupt, "stopper")
            stopper.start()
            try:
                for batch in feed.batches():
                    self._train(feed, batch)
                    if self.done:
                        break
            finally:
                stopper.join()
                feed.resume()
            return True
        return False


def walk(seed: int) -> Walk:
    """Walk, and say how to do so again where it fails."""
    from tests.simulated_live import LiveWalk

    found = (LiveWalk if seed % 2 else Walk)(seed)
    try:
        found.run()
    except Exception as error:
        raise AssertionError(
            f"Seed {seed} fails in process {found.lives} of {found.plan.words}: {type(error).__name__}: {error}\n"
            f"Run it again: python -m tests.simulated {seed}"
        ) from error
    return found


def main() -> None:
    """`python -m tests.simulated FIRST [COUNT]`: the walks of these seeds, each that fails with its reason."""
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--go-on", action="store_true", help="name all that fail")
    given = parser.parse_args()
    logging.getLogger("unbounded").setLevel(logging.CRITICAL)
    begun, failed, lives = time.perf_counter(), [], 0
    for seed in range(given.first, given.first + given.count):
        try:
            found = walk(seed)
            lives += found.lives
            if given.count == 1:
                print(f"{found.plan.words}: {found.lives} processes, trace {found.simulation.trace}")
        except AssertionError as error:
            if not given.go_on:
                raise
            failed.append(seed)
            print(error, flush=True)
    seconds = time.perf_counter() - begun
    print(f"{given.count:,} walks, {lives:,} processes, {seconds:.0f} s; {len(failed)} failed {failed[:20]}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
