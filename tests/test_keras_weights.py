"""A checkpoint's weights alone, for inference."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded import CheckpointError
from unbounded.keras import Checkpoint, Feed, _weights, load_model_state
from unbounded.store.checkpoints import Checkpoints
from unbounded.store.manifest import DamagedCheckpoint

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


def make(*, built: bool = True, compiled: bool = True, units: int = 4) -> keras.Model:
    layers = [
        *([keras.Input((3,))] if built else []),
        keras.layers.Dense(units),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    if compiled:
        model.compile("adam", "mse", metrics=["mae"])
    return model


def train(directory: Path, epochs: int = 2) -> keras.Model:
    model = make()
    with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=5)) as feed:
        model.fit(feed, epochs=epochs, verbose=0, callbacks=[Checkpoint(feed, directory)])
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    directory = tmp_path_factory.mktemp("run")
    return directory, train(directory)


@pytest.mark.parametrize(
    ("built", "compiled"),
    [
        (False, True),
        (True, False),
        pytest.param(True, True, marks=pytest.mark.any_backend),
        pytest.param(False, False, marks=pytest.mark.any_backend),
    ],
)
def test_a_model_gets_the_newest_weights_however_it_was_made(run: Any, built: bool, compiled: bool) -> None:
    directory, trained = run
    model = make(built=built, compiled=compiled)
    assert load_model_state(directory, model) == 10
    for a, b in zip(model.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(v) for v in (a, b)))
    x = km.rows(4)[0]
    np.testing.assert_array_equal(model.predict(x, verbose=0), trained.predict(x, verbose=0))
    if compiled:
        assert int(model.optimizer.iterations) == 0


@pytest.mark.any_backend
def test_the_run_may_hold_its_directory_meanwhile(run: Any) -> None:
    directory, _ = run
    before = sorted(directory.rglob("*"))
    with Checkpoints(directory) as held:
        held.prepare()
        assert load_model_state(directory, make()) == 10
    assert sorted(directory.rglob("*")) == before


@pytest.mark.any_backend
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    train(tmp_path)
    newest = max(tmp_path.glob("*/state.npz"), key=lambda path: path.parent.name)
    newest.write_bytes(newest.read_bytes()[:-20])
    with pytest.warns(DamagedCheckpoint):
        assert load_model_state(tmp_path, make()) == 5


@pytest.mark.any_backend
def test_what_is_no_such_checkpoint_is_said_in_a_sentence(run: Any, tmp_path: Path) -> None:
    directory, _ = run
    with pytest.raises(CheckpointError, match=r"There is no checkpoint in .*has saved at least once"):
        load_model_state(tmp_path / "nothing", make())
    with pytest.raises(ValueError, match=r"The checkpoint is of another model: .*'layers/dense/kernel'"):
        load_model_state(directory, make(units=5))
    with ub.Feed(ub.from_arrays(km.rows(8)).batch(4)) as feed:
        feed.save(tmp_path / "core", state={"model": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"was not written by ub\.keras\.Checkpoint"):
        load_model_state(tmp_path / "core", make())


def test_a_seed_of_another_backends_integers_fits(run: Any) -> None:
    directory, _ = run
    model = make()
    state = Checkpoints(directory).newest().read_state()["model"]  # type: ignore[union-attr]
    path = next(path for path in state["variables"] if "seed" in path)
    state["variables"][path] = state["variables"][path].astype(np.int64)
    _weights._model_state.restore_variables(model, state)


@pytest.mark.any_backend
def test_the_examples_run() -> None:
    assert doctest.testmod(_weights).failed == 0
