"""Copies of variables as NumPy arrays, and pairs of variables and saved arrays to assign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from unbounded.core import leaf
from unbounded.core.copies import Copies

# Variables, with the arrays to assign to them.
Pairs: TypeAlias = list[tuple[Any, np.ndarray]]


def start_copying(variables: Iterable[Any]) -> None:
    """Start copies of variables from an accelerator, so that they overlap; `read` then waits for each."""
    if keras.backend.backend() == "jax":
        for variable in variables:
            leaf.start_copying(variable.value)


def read(variable: Any, copies: Copies | None = None) -> np.ndarray:
    """A copy of a variable's value, with its shape and dtype.

    On a CPU a view would do: JAX does not donate memory that is referred to from outside, and TensorFlow does not write
    to memory of a value that was read. But the next step then allocates memory, which takes longer than a copy into
    existing memory.

    Args:
        variable: of Keras, or of the backend.
        copies: makes the copy, in memory of earlier ones; None for a copy in new memory.
    """
    value = variable.value if isinstance(variable, keras.Variable) else variable
    copies = Copies() if copies is None else copies
    match keras.backend.backend():
        case "tensorflow":
            value = value.read_value()
            array = np.asarray(value)
            return copies.of_array(array) if "CPU" in value.backing_device else array
        case "jax":
            # From an accelerator it is a copy already, to which JAX does not write.
            array = np.asarray(value)
            return copies.of_array(array) if leaf.in_main_memory(value) else array
        case "torch" if "bfloat16" not in str(value.dtype):  # NumPy has no bfloat16: Keras converts it with ml_dtypes
            return np.asarray(leaf.own(value, copies).numpy())
        case _:
            return np.array(keras.ops.convert_to_numpy(value))


def match(what: str, variables: Mapping[str, Any], saved: Mapping[str, np.ndarray]) -> Pairs:
    """Pair variables with saved arrays by path.

    Args:
        what: the kind of variables, for the error, such as "its variables".
        variables: of this model.
        saved: of the checkpoint.

    Raises:
        ValueError: one is missing, or has another shape or dtype; the message names the first.
    """
    if variables.keys() == saved.keys():
        # By path: the order may differ.
        saved = {path: saved[path] for path in variables}
    here, there = list(variables.items()), list(saved.items())
    for i in range(max(len(here), len(there))):
        ours = _words(*here[i]) if i < len(here) else "nothing more"
        theirs = _words(*there[i]) if i < len(there) else "nothing more"
        if ours != theirs:
            raise ValueError(
                f"The checkpoint is of another model: at number {i} of {what} it has {theirs}, and this model has "
                f"{ours}. Build and compile the model as it was, or use another directory."
            )
    return [(variables[path], array) for path, array in saved.items()]


def _words(path: str, value: Any) -> str:
    dtype = getattr(value.dtype, "name", value.dtype)
    shape: Sequence[int] = tuple(value.shape)
    return f"{path!r}, {dtype} {shape}"
