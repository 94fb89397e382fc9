"""A buffer of 10,000 rows in front of an endless source: first in, first out, filled while the model trains.

KERAS_BACKEND=jax python examples/2_buffer.py
"""

import keras
import numpy as np

import unbounded as ub


def sensor():
    """Rows as they come: a different number each time."""
    rng = np.random.default_rng()
    while True:
        x = rng.random((rng.integers(1, 500), 10), dtype=np.float32)
        yield x, x.sum(axis=1, keepdims=True)


model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

stream = ub.from_generator(sensor).buffer(10_000).batch(32)
with ub.keras.Feed(stream, epoch=ub.Epoch(steps=1000)) as feed:
    history = model.fit(feed, epochs=2)
    print(f"trained on {feed.stats}, {feed.stats.waiting:.1%} of the time waiting for data")
