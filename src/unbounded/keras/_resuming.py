"""Resuming: restores a run from its newest checkpoint when a `fit` begins, to the exact batch.

Before Keras reaches a batch in the middle of an epoch, it begins training and the epoch, and resets much on the way; so
do its callbacks. So the parts of a checkpoint are restored at several moments, each after the reset that would undo it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from unbounded.core.warn import warn
from unbounded.feed.describe import RunFinished
from unbounded.keras import _model_state, internals
from unbounded.keras._callbacks import CallbackStates, continue_files
from unbounded.keras._keras_feed import Feed
from unbounded.keras._saving import Saving
from unbounded.store.saved import Saved


class Resuming:
    """Resumes a run at the beginning of each `fit`.

    Args:
        feed: the training feed.
        saving: the run's checkpoints.
        accept_changes: True to keep a learning rate that the script has changed.
    """

    def __init__(self, feed: Feed, saving: Saving, *, accept_changes: bool) -> None:
        self._feed = feed
        self._saving = saving
        self._accept_changes = accept_changes
        self._saved: Saved | None = None  # the feeds were restored from it, and the model was not yet
        self._is_placed = False
        self._state: dict[str, Any] | None = None  # the parts of a checkpoint that are still to be restored
        self._users: Sequence[Any] = ()  # the other callbacks of the current fit
        self._states: CallbackStates | None = None
        self.finished = False
        """True if the run was over already: `fit` only has to call the callbacks."""

    def take_place(self) -> None:
        """A `fit` is about to begin: restore the feeds from the newest checkpoint."""
        self._saved, self._is_placed = self._saving.take_place(), True

    def begin(self, model: Any, users: Sequence[Any], epochs: int) -> None:
        """A `fit` begins, and no other callback was called yet.

        Args:
            model: the model.
            users: the other callbacks.
            epochs: the number of epochs of the whole run, as given to `fit`.
        """
        feed = self._feed
        self._users = users
        self._states, self._state, self.finished = None, None, False
        if not self._is_placed:
            self.take_place()
        saved, self._saved, self._is_placed = self._saved, None, False
        if saved is not None:
            self._restore(model, saved)
            continue_files(users)
        else:
            if feed.run != self._saving.directory and feed.core.steps:
                # A new run: what the feed was trained on before belongs to another run.
                feed.close_epoch()
                feed.core.progress.renumber(0)
            _model_state.begin(model)
        feed.run = self._saving.directory
        if feed.epoch_number >= epochs:
            self._finish(f"{feed.epoch_number} epochs", epochs)
        elif saved is not None and saved.info["keras"]["ended"] and epochs <= saved.info["keras"]["epochs"]:
            self._finish(f"{feed.epoch_number} epochs, where {saved.info['keras']['ended']} ended it,", epochs)
        internals.begin_at_epoch(model, max(epochs, 1) if self.finished else feed.epoch_number)

    def _restore(self, model: Any, saved: Saved) -> None:
        """Restore the model; the feeds are restored already."""
        state = saved.read_state()
        if not (model.built and model.optimizer is not None and model.optimizer.built):
            assert self._feed.fit is not None
            _model_state.build(model, self._feed.fit.peek())
        _model_state.restore_model(model, state["model"], accept_changes=self._accept_changes)
        self._state = state

    def _finish(self, done: str, asked: int) -> None:
        self.finished = True
        more = max(asked, self._feed.epoch_number) + asked
        warn(
            f"The run has trained {done} already, and {asked} were asked for: nothing is left to train. "
            f"epochs={more} would go on.",
            RunFinished,
        )

    def before_epoch(self, model: Any, epoch: int) -> None:
        """All callbacks have begun training, and reset themselves; none has begun an epoch."""
        internals.begin_at_epoch(model, None)  # see `end`
        # The epoch's number in the run, including `initial_epoch`.
        self._feed.core.progress.renumber(epoch)
        self.begin_states()

    def begin_states(self) -> None:
        """Restore the callbacks' states, once in a `fit`."""
        if self._states is None:
            hidden = keras.callbacks.ProgbarLogger
            self._states = CallbackStates([c for c in self._users if not isinstance(c, hidden)])
            if self._state is not None:
                self._states.restore(self._state["callbacks"])

    def before_steps(self, model: Any) -> None:
        """All callbacks have begun the epoch: restore what that has reset."""
        state, self._state = self._state, None
        core = self._feed.core
        if state is not None and core.steps > core.progress.start.steps:
            _model_state.restore_metrics(model, state["model"])
            _model_state.restore_learning_rate(model, state["model"])
            assert self._states is not None
            self._states.restore(state["callbacks"])

    def callback_states(self) -> dict[str, Any]:
        """The states of the other callbacks, for a checkpoint; empty before the first epoch of a `fit`."""
        return {} if self._states is None else self._states.state()

    def end(self, model: Any) -> None:
        """The `fit` is over, also one that failed or had no epoch: forget its callbacks, and the epoch on the model."""
        self._users = ()
        # It would stay there, and a later `fit` without Checkpoint, on whatever data, would begin with that epoch.
        internals.begin_at_epoch(model, None)
        if self._feed.fit is not None:
            self._feed.fit.is_new = False
