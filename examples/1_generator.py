"""A generator that never ends, as training data: an epoch is a thousand steps, whatever the generator does.

KERAS_BACKEND=jax python examples/1_generator.py
"""

import keras
import numpy as np

import unbounded as ub


def batches():
    rng = np.random.default_rng()
    while True:
        x = rng.random((32, 10), dtype=np.float32)
        yield x, x.sum(axis=1, keepdims=True)


model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

# Without .batch() each block that the generator yields is a batch.
with ub.keras.Feed(ub.from_generator(batches)) as feed:
    history = model.fit(feed, steps_per_epoch=1000, epochs=2)
    print(f"trained on {feed.stats}; the loss fell to {history.history['loss'][-1]:.4f}")
