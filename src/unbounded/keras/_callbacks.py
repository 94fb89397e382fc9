"""The states of callbacks: what an EarlyStopping has waited, what a ReduceLROnPlateau calls its best.

Keras has no word for a callback's state. Of its own callbacks a table says which attributes are state; a user's
callback says it itself, by `get_state`/`set_state` or `state_dict`/`load_state_dict`. Of any other nothing is kept: it
begins anew, as the script says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

# Keras's callbacks, by the names of their classes, since older versions lack some: which of their attributes change in
# training and decide what they do next. All others are configuration (as the script says today), or of this process (an
# open file, a clock, a profiler). A subclass has those of its base.
STATE: dict[str, tuple[str, ...]] = {
    "BackupAndRestore": (),  # restores the model itself: it can't stand beside Checkpoint
    "CSVLogger": (),  # what it has written is in its file: see `continue_files`
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_weights", "best_epoch"),
    "History": ("history", "epoch"),
    "LambdaCallback": (),
    "LearningRateScheduler": (),  # the rate itself is in the optimizer
    "ModelCheckpoint": ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    "OrbaxCheckpoint": ("best", "_batches_seen_since_last_saving", "_last_batch_seen", "_total_batches_seen"),
    "ProgbarLogger": (),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
    "RemoteMonitor": (),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TensorBoard": ("_global_train_batch", "_global_test_batch"),
    "TerminateOnNaN": (),
}

_VERBS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))


class CallbackStates:
    """The states of a list of callbacks, in one `fit`.

    Args:
        callbacks: all callbacks of this `fit`, after each had its `on_train_begin`, which resets many.

    Example:
        >>> import keras
        >>> first, again = keras.callbacks.EarlyStopping(), keras.callbacks.EarlyStopping()
        >>> first.on_train_begin(), again.on_train_begin()
        (None, None)
        >>> first.wait = 3
        >>> CallbackStates([again]).restore(CallbackStates([first]).state())
        >>> again.wait
        3
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = dict(_named(callbacks))

    def state(self) -> dict[str, Any]:
        """What must be put back into callbacks that have just begun: by class and number, arrays and plain data."""
        states: dict[str, Any] = {}
        for name, callback in self._callbacks.items():
            one: dict[str, Any] = {}
            if attributes := {key: _plain(getattr(callback, key)) for key in _keys(callback) if hasattr(callback, key)}:
                one["attributes"] = attributes
            if (verbs := _verbs(callback)) is not None:
                one["own"] = getattr(callback, verbs[0])()
            if one:
                states[name] = one
        return states

    def restore(self, states: Mapping[str, Any]) -> None:
        """Put back what `state` gave; a callback without a saved state begins anew."""
        for name, state in states.items():
            callback = self._callbacks.get(name)
            if callback is None:
                continue
            keys = _keys(callback)
            for key, value in state.get("attributes", {}).items():
                if key in keys:
                    setattr(callback, key, _plain(value))
            verbs = _verbs(callback)
            if verbs is not None and "own" in state:
                getattr(callback, verbs[1])(state["own"])


def continue_files(callbacks: Sequence[Any]) -> None:
    """Let callbacks that write a file go on with it, before training begins in a run that is resumed.

    A `CSVLogger` made without `append=True` starts its file over: the epochs before the resume would be gone.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            callback.append = True


def _named(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback).__name__
        number = seen[kind] = seen.get(kind, 0) + 1
        yield f"{kind} {number}", callback


def _keys(callback: Any) -> tuple[str, ...]:
    """Which of its attributes are state, by the classes of Keras's that it is of."""
    kinds = [kind for kind in type(callback).__mro__ if kind is getattr(keras.callbacks, kind.__name__, None)]
    return tuple(dict.fromkeys(key for kind in kinds for key in STATE.get(kind.__name__, ())))


def _verbs(callback: Any) -> tuple[str, str] | None:
    for verbs in _VERBS:
        if all(callable(getattr(callback, verb, None)) for verb in verbs):
            return verbs
    return None


def _plain(value: Any) -> Any:
    """A value copied, as arrays and plain data: a log may be a tensor of the backend's."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return np.array(keras.ops.convert_to_numpy(value)) if keras.ops.is_tensor(value) else np.array(value)
