"""Random states outside of variables: those of the process, and of generators that a model owns."""

from __future__ import annotations

import copy
import random
import sys
from typing import Any

import keras
import numpy as np

from unbounded.keras import internals


def random_state() -> dict[str, Any]:
    """The random states of the process: of Python, NumPy, Keras and the backend."""
    state: dict[str, Any] = {
        "python": generator_state(random),
        "numpy": np.random.get_state(legacy=False),
        "keras": None,
    }
    generator = internals.global_seed_generator()
    if generator is not None:
        state["keras"] = np.array(keras.ops.convert_to_numpy(generator.state))
    if keras.backend.backend() == "torch":
        import torch

        # Dropout without a seed draws from these generators, not from a variable.
        state["torch"] = torch.get_rng_state().numpy().copy()
        if torch.cuda.is_available():
            state["cuda"] = [s.numpy().copy() for s in torch.cuda.get_rng_state_all()]
    if keras.backend.backend() == "tensorflow":
        tensorflow = _tensorflow_generator()
        state["tensorflow"] = None if tensorflow is None else tensorflow.state.numpy().copy()
    return state


def restore_random(state: dict[str, Any]) -> None:
    """Restore a result of `random_state`; generators that this machine lacks (of a GPU) are skipped."""
    restore_generator(random, state["python"])
    np.random.set_state(state["numpy"])
    if state["keras"] is not None:
        internals.global_seed_generator(make=True).state.assign(state["keras"])
    if keras.backend.backend() == "torch" and "torch" in state:
        import torch

        torch.set_rng_state(torch.from_numpy(np.array(state["torch"], np.uint8)))
        if "cuda" in state and torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all([torch.from_numpy(np.array(s, np.uint8)) for s in state["cuda"]])
    if keras.backend.backend() == "tensorflow" and state.get("tensorflow") is not None:
        import tensorflow as tf

        tf.random.get_global_generator().state.assign(state["tensorflow"])


def generator_state(generator: Any) -> dict[str, Any]:
    """A copy of the state of a generator of Python, NumPy, PyTorch or TensorFlow."""
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(dict(generator.bit_generator.state))
    if isinstance(generator, np.random.RandomState):
        return dict(generator.get_state(legacy=False))
    if hasattr(generator, "getstate"):  # Python: a Random, or the module
        version, words, gauss = generator.getstate()
        return {"version": version, "words": np.array(words, np.uint32), "gauss": gauss}
    if hasattr(generator, "get_state"):  # PyTorch
        return {"torch": generator.get_state().numpy().copy()}
    return {"tensorflow": generator.state.numpy().copy()}


def restore_generator(generator: Any, state: dict[str, Any]) -> None:
    """Restore a result of `generator_state`, of a generator of this kind."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    elif hasattr(generator, "setstate"):
        generator.setstate((state["version"], tuple(int(word) for word in state["words"]), state["gauss"]))
    elif hasattr(generator, "set_state"):
        import torch

        generator.set_state(torch.from_numpy(np.array(state["torch"], np.uint8)))
    else:
        generator.state.assign(state["tensorflow"])


def _tensorflow_generator() -> Any:
    # Read from the module: get_global_generator() would make a generator, and draw its seed.
    module = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    return getattr(module, "global_generator", None)
