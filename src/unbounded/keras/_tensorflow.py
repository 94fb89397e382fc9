"""Batches for TensorFlow, made many at a time: one conversion costs as much for sixty-four batches as for one.

Its trainer takes a plain iterator when it runs one step at a time. For several at once it needs a `tf.data` iterator,
since its loop then runs in C++: that gets blocks of batches, and cuts them there. This module is imported where
the backend is TensorFlow.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from unbounded import _rows
from unbounded._feed import Feed as CoreFeed
from unbounded._rows import Tree
from unbounded._stream import Stream
from unbounded.keras import _asked, _length

if TYPE_CHECKING:
    from unbounded.keras._feed import Feed

_MOST = 64  # batches made at once
_BYTES = 1 << 20  # and at most so many bytes, where that is more than one batch


def take(core: CoreFeed, batches: Iterator[Tree], multiple: int = 1) -> list[Tree]:
    """Some batches of one size: at least `multiple`, waited for, and as many more as are there; fewer at the end.

    Args:
        core: where `batches` come from.
        batches: of the epoch at hand.
        multiple: how many at a time can be used.
    """
    group: list[Tree] = []
    for batch in batches:
        group.append(batch)
        if len(group) == 1:
            size = _rows.count(batch)
            most = max(1, min(_MOST, _BYTES // max(1, size * _rows.row_bytes(batch))) // multiple) * multiple
        if _rows.count(batch) != size or len(group) == most:
            break
        if len(group) % multiple == 0 and core.ready() < multiple:
            break
    return group


class Tensors:
    """Batches as tensors, for one step at a time.

    Attributes:
        spare: how many of those taken from the core feed were not asked for, and so are in no doubt.
    """

    def __init__(self, core: CoreFeed, batches: Iterator[Tree]) -> None:
        self._core = core
        self._batches = batches
        self.spare = 0

    def __iter__(self) -> Iterator[Tree]:
        while group := take(self._core, self._batches):
            # A shorter batch, at a declared end, comes last.
            odd = group.pop() if _rows.count(group[-1]) != _rows.count(group[0]) else None
            for made in (_unstacked(group), [] if odd is None else [odd]):
                for i, batch in enumerate(made):
                    self.spare = len(made) - 1 - i + (odd is not None and batch is not odd)
                    yield batch


def _unstacked(group: list[Tree]) -> list[Tree]:
    if len(group) == 1:
        return group
    columns = zip(*([leaf for _, leaf in _rows.leaves(batch)] for batch in group), strict=True)
    made = zip(*(tf.unstack(tf.constant(np.stack(column))) for column in columns), strict=True)
    return [_with_leaves(batch, iter(leaves)) for batch, leaves in zip(group, made, strict=True)]


def _with_leaves(tree: Tree, leaves: Iterator[Any]) -> Tree:
    return _rows.map_leaves(lambda _: next(leaves), tree)


class Blocks:
    """Blocks of batches of shape (batches, rows, …), in a `tf.data` that cuts them: for several steps at a time."""

    def __init__(self, core: CoreFeed, multiple: int) -> None:
        self._core = core
        self._multiple = multiple
        self._lock = threading.Lock()
        self._dataset: Any = None
        self.begin(iter(()), auto=True)

    def begin(self, batches: Iterator[Tree], *, auto: bool) -> None:
        """An epoch begins.

        Args:
            batches: of it.
            auto: whether asking for a block says that those before it are trained.
        """
        self._batches = batches
        self._auto = auto
        self._blocks: deque[Tree] = deque()
        self._made = 0

    def fill(self, step: int) -> None:
        """Have the block there that begins with this step of the epoch: in the main thread a signal ends the wait."""
        with self._lock:
            if step >= self._made:
                self._make()

    def _make(self) -> None:
        group = take(self._core, self._batches, self._multiple)
        self._made += len(group)
        while group:
            size = _rows.count(group[0])
            # Only those that follow each other: order is kept where lengths come and go.
            same = list(itertools.takewhile(lambda batch, size=size: _rows.count(batch) == size, group))  # type: ignore[misc]
            self._blocks.append(_rows.map_leaves(lambda *leaves: np.stack(leaves), *same))
            group = group[len(same) :]

    def _produce(self) -> Iterator[Tree]:
        while True:
            with self._lock:
                if self._auto:
                    # Blocks are whole executions, so that asking for one means that those before have run.
                    self._core.trained()
                if not self._blocks:
                    self._make()
                if not self._blocks:
                    return
                block = self._blocks.popleft()
            yield _as_structure(block)

    def __iter__(self) -> Iterator[Any]:
        if self._dataset is None:
            options = tf.data.Options()
            # A look ahead, in a thread of TensorFlow's, would be counted as training.
            options.autotune.enabled = False
            options.experimental_optimization.inject_prefetch = False
            options.experimental_optimization.apply_default_optimizations = False
            options.threading.max_intra_op_parallelism = 1
            signature = _signature(self._core.stream, self._core.peek(), (None,))
            made = tf.data.Dataset.from_generator(self._produce, output_signature=signature)
            self._dataset = made.unbatch().with_options(options)
        return iter(self._dataset)


def distributed(stream: Stream, batch: Tree, batches: Callable[[], Iterator[Tree]]) -> Any:
    """A `tf.data` of single batches, which is what a strategy of `tf.distribute` divides among its replicas.

    Args:
        stream: where the batches come from.
        batch: one of them, for its shapes.
        batches: begins the iteration that Keras has announced. It is called in a thread of TensorFlow's, and more
            often than Keras iterates.
    """

    def produce() -> Iterator[Tree]:
        return map(_as_structure, batches())

    return tf.data.Dataset.from_generator(produce, output_signature=_signature(stream, batch, ()))


def is_distributed(strategy: Any) -> bool:
    """Whether a strategy is one that somebody has chosen."""
    return strategy is not None and type(strategy).__name__ != "_DefaultDistributionStrategy"


def _signature(stream: Stream, batch: Tree, before: tuple[None, ...]) -> Any:
    rows = None if _length.ends(stream) else stream.batch_size
    return _as_structure(
        _rows.map_leaves(lambda leaf: tf.TensorSpec((*before, rows, *leaf.shape[1:]), leaf.dtype), batch)
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

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._blocks: Blocks | None = None

    def __iter__(self) -> Iterator[Any]:
        feed, iterator = self._feed, _asked.iterator()
        use = feed.use(iterator)
        multiple = 1 if use is None else use.steps_per_execution
        if use is None or not use.training:
            return Ending(feed.iterate(None), multiple)
        if multiple == 1:
            return Ending(feed.iterate(lambda batches: Tensors(feed.core, batches)), multiple)
        if iterator is not None and iterator._steps_seen >= iterator._num_batches:
            return iter(())  # Keras asks for one iterator more than it uses
        if self._blocks is None:
            self._blocks = Blocks(feed.core, multiple)
        return feed.fitting.begin_blocks(self._blocks, multiple)


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
