"""What "the same weights" needs, taken out of a model and put back.

That a run then ends with the same bits, in the same process or in a fresh one, is in test_keras_checkpoint.py.
"""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest

import keras_models as km
from unbounded.keras import _model_state

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


def test_a_state_is_a_copy_that_training_on_leaves_alone() -> None:
    model = km.recording_model(built=True)
    model.train_on_batch(*km.rows(4))
    state = _model_state.model_state(model)
    before = [array.copy() for array in state["variables"].values()]
    for _ in range(3):
        model.train_on_batch(*km.rows(4))
    assert all(np.array_equal(a, b) for a, b in zip(before, state["variables"].values(), strict=True))
    _model_state.restore_model(model, state)
    assert km.trained_ids(model) == [0, 1, 2, 3]


@pytest.mark.any_backend
@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_another_model_is_refused_by_the_name_of_the_first_variable_that_differs() -> None:
    state = _model_state.model_state(km.recording_model(built=True))
    other = km.recording_model(built=True, columns=5)
    untouched = km.weights(other)
    sentence = r"number 3 of its variables it has 'layers/dense/kernel', float32 \(3, 4\), and"
    with pytest.raises(ValueError, match=sentence):
        _model_state.restore_model(other, state)
    assert all(np.array_equal(a, b) for a, b in zip(untouched, km.weights(other), strict=True))


@pytest.mark.any_backend
def test_another_optimizer_is_refused() -> None:
    model = km.recording_model(built=True)
    model.train_on_batch(*km.rows(4))
    other = km.recording_model(built=True)
    other.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    other.train_on_batch(*km.rows(4))
    with pytest.raises(ValueError, match="its optimizer"):
        _model_state.restore_model(other, _model_state.model_state(model))


def test_a_second_model_of_the_same_making_fits_although_keras_names_its_layers_otherwise() -> None:
    first, second = km.recording_model(built=True), km.recording_model(built=True, seed=1)
    first.train_on_batch(*km.rows(4))
    second.train_on_batch(*km.rows(8))
    assert [v.path for v in first.variables] != [v.path for v in second.variables]
    _model_state.restore_model(second, _model_state.model_state(first))
    assert all(np.array_equal(a, b) for a, b in zip(km.weights(first), km.weights(second), strict=True))


def test_building_makes_every_variable_that_the_first_step_would_make() -> None:
    model, stepped = km.recording_model(dropout=0.5), km.recording_model(dropout=0.5)
    x, y = km.rows(4)
    _model_state.build(model, (x, y))
    stepped.train_on_batch(x, y)
    _model_state.restore_model(model, _model_state.model_state(stepped))
    assert km.trained_ids(model) == [0, 1, 2, 3]
    assert _model_state.iterations(model) == 1


def test_random_states_come_back() -> None:
    def draw() -> list[object]:
        numbers: list[object] = [random.random(), np.random.random()]
        numbers.extend(keras.ops.convert_to_numpy(keras.random.normal((3,))).tolist())
        if km.BACKEND == "torch":
            import torch

            numbers.extend(torch.rand(3).tolist())
        if km.BACKEND == "tensorflow":
            import tensorflow as tf

            numbers.extend(tf.random.get_global_generator().normal((3,)).numpy().tolist())
        return numbers

    draw()
    state = _model_state.random_state()
    first = draw()
    assert draw() != first
    _model_state.restore_random(state)
    assert draw() == first


def test_the_learning_rate_alone_comes_back() -> None:
    model = km.recording_model(built=True)
    model.train_on_batch(*km.rows(4))
    state = _model_state.model_state(model)
    model.optimizer.learning_rate = 0.5
    model.train_on_batch(*km.rows(4))
    _model_state.restore_learning_rate(model, state)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-2)
    assert _model_state.iterations(model) == 2


def test_a_loss_scale_is_part_of_the_state() -> None:
    def scaled() -> keras.Model:
        model = km.recording_model(built=True)
        inner = keras.optimizers.SGD(1e-3)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0, dynamic_growth_steps=2)
        model.compile(optimizer=optimizer, loss="mse")
        return model

    model, fresh = scaled(), scaled()
    for _ in range(5):
        model.train_on_batch(*km.rows(4))
    _model_state.build(fresh, km.rows(4))
    _model_state.restore_model(fresh, _model_state.model_state(model))
    assert float(fresh.optimizer.dynamic_scale) > 64
    assert _model_state.iterations(fresh) == 5


def test_a_state_can_be_taken_in_the_middle_of_an_epoch() -> None:
    model = km.ready_model()
    seen: list[int] = []

    def look(batch: int, logs: object) -> None:
        # The model itself, and not a callback's: on JAX its variables are empty here.
        seen.append(int(_model_state.model_state(model)["optimizers"]["optimizer"]["variables"]["iteration"]))

    x, y = km.rows(12)
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[callback])
    assert seen == [1, 2, 3]
    assert km.trained_ids(model) == list(range(12))
