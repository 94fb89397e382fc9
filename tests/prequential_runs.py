"""One `fit` with `Prequential`, for tests: what it wrote, told and trained."""

import functools

import keras
import numpy as np

import unbounded as ub
from unbounded.keras._model_state import build, model_state, restore_model


def model(multiple=1):
    """A compiled model as new: one is used again and again, since compiling it takes a second."""
    keras.utils.set_random_seed(0)
    made, state = _ready(multiple)
    restore_model(made, state)
    made.stop_training = False
    return made


@functools.cache
def _ready(multiple):
    made = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.2, seed=1),
            keras.layers.Dense(1),
        ]
    )
    made.compile("sgd", "mse", steps_per_execution=multiple)
    build(made, (np.zeros((1, 3), "float32"), np.zeros((1, 1), "float32")))
    return made, model_state(made)


class Stop(Exception):
    pass


class StopsAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Stop


def run(described, folder, *, steps=12, epochs=3, multiple=1, stop=None, every=None, tested=True, made=None, **given):
    """One `fit`: the table, the predictions that the callback was given, the history and the weights."""
    return run_of(described, folder, steps, epochs, multiple, stop, every, tested, made, **given)[:4]


def run_of(described, folder, steps=12, epochs=3, multiple=1, stop=None, every=None, tested=True, made=None, **given):
    """The same, and the callback."""
    seen = []
    made = made or model(multiple)
    with ub.keras.Feed(described, epoch=ub.Epoch(steps=steps)) as feed:
        on = (lambda n, r, p: seen.append((n, r, p))) if tested else None
        callbacks, callback = [], None
        if tested:
            callback = ub.keras.Prequential(feed, ["mae"], last=50, on_predictions=on, **given)
            callbacks = [callback]
        if every is not None:
            callbacks.append(ub.keras.Checkpoint(feed, folder, every=every))
        if stop:
            callbacks.append(StopsAt(stop))
        history = {}
        try:
            history = made.fit(feed, epochs=epochs, verbose=0, callbacks=callbacks).history
        except Stop:
            pass
    found = folder / "prequential.npy"
    return np.load(found) if found.exists() else None, seen, history, made.get_weights(), callback


def numbers(seen):
    """Of all rows predicted, in order."""
    return np.concatenate([n for n, _, _ in seen])
