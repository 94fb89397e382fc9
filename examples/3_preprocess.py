"""Preprocessing in an endless stream: `x * 2 - 1` for whole columns at a time, behind the buffer.

KERAS_BACKEND=jax python examples/3_preprocess.py
"""

import keras
import numpy as np

import unbounded as ub


def sensor():
    rng = np.random.default_rng()
    while True:
        x = rng.random((rng.integers(1, 500), 10), dtype=np.float32)
        yield {"x": x, "y": x.sum(axis=1, keepdims=True)}


def centred(rows):
    """Values from [0, 1) to [-1, 1)."""
    return {**rows, "x": rows["x"] * 2 - 1}


model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

stream = ub.from_generator(sensor).buffer(10_000).map(centred).columns(x="x", y="y").batch(32)
with ub.keras.Feed(stream, epoch=ub.Epoch(steps=1000)) as feed:
    history = model.fit(feed, epochs=2)
    print(f"trained on {feed.stats}; the loss fell to {history.history['loss'][-1]:.4f}")
