"""The state of a Keras model: all that decides its next step, as arrays and plain data.

It has all that the model owns (`_owned.py`): variables (including seed generators, which `.weights.h5` omits), metrics,
optimizers, PyTorch's buffers and random generators; and the random states of the process. Callbacks are in
`_callbacks.py`, the directory is in `unbounded.store.checkpoints`, and the position in the feed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import keras

from unbounded.core.copies import Copies
from unbounded.core.warn import warn
from unbounded.keras import _optimizers, _others, _owned, _unfound, internals
from unbounded.keras._owned import Owned
from unbounded.keras._random import random_state, restore_random
from unbounded.keras._variables import Pairs, match, read, start_copying

__all__ = [
    "FOR_INFERENCE",
    "StateNotFound",
    "begin",
    "build",
    "end",
    "iterations",
    "metrics_state",
    "model_state",
    "random_state",
    "restore_learning_rate",
    "restore_metrics",
    "restore_model",
    "restore_random",
    "restore_variables",
    "trainable",
]

State = dict[str, Any]

FOR_INFERENCE = ("layers", "variables", "others")
"""The parts of a state that `restore_variables` needs."""

StateNotFound = _unfound.StateNotFound


def begin(model: Any) -> None:
    """A run begins with this model: record the script's learning rates, to compare with those of a checkpoint."""
    _optimizers.note_learning_rates(_owned.find(model))


def end(model: Any) -> None:
    """A `fit` of this model has ended without an error: learning rates that differ at the next one were set by the
    script."""
    _optimizers.leave_learning_rates(_owned.find(model))


def model_state(model: Any, *, steps: int | None = None, copies: Copies | None = None) -> State:
    """All that decides the model's next step, as it is now: later steps do not change the result.

    Args:
        model: a `keras.Model`, during `fit` or not.
        steps: the steps that it was trained for, to detect optimizers that were not found; None skips that.
        copies: makes the copies, in memory of earlier ones; None for copies in new memory.

    Returns:
        A tree of dicts and lists: NumPy arrays with the variables' shapes and dtypes, by path, and plain data.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> state = model_state(model)
        >>> sorted(state)
        ['layers', 'metrics', 'optimizers', 'others', 'random', 'variables']
        >>> list(state["variables"])
        ['layers/dense/kernel', 'layers/dense/bias']
    """
    copies = Copies() if copies is None else copies
    _gather(model)
    owned = _owned.find(model)
    _unfound.warn_once(model, owned, steps)
    others = [*owned.optimizer_variables().values(), *(metric.variables for metric in owned.metrics.values())]
    start_copying([*owned.variables.values(), *itertools.chain.from_iterable(others)])
    return {
        "layers": _build_configs(owned),
        "variables": {path: read(v, copies) for path, v in owned.variables.items()},
        "metrics": _metrics(owned),
        "optimizers": _optimizers.optimizer_states(owned, copies),
        "others": _others.states(owned, copies),
        "random": random_state(),
    }


def restore_model(model: Any, state: State, *, accept_changes: bool = False) -> None:
    """Restore a result of `model_state` exactly, or change nothing; layers and optimizers are built if necessary.

    Args:
        model: a model of the same architecture, optimizers and metrics.
        state: a result of `model_state`.
        accept_changes: True to keep a learning rate that the script has changed, and put it into `state`.

    Raises:
        ValueError: the model differs; the message names the first variable that does.

    Warns:
        ScriptOverridden: the script's learning rate was changed; the checkpoint's is used.
    """
    _gather(model)
    owned = _build_layers(model, state)
    pairs = match("its variables", owned.variables, state["variables"])
    _optimizers.build_optimizers(model, owned, state["optimizers"])
    owned = _owned.find(model)
    _others.check(owned, state["others"])
    pairs += _match_metrics(owned, state)
    _optimizers.match_optimizers(model, owned, state["optimizers"])
    _optimizers.settle_learning_rates(owned, state["optimizers"], accept_changes=accept_changes)
    pairs += _optimizers.match_optimizers(model, owned, state["optimizers"])
    _assign(pairs)
    _others.restore(owned, state["others"])
    restore_random(state["random"])


def restore_variables(model: Any, state: State) -> None:
    """Restore only the model's variables and buffers, compiled or not, for inference.

    Raises:
        ValueError: the model differs; the message names the first variable that does.
    """
    _gather(model)
    owned = _build_layers(model, state)
    saved = dict(state["variables"])
    for path, variable in owned.variables.items():
        # Backends use different integer dtypes for seeds.
        if path in saved and _is_integer(variable.dtype) and _is_integer(saved[path].dtype):
            saved[path] = saved[path].astype(getattr(variable.dtype, "name", variable.dtype))
    buffers = _others.of_modules(state["others"])
    _others.check(owned, buffers, alone=True)
    _assign(match("its variables", owned.variables, saved))
    _others.restore(owned, buffers)


def metrics_state(model: Any) -> State:
    """The state of the metrics only: validation resets them, and shares them with training."""
    _gather(model)
    return _metrics(_owned.find(model))


def restore_metrics(model: Any, state: State) -> None:
    """Restore only the metrics: Keras resets them at the beginning of every epoch, even of a resumed one."""
    _assign(_match_metrics(_owned.find(model), state))


def restore_learning_rate(model: Any, state: State) -> None:
    """Restore only the learning rates: a relative schedule must not be applied twice in one epoch."""
    _assign(_optimizers.learning_rates(_owned.find(model), state["optimizers"]))


def trainable(model: Any, state: State) -> dict[str, Any]:
    """The trainable weights of a state, by path.

    Args:
        model: the model of the state.
        state: a result of `model_state`.
    """
    variables = _owned.find(model).variables
    return {path: array for path, array in state["variables"].items() if variables[path].trainable}


def build(model: Any, batch: Any) -> None:
    """Make the variables that Keras would make in the first step, so that they can be restored.

    Args:
        model: a compiled model.
        batch: one batch, as `fit` takes it; only its structure, shapes and dtypes are used.
    """
    if not _has_call(model):
        return  # a model that only trains its parts: they are built by its first step or by a restore
    with _optimizers.scope(model):
        internals.build(model, batch)


def counts_updates(model: Any) -> bool:
    """True if the compiled optimizer makes one update for each step, so that `iterations`, once built, counts steps."""
    return getattr(model, "optimizer", None) is not None and not _unfound.has_own_train_step(model)


def iterations(model: Any) -> int | None:
    """The number of updates by the compiled optimizer's own counter.

    None if that does not count steps: there is no optimizer, or the model has its own `train_step`, which may use it
    several times in a step, or not at all.
    """
    if not counts_updates(model) or not model.optimizer.built:
        return None
    _gather(model)
    return _optimizers.iterations(model.optimizer)


def _gather(model: Any) -> None:
    # On JAX the variables are in the training loop during `fit`, and the model's are empty.
    internals.reattach(model)


def _assign(pairs: Pairs) -> None:
    for variable, value in pairs:
        variable.assign(value)


def _is_integer(dtype: Any) -> bool:
    return "int" in str(getattr(dtype, "name", dtype))


def _has_call(model: Any) -> bool:
    """True if the model can be called: Sequential and functional models, and those with a `call`."""
    return (
        isinstance(model, keras.Sequential) or hasattr(model, "operations") or type(model).call is not keras.Model.call
    )


def _build_configs(owned: Owned) -> dict[str, Any]:
    """The build config of each layer, so that it can be built without a batch."""
    configs = {}
    for path, layer in owned.layers.items():
        config = layer.get_build_config() if layer.built else None
        if config and any(value is not None for value in config.values()):
            configs[path] = config
    return configs


def _build_layers(model: Any, state: State) -> Owned:
    """Build the layers that are not built, from the outside in, with their saved build configs."""
    owned = _owned.find(model)
    with _optimizers.scope(model):
        for path, config in state["layers"].items():
            layer = owned.layers.get(path)
            if layer is None or layer.built or (layer is model and not _has_call(model)):
                continue
            layer.build_from_config(config)
            owned = _owned.find(model)
    return owned


def _metrics(owned: Owned) -> dict[str, dict[str, Any]]:
    return {
        path: {name: read(v) for name, v in _owned.named(metric.variables).items()}
        for path, metric in owned.metrics.items()
    }


def _match_metrics(owned: Owned, state: State) -> Pairs:
    pairs: Pairs = []
    saved: Mapping[str, Any] = state["metrics"]
    for path in [*owned.metrics, *(path for path in saved if path not in owned.metrics)]:
        here = _owned.named(owned.metrics[path].variables) if path in owned.metrics else {}
        there = saved.get(path, {})
        if path in owned.metrics and path in saved and not there:
            continue  # saved before its first step made variables: they are reset at the epoch's beginning
        if there and path in owned.metrics and not here:
            warn(
                f"The metric {path!r} has no variables yet, so it begins anew in the middle of this epoch; the weights "
                "are not affected.",
                StateNotFound,
            )
            continue
        pairs += match(f"its metric {path!r}", here, there)
    return pairs
