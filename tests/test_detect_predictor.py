"""The detector's model: equal results in the backend and in NumPy, and a lower error than persistence."""

import doctest

import numpy as np
import pytest

from helpers import compiled_once, installed

pytestmark = [
    installed("keras"),
    # Keras's own conversions to NumPy set it off, under NumPy 2 with torch and TensorFlow.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    import keras

    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield keras


@pytest.fixture(scope="module")
def predictor(keras):
    """The module under test, which imports Keras."""
    from unbounded.detect import _predictor

    return _predictor


def windows_of(readings, length):
    """Every window of `length` readings, [rows, length, columns]."""
    return np.ascontiguousarray(np.moveaxis(np.lib.stride_tricks.sliding_window_view(readings, length, 0), -1, 1))


def noisy_readings(rows, seed=0):
    """Two columns: noise about a level that jumps now and then, and a slow walk."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.normal(size=rows // 200 + 1), 200)[:rows]
    return np.stack([level + 0.5 * rng.normal(size=rows), 0.05 * rng.normal(size=rows).cumsum()], 1).astype("f4")


def test_a_window_s_last_reading_is_never_looked_at(keras, predictor):
    model = predictor.Predictor(length=9, columns=3)
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(5, 9, 3)).astype("f4")
    other = windows.copy()
    other[:, -1] = 100.0
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(model(w)) for w in (windows, other)))


@pytest.mark.slow  # a compilation, and a few steps
def test_numpy_and_the_backend_predict_the_same_after_training(keras, predictor):
    model = predictor.Predictor(length=9, columns=2)
    model.compile(keras.optimizers.Adam(0.05))
    windows = windows_of(noisy_readings(400), 9)
    model.fit(windows, epochs=2, verbose=0)
    weights = model.numpy_weights()
    assert all(np.abs(weight).max() > 0 for weight in weights)
    by_the_backend = keras.ops.convert_to_numpy(model(windows))
    np.testing.assert_allclose(predictor.predict(np, weights, windows), by_the_backend, atol=1e-5)


@pytest.mark.slow  # a compilation, and a few steps
def test_a_copy_of_the_weights_does_not_follow_the_training(keras, predictor):
    model = predictor.Predictor(length=4, columns=1)
    model.compile(keras.optimizers.Adam(0.05))
    before = model.numpy_weights()
    kept = [weight.copy() for weight in before]
    model.fit(windows_of(noisy_readings(100)[:, :1], 4), verbose=0)
    for weight, keep in zip(before, kept, strict=True):
        np.testing.assert_array_equal(weight, keep)


@pytest.mark.slow  # a compilation, and a few steps
def test_the_loss_and_persistence_are_those_of_the_last_reading(keras, predictor):
    model = predictor.Predictor(length=5, columns=2)
    model.compile(keras.optimizers.SGD(0.0))
    windows = windows_of(noisy_readings(60), 5)
    logs = model.fit(windows, batch_size=len(windows), verbose=0).history
    predicted = predictor.predict(np, model.numpy_weights(), windows)
    assert logs["loss"][0] == pytest.approx(np.mean((windows[:, -1] - predicted) ** 2), rel=1e-4)
    assert logs["persistence"][0] == pytest.approx(np.mean((windows[:, -1] - windows[:, -2]) ** 2), rel=1e-4)


@pytest.mark.slow  # a compilation, and a few steps
def test_three_hundred_steps_beat_the_last_reading_on_rows_that_come_after(keras, predictor):
    model = predictor.Predictor(length=32, columns=2)
    model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0))
    windows = windows_of(noisy_readings(1_200), 32)
    past, ahead = windows[:600], windows[600:]
    rng = np.random.default_rng(0)
    for _ in range(300):
        model.train_on_batch(past[rng.integers(0, len(past), 32)])
    error = np.mean((ahead[:, -1] - predictor.predict(np, model.numpy_weights(), ahead)) ** 2, axis=0)
    persistence = np.mean((ahead[:, -1] - ahead[:, -2]) ** 2, axis=0)
    assert error[0] < 0.8 * persistence[0]
    # A random walk cannot be predicted better than by its last value; it must not be predicted much worse.
    assert error[1] < 1.2 * persistence[1]


def test_the_spans_fit_the_window(predictor):
    assert predictor.horizons(2) == (1,)
    assert predictor.horizons(3) == (1, 2)
    assert predictor.horizons(33) == (1, 2, 4, 8, 16, 32)


def test_impossible_sizes_are_refused(predictor):
    with pytest.raises(ValueError, match="a window needs 2 readings"):
        predictor.Predictor(length=1, columns=3)


def test_the_examples_in_the_docstrings_run(predictor):
    assert doctest.testmod(predictor).failed == 0
