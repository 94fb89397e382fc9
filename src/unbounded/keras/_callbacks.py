"""CallbackStates: the states of callbacks, such as `EarlyStopping.wait`, for checkpoints.

Keras has no method for a callback's state. For its own callbacks a table lists the attributes that are state; a user's
callback has `get_state`/`set_state` or `state_dict`/`load_state_dict`. Any other callback is not saved, and begins
anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

# Keras's callbacks by class name, since older versions lack some, with the attributes that change in training and
# decide what they do next. All other attributes are configuration, which the script sets, or belong to this process (an
# open file, a clock, a profiler). A subclass has those of its base.
STATE: dict[str, tuple[str, ...]] = {
    "BackupAndRestore": (),  # restores the model itself: refused beside Checkpoint
    "CSVLogger": (),  # its state is its file: see `continue_files`
    "EarlyStopping": ("wait", "stopped_epoch", "best", "best_weights", "best_epoch"),
    "History": ("history", "epoch"),
    "LambdaCallback": (),
    "LearningRateScheduler": (),  # the rate is in the optimizer
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
        callbacks: all callbacks of this `fit`, after their `on_train_begin`, which resets many of them.

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
        """The states by class and number, as arrays and plain data."""
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
        """Restore a result of `state`; a callback without a saved state begins anew."""
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
    """Let callbacks that write a file continue it, before training begins in a resumed run.

    A `CSVLogger` without `append=True` would overwrite its file: the epochs before the resume would be lost.
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
    """The names of its state attributes, by the Keras classes that it inherits from."""
    kinds = [kind for kind in type(callback).__mro__ if kind is getattr(keras.callbacks, kind.__name__, None)]
    return tuple(dict.fromkeys(key for kind in kinds for key in STATE.get(kind.__name__, ())))


def _verbs(callback: Any) -> tuple[str, str] | None:
    for verbs in _VERBS:
        if all(callable(getattr(callback, verb, None)) for verb in verbs):
            return verbs
    return None


def _plain(value: Any) -> Any:
    """A copy of a value as arrays and plain data: logs may be tensors."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return np.array(keras.ops.convert_to_numpy(value)) if keras.ops.is_tensor(value) else np.array(value)
