"""The states of callbacks: Keras's own by a table, a user's by its methods, none of any other."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import Checkpoint, Feed, _callbacks
from unbounded.keras._callbacks import STATE, CallbackStates

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

GIVEN: dict[str, dict[str, Any]] = {
    "LearningRateScheduler": {"schedule": lambda epoch: 0.1},
    "ModelCheckpoint": {"filepath": "best.keras"},
    "CSVLogger": {"filename": "log.csv"},
    "BackupAndRestore": {"backup_dir": "backup"},
    "TensorBoard": {"log_dir": "logs"},
    "OrbaxCheckpoint": {"directory": "orbax"},
}


def kinds() -> list[str]:
    return [
        name
        for name, kind in vars(keras.callbacks).items()
        if inspect.isclass(kind)
        and issubclass(kind, keras.callbacks.Callback)
        and name not in ("Callback", "CallbackList")
    ]


def test_the_table_has_every_callback_of_this_keras() -> None:
    assert set(kinds()) <= set(STATE)


@pytest.mark.parametrize("name", kinds())
def test_the_attributes_of_the_table_exist_on_this_keras(name: str, tmp_path: Path) -> None:
    if name == "TensorBoard":
        pytest.importorskip("tensorflow", reason="TensorBoard writes with it, and it is hidden from other backends")
    if name == "OrbaxCheckpoint":
        source = inspect.getsource(keras.callbacks.OrbaxCheckpoint)
        missing = [key for key in STATE[name] if f"self.{key} = " not in source]
    else:
        given = {
            key: str(tmp_path / value) if isinstance(value, str) else value
            for key, value in GIVEN.get(name, {}).items()
        }
        callback = getattr(keras.callbacks, name)(**given)
        if name != "BackupAndRestore":
            callback.set_model(km.ready_model())
            callback.set_params({"epochs": 1, "steps": 1, "verbose": 0})
            callback.on_train_begin()
        missing = [key for key in STATE[name] if not hasattr(callback, key)]
        if name == "CSVLogger":
            callback.on_train_end()
    assert missing == []


def begun(callback: keras.callbacks.Callback) -> keras.callbacks.Callback:
    callback.set_model(km.ready_model())
    callback.on_train_begin()
    return callback


def moved(first: keras.callbacks.Callback, again: keras.callbacks.Callback) -> None:
    CallbackStates([begun(again)]).restore(CallbackStates([first]).state())


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_early_stopping_goes_on_with_what_it_waited_and_with_its_best_weights() -> None:
    class Mine(keras.callbacks.EarlyStopping):
        pass

    for kind in (keras.callbacks.EarlyStopping, Mine):
        first = begun(kind("loss", patience=2, restore_best_weights=True))
        for epoch, loss in enumerate([2.0, 1.0, 1.5]):
            first.on_epoch_end(epoch, {"loss": loss})
        again = kind("loss", patience=3, restore_best_weights=True)
        moved(first, again)
        assert (again.patience, again.wait, again.best, again.best_epoch) == (3, 1, 1.0, 1)
        assert all(np.array_equal(a, b) for a, b in zip(again.best_weights, first.best_weights, strict=True))
        for epoch in (3, 4):
            assert not again.model.stop_training
            again.on_epoch_end(epoch, {"loss": 1.5})
        assert again.model.stop_training


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_a_reduced_rate_keeps_its_best_its_patience_and_its_cooldown() -> None:
    first = begun(keras.callbacks.ReduceLROnPlateau("loss", patience=1, cooldown=2))
    for epoch, loss in enumerate([1.0, 1.5]):
        first.on_epoch_end(epoch, {"loss": loss})
    again = keras.callbacks.ReduceLROnPlateau("loss", patience=1, cooldown=2, min_delta=0.5)
    moved(first, again)
    assert (again.wait, again.cooldown_counter, again.best, again.min_delta) == (0, 2, 1.0, 0.5)


def test_a_best_that_is_a_tensor_comes_back_as_a_number() -> None:
    first = begun(keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True))
    first.best = keras.ops.convert_to_tensor(0.5)
    again = keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True)
    moved(first, again)
    assert isinstance(again.best, np.ndarray)
    assert float(again.best) == 0.5


@pytest.mark.any_backend
def test_a_users_callback_is_saved_by_its_own_methods_only() -> None:
    class Said(keras.callbacks.Callback):
        said = False

        def __init__(self) -> None:
            super().__init__()
            self.count, self.begun = 0, 1.0

    class Asked(keras.callbacks.Callback):
        def get_state(self) -> dict[str, int]:
            return {"kept": 3}

        def set_state(self, state: dict[str, int]) -> None:
            self.given = state

    class Torchlike(keras.callbacks.EarlyStopping):
        def state_dict(self) -> dict[str, int]:
            return {"mine": 1}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.mine = state["mine"]

    first = [Said(), Asked(), begun(Torchlike())]
    first[0].said, first[0].count, first[2].wait = True, 5, 2
    state = CallbackStates(first).state()
    assert set(state) == {"Asked 1", "Torchlike 1"}
    again: list[Any] = [Said(), Asked(), begun(Torchlike())]
    CallbackStates(again).restore(state)
    assert (again[0].said, again[0].count, again[1].given, again[2].mine, again[2].wait) == (
        False,
        0,
        {"kept": 3},
        1,
        2,
    )


@pytest.mark.any_backend
def test_a_callbacks_class_that_only_has_a_keras_name_is_a_users() -> None:
    EarlyStopping = type("EarlyStopping", (keras.callbacks.Callback,), {"wait": 1})
    assert CallbackStates([EarlyStopping()]).state() == {}


def test_the_state_survives_a_checkpoint_on_the_disk(tmp_path: Path) -> None:
    """Values that `fit` itself gave to Keras's callbacks."""

    def fit(epochs: int) -> list[Any]:
        callbacks = [
            keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau("loss", patience=9),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss", save_best_only=True),
        ]
        with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=5)) as feed:
            model = km.ready_model()
            model.fit(feed, epochs=epochs, verbose=0, callbacks=[Checkpoint(feed, tmp_path / "run"), *callbacks])
        return [(c.best, getattr(c, "wait", None)) for c in callbacks] + [model.history.history["loss"]]

    fit(2)
    resumed = fit(3)
    assert all(best == min(resumed[-1]) for best, _ in resumed[:-1])
    assert len(resumed[-1]) == 3


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_a_log_in_a_file_is_not_started_over_where_a_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    for _ in range(2):
        log = keras.callbacks.CSVLogger(str(file))
        _callbacks.continue_files([log])
        log.on_train_begin()
        log.set_model(km.ready_model())
        log.on_epoch_end(0, {"loss": 1.0})
        log.on_train_end()
    assert [line.split(",")[0] for line in file.read_text().split()] == ["epoch", "0", "0"]


@pytest.mark.any_backend
def test_the_examples_run() -> None:
    assert doctest.testmod(_callbacks).failed == 0


@pytest.mark.any_backend
def test_a_resumed_run_goes_on_with_its_log_and_a_finished_one_keeps_it(tmp_path: Path) -> None:
    def fit(epochs: int) -> list[str]:
        model = km.ready_model()
        with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=3)) as feed:
            log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
            model.fit(feed, epochs=epochs, verbose=0, callbacks=[log, Checkpoint(feed, tmp_path / "run")])
        return [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().split()]

    assert fit(2) == ["epoch", "0", "1"]
    assert fit(3) == ["epoch", "0", "1", "2"]
    with pytest.warns(ub.RunFinished):
        assert fit(3) == ["epoch", "0", "1", "2"]
