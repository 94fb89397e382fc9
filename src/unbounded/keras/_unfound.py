"""Detection of optimizers that a model uses and does not own, so that no checkpoint contains them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import keras

from unbounded.core.warn import warn
from unbounded.keras._optimizers import iterations
from unbounded.keras._owned import Owned

_warned: weakref.WeakSet[Any] = weakref.WeakSet()


class StateNotFound(UserWarning):
    """A warning: a part of the state that decides the next step is not in the checkpoint, or could not be restored."""


def has_own_train_step(model: Any) -> bool:
    """True if the model's class overrides `train_step`."""
    return not str(getattr(type(model).train_step, "__module__", "keras")).startswith("keras.")


def warn_once(model: Any, owned: Owned, steps: int | None) -> None:
    """Warn of optimizers that the model's own `train_step` seems to use and the model does not own.

    Args:
        model: the model; nothing is checked if it has Keras's `train_step`.
        owned: of the model.
        steps: the steps that it was trained for; None if unknown.
    """
    if model in _warned or not has_own_train_step(model):
        return
    held = {id(optimizer) for optimizer in owned.optimizers.values()}
    kind = type(model).__name__
    names = sorted({name for name, optimizer in _used(type(model)) if id(optimizer) not in held})
    if names:
        what = f"{kind} uses {', '.join(names)}, and the model doesn't hold {'them' if len(names) > 1 else 'it'}"
    elif steps and not any(iterations(optimizer) for optimizer in owned.optimizers.values()):
        what = f"{kind}.train_step has made {steps:,} steps, and no optimizer that the model holds has made an update"
    else:
        return
    _warned.add(model)
    warn(
        f"{what}: its state is in no checkpoint, and starts anew when the run is resumed. Keep it where it is found: "
        "as an attribute of the model, or in a list, a dict or an object there (self.d_opt = …).",
        StateNotFound,
    )


def _used(kind: type) -> Iterator[tuple[str, Any]]:
    """Optimizers that methods of a class refer to as globals or closure variables."""
    for one in kind.__mro__:
        if one.__module__.partition(".")[0] == "keras":
            continue
        for function in vars(one).values():
            function = getattr(function, "__func__", function)
            if isinstance(function, FunctionType):
                yield from _referred(function)


def _referred(function: FunctionType) -> Iterator[tuple[str, Any]]:
    pairs = [(name, function.__globals__.get(name)) for name in function.__code__.co_names]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            pairs.append((name, cell.cell_contents))
        except ValueError:  # an unassigned cell
            pass
    for name, value in pairs:
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for item in held:
            if isinstance(item, keras.optimizers.Optimizer):
                yield f"the optimizer {name!r}", item
