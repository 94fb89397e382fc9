"""What a Keras model owns, found by walking its attributes, each under its path.

Keras itself lists layers, their variables and the one optimizer of `compile`. A model may hold more: optimizers of
its own, metrics in a dict, variables on a helper object, a random generator. All of them decide the next step.

Paths are made as in Keras's `.weights.h5` files: of attributes, and in lists of the class and a count ("layers/dense_1/
kernel"). The names that Keras counts up over the whole process ("dense_16") are not in them, so a model that was built
a second time, or came from `keras.models.load_model`, has the same paths.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

# Keras and TensorFlow append the number of like-named objects that this process has made ("dense_16").
_COUNTER = re.compile(r"_\d+(?=[_/]|$)")

_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# Objects of these packages are not searched: they hold no state of the model that Keras doesn't list, and their
# attributes lead everywhere (a callback to its model, a feed to its threads).
_NOT_SEARCHED = sys.stdlib_module_names | {
    *("absl", "flax", "h5py", "jax", "jaxlib", "keras", "ml_dtypes", "numpy", "optree", "optax", "pandas"),
    *("tensorflow", "torch", "unbounded"),
}

# Helper objects of the user's own are searched so deep: a helper, and what the helper holds.
_DEPTH = 2

# The same objects once more, kept by PyTorch and TensorFlow under other names.
_DUPLICATES = frozenset({"_modules", "_torch_params", "_parameters", "_buffers", "_tracker"})


@dataclass
class Owned:
    """The state-bearing objects of one model, by their paths, in the order of the walk.

    Args:
        layers: all layers, the model itself as "".
        variables: the model's variables: weights, running statistics, seeds, and those on helper objects.
        metrics: metrics, with those that `compile` made.
        optimizers: optimizers, an inner one of a `LossScaleOptimizer` as one of its own.
        others: PyTorch modules, optimizers and schedulers, and random generators.
    """

    layers: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)

    def optimizer_variables(self) -> dict[str, list[Any]]:
        """The own variables of each optimizer: an inner one's are not its outer one's too."""
        claimed: set[int] = set()
        own = {}
        for path, optimizer in sorted(self.optimizers.items(), key=lambda item: len(item[1].variables)):
            own[path] = [v for v in optimizer.variables if id(v) not in claimed]
            claimed.update(id(v) for v in own[path])
        return {path: own[path] for path in self.optimizers}


def find(model: Any) -> Owned:
    """Walk a model's attributes and containers.

    Args:
        model: a `keras.Model`, built or not, compiled or not.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
        >>> list(find(model).variables)
        ['layers/dense/kernel', 'layers/dense/bias', 'layers/dense_1/kernel', 'layers/dense_1/bias']
    """
    walk = _OwnedWalk()
    walk.visit(model, "", 0)
    walk.finish()
    return walk.found


def named(variables: Iterable[Any], prefix: str = "") -> dict[str, Any]:
    """Variables by their own names, without the counters of this process, and told apart by their order."""
    return unique((join(prefix, plain_name(v)), v) for v in variables)


def plain_name(thing: Any) -> str:
    """The name of a variable or a metric, as it would be in a process that made nothing before."""
    return _COUNTER.sub("", str(thing.name).split(":")[0])


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict: a name that comes again is counted, from 1."""
    out: dict[str, Any] = {}
    for name, value in pairs:
        key, count = name, 0
        while key in out:
            count += 1
            key = f"{name}_{count}"
        out[key] = value
    return out


def join(path: str, name: str) -> str:
    """A path one step deeper."""
    return f"{path}/{name}" if path else name


class _OwnedWalk:
    def __init__(self) -> None:
        self.found = Owned()
        # Objects themselves, by id: a list that a property made is gone after its visit, and its id given again.
        self._seen: dict[int, Any] = {}
        # Variables that a layer, a metric or an optimizer lists as its own. They are named there, and not by the
        # attribute that holds them, which differs between versions of Keras.
        self._listed: dict[int, Any] = {}
        self._named: set[int] = set()
        self._last: list[tuple[Any, str, int]] = []

    def visit(self, value: Any, path: str, depth: int) -> None:
        """Look at one object, and at what it holds."""
        if value is None or isinstance(value, str | bytes | int | float | np.ndarray | np.generic | type):
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        found = self.found
        if isinstance(value, keras.Layer):
            self._layer(value, path, depth)
        elif isinstance(value, keras.Metric):
            self._add(found.metrics, path, value)
            self._list(value.variables)
            if _is_of_user(value):
                self._attributes(value, path, depth)
        elif isinstance(value, keras.optimizers.Optimizer):
            self._add(found.optimizers, path, value)
            self._list(value.variables)
            # It refers to the variables that it trains, and they are to be found where they belong first.
            self._last.append((value, path, depth))
        elif is_variable(value):
            if id(value) not in self._listed:
                self._add(found.variables, path, value)
        elif isinstance(value, keras.random.SeedGenerator):
            self.visit(value.state, path, depth)
        elif has_state_dict(value) or is_random(value):
            self._add(found.others, path, value)
        elif isinstance(value, Mapping):
            for key, item in list(value.items()):
                self.visit(item, join(path, str(key)), depth)
        elif isinstance(value, list | tuple | set | frozenset):
            for name, item in _items(value):
                self.visit(item, join(path, name), depth)
        elif depth < _DEPTH and _is_of_user(value):
            self._attributes(value, path, depth + 1)

    def finish(self) -> None:
        """Look at what had to come last."""
        while self._last:
            self._attributes(*self._last.pop(0))

    def _layer(self, layer: Any, path: str, depth: int) -> None:
        self.found.layers[path] = layer
        self._listed.update((id(v), v) for v in layer.variables)
        if isinstance(layer, keras.Sequential) or hasattr(layer, "operations"):  # Sequential, Functional
            self.visit(layer.layers, join(path, "layers"), depth)
        if isinstance(layer, keras.Model):
            self.visit(getattr(layer, "optimizer", None), join(path, "optimizer"), depth)
            for name, metric in unique((plain_name(metric), metric) for metric in layer.metrics).items():
                self.visit(metric, f"{join(path, 'metrics')}/{name}", depth)
        self._attributes(layer, path, depth)
        # Those of the layers inside have their names by now.
        own = [v for v in layer.variables if id(v) not in self._named]
        for name, variable in named(own, path).items():
            self._add(self.found.variables, name, variable)
        self._named.update(id(v) for v in own)

    def _attributes(self, value: Any, path: str, depth: int) -> None:
        for name, item in sorted(attributes(value).items(), key=lambda pair: (pair[0].startswith("_"), pair[0])):
            if name not in _DUPLICATES and not name.startswith("_self_"):
                self.visit(item, join(path, name), depth)

    def _add(self, group: dict[str, Any], path: str, value: Any) -> None:
        # An attribute may have the name that a layer's own variable has.
        group[path if path not in group else f"{path} (attribute)"] = value

    def _list(self, variables: Iterable[Any]) -> None:
        self._listed.update((id(v), v) for v in variables)
        self._named.update(id(v) for v in variables)


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds by name: its own attributes, those in slots, and PyTorch's list of modules inside."""
    held = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                held[name] = getattr(value, name)
    held.update(held.get("_modules") or {})
    return held


def is_variable(value: Any) -> bool:
    """Whether it is a variable of Keras, or of TensorFlow where that is the backend."""
    if isinstance(value, keras.Variable):
        return True
    tensorflow = _loaded("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.Variable)


def has_state_dict(value: Any) -> bool:
    """Whether it is a module, an optimizer, a scheduler or a gradient scaler of PyTorch, and no layer of Keras."""
    torch = _loaded("torch")
    return torch is not None and isinstance(
        value, torch.nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler | torch.amp.GradScaler
    )


def is_random(value: Any) -> bool:
    """Whether it is a random generator of Python, NumPy, PyTorch or TensorFlow."""
    if isinstance(value, random.Random | np.random.Generator | np.random.RandomState):
        return not isinstance(value, random.SystemRandom)  # which has no state
    torch, tensorflow = _loaded("torch"), _loaded("tensorflow")
    if torch is not None and isinstance(value, torch.Generator):
        return True
    return tensorflow is not None and isinstance(value, tensorflow.random.Generator)


def _loaded(name: str) -> Any:
    """The backend's own package; None where another backend is at work."""
    return sys.modules.get(name) if keras.backend.backend() == name else None


def _items(values: Any) -> Iterator[tuple[str, Any]]:
    """The items of a list by their class and a count, as in `.weights.h5`; plain ones and containers by their place."""
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        yield from zip(values._fields, values, strict=True)
        return
    if isinstance(values, set | frozenset):  # without an order of their own: by name, as they were made
        values = sorted(values, key=lambda v: (len(str(getattr(v, "name", ""))), str(getattr(v, "name", ""))))
    counts: dict[str, int] = {}
    for place, value in enumerate(values):
        if is_variable(value):
            name = plain_name(value)
        elif isinstance(value, keras.Layer | keras.Metric | keras.optimizers.Optimizer):
            name = _SNAKE.sub("_", type(value).__name__).lower()
        else:
            yield str(place), value
            continue
        count = counts[name] = counts.get(name, -1) + 1
        yield (f"{name}_{count}" if count else name), value


def _is_of_user(value: Any) -> bool:
    """Whether it is an object of a class of the user's own."""
    kind = type(value)
    if kind is SimpleNamespace:
        return True
    return kind.__module__.partition(".")[0] not in _NOT_SEARCHED and not callable(getattr(value, "__get__", None))
