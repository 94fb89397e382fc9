"""Old rows beside new ones, so that a model that learns from the new ones does not forget: one to three, exactly.

KERAS_BACKEND=jax python examples/old_and_new.py
"""

import keras
import numpy as np

import unbounded as ub

rng = np.random.default_rng(0)
archive = {"x": rng.random((5000, 10), dtype=np.float32)}
archive["y"] = archive["x"].sum(axis=1, keepdims=True)


def sensor(start=0):
    """New rows, from number `start` on: their relation to y has changed."""
    while True:
        x = np.random.default_rng(start).random((100, 10), dtype=np.float32)
        yield {"x": x, "y": 1 + x.sum(axis=1, keepdims=True)}
        start += 100


old, new = ub.from_arrays(archive), ub.from_generator(sensor).shuffle(1000)
stream = ub.mix({"old": old, "new": new}, weights={"old": 1, "new": 3}).columns(x="x", y="y").batch(32)
model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/old_and_new")])
    print(feed.position)  # a pass over the old rows, and a number of new ones
