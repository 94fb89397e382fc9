"""The feed as a PyDataset, where Keras's DataAdapter can't be found: what is kept, and that the rest is said."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import _base
from unbounded.keras._fallback import Degraded, PyDatasetFeed

pytestmark = [
    pytest.mark.filterwarnings(km.KERAS_NOISE),
    pytest.mark.filterwarnings("ignore:.*shuffle=True.*"),  # fit's default, beside an endless PyDataset
]


def feed(epoch: ub.Epoch | None = None) -> PyDatasetFeed:
    with pytest.warns(Degraded, match="so this feed is a PyDataset. Lost are: epochs by rows"):
        return PyDatasetFeed(ub.arrays(km.rows(40), shuffle=False).batch(4), epoch)


def test_where_keras_keeps_its_adapter_elsewhere_the_feed_is_a_py_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, _base._MODULE, None)
    import unbounded.keras

    again = importlib.reload(unbounded.keras)
    assert again.Feed is PyDatasetFeed
    monkeypatch.undo()
    assert importlib.reload(unbounded.keras).Feed is not PyDatasetFeed


def test_with_a_checkpoint_every_row_is_trained_on_once_and_in_order(tmp_path: Path) -> None:
    for epochs in (2, 4):
        model = km.recording_model()
        with feed() as data:
            checkpoint = ub.keras.Checkpoint(data, tmp_path)  # type: ignore[arg-type]
            model.fit(data, epochs=epochs, steps_per_epoch=3, verbose=0, callbacks=[checkpoint])
            assert data.steps == 3 * epochs
            assert data.epoch_number == epochs
    assert km.trained_ids(model) == [i % 40 for i in range(48)]


def test_after_an_exception_the_run_goes_on_with_its_last_checkpoint(tmp_path: Path) -> None:
    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                raise RuntimeError("a user's callback")

    for extra in ([Fail()], []):
        model = km.ready_model()
        with feed() as data:
            checkpoint = ub.keras.Checkpoint(data, tmp_path, every=2)  # type: ignore[arg-type]
            try:
                model.fit(data, epochs=1, steps_per_epoch=4, verbose=0, callbacks=[checkpoint, *extra])
            except RuntimeError:
                assert extra
    # Two steps were saved; a resumed epoch has all of its steps.
    assert km.trained_ids(model) == list(range(24))


def test_without_a_checkpoint_training_goes_on_and_keeps_the_order() -> None:
    model = km.ready_model()
    with feed() as data:
        model.fit(data, epochs=2, steps_per_epoch=3, verbose=0)
    assert km.trained_ids(model) in ([*range(24)], [*range(8, 32)])  # TensorFlow looks at two batches


def test_what_a_py_dataset_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="an epoch is a number of steps"):
        PyDatasetFeed(ub.arrays(km.rows(8)).batch(4), ub.Epoch(rows=8))
    with pytest.raises(ValueError, match="knows no rounds"):
        PyDatasetFeed(ub.arrays(km.rows(8)).batch(4), each_round="same")
