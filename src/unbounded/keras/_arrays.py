"""Variables as arrays and back: copies out of them, and pairs of variables and saved arrays that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

# Variables, and the arrays that are to be assigned to them.
Pairs: TypeAlias = list[tuple[Any, np.ndarray]]


def read(variable: Any) -> np.ndarray:
    """A copy of a variable's value, of its own shape and dtype; a view on JAX, which reuses no memory that is seen."""
    # It must be one: the other backends give the variable's own memory to the next step.
    value = variable.value if isinstance(variable, keras.Variable) else variable
    match keras.backend.backend():
        case "tensorflow":
            return np.array(value.numpy())
        case "torch" if "bfloat16" not in str(value.dtype):  # which NumPy lacks: Keras uses ml_dtypes
            return np.array(value.detach().cpu().numpy())
        case _:
            return np.asarray(keras.ops.convert_to_numpy(value))


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
