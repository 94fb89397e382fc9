"""Checkpoint: the callback that saves model, optimizer, randomness, callbacks and position as one, and goes on there.

It stands last among the callbacks of a `fit`, so that what it saves is what all others have made of the moment.
What goes into a checkpoint is in `_saving.py`; here is when, and what becomes of it in the course of a `fit`.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from unbounded._checkpoint import Saved
from unbounded._describe import RunFinished
from unbounded._epoch import Epoch
from unbounded.keras import _asked, _model
from unbounded.keras._callbacks import CallbackStates, callback_list
from unbounded.keras._counting import Counting
from unbounded.keras._due import Due
from unbounded.keras._fallback import PyDatasetFeed
from unbounded.keras._feed import Feed
from unbounded.keras._saving import Saving
from unbounded.keras._signals import Signals


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves a run, and takes it up again when `fit` begins.

    On `fit`'s beginning the newest checkpoint in the directory is restored, to the very batch: the epoch goes on
    in its middle, with its number, its metrics so far and the states of the other callbacks. SIGINT and SIGTERM
    let the step at hand end, write a checkpoint and end `fit`; a second one ends at once.

    Args:
        feed: what `fit` trains on; or a list of it and of validation feeds, whose positions are then saved too.
        directory: of this run's checkpoints alone.
        every: a number of steps, or an `ub.Epoch`; None saves at the end of each epoch. The end of training and a
            signal always save.
        keep: how many checkpoints to keep, the newest.
        accept_changes: go on though the stream is no longer the one that the checkpoint is of, and let a learning rate
            that the script has changed replace the checkpoint's.

    Raises:
        CheckpointError: in `fit`, where the directory can't be written to, or holds nothing that can be read.
        ValueError: in `fit`, for the checkpoint of another model or another stream.

    Example:
        >>> import keras, numpy as np, tempfile, unbounded as ub
        >>> folder = tempfile.mkdtemp()
        >>> for epochs in (2, 3):
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     model.compile(optimizer="sgd", loss="mse")
        ...     stream = ub.arrays((np.ones((10, 3)), np.ones((10, 1)))).batch(4)
        ...     with ub.keras.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...         history = model.fit(
        ...             feed, epochs=epochs, verbose=0, callbacks=[ub.keras.Checkpoint(feed, folder)]
        ...         )
        ...         print(int(model.optimizer.iterations), len(history.history["loss"]))
        10 2
        15 3
    """

    def __init__(
        self,
        feed: Feed | Sequence[Feed],
        directory: str | os.PathLike[str],
        every: int | Epoch | None = None,
        *,
        keep: int = 3,
        accept_changes: bool = False,
    ) -> None:
        super().__init__()
        feeds: list[Feed] = list(feed) if isinstance(feed, Sequence) else [feed]
        for one in feeds:
            if not isinstance(one, Feed | PyDatasetFeed):
                raise TypeError(
                    f"Checkpoint() was given {type(one).__name__}. Expected the ub.keras.Feed that fit trains on."
                )
        self.feeds = feeds
        self.stopped_by: str | None = None
        """The name of the signal that ended the last `fit`; None where none did."""
        self._due = Due(every)
        self._accept_changes = accept_changes
        self._saving = Saving(feeds, directory, keep=keep, accept_changes=accept_changes)
        self._counting = Counting(feeds[0], self)
        self._list: weakref.ref[Any] | None = None  # of all callbacks of the fit at hand
        self._signals = Signals(self._interrupt)
        self._states: CallbackStates | None = None
        self._resumed: dict[str, Any] | None = None  # what is still to be put back, of a checkpoint
        self._before_round: dict[str, Any] = {}  # what a round of validation will change
        self._round_numbers: list[int] = []
        self._aborted = False  # that round was given up
        self._stopping = False
        self._finished = False
        self._placed: Saved | None = None  # the feeds are where it says, and the model is not yet

    # -- the beginning ---------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Take up the newest checkpoint, where there is one."""
        callbacks, who = callback_list(), _asked.caller()
        feed = self.feeds[0]
        adapter = None if who is None else who.adapter
        if adapter is not None and feed not in (adapter, getattr(adapter, "py_dataset", None)):
            raise ValueError(
                "Checkpoint(feed) and fit were given different feeds. Give both the same: model.fit(feed, "
                "callbacks=[ub.keras.Checkpoint(feed, …)])."
            )
        assert callbacks is not None
        self._list = weakref.ref(callbacks)
        self._take_places(callbacks)
        self._signals = Signals(self._interrupt)
        self._states, self._resumed, self.stopped_by = None, None, None
        self._stopping, self._aborted, self._finished = False, False, False
        saved, self._placed = self._placed, None
        if saved is None or saved.number != feed.steps:
            saved = self._saving.take_place()
        if saved is not None:
            self._restore(saved)
        else:
            feed.fitting.moved()
            _model.begin(self.model)
        self._due.saved(feed.core)
        asked = self.params["epochs"]
        if feed.epoch_number >= asked:
            self._finish(f"{feed.epoch_number} epochs")
        elif saved is not None and saved.info["keras"]["ended"] and asked <= saved.info["keras"]["epochs"]:
            self._finish(f"{feed.epoch_number} epochs, where {saved.info['keras']['ended']} ended it,")
        self.model._initial_epoch = max(asked, 1) if self._finished else feed.epoch_number or None
        self._signals.install(callbacks)

    def take_position(self, feed: Feed) -> None:
        """Keras is about to look at a batch, so as to build the model: let the feed stand where the run stands."""
        if feed is self.feeds[0]:
            self._placed = self._saving.take_place()

    def _take_places(self, callbacks: Any) -> None:
        """The counting before all others, the saving after them."""
        others = [c for c in callbacks.callbacks if c is not self and not isinstance(c, Counting)]
        for other in others:
            if isinstance(other, keras.callbacks.BackupAndRestore | Checkpoint):
                raise ValueError(
                    f"{type(other).__name__} stands beside Checkpoint, and both would restore the model. Use one."
                )
        self._counting.mute.end()
        callbacks.callbacks = [self._counting, *others, self]
        self.feeds[0].fitting.counting = self._counting

    def _restore(self, saved: Saved) -> None:
        """Put the model back; the feeds are in their places."""
        feed, model = self.feeds[0], self.model
        state = saved.read_state()
        if not (model.built and model.optimizer is not None and model.optimizer.built):
            _model.build(model, feed.core.peek())
        _model.restore_model(model, state["model"], accept_changes=self._accept_changes)
        self._resumed = state

    def _finish(self, done: str) -> None:
        """The run is over already: `fit` has nothing to do but to tell the callbacks."""
        self._finished = True
        asked = self.params["epochs"]
        more = max(asked, self.feeds[0].epoch_number) + asked
        warnings.warn(
            f"The run has trained {done} already, and {asked} were asked for: nothing is left to train. "
            f"epochs={more} would go on.",
            RunFinished,
            stacklevel=2,
        )

    def before_steps(self) -> None:
        """All callbacks have begun the epoch; put back what beginning it has changed."""
        state = self._resumed
        if state is None:
            return
        self._resumed = None
        core = self.feeds[0].core
        if core.steps > core.progress.start.steps:
            _model.restore_metrics(self.model, state["model"])
            _model.restore_learning_rate(self.model, state["model"])
            assert self._states is not None
            self._states.restore(state["callbacks"])

    def before_epoch(self) -> None:
        """All callbacks have begun training, and have reset themselves; none has begun an epoch."""
        if self._states is not None:
            return
        ours = (Counting, Checkpoint, keras.callbacks.ProgbarLogger)
        self._states = CallbackStates([c for c in self._callbacks.callbacks if not isinstance(c, ours)])
        if self._resumed is not None:
            self._states.restore(self._resumed["callbacks"])
        # It stays on the model, and a later fit without this callback would begin there.
        self.model._initial_epoch = None

    def before_end(self) -> None:
        """A run that was over already ends with its callbacks as they were: the best weights are theirs to give."""
        if self._finished:
            self.before_epoch()

    @property
    def _callbacks(self) -> Any:
        assert self._list is not None
        return self._list()

    # -- on the way ------------------------------------------------------------------------------------------

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save where it is time, and end where a signal asked for it."""
        core = self.feeds[0].core
        if self._signals.received is not None:
            self._stop()
        elif self._due.now(core) and not (core.epoch_over and core.outstanding == 0):
            self._save()

    def after_steps(self) -> None:
        """Where a signal has ended the wait for data, no step follows that would see it."""
        if self._signals.received is not None:
            self._stop()

    def on_test_begin(self, logs: Any = None) -> None:
        """Validation resets the metrics of training: keep them, in case that it is not to be finished."""
        self._before_round = {
            "metrics": _model.metrics_state(self.model),
            "random": _model.random_state(),
        }
        self._round_numbers = [other.rounds.number for other in self.feeds[1:]]
        self._give_up_round()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """A signal does not wait for the end of validation."""
        self._give_up_round()

    def _give_up_round(self) -> None:
        if self._signals.received is not None:
            self.model.stop_evaluating = True
            self._aborted = True
            self._counting.mute.all_but(self._callbacks, self)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save where it is time: the epoch is over for all callbacks, and so is its validation."""
        feed, signalled = self.feeds[0], self._signals.received is not None
        if self._aborted:
            for other, number in zip(self.feeds[1:], self._round_numbers, strict=True):
                if other.rounds.number > number:
                    other.rounds.back()
            self._stop(changed=self._before_round)
        elif not self._stopping:
            ending = self.model.stop_training
            last = epoch + 1 >= self.params["epochs"] or ending
            if last or signalled or self._due.each_epoch or self._due.now(feed.core):
                by = "a callback" if not ending or feed.fitting.has_more() else "the stream's declared end"
                self._save(ended=by if ending else None, last=last)
            if signalled:
                self._stop()
        if self._stopping:
            # on_train_end is for all of them again.
            self._counting.mute.end()
            self.model.__dict__.pop("_should_eval", None)

    def on_train_end(self, logs: Any = None) -> None:
        """Let go of signals and of the directory."""
        self._signals.put_back()
        _model.end(self.model)
        callbacks = self._callbacks
        callbacks.callbacks = [c for c in callbacks.callbacks if c is not self._counting]
        self.feeds[0].fitting.counting = None
        self._saving.close()
        if self._stopping and self._signals.received is not None:
            self.stopped_by = signal.Signals(self._signals.received).name
            print(
                f"\nStopped by {self.stopped_by} after step {self.feeds[0].steps:,}; the same call of fit goes on "
                f"with step {self.feeds[0].steps + 1:,}.",
                file=sys.stderr,
            )

    # -- the end ---------------------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        for feed in self.feeds:
            feed.interrupt()

    def _stop(self, changed: Mapping[str, Any] | None = None) -> None:
        """Save, and let `fit` end without another word to the other callbacks, whose epoch is not over."""
        if self._stopping:
            return
        self._stopping = True
        if self._saving.is_late():
            self._save(changed=changed)
        self.model.stop_training = True
        # Keras asks this before it validates: half an epoch is not validated.
        self.model.__dict__["_should_eval"] = lambda *_: False
        self._counting.mute.all_but(self._callbacks, self)

    def _save(self, *, ended: str | None = None, changed: Mapping[str, Any] | None = None, last: bool = False) -> None:
        """Write a checkpoint of this moment.

        Args:
            ended: what ended the run, so that it has nothing to go on with; None where it goes on.
            changed: of the model's state, what has changed since the moment that is meant.
            last: whether training ends here.
        """
        states = {} if self._states is None else self._states.state()
        about = {"epochs": self.params["epochs"], "ended": ended}
        if self._saving.write(self.model, states, about, changed or {}, last=last):
            self._due.saved(self.feeds[0].core)
