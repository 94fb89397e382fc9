"""Keras from a folder of Parquet files, which may be larger than memory.

KERAS_BACKEND=jax python examples/keras_parquet.py
"""

from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import unbounded as ub

folder = Path("data/flats")
if not folder.exists():  # yours is there already
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in range(4):
        area, age = rng.uniform(20, 200, 5000), rng.uniform(0, 100, 5000)
        table = pa.table({"area": area, "age": age, "price": 3 * area - age + 50})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=1000)


def as_features(rows):
    """The columns of some rows as two arrays: x of shape (rows, 2), y of shape (rows, 1)."""
    x = np.stack([rows["area"], rows["age"]], axis=1)
    return x.astype("float32"), rows["price"][:, None].astype("float32")


stream = (
    ub.from_files(folder / "*.parquet", columns=["area", "age", "price"], shuffle=True)
    .normalize("area", "age", "price")  # by the mean and the deviation of all rows so far
    .map(as_features)
    .batch(64)
)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/parquet")])
    print(feed.position)
