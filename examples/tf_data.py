"""A tf.data pipeline as it is, into Keras on any backend.

KERAS_BACKEND=jax python examples/tf_data.py
"""

import keras
import numpy as np
import tensorflow as tf

import unbounded as ub

x = np.random.default_rng(0).random((5000, 10), dtype=np.float32)
y = x.sum(axis=1, keepdims=True)
# Without its .shuffle(): what is in that buffer is in no checkpoint. The stream shuffles, and resumes.
pipeline = tf.data.Dataset.from_tensor_slices((x, y)).map(lambda x, y: (x * 2 - 1, y))

stream = ub.from_dataset(pipeline).shuffle(2000).batch(32)
model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")

with ub.keras.Feed(stream, epoch=ub.Epoch(steps=100)) as feed:
    model.fit(feed, epochs=5, callbacks=[ub.keras.Checkpoint(feed, "runs/tf_data")])
    print(feed.position)
