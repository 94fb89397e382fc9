"""What "the same weights" needs: a model that was put back goes on bit for bit as if it had never stopped."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
from unbounded.keras import _model
from unbounded.keras._callbacks import CallbackStates

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

# Dropout without a seed of its own draws from the backend's generator on torch and from a variable elsewhere;
# one epoch is four steps. Early stopping is wound up so that the resumed run must end at the same epoch.
SCRIPT = """
import pickle, sys, keras, keras_models as km
from pathlib import Path
from unbounded.keras import _model
from unbounded.keras._callbacks import CallbackStates, callback_list

class Keep(keras.callbacks.Callback):
    def __init__(self, at=None, state=None, path=None):
        super().__init__()
        self.at, self.state, self.path = at, state, path
    def on_epoch_begin(self, epoch, logs=None):
        if not hasattr(self, "states"):
            self.states = CallbackStates(callback_list().callbacks[:2])
            if self.state:
                _model.build(self.model, km.rows(4))
                _model.restore_model(self.model, self.state["model"])
                self.states.restore(self.state["callbacks"])
    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at:
            state = {"model": _model.model_state(self.model), "callbacks": self.states.state()}
            Path(self.path).write_bytes(pickle.dumps(state))

def run(what, path):
    model = km.recording_model(dropout=0.5, seed=0 if what == "whole" else 9)
    x, y = km.rows(16)
    stopping = keras.callbacks.EarlyStopping("mae", min_delta=10.0, patience=5)
    plateau = keras.callbacks.ReduceLROnPlateau("mae", min_delta=10.0, patience=2)
    keep = Keep(at=2, path=path) if what == "whole" else Keep(state=pickle.loads(Path(path).read_bytes()))
    callbacks = [stopping, plateau, keep]
    begin = 0 if what == "whole" else 3
    model.fit(
        x, y, batch_size=4, shuffle=False, epochs=20, verbose=0, callbacks=callbacks, initial_epoch=begin
    )
    return km.trained_ids(model), km.weights(model), stopping.stopped_epoch
"""


@pytest.mark.slow
def test_a_fresh_process_goes_on_bit_for_bit_with_dropout_and_early_stopping(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(SCRIPT, scope)
    ids, weights, stopped = scope["run"]("whole", str(tmp_path / "state"))
    resumed = f"{SCRIPT}\nPath(sys.argv[2]).write_bytes(pickle.dumps(run('resumed', sys.argv[1])))"
    environment = {**os.environ, "PYTHONPATH": str(Path(km.__file__).parent)}
    command = [sys.executable, "-c", resumed, str(tmp_path / "state"), str(tmp_path / "resumed")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    resumed_ids, resumed_weights, resumed_stopped = pickle.loads((tmp_path / "resumed").read_bytes())
    assert resumed_ids == ids
    assert stopped == resumed_stopped == 5
    assert len(ids) == 6 * 16
    assert all(np.array_equal(a, b) for a, b in zip(weights, resumed_weights, strict=True))


def test_a_state_is_a_copy_that_training_on_leaves_alone() -> None:
    model = km.recording_model(built=True)
    model.train_on_batch(*km.rows(4))
    state = _model.model_state(model)
    before = [array.copy() for array in state["variables"]["arrays"]]
    for _ in range(3):
        model.train_on_batch(*km.rows(4))
    assert all(np.array_equal(a, b) for a, b in zip(before, state["variables"]["arrays"], strict=True))
    _model.restore_model(model, state)
    assert km.trained_ids(model) == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_another_model_is_refused_by_the_name_of_the_first_variable_that_differs() -> None:
    state = _model.model_state(km.recording_model(built=True))
    other = km.recording_model(built=True, columns=5)
    untouched = km.weights(other)
    sentence = r"number 3 of its variables it has '.*dense\w*/kernel', float32 \(3, 4\), and"
    with pytest.raises(ValueError, match=sentence):
        _model.restore_model(other, state)
    assert all(np.array_equal(a, b) for a, b in zip(untouched, km.weights(other), strict=True))


def test_another_optimizer_is_refused() -> None:
    model = km.recording_model(built=True)
    model.train_on_batch(*km.rows(4))
    other = km.recording_model(built=True)
    other.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    other.train_on_batch(*km.rows(4))
    with pytest.raises(ValueError, match="its optimizer"):
        _model.restore_model(other, _model.model_state(model))


def test_a_second_model_of_the_same_making_fits_although_keras_names_its_layers_otherwise() -> None:
    first, second = km.recording_model(built=True), km.recording_model(built=True, seed=1)
    first.train_on_batch(*km.rows(4))
    second.train_on_batch(*km.rows(8))
    assert [v.path for v in first.variables] != [v.path for v in second.variables]
    _model.restore_model(second, _model.model_state(first))
    assert all(np.array_equal(a, b) for a, b in zip(km.weights(first), km.weights(second), strict=True))


def test_building_makes_every_variable_that_the_first_step_would_make() -> None:
    model, stepped = km.recording_model(dropout=0.5), km.recording_model(dropout=0.5)
    x, y = km.rows(4)
    _model.build(model, (x, y))
    stepped.train_on_batch(x, y)
    _model.restore_model(model, _model.model_state(stepped))
    assert km.trained_ids(model) == [0, 1, 2, 3]
    assert _model.iterations(model) == 1


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
    state = _model.random_state()
    first = draw()
    assert draw() != first
    _model.restore_random(state)
    assert draw() == first


def test_the_learning_rate_alone_comes_back() -> None:
    model = km.recording_model(built=True)
    model.train_on_batch(*km.rows(4))
    state = _model.model_state(model)
    model.optimizer.learning_rate = 0.5
    model.train_on_batch(*km.rows(4))
    _model.restore_learning_rate(model, state)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-2)
    assert _model.iterations(model) == 2


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
    _model.build(fresh, km.rows(4))
    _model.restore_model(fresh, _model.model_state(model))
    assert float(fresh.optimizer.dynamic_scale) > 64
    assert _model.iterations(fresh) == 5


class Waiting(keras.callbacks.Callback):
    def __init__(self, patience: int) -> None:
        super().__init__()
        self.patience, self.wait, self.best, self.files = patience, 0, None, {1, 2}


class Asked(keras.callbacks.Callback):
    def get_state(self) -> dict[str, int]:
        return {"kept": 3}

    def set_state(self, state: dict[str, int]) -> None:
        self.given = state


def test_of_a_callback_what_moved_is_state_and_what_did_not_is_configuration() -> None:
    callback, asked = Waiting(patience=3), Asked()
    states = CallbackStates([callback, asked, Waiting(patience=1)])
    callback.wait, callback.best = 2, [np.arange(3.0)]
    saved = states.state()
    assert saved["Asked 1"] == {"kept": 3}
    assert set(saved["Waiting 1"]) == {"wait", "best"}
    assert "Waiting 2" not in saved

    today, again = Waiting(patience=7), Asked()
    CallbackStates([today, again]).restore(saved)
    assert (today.patience, today.wait, today.best[0].tolist()) == (7, 2, [0.0, 1.0, 2.0])
    assert again.given == {"kept": 3}
