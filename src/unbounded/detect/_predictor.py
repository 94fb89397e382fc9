"""Predictor: a small model that predicts the next reading of a few columns from the readings before it.

The prediction is a weighted mean of the means of the last 1, 2, 4, ... readings. A small network sees these means and
shifts the weights: to the last reading after a step, to the longer means after a burst. The prediction stays within the
range of recent readings, so a few minutes of data, trained on many times, do no harm. The arithmetic is written once,
for Keras's ops and for NumPy: training runs in the backend, and a new reading is scored in NumPy, in microseconds,
without touching variables that are being trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def horizons(length: int) -> tuple[int, ...]:
    """The spans whose means the model mixes: 1, 2, 4, ... up to the length of a window.

    Args:
        length: readings in a window, including the predicted one; at least 2.

    Returns:
        The spans, in readings, each at most ``length - 1``.

    Example:
        >>> horizons(12)
        (1, 2, 4, 8, 11)
    """
    past = length - 1
    powers = [2**k for k in range(past.bit_length()) if 2**k < past]
    return (*powers, past)


def predict(ops: Any, weights: Sequence[Any], windows: Any) -> Any:
    """Predict the last reading of each window from those before it.

    Args:
        ops: ``keras.ops`` or ``numpy``.
        weights: mix [spans, columns], kernel [spans * columns, units], bias [units],
            shift [units, spans * columns].
        windows: readings, [rows, length, columns], each column about zero mean and unit variance.

    Returns:
        The prediction, [rows, columns]. It does not depend on the last reading of a window.
    """
    mix, kernel, bias, shift = weights
    past = windows[:, :-1]
    spans = horizons(windows.shape[1])
    means = ops.stack([ops.mean(past[:, -span:], axis=1) for span in spans], axis=1)
    longest = means[:, -1:]
    # A burst of bytes can be fifty deviations off: tanh limits its influence.
    seen = ops.tanh(ops.concatenate([means[:, :-1] - longest, longest], axis=1) / 2.0)
    flat = (-1, len(spans) * windows.shape[2])
    moved = ops.matmul(ops.tanh(ops.matmul(ops.reshape(seen, flat), kernel) + bias), shift)
    # The network's output counts a tenth: the mix itself is learned first, the exceptions later.
    logits = mix + 0.1 * ops.reshape(moved, (-1, len(spans), windows.shape[2]))
    share = ops.exp(logits - ops.max(logits, axis=1, keepdims=True))
    return ops.sum(share * means, axis=1) / ops.sum(share, axis=1)


class Predictor(keras.Model):  # type: ignore[misc]
    """A Keras model of windows of readings whose loss is the squared error of the last reading.

    Besides ``loss`` it tracks ``persistence``, the loss of "the next reading equals the last" on the same rows: the
    loss to beat.

    Args:
        length: readings in a window, including the predicted one; at least 2.
        columns: the number of columns of a reading; at least 1.
        units: units in the hidden layer.
        seed: of the initial weights.

    Raises:
        ValueError: a size is too small.

    Example:
        >>> model = Predictor(length=8, columns=2)
        >>> model.compile(keras.optimizers.Adam(1e-2))
        >>> tuple(model(np.zeros((32, 8, 2), "float32")).shape)
        (32, 2)
    """

    def __init__(self, length: int, columns: int, units: int = 32, seed: int = 0) -> None:
        if length < 2 or columns < 1 or units < 1:
            raise ValueError(
                f"Predictor(length={length}, columns={columns}, units={units}): a window needs 2 readings or "
                "more (one is predicted from the others), and at least 1 column and 1 unit."
            )
        super().__init__(name="predictor")
        self.length, self.columns, self.units, self.seed = length, columns, units, seed
        self.persistence = keras.metrics.Mean(name="persistence")
        # Built now: for a model that is not built, `fit` would request a batch before the first is due.
        self.build((None, length, columns))

    def build(self, input_shape: Any) -> None:
        """Make the weights; their shapes follow from the constructor's arguments.

        Args:
            input_shape: ignored but for Keras's sake.
        """
        if getattr(self, "built", False):
            return
        spans = len(horizons(self.length))
        even = keras.initializers.GlorotUniform(seed=self.seed)
        self.weights_in_order = [
            self.add_weight(shape=shape, initializer=initializer, name=name)
            for name, shape, initializer in [
                ("mix", (spans, self.columns), _mostly_the_last),
                ("kernel", (spans * self.columns, self.units), even),
                ("bias", (self.units,), "zeros"),
                ("shift", (self.units, spans * self.columns), "zeros"),
            ]
        ]
        self.built = True

    def call(self, windows: Any) -> Any:
        """Predict the last reading of each window.

        Args:
            windows: [rows, length, columns].

        Returns:
            [rows, columns].
        """
        return predict(keras.ops, self.weights_in_order, windows)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The mean squared error of the prediction; that of persistence is tracked.

        Args:
            x: the windows, [rows, length, columns].
            y: None: the target is in the window.
            y_pred: the prediction, [rows, columns].
            sample_weight: None.
            training: ignored.

        Returns:
            A scalar.
        """
        # On torch, `train_on_batch` passes NumPy arrays.
        x = keras.ops.convert_to_tensor(x)
        self.persistence.update_state(keras.ops.mean(keras.ops.square(x[:, -1] - x[:, -2]), axis=-1))
        return keras.ops.mean(keras.ops.square(x[:, -1] - y_pred))

    def numpy_weights(self) -> list[np.ndarray]:
        """Copy the weights, for ``predict(numpy, ...)``.

        Returns:
            Four arrays, in the order that ``predict`` takes. During ``fit`` on JAX they are those of the last
            step only if the variables were synced before.
        """
        return [np.array(keras.ops.convert_to_numpy(weight.value)) for weight in self.weights_in_order]


def _mostly_the_last(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The initial mix: the last reading has at least half of the weight, so that training starts near persistence."""
    mix = np.zeros(shape, dtype="float32")
    mix[0] = 2.0
    return keras.ops.convert_to_tensor(mix, dtype=dtype)
