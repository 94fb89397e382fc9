"""A Keras model that records, in variables of its own, which rows it was trained on and in what order.

What a test learns from these variables is what reached the weights: nothing between the source and the
update can make it look better. The backend is KERAS_BACKEND's; JAX where it is not set.
"""

from __future__ import annotations

import functools
import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

from unbounded.keras._model import build, model_state, restore_model

BACKEND = keras.backend.backend()

# In plain `fit` Keras calls np.array on what doesn't take NumPy 2's `copy` (torch tensors, tf.Variable).
KERAS_NOISE = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


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
    columns = kwargs.get("columns", 3)
    model, state = _ready(columns, tuple(sorted(kwargs.items())))
    restore_model(model, state)
    model.stop_training = False
    model._initial_epoch = None
    return model


@functools.cache
def _ready(columns: int, kwargs: tuple[tuple[str, Any], ...]) -> tuple[keras.Model, Any]:
    model = recording_model(**dict(kwargs))
    build(model, rows(1, columns))
    return model, model_state(model)


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
