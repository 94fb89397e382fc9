"""Batches as each backend wants them, and what may not stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from unbounded import _rows
from unbounded._epoch import Epoch
from unbounded._feed import Feed as CoreFeed
from unbounded._rows import Tree
from unbounded.keras._signals import Interrupted

_INSTEAD = {
    "y": "Put the targets into the batches: .select(x=…, y=…), or yield (x, y).",
    "sample_weight": "Put the weights into the batches: .select(x=…, y=…, weight=…), or yield (x, y, weight).",
    "class_weight": "Put a weight for each row into the batches: .map(lambda b: (b[0], b[1], weights[b[1]])).",
    "batch_size": "The stream says it: .batch(n).",
}


def refuse(name: str, value: Any) -> None:
    """Raise ValueError for an argument that Keras would drop in silence beside a feed."""
    shown = f"{name}={value!r}" if isinstance(value, int | float | str | dict) else name
    raise ValueError(f"{shown} was given beside a feed, which brings everything with it. {_INSTEAD[name]}")


def refuse_sharding() -> None:
    """Keras can shard a tf.data over processes, and nothing else; for a feed it doesn't even look."""
    distribution = keras.distribution.distribution()
    if getattr(distribution, "_is_multi_process", False) and getattr(distribution, "auto_shard_dataset", False):
        raise ValueError(
            "A distribution over several processes would give each of them the same batches of the feed. Give each "
            "process a stream of its own share, and set distribution.auto_shard_dataset = False."
        )


def check_multiple(epoch: Epoch | None, multiple: int) -> None:
    """Keras runs `steps_per_execution` steps at a time: an exact number of steps must be a multiple of it."""
    steps = None if epoch is None else epoch.steps
    if steps is not None and steps % multiple:
        low = steps // multiple * multiple
        choice = f"{low} or {low + multiple}" if low else f"{multiple}"
        raise ValueError(f"Epoch(steps={steps}) is not a multiple of steps_per_execution={multiple}: use {choice}.")


def rounded_up(core: CoreFeed, multiple: int) -> Iterator[Tree]:
    """The batches of the epoch at hand, and as many more as make their number a multiple.

    Only where time, rows or passes end it: a number of steps is kept, and so is a declared end.
    """
    before = core.handed
    try:
        yield from core.batches()
    except Interrupted:
        return
    epoch = core.epoch
    if multiple == 1 or epoch is None:
        return
    while (core.handed - before) % multiple and not core.interrupted:
        if epoch.steps is not None and core.handed - core.progress.start.steps >= epoch.steps:
            return
        core.epoch = None
        try:
            batch = next(core.hand_out(), None)  # those that are out stay out
        except Interrupted:
            return
        finally:
            core.epoch = epoch
        if batch is None:
            return
        yield batch


def converted(batches: Iterator[Tree], convert: Callable[[Iterator[Tree]], Iterable[Any]] | None) -> Iterator[Any]:
    """Batches, converted, up to a signal."""
    try:
        yield from batches if convert is None else convert(batches)
    except Interrupted:
        return


def to_torch(batches: Iterator[Tree]) -> Iterator[Any]:
    """Batches as tensors over the same memory, where PyTorch allows it."""
    return (_rows.map_leaves(_leaf_to_torch, batch) for batch in batches)


def _leaf_to_torch(leaf: Any) -> Any:
    import torch

    # A tensor can't be read-only, nor have negative strides or another machine's byte order.
    if not leaf.flags.writeable or not leaf.dtype.isnative or any(stride < 0 for stride in leaf.strides):
        leaf = np.array(leaf, leaf.dtype.newbyteorder("="))
    return torch.from_numpy(leaf) if leaf.dtype.kind in "fiubc" else leaf
