"""A table of sensors with gaps: two machines in one CSV file, missing values, and an hour in which nothing was written.

KERAS_BACKEND=jax python examples/sensors_with_gaps.py
"""

from pathlib import Path

import keras
import numpy as np

import unbounded as ub

table = Path("data/plant.csv")
if not table.exists():  # yours is there already
    table.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["time,machine,temperature,pressure"]
    for minute in range(3000):
        if not 1000 <= minute < 1060:
            at = np.datetime64("2026-01-01T00:00") + minute
            for machine, usual in (("press", 60), ("lathe", 35)):
                temperature = f"{usual + 5 * np.sin(minute / 50) + rng.normal():.2f}"
                if rng.random() < 0.05:
                    temperature = ""
                lines.append(f"{at},{machine},{temperature},{rng.normal(3, 0.1):.3f}")
    table.write_text("\n".join(lines) + "\n")

SENSORS, LENGTH = ("temperature", "pressure"), 8


def next_reading(rows):
    """Windows of shape (rows, LENGTH): all values but the last ones are x, the last ones y."""
    values = np.stack([rows[name] for name in SENSORS], axis=-1).astype("float32")
    return values[:, :-1], values[:, -1]


stream = (
    ub.from_files(table)
    .time("time")
    .fill("last", by="machine")  # a missing value: the last one of the same machine
    .drop_missing(SENSORS)  # rows at the beginning have none before them
    .normalize(*SENSORS, by="machine")
    .windows(LENGTH, by="machine", max_gap="5min")  # no window spans the hour
    .map(next_reading)
    .shuffle(2000)
    .batch(32)
)
model = keras.Sequential([keras.Input((LENGTH - 1, len(SENSORS))), keras.layers.Flatten(), keras.layers.Dense(2)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/sensors")])
    print(feed.position)
    print(feed.stats)
