"""Counting: the callback that says which batches were trained on, and puts what happened into the logs.

It stands first among the callbacks of a `fit`, so that no other one can raise before it has counted, and so that all
others find the stats in their logs. `Checkpoint` brings it along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from unbounded.keras import _asked, _bar, _length

if TYPE_CHECKING:
    from unbounded.keras._feed import Feed


class Counting(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts for one feed.

    Args:
        feed: what `fit` trains on.
        before_steps: called when all callbacks have had their `on_epoch_begin`, with the fit's callbacks.
        stopped: says whether a clean stop was asked for.
    """

    def __init__(
        self, feed: Feed, *, before_steps: Callable[[Any], None], stopped: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._feed = feed
        self._before_steps = before_steps
        self._stopped = stopped
        self._base = 0  # steps of the run before Keras's step 0 of this epoch
        self._muted: list[Any] | None = None
        self.idle = False
        """Whether the epoch at hand has no step left: Keras is given one that does nothing."""

    def begin_epoch(self, asking: Any, who: _asked.Caller) -> None:
        """Keras begins to iterate: every callback has had its `on_epoch_begin`, and no batch was asked for."""
        feed, core = self._feed, self._feed.core
        self.idle = False
        self._before_steps(who.callbacks)
        self._base = core.steps
        done, total = _length.epoch_steps(core, asking.steps_per_execution)
        if who.callbacks is not None:
            _bar.set_target(who.callbacks, total, done=done)
        # Waited for here, in the main thread, where a signal can end it, and where an epoch without a step
        # shows in time: Keras has no outputs for one.
        if core.epoch_over or not feed.available():
            self._make_idle(asking, who)
        else:
            asking._num_batches = _length.left(done, total)

    def _make_idle(self, asking: Any, who: _asked.Caller) -> None:
        """Let Keras's loop run once over nothing: on JAX it can't go on without the outputs of one step."""
        self.idle = True
        model, real = who.model, who.model.train_function
        logs = model.get_metrics_result()
        jax = keras.backend.backend() == "jax"

        def nothing(*given: Any) -> Any:
            model.train_function = real
            return (logs, given[0]) if jax else logs

        model.train_function = nothing
        asking._num_batches = asking.steps_per_execution
        self.mute(who.callbacks, [])

    def end_steps(self) -> None:
        """Keras has no more steps in this epoch."""
        if self.idle:
            self.idle = False
            self.unmute()

    def mute(self, callbacks: Any, left: list[Any]) -> None:
        """Keep events that are none of theirs from all callbacks but those that are `left`."""
        if self._muted is None:
            self._muted = [callbacks, callbacks.callbacks]
        callbacks.callbacks = left

    def unmute(self) -> None:
        """Let the callbacks hear again."""
        if self._muted is not None:
            callbacks, all_of_them = self._muted
            self._muted = None
            callbacks.callbacks = all_of_them

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Have the data there before the step, while a signal can still end the wait."""
        self._feed.prepare(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Confirm; `batch` is the last step of those that Keras ran at once, whether or not there were so many."""
        core = self._feed.core
        done = min(self._base + batch + 1, core.steps + core.outstanding)
        core.trained(done - core.steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """End the feed's epoch as well, and say what happened in it."""
        feed = self._feed
        if logs is not None:
            for name, value in feed.epoch_stats.logs().items():
                logs.setdefault(name, value)  # a metric of the user's own keeps its name
        feed.close_epoch()
        feed.stop_at_the_end(_asked.caller())
