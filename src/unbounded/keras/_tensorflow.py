"""Batches for TensorFlow, converted in groups: converting sixty-four batches costs as much as converting one.

The trainer takes a plain iterator if it runs one step at a time. For several steps in one call it needs a `tf.data`
iterator, whose loop runs in C++: that gets blocks of batches, and cuts them there. This module is imported on the
TensorFlow backend only.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.keras import _model_state
from unbounded.stages.bucket_batch import BucketBatch
from unbounded.stream import Stream

if TYPE_CHECKING:
    from unbounded.keras._adapters import FitAdapter, _OfOneIterator
    from unbounded.keras._fit import Fit

_MOST = 512  # batches in a group
_BYTES = 1 << 20  # bytes in a group, if it has more than one batch
_FIRST = 64  # batches in the first blocks
_SECONDS = 0.1  # without a director, an interrupt waits for the end of a block: blocks should take less than this


def _next_group(fit: Fit, most: int = _MOST) -> list[Tree]:
    """The next batches that are available, without handing them out: all of one run, and so of one length.

    Args:
        fit: the `fit` that trains on them.
        most: the most batches to return.
    """
    first = fit.upcoming(1)
    if not first:
        return []
    worth = max(1, _BYTES // max(1, trees.count(first[0]) * trees.row_bytes(first[0])))
    return list(itertools.takewhile(_of_shapes(first[0]), fit.upcoming(min(most, _MOST, worth))))


def _of_shapes(first: Tree) -> Callable[[Tree], bool]:
    """Whether batches have the shapes of the first one: those of several buckets do not."""
    shapes = [leaf.shape for _, leaf in trees.leaves(first)]
    return lambda batch: [leaf.shape for _, leaf in trees.leaves(batch)] == shapes


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
    """Blocks of batches of shape (batches, rows, …), in a `tf.data` that cuts them, for several steps in one call.

    The loop over steps runs in TensorFlow's C++, which requests blocks in a thread of its own.
    """

    def __init__(self, fit: Fit, stream: Stream) -> None:
        self._fit = fit
        self._runtime = fit.runtime
        self._stream = stream
        self._lock = threading.Lock()  # the trainer's thread adds blocks, TensorFlow's thread takes them
        self._blocks: deque[Tree] = deque()
        # After an error, only an optimizer's counter or a director can tell which batches of a block were trained on.
        self._is_counted = fit.directed or _model_state.counts_updates(fit.model)
        self._most = _FIRST if self._is_counted else 1  # batches to hand out at once, in whole executions
        self._added: float | None = None  # when a block was added last in this epoch
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
        """Hand out fetched batches as a block, if no block is left."""
        with self._lock:
            if not self._blocks:
                self._add()

    def _add(self) -> None:
        fit = self._fit
        self._adapt()
        # More than one execution, if that needs no waiting.
        left = fit.fetch(max(fit.multiple, len(fit.upcoming(self._most)) // fit.multiple * fit.multiple))
        while left:
            group = _next_group(fit, left)
            left -= len(group)
            for _ in group:
                fit.take()
            self._blocks.append(trees.map_leaves(_stacked, *group))

    def _adapt(self) -> None:
        """Make blocks larger while they are trained on quickly: passing a block to TensorFlow costs as much as five
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
                    # Blocks are whole executions: requesting a block means that those before it have run.
                    if not fit.next_execution_is_there():
                        return
                    self._add()
                if not self._blocks:
                    return
                block = self._blocks.popleft()
            yield _as_structure(block)

    def _made(self) -> Any:
        options = tf.data.Options()
        # TensorFlow would prefetch in a thread of its own, and the requests would be counted as training.
        options.autotune.enabled = False
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.apply_default_optimizations = False
        options.threading.max_intra_op_parallelism = 1
        signature = _signature(self._stream, self._fit.peek(), (None,))
        made = tf.data.Dataset.from_generator(self._produce, output_signature=signature)
        return made.unbatch().with_options(options)


def distributed(adapter: _OfOneIterator) -> Any:
    """A `tf.data` of single batches, which a `tf.distribute` strategy divides among its replicas.

    TensorFlow calls its function in a thread, and more often than Keras iterates: only iterations that Keras has
    announced get batches.
    """

    def produce() -> Iterator[Tree]:
        if adapter.announced:
            adapter.announced = False
            yield from map(_as_structure, adapter.batches(None))

    return tf.data.Dataset.from_generator(produce, output_signature=_signature(adapter.stream, adapter.look(), ()))


def is_distributed(strategy: Any) -> bool:
    """True if the user has chosen a strategy."""
    return strategy is not None and type(strategy).__name__ != "_DefaultDistributionStrategy"


def _signature(stream: Stream, batch: Tree, before: tuple[None, ...]) -> Any:
    rows = None if stream.has_end else stream.batch_size
    bounds = next((stage.buckets.bounds for stage in stream.stages if isinstance(stage, BucketBatch)), ())

    def spec(leaf: Any) -> Any:
        inner = leaf.shape[1:]
        if inner and inner[0] in bounds:  # a length that differs from bucket to bucket
            inner = (None, *inner[1:])
        return tf.TensorSpec((*before, rows, *inner), leaf.dtype)

    return _as_structure(trees.map_leaves(spec, batch))


def _as_structure(tree: Tree) -> Tree:
    """The tree with tuples in place of lists: tf.data takes a list for one tensor."""
    if isinstance(tree, dict):
        return {key: _as_structure(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_as_structure(value) for value in tree)
    return tree


class Iterations:
    """Stands in place of a data set in TensorFlow's trainer, which iterates over it for each epoch and round."""

    def __init__(self, adapter: _OfOneIterator) -> None:
        self._adapter = adapter

    def __iter__(self) -> Iterator[Any]:
        return Ending(self._adapter.batches(None), self._adapter.multiple)


class Trainings:
    """The same for training: batches are converted in groups, and cut in C++ if several steps run in one call."""

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
    """An iterator that ends as TensorFlow's trainer expects.

    The trainer takes `multiple` batches at a time with `zip`, which ends correctly if an iterator ends in the middle of
    them. One without any batch must raise OutOfRangeError: otherwise the trainer would miss the step's outputs, and
    fail.
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
