"""Data sets of tf.data: whether their elements are batches, those that reshuffle, and GPUs left to the trainer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_BATCHES = ("_BatchDataset", "_ParallelBatchDataset", "_PaddedBatchDataset")
# Data sets whose elements are those of their input.
_SAME = (
    *("_PrefetchDataset", "_OptionsDataset", "_CacheDataset", "CacheDataset", "_RepeatDataset", "_TakeDataset"),
    *("_SkipDataset", "_ShuffleDataset", "_ShardDataset", "_ModelDataset"),
)


def gives_batches(dataset: Any) -> bool:
    """True if its last step that changes elements is a `batch`."""
    while type(dataset).__name__ in _SAME:
        inputs = list(_inputs(dataset))
        if len(inputs) != 1:
            return False
        dataset = inputs[0]
    return type(dataset).__name__ in _BATCHES


def refuse_reshuffling(dataset: Any) -> None:
    """Raise ValueError for a data set with a `.shuffle()` that gives another order each time."""
    waiting, seen = [dataset], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if type(part).__name__ == "_ShuffleDataset" and vars(part).get("_reshuffle_each_iteration") is not False:
            raise ValueError(
                "from_dataset() was given a tf.data data set with .shuffle(), which gives another order each time that "
                "it is begun: what a run has seen can't be told after a restart. Leave it out, and shuffle in the "
                "stream: ub.from_dataset(data).shuffle(10_000), before .batch(n); or write "
                ".shuffle(…, reshuffle_each_iteration=False)."
            )
        waiting += _inputs(part)


def _inputs(dataset: Any) -> Iterator[Any]:
    """The data sets that a data set reads from."""
    for value in vars(dataset).values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if type(each).__module__.startswith("tensorflow.python.data.") and hasattr(each, "element_spec"):
                yield each


def leave_gpus() -> None:
    """Hide GPUs from TensorFlow where another framework trains: it would take their memory for reading data. No-op
    once TensorFlow has begun, or where Keras trains on it."""
    keras, tensorflow = sys.modules.get("keras"), sys.modules["tensorflow"]
    if keras is None:
        trains = not ("jax" in sys.modules or "torch" in sys.modules)
    else:
        trains = keras.backend.backend() == "tensorflow"
    if not trains:
        with suppress(RuntimeError):  # it has begun
            tensorflow.config.set_visible_devices([], "GPU")
