"""A folder of images, one folder for each class: decoded and resized in two threads while the model trains.

KERAS_BACKEND=jax python examples/folder_of_images.py
"""

from pathlib import Path

import keras
import numpy as np
from PIL import Image

import unbounded as ub

CLASSES = ["dark", "bright"]

photos = Path("data/photos")
if not photos.exists():  # yours is there already
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (photos / name).mkdir(parents=True)
        for photo in range(200):
            pixels = rng.integers(0, 100, (48, 64, 3), dtype=np.uint8) + np.uint8(100 * number)
            Image.fromarray(pixels).save(photos / name / f"{photo}.jpg")


def as_input(rows):
    """Pixels between 0 and 1 as x, of shape (rows, 32, 32, 3); the numbers of the classes as y."""
    return rows["path"].astype("float32") / 255, rows["folder"]


stream = (
    ub.from_files(photos / "*/*.jpg", shuffle=True)  # rows with a path, and the folder that it is in
    .encode("folder", CLASSES)
    .images("path", 32)
    .map(as_input)
    .batch(32)
)
model = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=["accuracy"])

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/images")])
    print(feed.position)
