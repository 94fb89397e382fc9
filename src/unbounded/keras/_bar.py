"""Keras's progress bar with the true target: the epoch's own length, and where in it a resumed run goes on."""

from __future__ import annotations

from typing import Any

import keras


def set_target(callbacks: Any, steps: int | None, *, done: int = 0) -> None:
    """Tell the callbacks of a `fit` how long the epoch is that begins now.

    Args:
        callbacks: the `CallbackList` of the `fit`, after its `on_epoch_begin`.
        steps: of the whole epoch; None where nobody can say.
        done: how many of them an earlier run has done.
    """
    if callbacks.params:
        callbacks.params["steps"] = steps
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.ProgbarLogger):
            callback.target = None if steps is None else steps - done
            callback.progbar = _Bar(steps, done, callback.verbose)


def set_end(callbacks: Any, steps: int) -> None:
    """Tell a bar without a target how long the epoch was that is over.

    Keras takes the last step that the bar has heard of; and where it tells its callbacks in a thread of their own
    (JAX), the last steps may not have come to it yet.
    """
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.ProgbarLogger) and callback.target is None:
            callback.target = steps - getattr(callback.progbar, "_done", 0)
            callback.progbar.target = steps


def set_round_target(callbacks: Any, steps: int | None) -> None:
    """Tell the callbacks of an `evaluate` or `predict` how long it is; inside of `fit` they are told nothing."""
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.ProgbarLogger) and not callback._called_in_fit:
            set_target(callbacks, steps)


class _Bar(keras.utils.Progbar):  # type: ignore[misc]
    """A bar whose first steps were done before."""

    def __init__(self, steps: int | None, done: int, verbose: int) -> None:
        super().__init__(steps, verbose=verbose, unit_name="step", stateless_metrics=[])
        self._done = done
        self._seen_so_far = done

    def update(self, current: int, values: Any = None, finalize: bool | None = None) -> None:
        super().update(current + self._done, values, finalize)

    def _estimate_step_duration(self, current: int, now: float) -> float:
        # Of this run's steps alone: those before took no time of it.
        return float(super()._estimate_step_duration(current - self._done, now))
