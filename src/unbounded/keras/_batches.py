"""Batches in the form of each backend, and checks of the arguments that Keras gets beside a feed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.feed.epoch import Epoch
from unbounded.keras._leaf_kinds import check_leaves
from unbounded.stream import Stream

_INSTEAD = {
    "y": "Put the targets into the batches: .columns(x=…, y=…), or yield (x, y).",
    "sample_weight": (
        "Put the weights into the batches: .columns(x=…, y=…, sample_weight=…), or yield (x, y, sample_weight)."
    ),
    "class_weight": "It weighs what is trained on, and there is no training here.",
    "batch_size": "The stream says it: .batch(n).",
}


def refuse_others(others: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raise ValueError for an argument that Keras would silently ignore for a feed."""
    for name, value in others.items():
        if name not in allowed:
            shown = f"{name}={value!r}" if isinstance(value, int | float | str | dict) else name
            raise ValueError(f"{shown} was given beside a feed, which brings everything with it. {_INSTEAD[name]}")


def weigher(others: Mapping[str, Any]) -> Callable[[Tree], Tree] | None:
    """A function that applies `class_weight`: `(x, y)` becomes `(x, y, sample_weight)`, as Keras does it for arrays.

    Args:
        others: the arguments besides the feed, by name.

    Returns:
        A function of a batch, whose weights are float32 of shape (rows,); None without `class_weight`.

    Raises:
        TypeError: it is not a dict of class numbers and weights.
    """
    given = others.get("class_weight")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise TypeError(
            f"class_weight was given {type(given).__name__}. Expected a dict of class numbers and weights, such as "
            "{0: 1.0, 1: 5.0}."
        )
    classes = np.array(sorted(int(number) for number in given), np.int64)
    weights = np.array([float(given[number]) for number in sorted(given, key=int)], keras.config.floatx())

    def weigh(batch: Tree) -> Tree:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ValueError("class_weight was given, and the batches have no targets. Expected batches of (x, y).")
        if len(batch) > 2 and batch[2] is not None:
            raise ValueError(
                "class_weight was given beside batches that have weights, (x, y, sample_weight). Multiply the weights "
                "in the stream, or leave one of them out."
            )
        y = batch[1]
        if not isinstance(y, np.ndarray):
            raise ValueError("class_weight was given for several targets. Expected one array of targets.")
        if y.ndim > 1:
            y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
        labels = np.round(y).astype(np.int64)
        if not len(classes):
            return batch[0], batch[1], np.ones(labels.shape, weights.dtype)
        place = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
        # A class without a weight has weight 1.
        return batch[0], batch[1], np.where(classes[place] == labels, weights[place], 1).astype(weights.dtype)

    return weigh


def check_first(batch: Tree, stream: Stream, model: Any) -> None:
    """Raise an error if no step of the model can train on batches like this one, before Keras fails in a step.

    Args:
        batch: the first batch of a `fit`.
        stream: the stream that it is of.
        model: the compiled model.

    Raises:
        RowsError: a leaf is no number and no bool.
        ValueError: the model has a loss, and the batch has no targets for it.
    """
    check_leaves(batch, stream, model, "fit")
    has_targets = isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None
    if not has_targets and getattr(model, "loss", None) is not None and _computes_loss_as_keras(model):
        raise ValueError(
            f"The model was compiled with loss={_shown(model.loss)}, and the batches have no targets: each is "
            f"{_content(batch)}. Expected batches of (x, y): .columns(x=…, y=…) makes them of a dict of columns, and "
            ".map(lambda x: (x, x)) makes the inputs the targets."
        )


def _computes_loss_as_keras(model: Any) -> bool:
    base = keras.Model
    return all(getattr(type(model), name) is getattr(base, name) for name in ("train_step", "compute_loss"))


def _shown(loss: Any) -> str:
    return repr(loss) if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def _content(batch: Tree) -> str:
    if isinstance(batch, dict):
        return f"a dict of {trees.columns(batch)}"
    return "one array" if isinstance(batch, np.ndarray) else f"a {type(batch).__name__} of {len(batch)}"


def refuse_sharding() -> None:
    """Raise ValueError for a distribution over processes: Keras shards a tf.data only, and ignores it for a feed."""
    distribution = keras.distribution.distribution()
    if getattr(distribution, "_is_multi_process", False) and getattr(distribution, "auto_shard_dataset", False):
        raise ValueError(
            "A distribution over several processes would give each of them the same batches of the feed. Give each "
            "process a stream of its own share, and set distribution.auto_shard_dataset = False."
        )


def check_multiple(epoch: Epoch | None, multiple: int) -> None:
    """Raise ValueError unless the epoch's steps are a multiple of `steps_per_execution`, which Keras runs at a time."""
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise ValueError(
            f"The model was compiled with steps_per_execution={multiple!r}, and Keras 3 runs a whole number of steps "
            "at a time. Compile it with a number, such as 32."
        )
    steps = None if epoch is None else epoch.steps
    if steps is not None and steps % multiple:
        low = steps // multiple * multiple
        choice = f"{low} or {low + multiple}" if low else f"{multiple}"
        raise ValueError(f"Epoch(steps={steps}) is not a multiple of steps_per_execution={multiple}: use {choice}.")


def to_torch(batches: Iterator[Tree]) -> Iterator[Any]:
    """Batches as tensors over the same memory, if PyTorch allows it."""
    return (trees.map_leaves(_leaf_to_torch, batch) for batch in batches)


def _leaf_to_torch(leaf: Any) -> Any:
    import torch

    # PyTorch has no read-only tensors, no negative strides and no foreign byte order.
    if not leaf.flags.writeable or not leaf.dtype.isnative or any(stride < 0 for stride in leaf.strides):
        leaf = np.array(leaf, leaf.dtype.newbyteorder("="))
    return torch.from_numpy(leaf) if leaf.dtype.kind in "fiubc" else leaf
