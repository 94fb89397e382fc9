"""State that Keras does not manage: PyTorch modules, optimizers and schedulers, and random generators.

They are found by the walk over the model (`_owned.py`). Most parameters of a module inside a Keras model are Keras
variables too; this module saves its buffers, such as running means, and the remaining parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from unbounded.core.copies import Copies
from unbounded.core.leaf import own
from unbounded.keras import _random
from unbounded.keras._owned import Owned, has_state_dict, is_random


def states(owned: Owned, copies: Copies) -> dict[str, Any]:
    """A copy of the state of each, by path."""
    wrapped = _wrapped(owned)
    out = {}
    for path, value in owned.others.items():
        if is_random(value):
            state: Any = _random.generator_state(value)
        elif _is_module(value):
            state = {name: _array(tensor, copies) for name, tensor in _tensors(value, wrapped)}
        else:
            state = _copy(value.state_dict(), copies)
        out[path] = {"class": type(value).__name__, "module": _is_module(value), "state": state}
    return out


def of_modules(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `states` that belongs to PyTorch modules."""
    return {path: one for path, one in saved.items() if one["module"]}


def check(owned: Owned, saved: Mapping[str, Any], *, alone: bool = False) -> None:
    """Check, before anything is restored, that the model has the same objects.

    Args:
        owned: of this model.
        saved: a result of `states`.
        alone: True to allow objects in the model that were not saved.

    Raises:
        ValueError: they differ; the message names the first that does.
    """
    here = {path: type(value).__name__ for path, value in owned.others.items()}
    there = {path: one["class"] for path, one in saved.items()}
    for path in there if alone else {**here, **there}:
        if here.get(path) != there.get(path):
            ours, theirs = here.get(path, "nothing"), there.get(path, "nothing")
            raise _other(f"at {path!r} it has {theirs}, and this model has {ours}")
    wrapped = _wrapped(owned)
    for path in there:
        if not _is_module(owned.others[path]):
            continue
        shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(owned.others[path], wrapped)}
        saved_shapes = {name: tuple(array.shape) for name, array in saved[path]["state"].items()}
        for name in {**shapes, **saved_shapes}:
            if shapes.get(name) != saved_shapes.get(name):
                raise _other(
                    f"its PyTorch module {path!r} has {name!r} of shape {saved_shapes.get(name)}, and this model's of "
                    f"shape {shapes.get(name)}"
                )


def restore(owned: Owned, saved: Mapping[str, Any]) -> None:
    """Restore a result of `states`."""
    wrapped = _wrapped(owned)
    for path, one in saved.items():
        value, state = owned.others[path], one["state"]
        if is_random(value):
            _random.restore_generator(value, state)
        elif _is_module(value):
            _put(_tensors(value, wrapped), state)
        else:
            value.load_state_dict(_copy(state, Copies()))


def _other(difference: str) -> ValueError:
    return ValueError(
        f"The checkpoint is of another model: {difference}. Build the model as it was, or use another directory."
    )


def _is_module(value: Any) -> bool:
    return has_state_dict(value) and hasattr(value, "named_buffers")


def _wrapped(owned: Owned) -> set[int]:
    """The ids of tensors that Keras variables wrap."""
    return {id(v.value) for v in owned.variables.values()}


def _tensors(module: Any, wrapped: set[int]) -> Iterator[tuple[str, Any]]:
    yield from module.named_buffers()
    for name, parameter in module.named_parameters():
        if id(parameter) not in wrapped:
            yield name, parameter


def _array(tensor: Any, copies: Copies) -> Any:
    import torch

    # NumPy has no bfloat16: a tensor is kept as it is.
    tensor = copies.of_tensor(tensor, torch)
    return tensor if tensor.dtype is torch.bfloat16 else tensor.numpy()


def _put(tensors: Iterator[tuple[str, Any]], state: Mapping[str, Any]) -> None:
    import torch

    with torch.no_grad():
        for name, tensor in tensors:
            value = state[name]
            tensor.copy_(torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value)


def _copy(state: Any, copies: Copies) -> Any:
    """A PyTorch state dict with its tensors copied, since the next step changes them in place."""
    if isinstance(state, Mapping):
        return {key: _copy(item, copies) for key, item in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_copy(item, copies) for item in state)
    return own(state, copies) if hasattr(state, "detach") else state
