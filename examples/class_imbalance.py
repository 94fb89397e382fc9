"""Class imbalance: one row in fifty is of the rare class, and half of each batch shall be.

KERAS_BACKEND=jax python examples/class_imbalance.py
"""

import keras
import numpy as np

import unbounded as ub

rng = np.random.default_rng(0)
label = (rng.random(20_000) < 0.02).astype("int64")
x = rng.normal(size=(20_000, 10)).astype("float32") + label[:, None]

training, validation = ub.from_arrays({"x": x, "label": label}).split(0.9)
balanced = training.balance(by="label", rows=5000, repeats=50).columns(x="x", y="label").batch(32)
as_it_is = validation.columns(x="x", y="label").batch(32)

model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1, activation="sigmoid")])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=["precision", "recall"])

feed = ub.keras.Feed(balanced, epoch=ub.Epoch(steps=100))
held_back = ub.keras.Feed(as_it_is, epoch=ub.Epoch(passes=1))  # the true shares
with feed, held_back:
    checkpoint = ub.keras.Checkpoint(feed, "runs/imbalance")
    model.fit(feed, validation_data=held_back, epochs=5, callbacks=[checkpoint])
    print(feed.position)
