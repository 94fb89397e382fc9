"""Batches for TensorFlow, made many at a time: one conversion costs as much for sixty-four batches as for one.

Its trainer takes a plain iterator when it runs one step at a time. For several at once it needs a `tf.data` iterator,
since its loop then runs in C++: that gets blocks of batches, and cuts them there. This module is imported where
the backend is TensorFlow.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.keras import _model_state
from unbounded.stream import Stream

if TYPE_CHECKING:
    from unbounded.keras._adapters import FitAdapter, _OfOneIterator
    from unbounded.keras._fit import Fit

_MOST = 512  # batches made at once
_BYTES = 1 << 20  # and at most so many bytes, where that is more than one batch
_FIRST = 64  # batches of the first blocks
_SECONDS = 0.1  # an interrupt without a director waits for the end of a block: longer ones are for short steps alone


def _next_group(fit: Fit, most: int = _MOST) -> list[Tree]:
    """The next batches that are there, all of one length, and as many as are worth making at once: none is handed out.

    Args:
        fit: what they are for.
        most: how many at most.
    """
    first = fit.upcoming(1)
    if not first:
        return []
    rows = trees.count(first[0])
    worth = max(1, _BYTES // max(1, rows * trees.row_bytes(first[0])))
    group = fit.upcoming(min(most, _MOST, worth))
    same = next((i for i, batch in enumerate(group) if trees.count(batch) != rows), len(group))
    return group[:same]


def tensors(fit: Fit) -> Iterator[Tree]:
    """Batches as tensors, for one step at a time."""
    made: deque[Tree] = deque()
    while fit.next_is_there():
        if not made:
            made.extend(_unstacked(_next_group(fit)))
        fit.take()
        yield made.popleft()


def _unstacked(group: list[Tree]) -> list[Tree]:
    if len(group) == 1:
        return group
    columns = zip(*([leaf for _, leaf in trees.leaves(batch)] for batch in group), strict=True)
    made = zip(*(tf.unstack(tf.constant(_stacked(*column))) for column in columns), strict=True)
    return [_with_leaves(batch, iter(leaves)) for batch, leaves in zip(group, made, strict=True)]


def _stacked(*leaves: Any) -> Any:
    """One column of batches of one length, of shape (batches, rows, …). np.stack would take twice as long."""
    return np.concatenate(leaves).reshape(len(leaves), *leaves[0].shape)


def _with_leaves(tree: Tree, leaves: Iterator[Any]) -> Tree:
    return trees.map_leaves(lambda _: next(leaves), tree)


class Blocks:
    """Blocks of batches of shape (batches, rows, …), in a `tf.data` that cuts them: for several steps at a time.

    The loop over steps then runs in TensorFlow's C++, which asks for a block in a thread of its own.
    """

    def __init__(self, fit: Fit, stream: Stream) -> None:
        self._fit = fit
        self._runtime = fit.runtime
        self._stream = stream
        self._lock = threading.Lock()  # the trainer's thread adds blocks, TensorFlow's takes them
        self._blocks: deque[Tree] = deque()
        # After an error nobody but an optimizer's count or a director knows what of a block was trained.
        self._is_counted = fit.directed or _model_state.counts_updates(fit.model)
        self._most = _FIRST if self._is_counted else 1  # batches to hand out at once, in whole executions
        self._added: float | None = None  # when that was done last in this epoch
        self._dataset: Any = None

    def begin(self) -> Iterator[Any]:
        """The batches of an epoch."""
        with self._lock:
            self._blocks.clear()
            self._added = None
        if self._dataset is None:
            self._dataset = self._made()
        return iter(self._dataset)

    def fill(self) -> None:
        """Hand out what was fetched, in blocks, if no block is left."""
        with self._lock:
            if not self._blocks:
                self._add()

    def _add(self) -> None:
        fit = self._fit
        self._adapt()
        # More than one execution, where nothing has to be waited for.
        left = fit.fetch(max(fit.multiple, len(fit.upcoming(self._most)) // fit.multiple * fit.multiple))
        while left:
            group = _next_group(fit, left)
            left -= len(group)
            for _ in group:
                fit.take()
            self._blocks.append(trees.map_leaves(_stacked, *group))

    def _adapt(self) -> None:
        """Hand out more at once as long as that is trained in no time: to hand a block over costs as much as five
        steps of a small model."""
        if not self._is_counted:
            return
        now = self._runtime.monotonic()
        if self._added is not None:
            quick = now - self._added < _SECONDS / 2
            self._most = min(2 * self._most, _MOST) if quick else max(1, self._most // 2)
        self._added = now

    def _produce(self) -> Iterator[Tree]:
        fit = self._fit
        while True:
            with self._lock:
                if not self._blocks and not fit.directed:
                    # Blocks are whole executions, so that asking for one means that those before have run.
                    if not fit.next_execution_is_there():
                        return
                    self._add()
                if not self._blocks:
                    return
                block = self._blocks.popleft()
            yield _as_structure(block)

    def _made(self) -> Any:
        options = tf.data.Options()
        # A look ahead, in a thread of TensorFlow's, would be counted as training.
        options.autotune.enabled = False
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.apply_default_optimizations = False
        options.threading.max_intra_op_parallelism = 1
        signature = _signature(self._stream, self._fit.peek(), (None,))
        made = tf.data.Dataset.from_generator(self._produce, output_signature=signature)
        return made.unbatch().with_options(options)


def distributed(adapter: _OfOneIterator) -> Any:
    """A `tf.data` of single batches, which is what a strategy of `tf.distribute` divides among its replicas.

    Its function is called in a thread of TensorFlow's, and more often than Keras iterates: what Keras has announced
    is given once.
    """

    def produce() -> Iterator[Tree]:
        if adapter.announced:
            adapter.announced = False
            yield from map(_as_structure, adapter.batches(None))

    return tf.data.Dataset.from_generator(produce, output_signature=_signature(adapter.stream, adapter.look(), ()))


def is_distributed(strategy: Any) -> bool:
    """Whether a strategy is one that somebody has chosen."""
    return strategy is not None and type(strategy).__name__ != "_DefaultDistributionStrategy"


def _signature(stream: Stream, batch: Tree, before: tuple[None, ...]) -> Any:
    rows = None if stream.has_end else stream.batch_size
    return _as_structure(
        trees.map_leaves(lambda leaf: tf.TensorSpec((*before, rows, *leaf.shape[1:]), leaf.dtype), batch)
    )


def _as_structure(tree: Tree) -> Tree:
    """tf.data takes a list for one tensor."""
    if isinstance(tree, dict):
        return {key: _as_structure(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_as_structure(value) for value in tree)
    return tree


class Iterations:
    """Stands where TensorFlow's trainer wants a data set, and is iterated over for each epoch and each round."""

    def __init__(self, adapter: _OfOneIterator) -> None:
        self._adapter = adapter

    def __iter__(self) -> Iterator[Any]:
        return Ending(self._adapter.batches(None), self._adapter.multiple)


class Trainings:
    """The same for training: tensors are made many at a time, and cut in C++ where several steps run at once."""

    def __init__(self, adapter: FitAdapter) -> None:
        self._adapter = adapter

    def __iter__(self) -> Iterator[Any]:
        fit = self._adapter.fit
        if fit.multiple == 1:
            return Ending(self._adapter.batches(lambda _: tensors(fit)), 1)
        self._adapter.begin_batches()
        if fit.blocks is None:
            fit.blocks = Blocks(fit, self._adapter.stream)
        return fit.blocks.begin()


class Ending:
    """An iterator that ends as TensorFlow's trainer wants it.

    The trainer takes `multiple` batches at a time with `zip`, which ends quietly, as it should, where an iterator
    ends in the middle of them. One that has nothing at all must raise OutOfRangeError: the trainer would miss the
    step's outputs, and knows of no other end.
    """

    def __init__(self, batches: Iterator[Any], multiple: int) -> None:
        self._batches = batches
        self._multiple = multiple
        self._given = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for batch in self._batches:
            self._given += 1
            return batch
        if self._given % self._multiple:
            self._given = 0
            raise StopIteration
        raise tf.errors.OutOfRangeError(None, None, "The epoch has ended.")
