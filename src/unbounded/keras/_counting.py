"""Counting: the callback that says which batches were trained on, and puts what happened into the logs.

It stands first among the callbacks of a `fit`, so that no other one can raise before it has counted, and so that
all others find the stats in their logs. `Checkpoint` brings it along.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

import keras

from unbounded.keras import _asked, _bar, _length

if TYPE_CHECKING:
    from unbounded.keras._feed import Feed


class Owner(Protocol):
    """Who needs to know of moments that are no callback's."""

    def before_epoch(self) -> None:
        """All callbacks have begun training, and none has begun the epoch."""

    def before_steps(self) -> None:
        """All callbacks have begun the epoch, and no batch was asked for."""

    def after_steps(self) -> None:
        """Keras has no more steps in the epoch, and has not validated yet."""

    def before_end(self) -> None:
        """No callback has ended training yet."""


class Counting(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts for one feed.

    Args:
        feed: what `fit` trains on.
        owner: who brought it along, and is told what no callback hears.
    """

    def __init__(self, feed: Feed, owner: Owner) -> None:
        super().__init__()
        self._feed = feed
        self._owner = owner
        self._base = 0  # steps of the run before Keras's step 0 of this epoch
        self.mute = Mute()
        self.idle = False
        """Whether the epoch at hand has no step left: Keras is given one that does nothing."""

    def begin_epoch(self, iterator: Any, who: _asked.Caller) -> None:
        """Keras begins to iterate over an epoch of training."""
        fitting, core = self._feed.fitting, self._feed.core
        self._owner.before_steps()
        self._base = core.steps
        done, total = _length.epoch_steps(core, iterator.steps_per_execution)
        if who.callbacks is not None:
            _bar.set_target(who.callbacks, total, done=done)
        # Waited for here, in the main thread, where a signal can end it, and where an epoch without a step
        # shows in time.
        if core.epoch_over or not fitting.available():
            self._make_idle(iterator, who)
        else:
            self.idle = False
            iterator._num_batches = _length.left(done, total)

    def _make_idle(self, iterator: Any, who: _asked.Caller) -> None:
        """Let Keras's loop run once over nothing, unheard: on JAX it can't end without the outputs of a step."""
        self.idle = True
        model, real = who.model, who.model.train_function
        logs = model.get_metrics_result()
        is_jax = keras.backend.backend() == "jax"

        def nothing(*given: Any) -> Any:
            model.train_function = real
            return (logs, given[0]) if is_jax else logs

        model.train_function = nothing
        iterator._num_batches = iterator.steps_per_execution
        self.mute.all_but(who.callbacks)

    def end_steps(self) -> None:
        """Keras has no more steps in this epoch."""
        if self.idle:
            self.idle = False
            self.mute.end()
        self._owner.after_steps()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """No other callback has begun the epoch yet."""
        self._base = self._feed.core.steps
        self._owner.before_epoch()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Wait for the step's data here, if waiting it is."""
        self._feed.fitting.prepare(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Confirm. `batch` is the last step of those that Keras ran at once, whether or not there were so many."""
        core = self._feed.core
        done = min(self._base + batch + 1, core.steps + core.outstanding)
        core.trained(done - core.steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """End the feed's epoch as well, and say what happened in it."""
        fitting = self._feed.fitting
        if logs is not None:
            stats = self._feed.core.epoch_stats.logs()
            # Over one epoch it would only say how far ahead of it the source was read.
            if (reuse := self._feed.core.stats.reuse) is not None:
                stats["reuse"] = reuse
            for name, value in stats.items():
                logs.setdefault(name, value)  # a metric of the user's own keeps its name
        fitting.close_epoch()
        fitting.stop_at_the_end(_asked.caller())

    def on_train_end(self, logs: Any = None) -> None:
        """No other callback has ended training yet."""
        self._owner.before_end()


class Mute:
    """Keeps events from a fit's callbacks that are not meant for them, such as the end of half an epoch."""

    def __init__(self) -> None:
        self._callbacks: weakref.ref[Any] | None = None
        self._all: list[Any] = []

    def all_but(self, callbacks: Any, *heard: Any) -> None:
        """From now on only the `heard` callbacks hear anything."""
        if self._callbacks is None:
            self._callbacks, self._all = weakref.ref(callbacks), callbacks.callbacks
        callbacks.callbacks = list(heard)

    def end(self) -> None:
        """All of them hear again."""
        callbacks = None if self._callbacks is None else self._callbacks()
        if callbacks is not None:
            callbacks.callbacks = self._all
        self._callbacks, self._all = None, []
