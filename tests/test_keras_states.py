"""A walk through the states of a feed in Keras, by hypothesis: whatever happens, each row is trained once, in order.

The oracle is the model: it records in variables of its own which rows reached its weights. Whatever has happened to a
feed, to a `fit` or to a run, what the feed says is trained is what the model has recorded, the weights live, and the
next `fit` goes on.

| state | reached by |
|---|---|
| never begun, first batch awaited | the source or a function fails at row 0, a signal while `fit` waits |
| mid-epoch, mid-execution | an exception, a signal, `stop_training` at any step, with one and two steps in a call |
| in validation, between epochs | the same events there, evaluating and predicting between fits |
| interrupted, ended, failed | signals, the last epoch, a declared end, a save on a full disk |
| closed, dropped, killed | a new feed and a new model over the same directory, the old feed dropped and collected |
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import keras_models as km
import unbounded as ub
from intercepted_files import all_changes
from unbounded.keras import Checkpoint, Feed

ROWS, BATCH, EPOCH = 256, 4, 4
EXECUTIONS = [1] if km.BACKEND == "torch" else [1, 2]
EVENTS = [
    "nothing",
    "source",
    "function",
    "exception",
    "KeyboardInterrupt",
    "SIGINT",
    "SIGTERM",
    "stop_training",
    "disk",
]
PLACES = ["begin", "end", "epoch", "test"]


class Fault(Exception):
    """What sources, functions and callbacks raise."""


class World:
    """What happens next, where, and after how many times."""

    def __init__(self) -> None:
        self.plan("nothing", "end", 1)

    def plan(self, event: str, place: str, after: int) -> None:
        """Let an event come about."""
        self.event, self.place, self.left = event, place, after

    def reach(self, place: str, model: Any = None) -> None:
        """A place is reached."""
        if place != self.place or self.event == "nothing":
            return
        self.left -= 1
        if self.left:
            return
        event, self.event = self.event, "nothing"
        if event in ("source", "function", "exception"):
            raise Fault(event)
        if event == "KeyboardInterrupt":
            raise KeyboardInterrupt
        if event in ("SIGINT", "SIGTERM"):
            signal.raise_signal(getattr(signal, event))
        if event == "stop_training":
            model.stop_training = True


class Trouble(keras.callbacks.Callback):
    """Where a callback of the user's brings events about."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.world.reach("begin", self._model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.world.reach("end", self._model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.world.reach("epoch", self._model)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.world.reach("test", self._model)


class Walk(RuleBasedStateMachine):
    """One run in one directory, and whatever becomes of it."""

    _fsync = os.fsync

    @initialize(
        kind=st.sampled_from(["arrays", "generator", "ahead"]),
        executions=st.sampled_from(EXECUTIONS),
        ends=st.booleans(),
        every=st.sampled_from([None, 1, 3]),
    )
    def begin(self, kind: str, executions: int, ends: bool, every: int | None) -> None:
        os.fsync = lambda fd: None  # no power is cut here, and many runs would wait for the disk
        self.world = World()
        self.directory = Path(tempfile.mkdtemp())
        self.kind, self.executions, self.boundary, self.every = kind, executions, ends, every
        self.model = km.ready_model(ids=ROWS, steps_per_execution=executions)
        self.feed = self.new_feed()

    def new_feed(self) -> Feed:
        world = self.world

        def numbers(start: int = 0) -> Iterator[Any]:
            while True:
                world.reach("source")
                rows = [km.rows(1, start=(start + i) % ROWS) for i in range(5)]
                yield tuple(np.concatenate(column) for column in zip(*rows, strict=True))
                start += 5

        def same(rows: Any) -> Any:
            world.reach("function")
            return rows

        if self.kind == "arrays":
            stream = (
                ub.from_arrays(km.rows(ROWS), shuffle=False, passes=1 if self.boundary else None).map(same).batch(BATCH)
            )
        else:
            stream = ub.from_generator(numbers).take(ROWS if self.boundary else 10**9).map(same).batch(BATCH)
        if self.kind == "ahead":
            stream = stream.prefetch(2)
        return Feed(stream, ub.Epoch(steps=EPOCH))

    # -- fits --------------------------------------------------------------------------------------------------------

    @rule(
        event=st.sampled_from(EVENTS),
        place=st.sampled_from(PLACES),
        after=st.integers(1, 9),
        epochs=st.integers(1, 2),
        counted=st.booleans(),
        validates=st.booleans(),
    )
    def fit(self, event: str, place: str, after: int, epochs: int, counted: bool, validates: bool) -> None:
        if event in ("SIGINT", "SIGTERM") and not counted:
            event = "KeyboardInterrupt"  # what Python makes of it
        self.world.plan(event, event if event in ("source", "function") else place, after)
        callbacks: list[Any] = [Trouble(self.world)]
        if counted:
            checkpoint = Checkpoint(self.feed, self.directory, every=self.every)
            callbacks.insert(after % 2, checkpoint)
            epochs += self.feed.epoch_number
        given = {"validation_data": km.rows(8), "validation_batch_size": 4} if validates else {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(contextlib.suppress(Fault, KeyboardInterrupt))
            if event == "disk" and counted:
                stack.enter_context(self.full_disk(after))
            # A disk that is full, and a stream whose declared end leaves nothing to train.
            told = (ub.CheckpointError,) if event == "disk" else ()
            stack.enter_context(contextlib.suppress(*told, *((ub.StreamError,) if self.boundary else ())))
            self.model.fit(self.feed, epochs=epochs, verbose=0, callbacks=callbacks, **given)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    @contextlib.contextmanager
    def full_disk(self, after: int) -> Iterator[None]:
        """Writing fails from some write on."""
        left = [after * 3]

        def call(function: Any, *args: Any) -> Any:
            if function is os.write:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

        with all_changes(call):
            yield

    @rule(verb=st.sampled_from(["evaluate", "predict"]))
    def look_at_a_round(self, verb: str) -> None:
        self.world.plan("nothing", "end", 1)
        getattr(self.model, verb)(self.feed, verbose=0)

    # -- what becomes of a run -----------------------------------------------------------------------------------------

    @rule()
    def kill_it_and_begin_anew(self) -> None:
        """Another process, with whatever the directory holds."""
        self.world.plan("nothing", "end", 1)
        self.feed.close()
        self.model = km.ready_model(ids=ROWS, steps_per_execution=self.executions)
        self.feed = self.new_feed()

    @rule()
    def drop_the_feed(self) -> None:
        """Nobody closes it."""
        self.model = km.ready_model(ids=ROWS, steps_per_execution=self.executions)
        self.feed = self.new_feed()
        gc.collect()

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def what_the_feed_says_is_what_the_model_has_recorded(self) -> None:
        if not hasattr(self, "feed"):
            return
        seen = km.trained_ids(self.model)
        assert seen == [row % ROWS for row in range(len(seen))]
        assert self.feed.steps * BATCH == len(seen)
        assert self.feed.position.steps == self.feed.steps
        assert self.feed.stats.in_doubt == 0
        assert all(np.isfinite(w).all() for w in self.model.get_weights())

    def teardown(self) -> None:
        os.fsync = Walk._fsync
        if hasattr(self, "feed"):
            self.world.plan("nothing", "end", 1)
            self.feed.close()
            shutil.rmtree(self.directory)


# torch compiles nothing, and so walks the quickest; the other backends have ways of their own to take batches.
WALKS = {"torch": 20, "jax": 8, "tensorflow": 6}[km.BACKEND]

# Hypothesis runs a walk as a unittest, and cursors for pytest are its class's.
Walk.TestCase.settings = settings(
    max_examples=int(os.environ.get("STATE_WALKS", WALKS)),
    stateful_step_count=10,
    deadline=None,
)
Walk.TestCase.pytestmark = [pytest.mark.filterwarnings(km.KERAS_NOISE)]
test_whatever_happens_each_row_is_trained_once_in_order = Walk.TestCase
