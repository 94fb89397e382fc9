"""Keras trains on batches of several lengths: `batch(n, bucket=…)`."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("keras")

import keras

import unbounded as ub

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("steps", [1, 4])
def test_a_model_trains_on_batches_of_several_lengths(steps: int) -> None:
    if steps > 1 and keras.backend.backend() == "torch":
        pytest.skip("Keras runs one step at a time on torch")
    lengths = np.random.default_rng(0).integers(1, 13, 200).tolist()
    rows = (ub.ragged([[i % 7] * n for i, n in enumerate(lengths)]), np.arange(200.0) % 2)
    stream = ub.from_arrays(rows).batch(8, bucket=[4, 8, 13])
    layers = [keras.layers.Embedding(7, 3), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", steps_per_execution=steps)
    with ub.keras.Feed(stream, ub.Epoch(steps=24)) as feed:
        model.fit(feed, epochs=2, verbose=0)
        assert feed.stats.steps == 48
