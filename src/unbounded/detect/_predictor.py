"""A small model that predicts the next reading of a few columns from the readings before it.

The prediction is a mix of the means of the last 1, 2, 4, ... readings. A small network looks at those means
and shifts the mix: to the last reading after a step, to the longer means after a burst. A mix cannot leave
the range of what was just read, so a few minutes of data, each trained on many times, do no harm. The
arithmetic is written once, for Keras's ops and for NumPy alike: training runs in the backend, and a reading
that has just arrived is scored in NumPy, in microseconds, without touching variables that are in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def horizons(length: int) -> tuple[int, ...]:
    """The spans whose means the model mixes: 1, 2, 4, ... up to the readings that a window has to offer.

    Args:
        length: readings in a window, the predicted one included; at least 2.

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
        ops: ``keras.ops`` or ``numpy``: whose arithmetic to use.
        weights: mix [spans, columns], kernel [spans * columns, units], bias [units],
            shift [units, spans * columns].
        windows: readings, [rows, length, columns], each column about zero mean and unit variance.

    Returns:
        The prediction, [rows, columns]. The last reading of a window is never looked at.
    """
    mix, kernel, bias, shift = weights
    past = windows[:, :-1]
    spans = horizons(windows.shape[1])
    means = ops.stack([ops.mean(past[:, -span:], axis=1) for span in spans], axis=1)
    longest = means[:, -1:]
    # A burst of bytes can lie fifty deviations off: squashed, it is still a burst, but no shout.
    seen = ops.tanh(ops.concatenate([means[:, :-1] - longest, longest], axis=1) / 2.0)
    flat = (-1, len(spans) * windows.shape[2])
    moved = ops.matmul(ops.tanh(ops.matmul(ops.reshape(seen, flat), kernel) + bias), shift)
    # A tenth of the network's word: the mix itself learns first, the exceptions to it after.
    logits = mix + 0.1 * ops.reshape(moved, (-1, len(spans), windows.shape[2]))
    share = ops.exp(logits - ops.max(logits, axis=1, keepdims=True))
    return ops.sum(share * means, axis=1) / ops.sum(share, axis=1)


class Predictor(keras.Model):  # type: ignore[misc]
    """A Keras model of windows of readings whose loss is the squared error of the last reading.

    Beside ``loss`` it tracks ``persistence``, the loss that "the next reading is the last one" has on
    the same rows: the figure to beat.

    Args:
        length: readings in a window, the predicted one included; at least 2.
        columns: how many columns a reading has; at least 1.
        units: units in the hidden layer.
        seed: where the first weights come from.

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
        # Built at once: a model that is not built makes `fit` ask for a batch before the first is due.
        self.build((None, length, columns))

    def build(self, input_shape: Any) -> None:
        """Make the weights; the shape was given when the model was made.

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
        """The mean squared error of the prediction; persistence's is tracked beside it.

        Args:
            x: the windows, [rows, length, columns].
            y: nothing: what is predicted is in the window.
            y_pred: the prediction, [rows, columns].
            sample_weight: nothing.
            training: ignored.

        Returns:
            A scalar.
        """
        # On torch, `train_on_batch` hands NumPy on as it is.
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
    """The first mix: half of it or more is the last reading, so that training starts from persistence."""
    mix = np.zeros(shape, dtype="float32")
    mix[0] = 2.0
    return keras.ops.convert_to_tensor(mix, dtype=dtype)
