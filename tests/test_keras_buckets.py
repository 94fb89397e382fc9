"""Keras trains on batches of several lengths: `batch(n, bucket=…)`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras")

import keras

import unbounded as ub

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (ub.ragged([[1], [2, 3]]), r"the column 'x' has rows of several lengths.*\.pad\(length\).*bucket="),
        (ub.ragged([b"1", b"23"]), r"the column 'x' has bytes.*\.images\('x', size\)"),
    ],
)
def test_rows_of_several_lengths_are_refused_before_the_first_step(column: Any, message: str) -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    stream = ub.from_arrays({"x": column, "y": np.zeros(2)}).columns("x", "y").batch(2)
    with ub.keras.Feed(stream, ub.Epoch(steps=1)) as feed, pytest.raises(ub.RowsError, match=message):
        model.fit(feed, verbose=0)


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
