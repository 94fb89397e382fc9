"""Metrics over all rows that were tested and over the last ones, and what is no metric."""

import functools

import keras
import numpy as np
import pytest

import unbounded as ub
from keras_models import KERAS_NOISE, any_backend
from unbounded.core.packing import pack, unpack
from unbounded.keras._running import Running

pytestmark = pytest.mark.filterwarnings(KERAS_NOISE)

Y = np.random.default_rng(0).random((3000, 2), "float32")
MADE = np.random.default_rng(1).random((3000, 2), "float32")


def fed(metrics, last, upto, pieces=700, running=None):
    """A `Running` that was given the rows up to `upto`."""
    running = running or Running(metrics, last)
    while running.rows < upto:
        rows = slice(running.rows, min(running.rows + pieces, upto))
        running.check(Y[rows], MADE[rows], None)
        running.add(Y[rows], MADE[rows], None, rows.stop - rows.start)
    return running


def by_row(y, predictions):
    return keras.ops.max(keras.ops.abs(y - predictions), axis=-1)


def over_no_axis(y, predictions):
    return keras.ops.mean(y - predictions, axis=5)


METRICS = {
    "name": lambda: ["mae"],
    "function": lambda: [functools.partial(by_row)],
    "variables once there are rows": lambda: [keras.metrics.R2Score()],
    "several": lambda: [keras.metrics.MeanSquaredError(name="a"), keras.metrics.MeanSquaredError(name="b")],
}


@pytest.mark.parametrize("name", ["variables once there are rows", *any_backend("name", "function", "several")])
def test_results_do_not_depend_on_pieces_and_restarts(name):
    whole = fed(METRICS[name](), 100, 3000)
    parts = fed(METRICS[name](), 100, 1500, pieces=64)
    state = unpack(*pack(parts.state()))
    again = Running(METRICS[name](), 100)
    again.restore(state)
    fed(None, None, 3000, running=again)
    assert again.results() == whole.results()
    assert again.results() == again.results()


@pytest.mark.parametrize("last", [1, 50, 10**6])
def test_the_last_rows_are_those_that_there_are(last):
    running = fed(["mae"], last, 3000)
    errors = np.abs(Y - MADE).mean(1)
    assert running.results()["mae_last"] == pytest.approx(errors[-last:].mean(), rel=1e-5)
    assert running.results()["mae"] == pytest.approx(errors.mean(), rel=1e-5)


@pytest.mark.any_backend
def test_after_a_resume_with_more_last_rows_they_fill_up_again():
    state = fed(["mae"], 50, 2048).state()
    running = Running(["mae"], 500)
    running.restore(state)
    errors = np.abs(Y - MADE).mean(1)
    assert running.results()["mae_last"] == pytest.approx(errors[2048 - 50 : 2048].mean(), rel=1e-5)
    fed(None, None, 2100, running=running)
    assert running.results()["mae_last"] == pytest.approx(errors[2048 - 50 : 2100].mean(), rel=1e-5)


@pytest.mark.any_backend
def test_the_sums_of_other_metrics_are_not_taken_for_those():
    state = fed(["mae"], 50, 100).state()
    with pytest.raises(ValueError, match=r"has the sums of \['mae'\]"):
        Running(["mse"], 50).restore(state)


@pytest.mark.any_backend
@pytest.mark.each_keras
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mae", r"expected a list of metrics"),
        (None, r"expected a list of metrics"),
        (["accuracy"], r"Expected one of 'binary_accuracy', 'categorical_accuracy'"),
        (["ce"], r"Expected one of 'binary_crossentropy'"),
        (["nonsense"], r"nonsense"),
        (["mae", "mae"], r"2 metrics with the name 'mae'"),
        ([keras.losses.MeanSquaredError()], r"that is a loss"),
    ],
)
def test_what_is_no_metric_or_not_clear_is_refused(given, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Running(given, 10)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([lambda y, made: keras.ops.mean(y - made)], r"'<lambda>' can't be computed .* one number for all rows"),
        ([keras.metrics.R2Score(), over_no_axis], r"'over_no_axis' can't be computed"),
        ({"a": ["mae"]}, r"the model's outputs are one"),
    ],
)
def test_what_can_not_be_computed_is_told_before_the_first_step(given, words):
    with pytest.raises(ValueError, match=words):
        fed(given, 10, 10)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="compile's metrics are built in the first step")
def test_a_metric_of_the_model_is_refused():
    metric = keras.metrics.MeanAbsoluteError()
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    made.compile("sgd", "mse", metrics=[metric])
    with ub.keras.Feed(ub.from_arrays((Y, MADE)).batch(8), epoch=ub.Epoch(steps=3)) as feed:
        with pytest.raises(ValueError, match="the same object 'mean_absolute_error'"):
            made.fit(feed, verbose=0, callbacks=[ub.keras.Prequential(feed, [metric])])
        assert feed.steps == 0
