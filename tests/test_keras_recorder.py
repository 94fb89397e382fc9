"""The recording model records exactly what was trained on."""

from __future__ import annotations

import numpy as np
import pytest

import keras_models as km

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


@pytest.mark.parametrize("steps_per_execution", [1, 4] if km.BACKEND != "torch" else [1])
def test_the_model_records_each_row_that_it_was_trained_on_in_order(steps_per_execution: int) -> None:
    model = km.recording_model(steps_per_execution=steps_per_execution)
    x, y = km.rows(48)
    model.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0)
    assert km.trained_ids(model) == [*range(48), *range(48)]
    assert km.trained_counts(model) == [2] * 48 + [0] * 16


def test_validation_is_not_recorded() -> None:
    model = km.ready_model()
    x, y = km.rows(8)
    model.fit(x, y, batch_size=4, shuffle=False, validation_data=(x, y), verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    assert km.trained_ids(model) == list(range(8))


def test_batches_of_changing_size_are_recorded_whole() -> None:
    model = km.ready_model()
    for start, n in ((0, 4), (4, 2), (6, 5)):
        model.train_on_batch(*km.rows(n, start=start))
    assert km.trained_ids(model) == list(range(11))
    assert np.all(np.isfinite(km.weights(model)[0]))
