"""Checkpoint: the callback that saves model, optimizer, randomness, callbacks and position together, and resumes them.

A `Director` calls it at the events of a `fit`, after the other callbacks, so that it saves their results. The content
of a checkpoint is in `_saving.py`, the resume in `_resuming.py`; this file decides when to save, and how a `fit` ends.
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
    """Saves a run, and resumes it when `fit` begins.

    At the beginning of `fit`, the newest checkpoint in the directory is restored, to the exact batch: the epoch resumes
    in its middle, with its number, its metrics so far and the states of the other callbacks. SIGINT and SIGTERM finish
    the current step, write a checkpoint and end `fit`; a second signal ends at once.

    A checkpoint is taken between two steps, and written in a thread while training goes on. It is copied for that: from
    the first one until `fit` ends, the weights and the optimizer's state are in memory twice. One is written at a time:
    if the next is due before that, it is taken after the first step at which the last one is written. If one could not
    be written, `fit` ends after the current step. The last one of a `fit` is on the disk when `fit` returns.

    Args:
        feed: the feed that `fit` trains on; or a list of it and of validation feeds, whose positions are saved, too.
        directory: for this run's checkpoints alone: a path, or a URL that fsspec knows ("s3://bucket/run"; extra
            `remote`).
        every: a number of steps, or an `ub.Epoch`; None saves at the end of each epoch. The end of training and a
            signal always save.
        keep: how many checkpoints to keep, the newest.
        accept_changes: True to resume although the stream differs from that of the checkpoint, and to keep a learning
            rate that the script has changed.
        wait: True writes each checkpoint before the next step begins.
        local: for a URL, a directory on this machine for the logs of the run, which are copied to the URL with each
            checkpoint, and fetched from it if they are missing; None for one under `~/.cache/unbounded`
            (`XDG_CACHE_HOME`) that depends on the URL.

    Raises:
        CheckpointError: in `fit`, if the directory can't be written to, or has no readable checkpoint.
        ValueError: in `fit`, if the checkpoint belongs to another model or stream.

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
        """The name of the signal that ended the last `fit`; None if none did."""
        self._due = Due(every, feeds[0].core.stream)
        self._owed = False  # a checkpoint was due while another was being written
        self._saving = Saving(feeds, directory, keep=keep, accept_changes=accept_changes, wait=wait, local=local)
        self._resuming = Resuming(feeds[0], self._saving, accept_changes=accept_changes)
        self._director: Director | None = None  # of the current fit
        self._signals = Signals(self._interrupt)
        self._before_round: dict[str, Any] = {}  # the state that a round of validation will change
        self._round_numbers: list[int] = []
        self._in_round = False
        self._aborted = False  # that round was aborted
        self._stopping = False

    # -- Keras's list of callbacks ---------------------------------------------------------------------------

    def set_params(self, params: Any) -> None:
        """Called by Keras's list, which the director then takes over."""
        super().set_params(params)
        found = internals.callback_list()
        if found is None or any(isinstance(callback, Director) for callback in found.callbacks):
            return
        internals.tell_in_turn(found)
        others = [callback for callback in found.callbacks if callback is not self]
        found.callbacks = [Director(self, others, params)]

    # -- beginning -------------------------------------------------------------------------------------------

    def take_place(self) -> None:
        """A `fit` is about to begin: restore the feeds from the newest checkpoint."""
        self._resuming.take_place()

    def begin(self, director: Director) -> None:
        """A `fit` begins: resume from the newest checkpoint, if there is one."""
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
        """All callbacks have begun training, and reset themselves; none has begun an epoch."""
        self._resuming.before_epoch(self.model, epoch)

    def before_steps(self) -> None:
        """All callbacks have begun the epoch: restore what that has reset."""
        self._resuming.before_steps(self.model)

    # -- training --------------------------------------------------------------------------------------------

    def after_step(self) -> None:
        """Save if it is due, and end if a signal requests it."""
        core = self.feeds[0].core
        if self._signals.received is not None:
            self._stop()
            return
        self._saving.check()  # an error of the last write is raised here: the step is over, Keras's state is whole
        is_due = self._owed or self._due.now(core)
        if is_due and not self._saving.is_busy and not (core.epoch_over and core.outstanding == 0):
            self._save()

    def after_steps(self) -> None:
        """After a signal has ended the wait for data: no step follows that would detect it."""
        if self._signals.received is not None:
            self._stop()

    def before_round(self) -> None:
        """Keep the training metrics, which validation resets, in case that it is aborted."""
        self._in_round = True
        self._before_round = {
            "metrics": _model_state.metrics_state(self.model),
            "random": _model_state.random_state(),
        }
        self._round_numbers = [other.rounds.number for other in self.feeds[1:]]

    def after_round_step(self) -> None:
        """A signal aborts validation, which is not run for half an epoch."""
        if self._stopping or self._signals.received is not None:
            self.model.stop_evaluating = True
            self._aborted = not self._stopping
            assert self._director is not None
            self._director.mute()

    def after_epoch(self, epoch: int) -> None:
        """Save if it is due: the epoch and its validation are over for all callbacks."""
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
            self._director.unmute()  # all callbacks get on_train_end again

    def _give_up_round(self) -> None:
        for other, number in zip(self.feeds[1:], self._round_numbers, strict=True):
            if other.rounds.number > number:
                other.rounds.back()

    # -- end -------------------------------------------------------------------------------------------------

    def before_end(self) -> None:
        """Restore the callbacks of a run that was over already: on_train_end may use them, as for the best weights."""
        if self._resuming.finished:
            self._resuming.begin_states()

    def end(self) -> None:
        """`fit` ends: restore the signal handlers, and release the directory."""
        self._signals.put_back()
        _model_state.end(self.model)
        self._director = None
        self._resuming.end(self.model)
        self._saving.close()
        if self._stopping and self._signals.received is not None:
            self.stopped_by = signal.Signals(self._signals.received).name
            print(
                f"\nStopped by {self.stopped_by} after step {self.feeds[0].steps:,}; the same call of fit goes on "
                f"with step {self.feeds[0].steps + 1:,}.",
                file=sys.stderr,
            )

    def before_failure(self) -> None:
        """Save what was trained on before an error of the data is raised."""
        if self._director is not None:
            self._save_at_once()
            self._signals.put_back()

    def after_failure(self, error: BaseException) -> None:
        """A callback has raised, and Keras will not call `on_train_end`."""
        if self._director is None:
            return
        self._resuming.end(self.model)
        if not isinstance(error, Exception):
            # KeyboardInterrupt or SystemExit: nothing is wrong with the model.
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
            # The error that is about to be raised matters more.
            warn(f"No checkpoint was written: {error}", NotSaved)

    def _interrupt(self) -> None:
        for feed in self.feeds:
            feed.interrupt()

    def _stop(self, changed: Mapping[str, Any] | None = None) -> None:
        """Save, and end `fit` without calling the other callbacks, whose epoch is not over."""
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
        """Take a checkpoint of this moment, or after the next step if another one is being written.

        Args:
            ended: what ended the run, if it is complete; None if it can be resumed.
            changed: parts of the model's state from before they were changed.
            last: True if training ends here.
        """
        about = {"epochs": self.params["epochs"], "ended": ended}
        self._owed = not self._saving.write(
            self.model, self._resuming.callback_states(), about, changed or {}, last=last
        )
        if not self._owed:
            self._due.saved(self.feeds[0].core)
