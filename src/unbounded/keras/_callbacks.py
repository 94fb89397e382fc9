"""The states of callbacks: what an EarlyStopping has waited, what a ReduceLROnPlateau calls its best.

Keras has no word for a callback's state, so it is read off: every attribute that holds plain data and has
moved since training began. One that has not moved is configuration, and stays as the script says today.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import keras
import numpy as np

# Set by Keras in each fit: they belong to the process, not to the run. `min_delta` is configuration whose
# sign Keras turns round at the first epoch's end: put back, it would be turned twice.
_KERAS_OWN = frozenset({"params", "_model", "validation_data", "min_delta"})

# Of TensorBoard's attributes most say what this process has open: a profiler, a trace, a clock.
_TENSORBOARD_OWN = frozenset({"_global_train_batch", "_global_test_batch"})


class CallbackStates:
    """The states of a list of callbacks, from the beginning of one `fit` to its end.

    A callback that offers `get_state`/`set_state` or `state_dict`/`load_state_dict` is asked; of any other
    the plain attributes are kept that moved.

    Args:
        callbacks: all callbacks of this `fit`, after each had its `on_train_begin`.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = {name: callback for name, callback in _named(callbacks)}
        self._initial = {
            name: _plain_attributes(callback) for name, callback in self._callbacks.items() if _verbs(callback) is None
        }

    def state(self) -> dict[str, Any]:
        """What must be put back into callbacks that have just begun: by class and number, plain data."""
        states: dict[str, Any] = {}
        for name, callback in self._callbacks.items():
            verbs = _verbs(callback)
            if verbs is not None:
                states[name] = getattr(callback, verbs[0])()
                continue
            initial = self._initial[name]
            moved = {
                key: value
                for key, value in _plain_attributes(callback).items()
                if key not in initial or not _same(value, initial[key])
            }
            if moved:
                states[name] = moved
        return states

    def restore(self, states: Mapping[str, Any]) -> None:
        """Put back what `state` gave; a callback without a saved state begins anew."""
        for name, state in states.items():
            callback = self._callbacks.get(name)
            if callback is None:
                continue
            verbs = _verbs(callback)
            if verbs is not None:
                getattr(callback, verbs[1])(state)
            else:
                for key, value in state.items():
                    setattr(callback, key, _copy(value))


def callback_list() -> Any | None:
    """The `CallbackList` that is calling, found on the call stack; None where something else calls.

    Keras tells a callback neither which others there are nor in which order they run, and both matter here:
    the counting must come first and the saving last.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList):
            return owner
        frame = frame.f_back
    return None


def _named(callbacks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for callback in callbacks:
        kind = type(callback).__name__
        number = seen[kind] = seen.get(kind, 0) + 1
        yield f"{kind} {number}", callback


def _verbs(callback: Any) -> tuple[str, str] | None:
    for verbs in (("get_state", "set_state"), ("state_dict", "load_state_dict")):
        if all(callable(getattr(callback, verb, None)) for verb in verbs):
            return verbs
    return None


def _plain_attributes(callback: Any) -> dict[str, Any]:
    only = _TENSORBOARD_OWN if isinstance(callback, keras.callbacks.TensorBoard) else None
    return {
        key: _copy(value)
        for key, value in vars(callback).items()
        if key not in _KERAS_OWN and (only is None or key in only) and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return True
    if isinstance(value, np.ndarray | np.generic):
        return not value.dtype.hasobject
    if type(value) is dict:
        return all(isinstance(key, str | int) and _is_plain(item) for key, item in value.items())
    return type(value) in (list, tuple) and all(_is_plain(item) for item in value)


def _copy(value: Any) -> Any:
    # Containers only: an array is replaced by callbacks, not written into.
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    return bool(a == b) or bool(a != a and b != b)
