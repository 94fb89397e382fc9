"""Variables as arrays and back: copies out of them, and pairs of variables and saved arrays that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from unbounded.core import leaf

# Variables, and the arrays that are to be assigned to them.
Pairs: TypeAlias = list[tuple[Any, np.ndarray]]


def start_copying(variables: Iterable[Any]) -> None:
    """Begin to copy variables from an accelerator, so that many are on their way at once when `read` asks for them."""
    if keras.backend.backend() == "jax":
        for variable in variables:
            leaf.start_copying(variable.value)


def read(variable: Any) -> np.ndarray:
    """A variable's value of this moment, of its own shape and dtype, which no later step changes.

    On a CPU, JAX and TensorFlow give a view: JAX does not donate memory that is seen from outside to the next step, and
    TensorFlow writes to no memory that a value read before still has. PyTorch changes a variable in place, so there it
    is a copy; so is what comes from an accelerator.
    """
    value = variable.value if isinstance(variable, keras.Variable) else variable
    match keras.backend.backend():
        case "tensorflow":
            return np.asarray(value.read_value())
        case "jax":
            return np.asarray(value)
        case "torch" if "bfloat16" not in str(value.dtype):  # which NumPy lacks: Keras uses ml_dtypes
            return np.asarray(leaf.own(value).numpy())
        case _:
            return np.array(keras.ops.convert_to_numpy(value))


def match(what: str, variables: Mapping[str, Any], saved: Mapping[str, np.ndarray]) -> Pairs:
    """Pair variables with saved arrays by their paths.

    Args:
        what: whose they are, for the error: "its variables".
        variables: of this model.
        saved: of the checkpoint.

    Raises:
        ValueError: one is missing, or has another shape or dtype; the sentence names the first.
    """
    if variables.keys() == saved.keys():
        # By path: their order may be another one.
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
