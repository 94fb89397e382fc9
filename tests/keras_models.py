"""A Keras model that records, in variables of its own, which rows it was trained on and in what order.

What a test learns from these variables is what reached the weights: nothing between the source and the
update can make it look better. The backend is KERAS_BACKEND's; JAX where it is not set.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from keras import ops

from unbounded.keras._model_state import build
from unbounded.keras._random import random_state, restore_random

BACKEND = keras.backend.backend()

if BACKEND != "tensorflow":
    # Keras imports it in the first `fit` wherever it is installed, which takes longer than a file of tests.
    sys.path.insert(0, str(Path(__file__).parent / "no_tensorflow"))

# In plain `fit` Keras calls np.array on what doesn't take NumPy 2's `copy` (torch tensors, tf.Variable).
KERAS_NOISE = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def any_backend(*values: Any) -> list[Any]:
    """Values of a parametrized test that is alike for them on any backend, and runs on one."""
    return [pytest.param(value, marks=pytest.mark.any_backend) for value in values]


class Recorder(keras.layers.Layer):
    """Takes rows whose first column is the row's id, and passes them on.

    Args:
        ids: how many ids there are; ids are 0 … ids − 1.
        length: how many rows can be recorded, over the whole run.
        when: True records rows that are trained on, False those that are evaluated or predicted.
    """

    def __init__(self, ids: int, length: int, *, when: bool = True, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.when = when
        self.counts = self.add_weight(shape=(ids,), dtype="int32", initializer="zeros", trainable=False, name="counts")
        self.order = self.add_weight(
            shape=(length,),
            dtype="int32",
            initializer=keras.initializers.Constant(-1),
            trainable=False,
            name="order",
        )
        self.seen = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="seen")
        self.ids = ids

    def build(self, input_shape: object) -> None:
        self.built = True

    def call(self, x: object, training: bool = False) -> object:
        if bool(training) is self.when:
            ids = ops.cast(x[:, 0], "int32")
            self.counts.assign(self.counts + ops.sum(ops.one_hot(ids, self.ids, dtype="int32"), axis=0))
            places = self.seen + ops.arange(ops.shape(ids)[0], dtype="int32")
            self.order.assign(ops.scatter_update(self.order, ops.expand_dims(places, 1), ids))
            self.seen.assign(self.seen + ops.shape(ids)[0])
        return x


def recorder(model: keras.Model, *, when: bool = True) -> Recorder:
    """The model's recorder."""
    return next(layer for layer in model.layers if isinstance(layer, Recorder) and layer.when is when)


def trained_ids(model: keras.Model) -> list[int]:
    """The ids that this model was trained on, in order."""
    return _order(recorder(model))


def evaluated_ids(model: keras.Model) -> list[int]:
    """The ids that this model has evaluated or predicted, in order; it was made with `records_rounds`."""
    return _order(recorder(model, when=False))


def _order(layer: Recorder) -> list[int]:
    return _read(layer.order)[: int(_read(layer.seen))].tolist()


def trained_counts(model: keras.Model) -> list[int]:
    """How often each id was trained on."""
    return _read(recorder(model).counts).tolist()


def recording_model(
    *,
    ids: int = 64,
    length: int = 4096,
    columns: int = 3,
    dropout: float = 0.0,
    built: bool = False,
    seed: int | None = 0,
    steps_per_execution: int = 1,
    metrics: tuple[str, ...] = ("mae",),
    records_rounds: bool = False,
) -> keras.Model:
    """A compiled model on rows of `columns` float32, the first of them the id; the target is (n, 1) float32.

    The ids don't reach the Dense layer at their own size, so that large ids don't blow up the weights.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    layers: list[keras.layers.Layer] = [keras.Input((columns,))] if built else []
    layers += [
        Recorder(ids, length),
        keras.layers.Rescaling(1.0 / ids),
        keras.layers.Dense(4, activation="tanh"),
    ]
    if records_rounds:
        layers.insert(1, Recorder(ids, length, when=False))
    if dropout:
        layers.append(keras.layers.Dropout(dropout))
    layers.append(keras.layers.Dense(1))
    model = keras.Sequential(layers)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss="mse",
        metrics=list(metrics),
        steps_per_execution=steps_per_execution,
    )
    return model


def ready_model(**kwargs: Any) -> keras.Model:
    """A `recording_model`, built and as new; one is used again and again, since compiling it takes a second."""
    model, values, random = _ready(kwargs.get("columns", 3), tuple(sorted(kwargs.items())))
    for variable, value in values:
        variable.assign(value)
    restore_random(random)
    model.stop_training = False
    model._initial_epoch = None
    return model


@functools.cache
def _ready(columns: int, kwargs: tuple[tuple[str, Any], ...]) -> tuple[keras.Model, list[Any], Any]:
    model = recording_model(**dict(kwargs))
    build(model, rows(1, columns))
    return model, [(v, _read(v)) for v in [*model.variables, *model.optimizer.variables]], random_state()


def rows(n: int, columns: int = 3, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n rows with the ids start … start + n − 1, and their targets: the same values for the same id."""
    ids = np.arange(start, start + n)
    x = np.stack([ids.astype(np.float32)] + [np.sin(ids * (c + 1.0)).astype(np.float32) for c in range(columns - 1)], 1)
    return x, np.cos(ids * 0.7).astype(np.float32)[:, None]


def weights(model: keras.Model) -> list[np.ndarray]:
    """All variables of the model and its optimizer, as arrays."""
    return [_read(v) for v in [*model.variables, *model.optimizer.variables]]


def _read(variable: keras.Variable) -> np.ndarray:
    value = variable.value
    if BACKEND == "torch":
        value = value.detach().cpu()
    return np.array(value) if BACKEND == "jax" else value.numpy().copy()


class Gan(keras.Model):
    """Three networks and four optimizers: `compile`'s, one of its own, one in a dict, and one on a helper object.

    Args:
        lazy: build its own optimizers in the first step, and not at once.
        seed: of the weights.
    """

    def __init__(self, *, lazy: bool = False, seed: int = 0) -> None:
        super().__init__()
        keras.utils.set_random_seed(seed)
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        self.critic = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
        self.encoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        self.opts = {"critics": [keras.optimizers.Adam(0.05)]}
        self.helper = Helper()
        self.g_opt = keras.optimizers.SGD(0.05, momentum=0.9)
        self.scale = keras.Variable(1.0, trainable=False, name="scale")
        self.built = True
        self.own = [
            (self.opts["critics"][0], self.critic),
            (self.g_opt, self.generator),
            (self.helper.opt, self.critic),
        ]
        if not lazy:
            for optimizer, part in self.own:
                optimizer.build(part.trainable_variables)

    def losses(self, x: Any) -> Iterator[tuple[keras.optimizers.Optimizer, keras.Sequential, Callable[[], Any]]]:
        """What trains what, and by which loss."""
        yield self.own[0][0], self.critic, lambda: ops.mean((self.critic(x) - 1) ** 2)
        yield self.own[2][0], self.critic, lambda: ops.mean(self.critic(self.generator(x)) ** 2)
        yield self.own[1][0], self.generator, lambda: ops.mean((self.critic(self.generator(x)) - 1) ** 2)
        yield self.optimizer, self.encoder, lambda: ops.mean((self.encoder(x) - x) ** 2)

    def train_step(self, *given: Any) -> Any:
        for optimizer, part in self.own:
            if not optimizer.built:
                optimizer.build(part.trainable_variables)
        return self._jax_step(*given) if BACKEND == "jax" else self._step(*given)

    def _step(self, data: Any) -> Any:
        x, total = data[0], 0.0
        for optimizer, part, loss in self.losses(x):
            variables = part.trainable_variables
            if BACKEND == "torch":
                import torch

                self.zero_grad()
                value = loss()
                value.backward()
                with torch.no_grad():
                    optimizer.apply([v.value.grad for v in variables], variables)
            else:
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    value = loss()
                optimizer.apply(tape.gradient(value, variables), variables)
            total += float(keras.ops.convert_to_numpy(value))
        self.scale.assign(self.scale * 1.1)
        self.helper.steps.assign(self.helper.steps + 1)
        return {"loss": total}

    def _jax_step(self, state: Any, data: Any) -> Any:
        import jax

        trainable, other, optimizer_state, metrics = state
        x, total = data[0], 0.0
        values = dict(zip([id(v) for v in self.trainable_variables], trainable, strict=True))
        for optimizer, part, loss in self.losses(x):
            variables = part.trainable_variables

            def value_of(of_part: Any, part: Any = part, loss: Any = loss) -> Any:
                now = {**values, **dict(zip([id(v) for v in part.trainable_variables], of_part, strict=True))}
                mapping = [(v, now[id(v)]) for v in self.trainable_variables]
                with keras.StatelessScope(state_mapping=mapping):
                    return loss()

            old = [values[id(v)] for v in variables]
            value, gradients = jax.value_and_grad(value_of)(old)
            mine = optimizer is not self.optimizer
            slots = [v.value for v in optimizer.variables] if mine else optimizer_state
            new, slots = optimizer.stateless_apply(slots, gradients, old)
            if mine:
                for variable, slot in zip(optimizer.variables, slots, strict=True):
                    variable.assign(slot)
            else:
                optimizer_state = slots
            values.update(zip([id(v) for v in variables], new, strict=True))
            total += float(keras.ops.convert_to_numpy(value))
        self.helper.steps.assign(self.helper.steps + 1)
        other = [
            value * 1.1 if variable is self.scale else value
            for variable, value in zip(self.non_trainable_variables, other, strict=True)
        ]
        return {"loss": total}, ([values[id(v)] for v in self.trainable_variables], other, optimizer_state, metrics)


class Helper:
    """Holds an optimizer and a variable that Keras doesn't know of."""

    def __init__(self) -> None:
        self.opt = keras.optimizers.RMSprop(0.02)
        self.steps = keras.Variable(0, trainable=False, dtype="int32")


def gan(*, lazy: bool = False, seed: int = 0) -> Gan:
    """A compiled `Gan`; its compiled optimizer trains the encoder."""
    model = Gan(lazy=lazy, seed=seed)
    model.compile(optimizer=keras.optimizers.Adam(0.03), run_eagerly=True)
    model.optimizer.build(model.encoder.trainable_variables)
    return model


def gan_state(model: Gan) -> list[np.ndarray]:
    """All that decides a `Gan`'s next step, read without the code that is tested."""
    own = [v for optimizer, _ in model.own for v in optimizer.variables]
    return [_read(v) for v in [*model.variables, *model.optimizer.variables, *own, model.helper.steps]]
