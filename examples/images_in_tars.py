"""Images in tar shards, as WebDataset writes them: decoded and resized in two threads while the model trains.

KERAS_BACKEND=jax python examples/images_in_tars.py
"""

import io
import tarfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import unbounded as ub

folder = Path("data/shapes")
if not folder.exists():  # yours is there already
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(100):
                bright = number % 2
                pixels = rng.integers(0, 100, (48, 64, 3), dtype=np.uint8) + np.uint8(100 * bright)
                jpeg = io.BytesIO()
                Image.fromarray(pixels).save(jpeg, "JPEG")
                for suffix, content in (("jpg", jpeg.getvalue()), ("cls", str(bright).encode())):
                    entry = tarfile.TarInfo(f"{shard}{number:04}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def decoded(rows):
    """Encoded images as x of shape (rows, 32, 32, 3), between 0 and 1; their classes as y."""
    images = [Image.open(io.BytesIO(jpeg)).convert("RGB").resize((32, 32)) for jpeg in rows["jpg"]]
    return np.stack(images).astype("float32") / 255, rows["cls"][:, None]


stream = ub.from_files(folder / "*.tar", columns=["jpg", "cls"], shuffle=True).map(decoded, workers=2).batch(32)
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
