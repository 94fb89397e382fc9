"""Class imbalance: one row in fifty is of the rare class, and a third of each batch shall be.

KERAS_BACKEND=jax python examples/class_imbalance.py
"""

import keras
import numpy as np

import unbounded as ub

rng = np.random.default_rng(0)
label = (rng.random(20_000) < 0.02).astype("float32")[:, None]
x = rng.normal(size=(20_000, 10)).astype("float32") + label
rows = ub.from_arrays({"x": x, "y": label})

common = rows.filter(lambda rows: rows["y"][:, 0] == 0)
rare = rows.filter(lambda rows: rows["y"][:, 0] == 1)
stream = ub.mix({"common": common, "rare": rare}, weights={"common": 2, "rare": 1}).columns(x="x", y="y").batch(32)

model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1, activation="sigmoid")])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=["precision", "recall"])

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/imbalance")])
    print(feed.position)
