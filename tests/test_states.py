"""A walk through the states of a feed, by hypothesis: whatever happens, each batch is trained once, in order.

The model is the list of what was trained. A feed is never begun, in the middle of a loop or of an epoch, between
epochs, interrupted, ended or closed; loops are left by `break`, by exceptions of the body, of a function and of the
source; states are taken and loaded at any moment, and a kill goes back to the last one.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import unbounded as ub
from helpers import ids

ROWS, SIZE = 60, 7
EXCLUDED = (3, *range(20, 31), 59)
PASSES = 200


class Fault(Exception):
    """What bodies, functions and sources raise."""


class World:
    """What fails next, from outside."""

    def __init__(self) -> None:
        self.source = self.function = False

    def look(self, what: str) -> None:
        """Fail, once, where that was asked for."""
        if getattr(self, what):
            setattr(self, what, False)
            raise Fault(what)


def make(world: World, kind: str, ends: bool) -> ub.Stream:
    """A stream whose rows are numbered: by rows of arrays, or by a generator that goes to any row."""

    def numbers(start: int = 0) -> Iterator[Any]:
        while True:
            world.look("source")
            yield np.arange(start, start + start % 5 + 1)
            start += start % 5 + 1

    def same(rows: Any) -> Any:
        world.look("function")
        return rows

    if kind == "arrays":
        return ub.from_arrays(np.arange(ROWS), shuffle=False, passes=3 if ends else None).map(same).batch(SIZE)
    if kind == "excluded":
        numbered = ub.from_arrays({"id": np.arange(ROWS)}, seed=3, passes=3 if ends else None)
        return numbered.shuffle(20).map(same).batch(SIZE).exclude(EXCLUDED)
    if kind == "shuffled":
        return ub.from_arrays(np.arange(ROWS), seed=3, passes=3 if ends else None).shuffle(20).map(same).batch(SIZE)
    if kind == "mixed":
        finite = ub.from_arrays(np.arange(ROWS), seed=3, passes=3 if ends else None).shuffle(20)
        return ub.mix([finite, ub.from_generator(numbers).prefetch(1)], weights=[1, 2]).map(same).batch(SIZE)
    if kind == "ahead":
        return ub.from_generator(numbers).take(300 if ends else 10**9).shuffle(11).batch(SIZE).map(same).prefetch(2)
    return ub.from_generator(numbers).take(300 if ends else 10**9).filter(lambda r: r % 3 > 0).map(same).batch(SIZE)


class Walk(RuleBasedStateMachine):
    """One feed after the other over one stream, as a run and its resumes have them."""

    @initialize(
        kind=st.sampled_from(["arrays", "shuffled", "excluded", "ahead", "filtered", "mixed"]),
        ends=st.booleans(),
        steps=st.integers(1, 6),
    )
    def begin(self, kind: str, ends: bool, steps: int) -> None:
        self.world = World()
        self.stream = make(self.world, kind, ends)
        self.epoch = ub.Epoch(steps=steps)
        with ub.Feed(make(World(), kind, ends)) as feed:
            self.expected = [ids(batch) for _, batch in zip(range(120), feed.batches(), strict=False)]
        self.ended_by = len(self.expected) if ends else None
        self.trained: list[list[int]] = []
        self.doubts = 0
        self.feed = ub.Feed(self.stream, epoch=self.epoch)
        self.loop: Any = None
        self.at_hand: list[int] | None = None  # handed out by a loop, and not known to be trained
        self.saved: tuple[Any, int, int] = (json.loads(json.dumps(self.feed.state_dict())), 0, 0)

    # -- loops ---------------------------------------------------------------------------------------------------------

    @rule(how=st.sampled_from(["batches", "feed", "epochs"]))
    def begin_a_loop(self, how: str) -> None:
        """Whatever loop there was is left behind, alive."""
        self.old, self.loop = self.loop, None
        if how == "epochs":
            self.old = self.epochs = None
            self.epochs = self.feed.epochs()
            try:
                run = next(self.epochs, None)
            except Fault:
                run = None
            self._left()
            self.loop = None if run is None else iter(run)
        elif how == "feed":
            # A trainer that counts has asked for as many as there are, and lets go of its loop when it has a new one.
            counted = self.feed._loop is not None and self.feed._loop.whole_epoch and self._alive()
            counted = counted and self.feed.epoch_over
            self.loop = iter(self.feed)
            if counted:
                self._confirm()
            self._left()
        else:
            self.loop = self._taking_back(self.feed.batches())

    def _taking_back(self, loop: Iterator[Any]) -> Iterator[Any]:
        self._left()
        yield from loop

    def _left(self) -> None:
        """The batch at hand comes again."""
        if self.at_hand is not None:
            self.doubts += 1
            self.at_hand = None

    @precondition(lambda self: self.loop is not None)
    @rule(most=st.integers(1, 5))
    def train(self, most: int) -> None:
        """The loop goes on: asking for the next batch says that the last is trained."""
        for _ in range(most):
            try:
                batch = next(self.loop, None)
            except Fault:
                # Asking for it confirmed the one before.
                self._confirm()
                self.loop = None
                return
            self._confirm()
            if batch is None:
                self.loop = None
                return
            self.at_hand = ids(batch)
            assert self.at_hand == self.expected[len(self.trained)]
            if isinstance(batch, dict):  # its weights are those of the rows in it
                assert (batch["sample_weight"] == ~np.isin(batch["id"], EXCLUDED)).all()

    def _confirm(self) -> None:
        if self.at_hand is not None:
            self.trained.append(self.at_hand)
            self.at_hand = None

    @precondition(lambda self: self.at_hand is not None)
    @rule()
    def say_that_it_is_trained(self) -> None:
        self.feed.trained()
        self._confirm()

    @rule()
    def drop_the_loop(self) -> None:
        self.loop = None
        gc.collect()

    @precondition(lambda self: self.at_hand is None)
    @rule()
    def end_the_epoch(self) -> None:
        number = self.feed.epoch_number
        self.feed.end_epoch()
        assert self.feed.epoch_number == number + 1

    @rule()
    def leave_the_epoch(self) -> None:
        self.feed.leave_epoch()
        self._confirm()

    # -- from outside --------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["source", "function"]))
    def fail_soon(self, what: str) -> None:
        setattr(self.world, what, True)

    @rule()
    def interrupt(self) -> None:
        self.feed.interrupt()

    @rule()
    def resume(self) -> None:
        self.feed.resume()

    @rule()
    def peek(self) -> None:
        try:
            batch = self.feed.peek()
        except (Fault, ub.StreamError):
            return
        at = len(self.trained) + (self.at_hand is not None and self.feed.handed > self.feed.steps and self._alive())
        assert ids(batch) == self.expected[at]

    def _alive(self) -> bool:
        return self.feed._loop is not None and self.feed._loop.state == "live"

    @rule()
    def rewind(self) -> None:
        if self.feed.rewind():
            self._left()
            self.loop = None

    # -- states --------------------------------------------------------------------------------------------------------

    @rule()
    def save(self) -> None:
        state = json.loads(json.dumps(self.feed.state_dict()))
        if self.at_hand is not None and self.feed.outstanding == 0:
            self._confirm()  # in the body of a loop over the feed
        self.saved = (state, len(self.trained), self.doubts)

    @rule(new=st.booleans())
    def go_back_to_what_was_saved(self, new: bool) -> None:
        """A kill, or a state that is loaded."""
        self.world.source = self.world.function = False
        self.loop, self.at_hand, self.epochs = None, None, None
        if new:
            self.feed.close()
            self.feed = ub.Feed(self.stream, epoch=self.epoch)
        self.feed.load_state_dict(self.saved[0])
        del self.trained[self.saved[1] :]
        self.doubts = self.saved[2]

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_or_trained_twice(self) -> None:
        if not hasattr(self, "feed"):
            return
        assert self.trained == self.expected[: len(self.trained)]
        assert self.feed.steps == len(self.trained)
        assert self.feed.position.steps == self.feed.steps
        assert self.feed.position.rows == sum(map(len, self.trained))
        assert self.feed.outstanding == (self.at_hand is not None)
        assert self.feed.stats.in_doubt == self.doubts
        assert self.feed.progress.start.steps <= self.feed.handed

    def teardown(self) -> None:
        if not hasattr(self, "feed"):
            return
        self.world.source = self.world.function = False
        self.loop = self.epochs = None
        state = self.feed.state_dict() if self.at_hand is None else None
        self.feed.close()
        if state is not None:  # another process goes on with what follows
            with ub.Feed(self.stream, epoch=self.epoch) as feed:
                feed.load_state_dict(json.loads(json.dumps(state)))
                following = [ids(batch) for _, batch in zip(range(3), feed.batches(), strict=False)]
                assert following == self.expected[len(self.trained) :][: len(following)]


Walk.TestCase.settings = settings(
    max_examples=int(os.environ.get("STATE_WALKS", "40")), stateful_step_count=30, deadline=None
)
test_whatever_happens_each_batch_is_trained_once_in_order = Walk.TestCase
