"""What "the same weights" needs: everything that decides a Keras model's next step, as arrays and plain data.

That is every variable of the model (seed generators too, which `.weights.h5` leaves out), the metrics so far,
the optimizer, and the random states that the backend draws from outside of any variable. Callbacks are in
`_callbacks.py`, the directory in `unbounded._checkpoint`, and the position in the data in the feed.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.random import seed_generator as _seed_generator

State = dict[str, Any]

# Keras numbers names by how many of a kind this process made before ("dense_7"), whatever the model.
_COUNTER = re.compile(r"_\d+(?=[_/]|$)")


def model_state(model: Any) -> State:
    """Everything that decides the model's next step, copied out of it.

    Args:
        model: a built `keras.Model`, in the middle of `fit` or not.

    Returns:
        A tree of dicts and lists: NumPy arrays of the variables' own shapes and dtypes, and plain data.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> sorted(model_state(model))
        ['buffers', 'metrics', 'optimizer', 'random', 'variables']
    """
    _gather(model)
    return {
        **{group: _read(variables) for group, variables in _groups(model)},
        "buffers": _torch_buffers(model),
        "random": random_state(),
    }


def restore_model(model: Any, state: State) -> None:
    """Put back what `model_state` took, bit for bit, or change nothing.

    Args:
        model: a built model of the same architecture, optimizer and metrics.
        state: what `model_state` returned.

    Raises:
        ValueError: the model is another one; the sentence names the first variable that differs.
    """
    _gather(model)
    plan = [_match(group, variables, state[group]) for group, variables in _groups(model)]
    _load_torch_buffers(model, state["buffers"])
    for pairs in plan:
        for variable, value in pairs:
            variable.assign(value)
    restore_random(state["random"])


def metrics_state(model: Any) -> State:
    """The metrics alone: validation resets them, and shares them with training."""
    _gather(model)
    return _read(model.metrics_variables)


def restore_metrics(model: Any, state: State) -> None:
    """Put back the metrics alone: Keras resets them at the start of every epoch, a resumed one too."""
    for variable, value in _match("metrics", model.metrics_variables, state["metrics"]):
        variable.assign(value)


def restore_learning_rate(model: Any, state: State) -> None:
    """Put back the learning rate alone: a relative schedule must not be applied twice to one epoch."""
    rates = {id(rate) for rate in _learning_rates(model.optimizer)}
    if rates:
        for variable, value in _match("optimizer", model.optimizer.variables, state["optimizer"]):
            if id(variable) in rates:
                variable.assign(value)


def build(model: Any, batch: Any) -> None:
    """Make the variables that Keras would make at the first step, so that there is something to restore.

    Args:
        model: a compiled model.
        batch: one batch, as `fit` takes it; only its structure, shapes and dtypes are looked at.
    """
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=batch)
    else:
        model._symbolic_build(data_batch=batch)


def iterations(model: Any) -> int | None:
    """How many updates the optimizer has made by its own counter; None where it has none yet."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return None
    _gather(model)
    # Not `.iterations`: that one is divided by gradient_accumulation_steps.
    counter = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_iterations", None)
    return None if counter is None else int(_numpy(counter))


def random_state() -> State:
    """The random states outside of any variable: Keras's own, Python's, NumPy's and the backend's."""
    version, words, gauss = random.getstate()
    state: State = {
        "python": {"version": version, "words": np.array(words, np.uint32), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),
        "keras": None,
    }
    generator = _seed_generator.global_state.get_global_attribute(_seed_generator.GLOBAL_SEED_GENERATOR)
    if generator is not None:
        state["keras"] = _numpy(generator.state)
    if keras.backend.backend() == "torch":
        import torch

        # Dropout without a seed draws from these, and from no variable.
        state["torch"] = torch.get_rng_state().numpy().copy()
        if torch.cuda.is_available():
            state["cuda"] = [s.numpy().copy() for s in torch.cuda.get_rng_state_all()]
    if keras.backend.backend() == "tensorflow":
        tensorflow = _tensorflow_generator()
        state["tensorflow"] = None if tensorflow is None else tensorflow.state.numpy().copy()
    return state


def restore_random(state: State) -> None:
    """Put back what `random_state` took; what another machine lacks (a GPU's generator) is left alone."""
    python = state["python"]
    random.setstate((python["version"], tuple(int(word) for word in python["words"]), python["gauss"]))
    np.random.set_state(state["numpy"])
    if state["keras"] is not None:
        _seed_generator.global_seed_generator().state.assign(state["keras"])
    if keras.backend.backend() == "torch" and "torch" in state:
        import torch

        torch.set_rng_state(torch.from_numpy(np.array(state["torch"], np.uint8)))
        if "cuda" in state and torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all([torch.from_numpy(np.array(s, np.uint8)) for s in state["cuda"]])
    if keras.backend.backend() == "tensorflow" and state.get("tensorflow") is not None:
        import tensorflow as tf

        tf.random.get_global_generator().state.assign(state["tensorflow"])


def _gather(model: Any) -> None:
    # On JAX the variables live in the training loop during `fit`, and the model's own are empty.
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def _groups(model: Any) -> Iterator[tuple[str, list[Any]]]:
    yield "variables", list(model.variables)
    yield "metrics", list(model.metrics_variables)
    optimizer = getattr(model, "optimizer", None)
    yield "optimizer", [] if optimizer is None else list(optimizer.variables)


def _read(variables: Sequence[Any]) -> State:
    return {"names": [v.path for v in variables], "arrays": [_numpy(v) for v in variables]}


def _numpy(variable: Any) -> np.ndarray:
    """A copy. It must be one: the backends give the variable's own memory to the next step."""
    value = variable.value
    match keras.backend.backend():
        case "tensorflow":
            return np.array(value.numpy())
        case "torch" if "bfloat16" not in str(value.dtype):  # which NumPy lacks: Keras uses ml_dtypes
            return np.array(value.detach().cpu().numpy())
        case _:
            return np.asarray(keras.ops.convert_to_numpy(value))


def _match(group: str, variables: Sequence[Any], saved: State) -> list[tuple[Any, np.ndarray]]:
    """Pair variables with saved arrays: by name where the names say enough, or else by their order."""
    names, arrays = saved["names"], saved["arrays"]
    here = [v.path for v in variables]
    if len(set(here)) == len(here) and set(here) == set(names) and len(names) == len(here):
        by_name = dict(zip(names, arrays, strict=True))
        names, arrays = here, [by_name[name] for name in here]
    for i in range(max(len(here), len(names))):
        ours = _words(here[i], variables[i].shape, variables[i].dtype) if i < len(here) else "nothing more"
        theirs = _words(names[i], arrays[i].shape, arrays[i].dtype) if i < len(names) else "nothing more"
        if _COUNTER.sub("", ours) != _COUNTER.sub("", theirs):
            raise ValueError(
                f"The checkpoint is of another model: at number {i} of its {group} it has {theirs}, and this "
                f"model has {ours}. Build and compile the model as it was, or use another directory."
            )
    return list(zip(variables, arrays, strict=True))


def _words(name: str, shape: Sequence[int], dtype: Any) -> str:
    return f"{name!r}, {dtype} {tuple(shape)}"


def _learning_rates(optimizer: Any) -> Iterator[Any]:
    for one in (optimizer, getattr(optimizer, "inner_optimizer", None)):
        rate = getattr(one, "_learning_rate", None)
        if isinstance(rate, keras.Variable):
            yield rate


def _torch_buffers(model: Any) -> State:
    """What torch modules inside a Keras model keep beside their parameters, such as running means."""
    if keras.backend.backend() != "torch":
        return {}
    return {name: buffer.detach().cpu().numpy().copy() for name, buffer in model.named_buffers()}


def _load_torch_buffers(model: Any, state: State) -> None:
    if keras.backend.backend() != "torch":
        return
    import torch

    buffers = dict(model.named_buffers())
    if set(buffers) != set(state):
        name = sorted(set(buffers) ^ set(state))[0]
        raise ValueError(
            f"The checkpoint is of another model: the torch buffer {name!r} is in one of them alone. "
            "Build the model as it was, or use another directory."
        )
    with torch.no_grad():
        for name, buffer in buffers.items():
            buffer.copy_(torch.from_numpy(np.array(state[name])))


def _tensorflow_generator() -> Any:
    # Looked at in the module: get_global_generator() would make one, and draw its seed.
    module = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    return getattr(module, "global_generator", None)
