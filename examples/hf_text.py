"""A text data set of Hugging Face: sentences into word numbers, and Keras.

KERAS_BACKEND=jax python examples/hf_text.py
"""

import zlib

import datasets
import keras
import numpy as np

import unbounded as ub

WORDS, LENGTH = 1000, 12

# Yours: datasets.load_dataset("imdb", split="train")
rng = np.random.default_rng(0)
good, bad, other = ["fine", "great", "lovely"], ["dull", "poor", "awful"], ["the", "film", "was", "a", "plot", "and"]
label = rng.integers(0, 2, 2000)
text = [" ".join(rng.permutation([*rng.choice(other, 6), *rng.choice(good if y else bad, 2)])) for y in label]
reviews = datasets.Dataset.from_dict({"text": text, "label": label})


def word_numbers(rows):
    """Text of shape (rows,) as numbers of words, of shape (rows, LENGTH), filled up with zeros."""
    x = np.zeros((len(rows["text"]), LENGTH), "int32")
    for i, sentence in enumerate(rows["text"]):
        numbers = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in sentence.split()[:LENGTH]]
        x[i, : len(numbers)] = numbers
    return x, rows["label"][:, None].astype("float32")


stream = ub.from_dataset(reviews).map(word_numbers).batch(32)
model = keras.Sequential(
    [
        keras.Input((LENGTH,), dtype="int32"),
        keras.layers.Embedding(WORDS, 8),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=["accuracy"])

with ub.keras.Feed(stream, epoch=ub.Epoch(passes=1)) as feed:
    model.fit(feed, epochs=4, callbacks=[ub.keras.Checkpoint(feed, "runs/text")])
    print(feed.position)
