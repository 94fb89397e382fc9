"""One director stands in Keras's list of callbacks, in whatever form `fit` is given them, and hears each event in the
training thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import Checkpoint, Feed
from unbounded.store.checkpoints import Checkpoints

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

STEPS, BATCH = 6, 4


class Threads(keras.callbacks.Callback):
    """Notes in which threads Keras tells the ends of steps."""

    async_safe = True  # which Keras takes for the leave to tell it from any thread

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[threading.Thread] = set()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.add(threading.current_thread())

    on_test_batch_end = on_train_batch_end


def own_list(callback: Any, model: Any, epochs: int = 1) -> Any:
    return keras.callbacks.CallbackList(callback, add_history=True, model=model, epochs=epochs, verbose=0, steps=None)


GIVEN: dict[str, Callable[[Any, Any], Any]] = {
    "one callback": lambda one, model: one,
    "a list": lambda one, model: [one],
    "a tuple": lambda one, model: (one, Threads()),
    "a dict": lambda one, model: {"saves": one, "notes": Threads()},
    "a CallbackList of one callback": own_list,
    "a CallbackList of a list": lambda one, model: own_list([one], model),
}


def ids_of(saved: Any) -> list[int]:
    """The ids that the model in a checkpoint has recorded."""
    variables = saved.read_state()["model"]["variables"]
    order = next(array for path, array in variables.items() if path.endswith("order"))
    seen = next(array for path, array in variables.items() if path.endswith("seen"))
    return list(order[: int(seen)])


@pytest.mark.parametrize("form", ["one callback", *km.any_backend(*list(GIVEN)[1:])])
def test_each_checkpoint_holds_the_rows_of_its_steps_in_whatever_form_fit_is_given_callbacks(
    form: str, tmp_path: Path
) -> None:
    model = km.ready_model()
    stream = ub.from_arrays(km.rows(64), shuffle=False).batch(BATCH)
    validation = (km.rows(16)[0], km.rows(16)[1])
    with Feed(stream, ub.Epoch(steps=STEPS)) as feed:
        callbacks = GIVEN[form](Checkpoint(feed, tmp_path, every=1, keep=100, wait=True), model)
        model.fit(feed, verbose=0, callbacks=callbacks, validation_data=validation, validation_batch_size=4)
        assert feed.steps == STEPS
    assert km.trained_ids(model) == list(range(STEPS * BATCH))
    found = {saved.number: ids_of(saved) for saved in Checkpoints(tmp_path).all()}
    assert found == {step: list(range(step * BATCH)) for step in range(1, STEPS + 1)}


@pytest.mark.parametrize("form", ["a CallbackList of one callback", *km.any_backend("one callback", "a dict")])
def test_a_run_goes_on_exactly_in_whatever_form_fit_is_given_callbacks(form: str, tmp_path: Path) -> None:
    stream = ub.from_arrays(km.rows(64), seed=3).batch(BATCH)
    results = []
    for parts in ((2,), (1, 2)):
        folder = tmp_path / str(len(parts))
        for epochs in parts:
            model = km.ready_model(dropout=0.5)
            with Feed(stream, ub.Epoch(steps=STEPS)) as feed:
                one = Checkpoint(feed, folder, every=2)
                callbacks = own_list(one, model, epochs) if "CallbackList" in form else GIVEN[form](one, model)
                model.fit(feed, epochs=epochs, verbose=0, callbacks=callbacks)
        results.append((km.trained_ids(model), km.weights(model)))
    (whole, weights), (resumed, others) = results
    assert resumed == whole
    assert len(whole) == 2 * STEPS * BATCH
    assert all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


def test_callbacks_beside_a_checkpoint_hear_of_steps_in_the_training_thread(tmp_path: Path) -> None:
    model, notes = km.ready_model(), Threads()
    with Feed(ub.from_arrays(km.rows(64)).batch(BATCH), ub.Epoch(steps=STEPS)) as feed:
        callbacks = {"saves": Checkpoint(feed, tmp_path), "notes": notes}
        model.fit(feed, verbose=0, callbacks=callbacks, validation_data=km.rows(8))
    assert notes.seen == {threading.current_thread()}


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_a_callback_list_that_tells_its_callbacks_nothing_of_the_fit_is_refused(tmp_path: Path) -> None:
    model = km.ready_model()
    with Feed(ub.from_arrays(km.rows(64)).batch(BATCH), ub.Epoch(steps=STEPS)) as feed:
        bare = keras.callbacks.CallbackList([Checkpoint(feed, tmp_path)], add_history=True, model=model)
        with pytest.raises(ValueError, match=r"was made without parameters.* the list of callbacks itself"):
            model.fit(feed, verbose=0, callbacks=bare)
