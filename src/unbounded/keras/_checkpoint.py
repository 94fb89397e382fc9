"""Checkpoint: the callback that saves model, optimizer, randomness, callbacks and position as one, and goes on there.

A `Director` tells it of the moments of a `fit`, after the other callbacks: what it saves is what all others have made
of the moment. What goes into a checkpoint is in `_saving.py`, how a run goes on from one in `_resuming.py`; here is
when one is taken, and how a `fit` ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from unbounded.core.warn import warn
from unbounded.feed.epoch import Epoch
from unbounded.keras import _model_state, internals
from unbounded.keras._director import Director
from unbounded.keras._due import Due
from unbounded.keras._fit_signals import Signals
from unbounded.keras._keras_feed import Feed
from unbounded.keras._resuming import Resuming
from unbounded.keras._saving import NotSaved, Saving


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves a run, and takes it up again when `fit` begins.

    On `fit`'s beginning the newest checkpoint in the directory is restored, to the very batch: the epoch goes on
    in its middle, with its number, its metrics so far and the states of the other callbacks. SIGINT and SIGTERM
    let the step at hand end, write a checkpoint and end `fit`; a second one ends at once.

    A checkpoint is taken between two steps, and written in a thread while training goes on. It is copied for that: from
    the first one until `fit` ends, the weights and the optimizer's state are in memory twice. One is written at a time:
    where another falls due meanwhile, it is taken after the first step at which the one before is written. One that
    could not be written ends `fit` after the step at hand. The last one of a `fit` is on the disk when `fit` returns.

    Args:
        feed: what `fit` trains on; or a list of it and of validation feeds, whose positions are then saved too.
        directory: of this run's checkpoints alone: a path, or a URL that fsspec knows ("s3://bucket/run"; extra
            `remote`).
        every: a number of steps, or an `ub.Epoch`; None saves at the end of each epoch. The end of training and a
            signal always save.
        keep: how many checkpoints to keep, the newest.
        accept_changes: go on though the stream is no longer the one that the checkpoint is of, and let a learning rate
            that the script has changed replace the checkpoint's.
        wait: True writes each checkpoint before the next step begins.
        local: for a URL, a directory on this machine for the logs of the run, which are copied to the URL with each
            checkpoint, and fetched from it where they are missing; None for one under `~/.cache/unbounded`
            (`XDG_CACHE_HOME`), which the URL decides.

    Raises:
        CheckpointError: in `fit`, where the directory can't be written to, or holds nothing that can be read.
        ValueError: in `fit`, for the checkpoint of another model or another stream.

    Example:
        >>> import keras, numpy as np, tempfile, unbounded as ub
        >>> folder = tempfile.mkdtemp()
        >>> for epochs in (2, 3):
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     model.compile(optimizer="sgd", loss="mse")
        ...     stream = ub.from_arrays((np.ones((10, 3)), np.ones((10, 1)))).batch(4)
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
        wait: bool = False,
        local: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        feeds: list[Feed] = list(feed) if isinstance(feed, Sequence) else [feed]
        if not feeds:
            raise ValueError("Checkpoint() was given no feed. Expected the ub.keras.Feed that fit trains on.")
        for one in feeds:
            if not isinstance(one, Feed):
                raise TypeError(
                    f"Checkpoint() was given {type(one).__name__}. Expected the ub.keras.Feed that fit trains on."
                )
        self.feeds = feeds
        self.stopped_by: str | None = None
        """The name of the signal that ended the last `fit`; None where none did."""
        self._due = Due(every, feeds[0].core.stream)
        self._owed = False  # one fell due while another was written
        self._saving = Saving(feeds, directory, keep=keep, accept_changes=accept_changes, wait=wait, local=local)
        self._resuming = Resuming(feeds[0], self._saving, accept_changes=accept_changes)
        self._director: Director | None = None  # of the fit at hand
        self._signals = Signals(self._interrupt)
        self._before_round: dict[str, Any] = {}  # what a round of validation will change
        self._round_numbers: list[int] = []
        self._in_round = False
        self._aborted = False  # that round was given up
        self._stopping = False

    # -- Keras's list of callbacks ---------------------------------------------------------------------------

    def set_params(self, params: Any) -> None:
        """Keras's list shows itself: a director takes the place of all callbacks in it."""
        super().set_params(params)
        found = internals.callback_list()
        if found is None or any(isinstance(callback, Director) for callback in found.callbacks):
            return
        internals.tell_in_turn(found)
        others = [callback for callback in found.callbacks if callback is not self]
        found.callbacks = [Director(self, others, params)]

    # -- the beginning ---------------------------------------------------------------------------------------

    def take_place(self) -> None:
        """A `fit` is about to begin: let the feeds stand where the newest checkpoint says."""
        self._resuming.take_place()

    def begin(self, director: Director) -> None:
        """A `fit` begins: take up the newest checkpoint, where there is one."""
        feed, model = self.feeds[0], self.model
        for other in director.users:
            if isinstance(other, keras.callbacks.BackupAndRestore | Checkpoint):
                raise ValueError(
                    f"{type(other).__name__} stands beside Checkpoint, and both would restore the model. Use one."
                )
        self._director = director
        self._signals.put_back()
        self._signals = Signals(self._interrupt)
        self.stopped_by = None
        self._in_round = self._stopping = self._aborted = self._owed = False
        self._resuming.begin(model, director.users, self.params["epochs"])
        self._due.saved(feed.core)
        self._signals.install(director)

    def before_epoch(self, epoch: int) -> None:
        """All callbacks have begun training, and have reset themselves; none has begun an epoch."""
        self._resuming.before_epoch(self.model, epoch)

    def before_steps(self) -> None:
        """All callbacks have begun the epoch; put back what beginning it has changed."""
        self._resuming.before_steps(self.model)

    # -- on the way ------------------------------------------------------------------------------------------

    def after_step(self) -> None:
        """Save where it is time, and end where a signal asked for it."""
        core = self.feeds[0].core
        if self._signals.received is not None:
            self._stop()
            return
        self._saving.check()  # the step is over, and Keras's state is whole: what went wrong can be raised here
        is_due = self._owed or self._due.now(core)
        if is_due and not self._saving.is_busy and not (core.epoch_over and core.outstanding == 0):
            self._save()

    def after_steps(self) -> None:
        """Where a signal has ended the wait for data, no step follows that would see it."""
        if self._signals.received is not None:
            self._stop()

    def before_round(self) -> None:
        """Validation resets the metrics of training: keep them, in case that it is not to be finished."""
        self._in_round = True
        self._before_round = {
            "metrics": _model_state.metrics_state(self.model),
            "random": _model_state.random_state(),
        }
        self._round_numbers = [other.rounds.number for other in self.feeds[1:]]

    def after_round_step(self) -> None:
        """A signal does not wait for the end of validation, and half an epoch is not validated."""
        if self._stopping or self._signals.received is not None:
            self.model.stop_evaluating = True
            self._aborted = not self._stopping
            assert self._director is not None
            self._director.mute()

    def after_epoch(self, epoch: int) -> None:
        """Save where it is time: the epoch is over for all callbacks, and so is its validation."""
        feed, signalled = self.feeds[0], self._signals.received is not None
        self._in_round = False
        if self._aborted:
            self._give_up_round()
            self._stop(changed=self._before_round)
        elif not self._stopping:
            assert feed.fit is not None
            ending = self.model.stop_training
            last = epoch + 1 >= self.params["epochs"] or ending
            self._saving.check()
            if last or signalled or self._owed or self._due.each_epoch or self._due.now(feed.core):
                by = "a callback" if not ending or feed.fit.has_more() else "the stream's declared end"
                self._save(ended=by if ending else None, last=last)
            if signalled:
                self._stop()
        if self._stopping:
            assert self._director is not None
            self._director.unmute()  # on_train_end is for all of them again

    def _give_up_round(self) -> None:
        for other, number in zip(self.feeds[1:], self._round_numbers, strict=True):
            if other.rounds.number > number:
                other.rounds.back()

    # -- the end ---------------------------------------------------------------------------------------------

    def before_end(self) -> None:
        """A run that was over already ends with its callbacks as they were: the best weights are theirs to give."""
        if self._resuming.finished:
            self._resuming.begin_states()

    def end(self) -> None:
        """`fit` ends: let go of signals and of the directory."""
        self._signals.put_back()
        _model_state.end(self.model)
        self._director = None
        self._resuming.end()
        self._saving.close()
        if self._stopping and self._signals.received is not None:
            self.stopped_by = signal.Signals(self._signals.received).name
            print(
                f"\nStopped by {self.stopped_by} after step {self.feeds[0].steps:,}; the same call of fit goes on "
                f"with step {self.feeds[0].steps + 1:,}.",
                file=sys.stderr,
            )

    def before_failure(self) -> None:
        """The data can't be had: what was trained since the last checkpoint is saved before that is said."""
        if self._director is not None:
            self._save_at_once()
            self._signals.put_back()

    def after_failure(self, error: BaseException) -> None:
        """A callback, or what it did, has failed, and Keras will call nobody's `on_train_end`."""
        if self._director is None:
            return
        if not isinstance(error, Exception):
            # Somebody wants to leave (KeyboardInterrupt, SystemExit): nothing is wrong with the model.
            self._save_at_once()
        self._signals.put_back()

    def _save_at_once(self) -> None:
        if self._stopping:
            return
        try:
            self._saving.finish()
            if not self._saving.is_late():
                return
            if self._in_round:
                self._give_up_round()
            self._save(changed=self._before_round if self._in_round else None, last=True)
        except Exception as error:
            # What is about to be raised matters more.
            warn(f"No checkpoint was written: {error}", NotSaved)

    def _interrupt(self) -> None:
        for feed in self.feeds:
            feed.interrupt()

    def _stop(self, changed: Mapping[str, Any] | None = None) -> None:
        """Save, and let `fit` end without another word to the other callbacks, whose epoch is not over."""
        if self._stopping:
            return
        self._stopping = True
        self._saving.finish()
        if self._saving.is_late():
            self._save(changed=changed, last=True)
        self.model.stop_training = True
        assert self._director is not None
        self._director.mute()

    def _save(self, *, ended: str | None = None, changed: Mapping[str, Any] | None = None, last: bool = False) -> None:
        """Take a checkpoint of this moment; where another one is being written, after the next step.

        Args:
            ended: what ended the run, so that it has nothing to go on with; None where it goes on.
            changed: of the model's state, what has changed since the moment that is meant.
            last: whether training ends here.
        """
        about = {"epochs": self.params["epochs"], "ended": ended}
        self._owed = not self._saving.write(
            self.model, self._resuming.callback_states(), about, changed or {}, last=last
        )
        if not self._owed:
            self._due.saved(self.feeds[0].core)
