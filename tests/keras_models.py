"""A Keras model that records, in variables of its own, which rows it was trained on and in what order.

What a test learns from these variables is what reached the weights: nothing between the source and the
update can make it look better. The backend is KERAS_BACKEND's; JAX where it is not set.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()

# In plain `fit` Keras calls np.array on what doesn't take NumPy 2's `copy` (torch tensors, tf.Variable).
KERAS_NOISE = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


class Recorder(keras.layers.Layer):
    """Takes rows whose first column is the row's id, and passes them on.

    Args:
        ids: how many ids there are; ids are 0 … ids − 1.
        length: how many rows can be recorded, over the whole run.
    """

    def __init__(self, ids: int, length: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.counts = self.add_weight(
            shape=(ids,), dtype="int32", initializer="zeros", trainable=False, name="counts"
        )
        self.order = self.add_weight(
            shape=(length,),
            dtype="int32",
            initializer=keras.initializers.Constant(-1),
            trainable=False,
            name="order",
        )
        self.seen = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="seen"
        )
        self.ids = ids

    def build(self, input_shape: object) -> None:
        self.built = True

    def call(self, x: object, training: bool = False) -> object:
        if training:
            ids = ops.cast(x[:, 0], "int32")
            self.counts.assign(self.counts + ops.sum(ops.one_hot(ids, self.ids, dtype="int32"), axis=0))
            places = self.seen + ops.arange(ops.shape(ids)[0], dtype="int32")
            self.order.assign(ops.scatter_update(self.order, ops.expand_dims(places, 1), ids))
            self.seen.assign(self.seen + ops.shape(ids)[0])
        return x


def recorder(model: keras.Model) -> Recorder:
    """The model's recorder."""
    return next(layer for layer in model.layers if isinstance(layer, Recorder))


def trained_ids(model: keras.Model) -> list[int]:
    """The ids that this model was trained on, in order."""
    layer = recorder(model)
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
    jit_compile: bool | str = "auto",
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
    if dropout:
        layers.append(keras.layers.Dropout(dropout))
    layers.append(keras.layers.Dense(1))
    model = keras.Sequential(layers)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss="mse",
        metrics=list(metrics),
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )
    return model


def rows(n: int, columns: int = 3, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n rows with the ids start … start + n − 1, and their targets: the same values for the same id."""
    ids = np.arange(start, start + n)
    x = np.stack(
        [ids.astype(np.float32)] + [np.sin(ids * (c + 1.0)).astype(np.float32) for c in range(columns - 1)], 1
    )
    return x, np.cos(ids * 0.7).astype(np.float32)[:, None]


def weights(model: keras.Model) -> list[np.ndarray]:
    """All variables of the model and its optimizer, as arrays."""
    return [_read(v) for v in [*model.variables, *model.optimizer.variables]]


def _read(variable: keras.Variable) -> np.ndarray:
    value = variable.value
    if BACKEND == "torch":
        value = value.detach().cpu()
    return np.array(value) if BACKEND == "jax" else value.numpy().copy()
