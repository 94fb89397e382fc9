"""Owned: the state-bearing objects of a Keras model, found by walking its attributes, each under its path.

Keras lists layers, their variables and the optimizer of `compile`. A model may have more: its own optimizers, metrics
in a dict, variables on a helper object, a random generator. All of them decide the next step.

Paths are made as in Keras's `.weights.h5` files: of attribute names, and in lists of class names with a count
("layers/dense_1/kernel"). They do not contain the names that Keras counts over the whole process ("dense_16"), so a
model that was built a second time, or loaded by `keras.models.load_model`, has the same paths.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, TypeAlias

import keras
import numpy as np

# Keras and TensorFlow append the number of objects of this name in the process ("dense_16").
_COUNTER = re.compile(r"_\d+(?=[_/]|$)")

_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# Objects of these packages are not searched: they have no state of the model that Keras does not list, and their
# attributes lead anywhere (a callback to its model, a feed to its threads).
_NOT_SEARCHED = sys.stdlib_module_names | {
    *("absl", "flax", "h5py", "jax", "jaxlib", "keras", "ml_dtypes", "numpy", "optree", "optax", "pandas"),
    *("tensorflow", "torch", "unbounded"),
}

# The depth to which a user's helper objects are searched: a helper, and what it holds.
_DEPTH = 2

_Handler: TypeAlias = Callable[[Any, str, int], None]
"""What the walk does with an object, its path and its depth."""

# Attributes under which PyTorch and TensorFlow keep the same objects again.
_DUPLICATES = frozenset({"_modules", "_torch_params", "_parameters", "_buffers", "_tracker"})


@dataclass
class Owned:
    """The state-bearing objects of one model by path, in the order of the walk.

    Args:
        layers: all layers; the model itself is "".
        variables: weights, running statistics, seeds, and variables on helper objects.
        metrics: metrics, including those of `compile`.
        optimizers: optimizers; the inner one of a `LossScaleOptimizer` is listed too.
        others: PyTorch modules, optimizers and schedulers, and random generators.
    """

    layers: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)

    def optimizer_variables(self) -> dict[str, list[Any]]:
        """The variables of each optimizer, without those of its inner one."""
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
    """Variables by name, without the counters of this process; equal names are numbered in order."""
    return unique((join(prefix, plain_name(v)), v) for v in variables)


def plain_name(thing: Any) -> str:
    """The name of a variable or a metric without the counters of this process."""
    return _COUNTER.sub("", str(thing.name).split(":")[0])


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict: repeated names are numbered, from 1."""
    out: dict[str, Any] = {}
    for name, value in pairs:
        key, count = name, 0
        while key in out:
            count += 1
            key = f"{name}_{count}"
        out[key] = value
    return out


def join(path: str, name: str) -> str:
    """The path of an attribute or item."""
    return f"{path}/{name}" if path else name


class _OwnedWalk:
    def __init__(self) -> None:
        self.found = Owned()
        # By id, with the object itself: a list that a property returns would be freed, and its id reused.
        self._seen: dict[int, Any] = {}
        # Variables that a layer, a metric or an optimizer lists as its own. They get their names there, not from the
        # attribute, whose name differs between versions of Keras.
        self._listed: dict[int, Any] = {}
        self._named: set[int] = set()
        self._last: list[tuple[Any, str, int]] = []
        # By class: a model has hundreds of attributes, of some tens of classes.
        self._handlers: dict[type, _Handler | None] = {}

    def visit(self, value: Any, path: str, depth: int) -> None:
        """Visit an object, and the objects that it holds."""
        handler = self._handler(value)
        if handler is not None and id(value) not in self._seen:
            self._seen[id(value)] = value
            handler(value, path, depth)

    def finish(self) -> None:
        """Visit the objects that had to come last."""
        while self._last:
            self._attributes(*self._last.pop(0))

    def _handler(self, value: Any) -> _Handler | None:
        """What is to be done with an object of this class; None if it holds nothing of interest."""
        kind = type(value)
        if kind in self._handlers:
            return self._handlers[kind]
        handler = self._new_handler(value)
        if value.__class__ is kind:  # a proxy, such as TensorFlow's for a dict, has the class of what it stands for
            self._handlers[kind] = handler
        return handler

    def _new_handler(self, value: Any) -> _Handler | None:
        if value is None or isinstance(value, str | bytes | int | float | np.ndarray | np.generic | type):
            return None
        if isinstance(value, keras.Layer):
            return self._layer
        if isinstance(value, keras.Metric):
            return self._metric
        if isinstance(value, keras.optimizers.Optimizer):
            return self._optimizer
        if is_variable(value):
            return self._variable
        if isinstance(value, keras.random.SeedGenerator):
            return self._seed_generator
        if has_state_dict(value) or is_random(value):
            return self._other
        if isinstance(value, Mapping):
            return self._mapping
        if isinstance(value, list | tuple | set | frozenset):
            return self._container
        return self._object if _is_of_user(value) else None

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
        # The variables of inner layers have their names already.
        own = [v for v in layer.variables if id(v) not in self._named]
        for name, variable in named(own, path).items():
            self._add(self.found.variables, name, variable)
        self._named.update(id(v) for v in own)

    def _metric(self, metric: Any, path: str, depth: int) -> None:
        self._add(self.found.metrics, path, metric)
        self._list(metric.variables)
        if _is_of_user(metric):
            self._attributes(metric, path, depth)

    def _optimizer(self, optimizer: Any, path: str, depth: int) -> None:
        self._add(self.found.optimizers, path, optimizer)
        self._list(optimizer.variables)
        # It refers to the variables that it trains: visit it after their owners, which name them.
        self._last.append((optimizer, path, depth))

    def _variable(self, variable: Any, path: str, depth: int) -> None:
        if id(variable) not in self._listed:
            self._add(self.found.variables, path, variable)

    def _seed_generator(self, generator: Any, path: str, depth: int) -> None:
        self.visit(generator.state, path, depth)

    def _other(self, value: Any, path: str, depth: int) -> None:
        self._add(self.found.others, path, value)

    def _mapping(self, mapping: Any, path: str, depth: int) -> None:
        for key, item in list(mapping.items()):
            if self._handler(item) is not None:
                self.visit(item, join(path, str(key)), depth)

    def _container(self, values: Any, path: str, depth: int) -> None:
        # Layers hold several lists of the same variables.
        if any(id(item) not in self._seen and self._handler(item) is not None for item in values):
            for name, item in _items(values):
                self.visit(item, join(path, name), depth)

    def _object(self, value: Any, path: str, depth: int) -> None:
        if depth < _DEPTH:
            self._attributes(value, path, depth + 1)

    def _attributes(self, value: Any, path: str, depth: int) -> None:
        held = [
            (name.startswith("_"), name, item)
            for name, item in attributes(value).items()
            if self._handler(item) is not None and name not in _DUPLICATES and not name.startswith("_self_")
        ]
        for _, name, item in sorted(held, key=itemgetter(0, 1)):
            self.visit(item, join(path, name), depth)

    def _add(self, group: dict[str, Any], path: str, value: Any) -> None:
        # An attribute may have the name of a layer's own variable.
        group[path if path not in group else f"{path} (attribute)"] = value

    def _list(self, variables: Iterable[Any]) -> None:
        self._listed.update((id(v), v) for v in variables)
        self._named.update(id(v) for v in variables)


def attributes(value: Any) -> dict[str, Any]:
    """An object's attributes by name, including slots and PyTorch's list of modules."""
    held = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                held[name] = getattr(value, name)
    held.update(held.get("_modules") or {})
    return held


def is_variable(value: Any) -> bool:
    """True for a Keras variable, and for a TensorFlow variable on that backend."""
    if isinstance(value, keras.Variable):
        return True
    tensorflow = _loaded("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.Variable)


def has_state_dict(value: Any) -> bool:
    """True for a PyTorch module, optimizer, scheduler or gradient scaler that is not a Keras layer."""
    torch = _loaded("torch")
    return torch is not None and isinstance(
        value, torch.nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler | torch.amp.GradScaler
    )


def is_random(value: Any) -> bool:
    """True for a random generator of Python, NumPy, PyTorch or TensorFlow."""
    if isinstance(value, random.Random | np.random.Generator | np.random.RandomState):
        return not isinstance(value, random.SystemRandom)  # SystemRandom has no state
    torch, tensorflow = _loaded("torch"), _loaded("tensorflow")
    if torch is not None and isinstance(value, torch.Generator):
        return True
    return tensorflow is not None and isinstance(value, tensorflow.random.Generator)


def _loaded(name: str) -> Any:
    """The backend's own package; None for another backend."""
    return sys.modules.get(name) if keras.backend.backend() == name else None


def _items(values: Any) -> Iterator[tuple[str, Any]]:
    """The items of a container: of lists of layers by class and count, as in `.weights.h5`; of others by index."""
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        yield from zip(values._fields, values, strict=True)
        return
    if isinstance(values, set | frozenset):  # sets have no order: sort by name
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
    """True for an instance of a user's class."""
    kind = type(value)
    if kind is SimpleNamespace:
        return True
    return kind.__module__.partition(".")[0] not in _NOT_SEARCHED and not callable(getattr(value, "__get__", None))
