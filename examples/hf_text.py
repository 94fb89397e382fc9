"""A text data set of Hugging Face: sentences of several lengths, in batches of about one length.

KERAS_BACKEND=jax python examples/hf_text.py
"""

import zlib

import datasets
import keras
import numpy as np

import unbounded as ub

WORDS = 1000

# Yours: datasets.load_dataset("imdb", split="train")
rng = np.random.default_rng(0)
good, bad, other = ["fine", "great", "lovely"], ["dull", "poor", "awful"], ["the", "film", "was", "a", "plot", "and"]
label = rng.integers(0, 2, 2000)
text = [" ".join([*rng.choice(other, rng.integers(2, 28)), *rng.choice(good if y else bad, 2)]) for y in label]
reviews = datasets.Dataset.from_dict({"text": text, "label": label})


def tokenized(review):
    """The numbers of the words, from 1 on. Yours: a tokenizer."""
    return {"tokens": [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in review["text"].split()]}


reviews = reviews.map(tokenized, remove_columns="text")
stream = (
    ub.from_dataset(reviews, ragged=["tokens"])  # a new order in each pass
    .columns(x="tokens", y="label")
    .batch(32, bucket=[8, 16, 32])  # filled up with zeros to 8, 16 or 32 words
)
model = keras.Sequential(
    [
        keras.Input((None,), dtype="int32"),
        keras.layers.Embedding(WORDS, 8, mask_zero=True),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=["accuracy"])

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/text")])
    print(feed.position)
