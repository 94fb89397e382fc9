"""The states of a model's optimizers: compiled or its own, built or not yet, one inside the other.

A slot (a momentum, an average) is named by the path of the model's variable that it belongs to, whatever Keras called
that variable in this process. An optimizer that isn't built yet when it is restored is built with the variables that it
had.
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
"""Of each optimizer, the learning rate that the script gave it, before anything was trained or restored."""


_left_rates: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
"""Of each optimizer, the learning rate with which the last `fit` ended, where no exception ended it."""


class ScriptOverridden(UserWarning):
    """A value of the script was replaced by the checkpoint's."""


def note_learning_rates(owned: Owned) -> None:
    """Remember what the script says, as long as nothing was trained; each optimizer's first call counts."""
    for path, variables in owned.optimizer_variables().items():
        rate = _rate(variables)
        if rate is not None:
            _script_rates.setdefault(owned.optimizers[path], float(read(rate)))


def leave_learning_rates(owned: Owned) -> None:
    """Remember the rates with which a `fit` ends: what differs when the next one begins, the script has changed."""
    for path, variables in owned.optimizer_variables().items():
        rate = _rate(variables)
        if rate is not None:
            _left_rates[owned.optimizers[path]] = float(read(rate))


def optimizer_states(owned: Owned, copies: Copies) -> dict[str, Any]:
    """The state of each optimizer by its path, copied."""
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
    """Build those optimizers that were built when they were saved, with the variables that they had.

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
    # An outer optimizer builds its inner one: with the same variables, so the order is of no account.
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
    """Pair the variables of all optimizers with what was saved of them; they have been built.

    Raises:
        ValueError: they differ; the sentence names the first variable that does.
    """
    pairs: Pairs = []
    for path, variables in owned.optimizer_variables().items():
        optimizer, state = owned.optimizers[path], states[path]
        here = _by_slot(optimizer, variables, owned)
        values = dict(state["variables"])
        if optimizer.built and not state["built"]:
            # Saved before its first step: its slots are as they are in a new one.
            values = {**_initial(model, optimizer, owned), **values}
        pairs += match(f"its optimizer {path!r}", here, values)
    return pairs


def settle_learning_rates(owned: Owned, states: dict[str, Any], *, accept_changes: bool) -> None:
    """Compare the script's learning rates with those of the checkpoint, which go on, and say where they differ.

    A rate that a schedule or a callback has moved since is no difference: what counts is what the script said when the
    run began, and what it says now.

    Args:
        owned: of the model, before it is restored.
        states: what `optimizer_states` returned; where a changed rate is accepted, it is put in there.
        accept_changes: let the script's rate go on where it was changed.
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
    """Pair the learning rates alone with those that were saved; one that is a schedule has no variable."""
    pairs: Pairs = []
    for path, variables in owned.optimizer_variables().items():
        rate = _rate(variables)
        saved = states.get(path, {}).get("variables", {}).get("learning_rate")
        if rate is not None and saved is not None:
            pairs.append((rate, saved))
    return pairs


def iterations(optimizer: Any) -> int:
    """How many updates an optimizer has made by its own counter."""
    # Not `.iterations`: that one is divided by gradient_accumulation_steps. The last of an optimizer around another one
    # is the inner one's, which alone counts.
    counters = [v for v in optimizer.variables if plain_name(v) == "iteration"]
    return int(read(counters[-1])) if counters else 0


@contextlib.contextmanager
def scope(model: Any) -> Iterator[None]:
    """Where variables of the model are made: on TensorFlow, in the strategy's scope."""
    if keras.backend.backend() == "tensorflow":
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def _script_rate(optimizer: Any, rate: float) -> float:
    """What the script says that the rate is, of an optimizer whose rate is `rate` when a `fit` begins."""
    left = _left_rates.pop(optimizer, None)
    noted = _script_rates.get(optimizer)
    # In this process it was trained before, and schedules and callbacks may have moved the rate.
    return rate if noted is None or (left is not None and left != rate) else noted


def _rate(variables: list[Any]) -> Any:
    return next((v for v in variables if plain_name(v) == "learning_rate"), None)


def _trained_paths(optimizer: Any, owned: Owned) -> list[str]:
    paths = {id(v): path for path, v in owned.variables.items()}
    # A variable that isn't the model's own has no path, and what it is called here must do.
    return [paths.get(id(v), f"{v.path} (not the model's own)") for v in internals.trained_by(optimizer)]


def _by_slot(optimizer: Any, variables: list[Any], owned: Owned) -> dict[str, Any]:
    """An optimizer's variables, each under the path of the variable that it belongs to, and the slot's name.

    Keras names a slot by the trained variable's path of this process and the slot: "dense_16_kernel_momentum".
    """
    owners: dict[str, list[str]] = {}
    for variable, path in zip(internals.trained_by(optimizer), _trained_paths(optimizer, owned), strict=True):
        owners.setdefault(variable.path.replace("/", "_") + "_", []).append(path)
    times: dict[str, int] = {}

    def key(variable: Any) -> str:
        name = str(variable.name).split(":")[0]
        time = times[name] = times.get(name, -1) + 1
        cut = name.rfind("_") + 1
        while cut:  # the longest path that fits
            paths = owners.get(name[:cut])
            if paths is not None:
                # Two variables of one path, in two models of one name: slots are made in the variables' order.
                return f"{paths[min(time, len(paths) - 1)]}/{name[cut:]}"
            cut = name.rfind("_", 0, cut - 1) + 1
        return plain_name(variable)

    return unique((key(v), v) for v in variables)


def _initial(model: Any, optimizer: Any, owned: Owned) -> dict[str, Any]:
    """What an optimizer's variables are right after it was built."""
    with scope(model):
        new = type(optimizer).from_config(optimizer.get_config())
        new.build(internals.trained_by(optimizer))
    alone = Owned(optimizers={"": new})
    for value in vars(new).values():
        if isinstance(value, keras.optimizers.Optimizer):
            alone.optimizers["inner"] = value
    return {name: read(v) for name, v in _by_slot(new, alone.optimizer_variables()[""], owned).items()}
