"""Director: the one callback in Keras's list of callbacks, in a `fit` with `Checkpoint`.

It replaces all others in the list, and calls them itself. So it decides the order of the calls and leaves some out (the
end of half an epoch), and counts steps before any of them can fail. It knows from the events whether Keras trains or
validates, and fetches each step's batches, with waiting and checks, before Keras takes the variables out of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras

from unbounded.keras import _fit

if TYPE_CHECKING:
    from unbounded.keras._checkpoint import Checkpoint
    from unbounded.keras._fit import Fit

Logs = dict[str, Any] | None


class Director(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls the callbacks of one list.

    Args:
        checkpoint: the Checkpoint, which is called last, and at some moments that are not callback events.
        users: the other callbacks, in Keras's order.
        params: the list's parameters.
    """

    def __init__(self, checkpoint: Checkpoint, users: Sequence[Any], params: Any) -> None:
        super().__init__()
        self.params = params
        self.checkpoint = checkpoint
        self.users = list(users)
        self._watch = _ErrorWatch(checkpoint)
        self._fit: Fit | None = None  # from on_train_begin to on_train_end
        self._muted = False
        self._done = 0  # steps of the current epoch that were trained before Keras's step 0
        self._length: int | None = None  # steps of the current epoch, if known
        self._base = 0  # steps of the run before Keras's step 0
        self._trained_here = False  # True once Keras has run a step in this fit, and so has logs
        self._hearing: dict[str, list[Callable[..., None]]] = {}  # by step event: the methods to call
        self._in_steps = False  # True from an epoch's beginning to the end of its steps
        self._idle = False  # True while Keras runs a step that does nothing
        self._figures: frozenset[str] = frozenset()  # names of the feed's stats in an epoch's logs

    def set_params(self, params: Any) -> None:
        """The list sets its parameters again."""
        super().set_params(params)
        for callback in self.users:
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """The list sets its model."""
        super().set_model(model)
        for callback in (*self.users, self.checkpoint):
            callback.set_model(model)

    # -- calling the other callbacks -------------------------------------------------------------------------

    def mute(self) -> None:
        """Stop calling the other callbacks."""
        self._muted = True

    def unmute(self) -> None:
        """Call the other callbacks again."""
        self._muted = False

    def _tell(self, event: str, *given: Any, logs: Logs) -> None:
        if self._muted:
            return
        for callback in self.users:
            getattr(callback, event)(*given, logs=self._for(callback, logs))

    def _tell_step(self, event: str, step: int, logs: Logs) -> None:
        """The same for the two step events: only callbacks that override them are called."""
        if not self._muted:
            for hear in self._hearing[event]:
                hear(step, logs=logs)

    def _find_who_hears(self) -> None:
        self._hearing = {
            event: [getattr(callback, event) for callback in self.users if _overrides(callback, event)]
            for event in ("on_train_batch_begin", "on_train_batch_end")
        }

    def _for(self, callback: Any, logs: Logs) -> Logs:
        """The logs for one callback: Keras's progress bar gets a few of the feed's stats, all others get them all."""
        if not logs or not self._figures or not isinstance(callback, keras.callbacks.ProgbarLogger):
            return logs
        hidden = self._figures.difference(self.checkpoint.feeds[0].show)
        return {name: value for name, value in logs.items() if name not in hidden}

    def _tell_length(self, steps: int | None) -> None:
        """Set the epoch's length for the progress bar, which reads it from its parameters."""
        for callback in self.users:
            callback.set_params({**self.params, "steps": steps})

    # -- training --------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs = None) -> None:
        """A `fit` begins: the run is resumed before any other callback is called."""
        with self._watch:
            feed = self.checkpoint.feeds[0]
            fit = feed.fit
            if fit is None or not fit.directed or not fit.is_of(self.checkpoint.model):
                raise ValueError(
                    "Checkpoint(feed) and fit were given different feeds. Give both the same: model.fit(feed, "
                    "callbacks=[ub.keras.Checkpoint(feed, …)])."
                )
            self._fit = fit
            self._muted = self._idle = self._in_steps = self._trained_here = False
            fit.on_failure = self.checkpoint.before_failure
            self.checkpoint.begin(self)
            self._tell("on_train_begin", logs=logs)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """An epoch begins, or continues in its middle."""
        with self._watch:
            feed, fit = self.checkpoint.feeds[0], self._fit
            assert fit is not None
            self.checkpoint.before_epoch(epoch)
            feed.in_epoch = self._in_steps = True
            self._done, self._length = fit.begin_epoch()
            self._base = feed.core.steps
            fit.idle = feed.core.epoch_over
            self._tell_length(self._length)
            self._tell("on_epoch_begin", epoch, logs=logs)
            self._find_who_hears()  # after `on_epoch_begin` of each: a callback may set its methods there
            self.checkpoint.before_steps()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Fetch the step's batches. If there are none the epoch is over, which StopIteration tells Keras."""
        with self._watch:
            fit = self._fit
            assert fit is not None
            if not fit.prepare():
                if fit.idle or not (self._trained_here or keras.backend.backend() != "jax"):
                    self._begin_idle_step()
                    return
                raise StopIteration
            fit.in_step = True
            self._tell_step("on_train_batch_begin", self._done + batch, logs)

    def _begin_idle_step(self) -> None:
        """Let Keras run a step that does nothing, since its loop needs the outputs of a step in each epoch.

        Used in an epoch that resumes after its last step, and on JAX, which fails without a step, if a signal came
        before the first.
        """
        self._idle = True
        model = self.checkpoint.model
        real, logs = model.train_function, model.get_metrics_result()

        def nothing(*given: Any) -> Any:
            model.train_function = real
            return (logs, given[0]) if keras.backend.backend() == "jax" else logs

        model.train_function = nothing

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Count the steps, then call the others. `batch` is the last step of an execution, even if it had fewer."""
        with self._watch:
            fit, core = self._fit, self.checkpoint.feeds[0].core
            assert fit is not None
            fit.in_step, self._trained_here = False, True
            if self._idle:
                self._idle = fit.idle = False
                return
            done = min(self._base + batch + 1, core.steps + core.outstanding)
            core.trained(done - core.steps)
            self._tell_step("on_train_batch_end", self._in_epoch - 1, logs)
            self.checkpoint.after_step()

    @property
    def _in_epoch(self) -> int:
        """The trained steps of the current epoch."""
        core = self.checkpoint.feeds[0].core
        return core.steps - core.progress.start.steps

    def _end_steps(self) -> None:
        """Keras has no more steps in this epoch; called by the event that follows."""
        fit = self._fit
        if fit is not None and self._in_steps:
            self._in_steps = fit.in_step = False
            fit.end_steps()
            self.checkpoint.after_steps()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """The epoch and its validation are over: the feed's stats are added to the logs before others are called."""
        with self._watch:
            feed, fit = self.checkpoint.feeds[0], self._fit
            assert fit is not None
            self._end_steps()
            if not self._muted:
                if logs is not None:
                    stats = {name: value for name, value in _fit.stats_for_logs(feed.core).items() if name not in logs}
                    logs.update(stats)  # a user's metric of the same name wins
                    self._figures = frozenset(stats)
                if self._length is not None:
                    self._tell_length(self._in_epoch)
                feed.close_epoch()
                if feed.stream.has_end and not fit.has_more():
                    fit.model.stop_training = True
                self._tell("on_epoch_end", epoch, logs=logs)
                self._figures = frozenset()
            self.checkpoint.after_epoch(epoch)

    def on_train_end(self, logs: Logs = None) -> None:
        """A `fit` ends."""
        with self._watch:
            self.checkpoint.before_end()
            self._tell("on_train_end", logs=logs)
            self.checkpoint.end()
            self._fit = None

    # -- validation, evaluating, predicting ------------------------------------------------------------------

    def on_test_begin(self, logs: Logs = None) -> None:
        """Within a `fit`, validation begins: the epoch's steps are over."""
        with self._watch:
            if self._fit is not None:
                self._end_steps()
                self.checkpoint.before_round()
            self._tell("on_test_begin", logs=logs)
            if self._fit is not None:
                self.checkpoint.after_round_step()

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """A step of validation."""
        with self._watch:
            self._tell("on_test_batch_begin", batch, logs=logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """A signal does not wait for the end of validation."""
        with self._watch:
            self._tell("on_test_batch_end", batch, logs=logs)
            if self._fit is not None:
                self.checkpoint.after_round_step()

    def on_test_end(self, logs: Logs = None) -> None:
        """Validation is over."""
        with self._watch:
            self._tell("on_test_end", logs=logs)

    def on_predict_begin(self, logs: Logs = None) -> None:
        """The list belongs to a `predict`."""
        self._tell("on_predict_begin", logs=logs)

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Passed on."""
        self._tell("on_predict_batch_begin", batch, logs=logs)

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Passed on."""
        self._tell("on_predict_batch_end", batch, logs=logs)

    def on_predict_end(self, logs: Logs = None) -> None:
        """Passed on."""
        self._tell("on_predict_end", logs=logs)


def _overrides(callback: Any, event: str) -> bool:
    """True if a callback overrides a step event, under this name or the older one that the base method calls."""
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(keras.callbacks.Callback, name)
        for name in (event, event.replace("train_", ""))
    )


class _ErrorWatch:
    """Tells `Checkpoint` of an error in an event: after one, Keras does not call `on_train_end`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # StopIteration is not an error: it tells Keras that the epoch is over.
        if error is not None and not isinstance(error, StopIteration):
            self._checkpoint.after_failure(error)
