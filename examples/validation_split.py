"""A validation split of an endless stream: a tenth of the users is never trained on, whenever their rows come.

KERAS_BACKEND=jax python examples/validation_split.py
"""

import keras
import numpy as np

import unbounded as ub


def events(start=0):
    """Endless rows of 500 users, from number `start` on."""
    while True:
        rng = np.random.default_rng(start)
        x = rng.random((100, 10), dtype=np.float32)
        yield {"user": rng.integers(0, 500, 100), "x": x, "y": x.sum(axis=1, keepdims=True)}
        start += 100


training, validation = ub.from_generator(events).split(0.9, by="user")  # by a hash of the user, the same for ever
model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

feed = ub.keras.Feed(training.shuffle(1000).columns(x="x", y="y").batch(32), epoch=ub.Epoch(steps=100))
newest = ub.keras.Feed(validation.columns(x="x", y="y").batch(32), epoch=ub.Epoch(steps=10), validation="next")
with feed, newest:
    checkpoint = ub.keras.Checkpoint([feed, newest], "runs/split")
    history = model.fit(feed, validation_data=newest, epochs=5, callbacks=[checkpoint])
    print(f"{feed.position}; val_loss {history.history['val_loss'][-1]:.4f}")
