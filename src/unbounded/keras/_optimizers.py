"""The states of a model's optimizers: compiled or the model's own, built or not, wrapped or not.

A slot variable (a momentum, an average) is saved under the path of the model's variable that it belongs to, since its
Keras name depends on the process. An optimizer that is not built yet when it is restored is built with the variables
that it had.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import keras

from unbounded.core.copies import Copies
from unbounded.core.warn import warn
from unbounded.keras import internals
from unbounded.keras._owned import Owned, plain_name, unique
from unbounded.keras._variables import Pairs, match, read

_script_rates: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
"""For each optimizer, the learning rate that the script gave it, before training and restoring."""


_left_rates: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
"""For each optimizer, the learning rate at the end of the last `fit`, unless an exception ended that."""


class ScriptOverridden(UserWarning):
    """A warning: a value that the script sets was replaced by the checkpoint's."""


def note_learning_rates(owned: Owned) -> None:
    """Record the script's learning rates, until training begins; the first call for each optimizer counts."""
    for path, variables in owned.optimizer_variables().items():
        rate = _rate(variables)
        if rate is not None:
            _script_rates.setdefault(owned.optimizers[path], float(read(rate)))


def leave_learning_rates(owned: Owned) -> None:
    """Record the rates at the end of a `fit`: rates that differ at the next one were set by the script."""
    for path, variables in owned.optimizer_variables().items():
        rate = _rate(variables)
        if rate is not None:
            _left_rates[owned.optimizers[path]] = float(read(rate))


def optimizer_states(owned: Owned, copies: Copies) -> dict[str, Any]:
    """A copy of each optimizer's state, by path."""
    note_learning_rates(owned)
    return {
        path: {
            "class": type(owned.optimizers[path]).__name__,
            "built": bool(owned.optimizers[path].built),
            "trains": _trained_paths(owned.optimizers[path], owned),
            "script_rate": _script_rates.get(owned.optimizers[path]),
            "variables": {
                name: read(v, copies) for name, v in _by_slot(owned.optimizers[path], variables, owned).items()
            },
        }
        for path, variables in owned.optimizer_variables().items()
    }


def build_optimizers(model: Any, owned: Owned, states: dict[str, Any]) -> None:
    """Build the optimizers that were built when they were saved, with the variables that they had.

    Raises:
        ValueError: the model has other optimizers, or lacks one of those variables.
    """
    for path in [*states, *(path for path in owned.optimizers if path not in states)]:
        saved = states[path]["class"] if path in states else "none"
        here = type(owned.optimizers[path]).__name__ if path in owned.optimizers else "none"
        if saved != here:
            raise ValueError(
                f"The checkpoint is of another model: its optimizer at {path!r} is {saved}, and this model's is "
                f"{here}. Build and compile the model as it was, or use another directory."
            )
    # An outer optimizer builds its inner one with the same variables, so the order does not matter.
    for path, state in states.items():
        optimizer = owned.optimizers[path]
        if not state["built"] or optimizer.built:
            continue
        missing = next((trained for trained in state["trains"] if trained not in owned.variables), None)
        if missing is not None:
            raise ValueError(
                f"The optimizer at {path!r} can't be built: in the checkpoint it trains {missing!r}, and this model "
                "has no such variable. Build the model as it was, or use another directory."
            )
        with scope(model):
            optimizer.build([owned.variables[trained] for trained in state["trains"]])


def match_optimizers(model: Any, owned: Owned, states: dict[str, Any]) -> Pairs:
    """Pair the variables of all optimizers, which must be built, with the saved arrays.

    Raises:
        ValueError: they differ; the message names the first variable that does.
    """
    pairs: Pairs = []
    for path, variables in owned.optimizer_variables().items():
        optimizer, state = owned.optimizers[path], states[path]
        here = _by_slot(optimizer, variables, owned)
        values = dict(state["variables"])
        if optimizer.built and not state["built"]:
            # Saved before its first step: its slots have their initial values.
            values = {**_initial(model, optimizer, owned), **values}
        pairs += match(f"its optimizer {path!r}", here, values)
    return pairs


def settle_learning_rates(owned: Owned, states: dict[str, Any], *, accept_changes: bool) -> None:
    """Compare the script's learning rates with the checkpoint's, which are used, and warn if they differ.

    The script's rate when the run began is compared with the script's rate now: a rate that a schedule or a callback
    has changed in between is no difference.

    Args:
        owned: of the model, before it is restored.
        states: a result of `optimizer_states`; an accepted rate is put into it.
        accept_changes: True to use the script's rate if it was changed.
    """
    for path, variables in owned.optimizer_variables().items():
        state, rate = states[path], _rate(variables)
        if rate is None or "learning_rate" not in state["variables"]:
            continue
        array, then = state["variables"]["learning_rate"], state["script_rate"]
        now, saved = _script_rate(owned.optimizers[path], float(read(rate))), float(array)
        changed = then is not None and now not in (then, saved)
        if changed and accept_changes:
            state["variables"]["learning_rate"] = read(rate)
            then = now
        elif changed:
            warn(
                f"The script's learning rate was changed from {then:g} to {now:g}, and the checkpoint's goes on, which "
                f"is {saved:g}. To change it, resume with Checkpoint(…, accept_changes=True), or from the next epoch "
                f"on with the callback keras.callbacks.LearningRateScheduler(lambda epoch, rate: {now:g}).",
                ScriptOverridden,
            )
        if then is not None:
            _script_rates[owned.optimizers[path]] = then


def learning_rates(owned: Owned, states: dict[str, Any]) -> Pairs:
    """Pair the learning rates with the saved ones; a rate that is a schedule has no variable."""
    pairs: Pairs = []
    for path, variables in owned.optimizer_variables().items():
        rate = _rate(variables)
        saved = states.get(path, {}).get("variables", {}).get("learning_rate")
        if rate is not None and saved is not None:
            pairs.append((rate, saved))
    return pairs


def iterations(optimizer: Any) -> int:
    """The number of an optimizer's updates by its own counter."""
    # Not `.iterations`, which is divided by gradient_accumulation_steps. For an optimizer around another one, the last
    # counter is the inner one's, which is the only one that counts.
    counters = [v for v in optimizer.variables if plain_name(v) == "iteration"]
    return int(read(counters[-1])) if counters else 0


@contextlib.contextmanager
def scope(model: Any) -> Iterator[None]:
    """The scope in which the model's variables are made: on TensorFlow, that of its strategy."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def _script_rate(optimizer: Any, rate: float) -> float:
    """The script's learning rate, of an optimizer whose rate is `rate` when a `fit` begins."""
    left = _left_rates.pop(optimizer, None)
    noted = _script_rates.get(optimizer)
    # It was trained in this process before, and schedules and callbacks may have changed the rate.
    return rate if noted is None or (left is not None and left != rate) else noted


def _rate(variables: list[Any]) -> Any:
    return next((v for v in variables if plain_name(v) == "learning_rate"), None)


def _trained_paths(optimizer: Any, owned: Owned) -> list[str]:
    paths = {id(v): path for path, v in owned.variables.items()}
    # A variable that does not belong to the model has no path: use its Keras name.
    return [paths.get(id(v), f"{v.path} (not the model's own)") for v in internals.trained_by(optimizer)]


def _by_slot(optimizer: Any, variables: list[Any], owned: Owned) -> dict[str, Any]:
    """An optimizer's variables, each under the path of the variable that it belongs to and the name of the slot.

    Keras's name of a slot is made of the variable's path in this process and the slot: "dense_16_kernel_momentum".
    """
    owners: dict[str, list[str]] = {}
    for variable, path in zip(internals.trained_by(optimizer), _trained_paths(optimizer, owned), strict=True):
        owners.setdefault(variable.path.replace("/", "_") + "_", []).append(path)
    times: dict[str, int] = {}

    def key(variable: Any) -> str:
        name = str(variable.name).split(":")[0]
        time = times[name] = times.get(name, -1) + 1
        cut = name.rfind("_") + 1
        while cut:  # the longest path that matches
            paths = owners.get(name[:cut])
            if paths is not None:
                # Two variables with one path, in two models of one name: slots are in the order of the variables.
                return f"{paths[min(time, len(paths) - 1)]}/{name[cut:]}"
            cut = name.rfind("_", 0, cut - 1) + 1
        return plain_name(variable)

    return unique((key(v), v) for v in variables)


def _initial(model: Any, optimizer: Any, owned: Owned) -> dict[str, Any]:
    """The initial values of an optimizer's variables."""
    with scope(model):
        new = type(optimizer).from_config(optimizer.get_config())
        new.build(internals.trained_by(optimizer))
    alone = Owned(optimizers={"": new})
    for value in vars(new).values():
        if isinstance(value, keras.optimizers.Optimizer):
            alone.optimizers["inner"] = value
    return {name: read(v) for name, v in _by_slot(new, alone.optimizer_variables()[""], owned).items()}
