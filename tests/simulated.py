"""Walks of a training run through simulated crashes: `python -m tests.simulated 17` runs the one of seed 17 again.

A model is a list of what it was trained on. Whatever the schedule and the faults, it must be what an undisturbed run
trains on, in that order: after each crash a process goes on from a checkpoint that is no older than the last one that
was said to be on the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import random
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.simulated_events import between, during
from tests.simulated_plans import Plan, Touch, plan

import unbounded as ub
from unbounded.core import trees
from unbounded.feed import directories, snapshot  # now: in a walk, their import would be lines of the first one alone
from unbounded.simulation.scheduler import Killed
from unbounded.store.writer import Pending
from unbounded.testing import Faults, Simulation

assert directories
assert snapshot
RUNS = Path("/simulated")
# Where each line of a walk in five is a switch: what threads share is here.
LINES = ("core/prefetcher.py", "stages/prefetch.py", "store/writer.py")


def fingerprint(batch: Any) -> int:
    """Tells one batch from another."""
    return zlib.crc32(b"".join(np.ascontiguousarray(leaf).tobytes() for _, leaf in trees.leaves(batch)))


class Flaky(RuntimeError):
    """A function of the user's fails."""


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
        self.slow = self.rng.choice((0.0, 0.0, 0.02))  # how often they take their time
        self.excludes_from = self.rng.randint(1, 3)  # the process that begins to exclude rows
        self.directory = RUNS / "run"
        self.on_disk: dict[int, int] = {}  # checkpoints that were said to be there, and what `saving` gave for each
        self.elsewhere: tuple[Path, int, int] | None = None  # the last one in another directory
        self.durable = 0  # the step of the last one
        self.pending: list[tuple[int, int, Pending[Any]]] = []
        self.lives = 0
        self.events: list[str] = []
        self.prepare()

    # -- what a kind of walk decides -----------------------------------------------------------------------------------

    def make_plan(self) -> Plan:
        """The stream."""
        return plan(self.rng)

    def prepare(self) -> None:
        """Before the first process."""
        self.expected = self._undisturbed(self.plan.stream)
        self.weighed = self.expected if self.plan.excluded is None else self._undisturbed(self.plan.excluded)

    def note(self, batch: Any) -> None:
        """A batch is trained."""
        self.trained.append(fingerprint(batch))

    def check(self, feed: ub.Feed) -> None:
        """What was trained is what it must be.

        Raises:
            AssertionError: it is not.
        """
        found, step = self.trained, feed.excluded[0][0] if feed.excluded else len(self.expected)
        expected = [*self.expected[:step], *self.weighed[step:]][: len(found)]
        if found != expected:
            step = next(i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
            raise AssertionError(f"batch {step} of {len(found)} is another one than without trouble")

    def saving(self) -> int:
        """A checkpoint is about to be cut; gives what `saved` is told when it is there."""
        return 0

    def saved(self, cut: int) -> None:
        """A checkpoint is on the disk."""

    def loaded(self, feed: ub.Feed) -> None:
        """A process goes on, or begins anew."""

    def ended(self, *, power_cut: bool) -> None:
        """A process was killed, or gave up."""

    def forgotten(self) -> None:
        """A feed was forgotten, and another one goes on in the same process."""

    def wiped(self) -> None:
        """All checkpoints and logs are gone."""

    def moved(self, cut: int) -> None:
        """The run goes on from a checkpoint in another directory, without the logs of this one."""

    # -- the walk ------------------------------------------------------------------------------------------------------

    def _undisturbed(self, stream: Callable[[Touch], ub.Stream]) -> list[int]:
        with ub.Feed(stream(lambda rows: rows), on_nan="pass") as feed:
            return [fingerprint(batch) for batch in itertools.islice(feed.batches(), self.plan.steps)]

    def touch(self, rows: Any) -> Any:
        """What the user's functions do."""
        self.simulation.switch()
        if self.rng.random() < self.slow:
            self.simulation.sleep(self.rng.random())
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
                self.fails = self.slow = 0.0
            assert self.lives < 12, "it does not come to its end"
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
            if self.lives < 8:
                between(self)

    def _settle(self) -> None:
        """Checkpoints that were said to be on the disk."""
        for step, cut, pending in [one for one in self.pending if one[2].done]:
            self.pending.remove((step, cut, pending))
            try:
                pending.wait()
            except (ub.CheckpointError, OSError, Killed):
                continue
            self._said(step, cut)

    def _said(self, step: int, cut: int) -> None:
        self.on_disk[step] = cut
        self.durable = max(self.durable, step)
        self.saved(cut)

    @property
    def faulty(self) -> bool:
        """Whether file calls fail."""
        return self.simulation.faults.errors + self.simulation.faults.lost_syncs > 0

    def stream(self) -> ub.Stream:
        """What this process trains on."""
        if self.plan.excluded is not None and self._excludes:
            return self.plan.excluded(self.touch)
        return self.plan.stream(self.touch)

    @property
    def _excludes(self) -> bool:
        """True if this process excludes rows."""
        return self.plan.excluded is not None and self.lives >= self.excludes_from

    def _process(self) -> None:
        while True:
            self.trained: list[int] = []
            self.forgets = False
            feed = ub.Feed(self.stream(), runtime=self.simulation, on_nan="pass")
            try:
                self._feed(feed)
            except (ub.CheckpointError, OSError):
                if not self.faulty:
                    raise
                return
            finally:
                if not self.forgets:
                    with contextlib.suppress(*([ub.CheckpointError] if self.faulty else [])):
                        feed.close()
            if self.done:
                return
            self.forgotten()
            del feed

    def _feed(self, feed: ub.Feed) -> None:
        """Train with one feed."""
        state = feed.load(self.directory)
        if state is not None:
            self.trained = state["trained"].tolist()
            steps = int(state["steps"])
            assert feed.steps == steps, f"at step {feed.steps} with a model of step {steps}"
        if feed.steps < self.durable:
            # What the disk can't read is passed over, and that is said.
            assert self.faulty, f"at step {feed.steps}; {self.durable} was on the disk"
            self.durable, self.went_back = feed.steps, True
            # What comes next is newer than those after it, whatever its step.
            self.on_disk = {step: cut for step, cut in self.on_disk.items() if step <= feed.steps}
        self.loaded(feed)
        self.check(feed)
        while not self.done and not self.forgets:
            self._leg(feed)

    def _leg(self, feed: ub.Feed) -> None:
        """One loop over the feed."""
        try:
            for batch in feed.batches():
                self.train(feed, batch)
                if self.done or during(self, feed) or self.rng.random() < 0.1:
                    return
        except Flaky:
            pass
        except ub.StreamError as error:
            if not (self.faulty and "log in" in str(error)):
                raise

    def train(self, feed: ub.Feed, batch: Any) -> None:
        """Train on a batch."""
        self._check_weights(batch)
        self.note(batch)
        feed.trained()
        self.check(feed)
        self.done = feed.steps >= self.plan.steps

    def _check_weights(self, batch: Any) -> None:
        """Rows that are excluded have weight 0 from the first step of a process that excludes them, by the numbers that
        the batch itself has; before that no batch has weights."""
        weight = batch.get("sample_weight") if isinstance(batch, dict) else None
        assert (weight is not None) == self._excludes, "weights where no row is excluded, or none where some are"
        if weight is not None:
            left_out = np.isin(batch["id"], self.plan.without).reshape(len(weight), -1).any(1)
            assert (weight == ~left_out).all(), "the weights are those of other rows"

    def save(self, feed: ub.Feed, directory: Path, *, wait: bool) -> bool:
        """Save; says whether a checkpoint is on the disk."""
        step, model = feed.steps, np.array(self.trained, np.int64)
        cut = self.saving()
        try:
            saved = feed.save(directory, state={"trained": model, "steps": step}, keep=2, wait=wait)
        except ub.CheckpointError:
            if not self.faulty:
                raise
            return False
        self._settle()
        if not wait:
            model.fill(-1)  # what is written is what was there
            self.pending.append((step, cut, saved))
        elif directory == self.directory:
            self._said(step, cut)
        else:
            self.elsewhere = directory, step, cut
        return wait

    def go_to(self, directory: Path, on_disk: dict[int, int]) -> None:
        """The run goes on in a directory in which these checkpoints are."""
        if directory != self.directory:
            self.elsewhere = None
        self.directory, self.on_disk, self.durable = directory, on_disk, max(on_disk, default=0)


def walk(seed: int) -> Walk:
    """Walk, and say how to do so again where it fails."""
    from tests.simulated_arrivals import PartitionsWalk, SilenceWalk
    from tests.simulated_live import LiveWalk

    kinds = (Walk, LiveWalk, Walk, LiveWalk, PartitionsWalk, Walk, SilenceWalk, LiveWalk)
    found = kinds[seed % len(kinds)](seed)
    try:
        found.run()
    except Exception as error:
        raise AssertionError(
            f"Seed {seed} fails in process {found.lives} of {found.plan.words}: {type(error).__name__}: {error}\n"
            f"Before: {', '.join(found.events) or 'nothing'}. Run it again: python -m tests.simulated {seed}"
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
            if given.count < 10:
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
