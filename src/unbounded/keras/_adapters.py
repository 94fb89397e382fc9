"""The data adapters from which Keras's iterators read: a new one for each iterator that Keras makes.

Keras tells an adapter neither the purpose of its batches nor which of its iterators calls, and it calls the hooks of a
shared adapter in an order that depends on the version. So a feed gives each iterator its own adapter when Keras makes
it: all calls of its hooks then have one purpose, and come in the order of one loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from unbounded.core.node import StreamError
from unbounded.core.trees import Tree
from unbounded.keras import _batches, _length, internals
from unbounded.keras._fit import Convert, Fit
from unbounded.keras._leaf_kinds import check_leaves
from unbounded.keras._rounds import Rounds

if TYPE_CHECKING:
    from unbounded.keras._keras_feed import Feed
    from unbounded.stream import Stream


class _OfOneIterator(internals.DataAdapter):  # type: ignore[misc]
    """The stream's properties, and the batches in the form of each backend; the base of both adapters.

    Args:
        made: the iterator, and the arguments with which Keras made it.
        stream: the source of the batches.
    """

    builtin_prefetch = True  # up to Keras 3.13: otherwise Keras takes two batches ahead on JAX, even on the CPU
    partial_batch_size = None  # unknown beforehand

    def __init__(self, made: internals.Making, stream: Stream) -> None:
        super().__init__()
        self._made = made
        self.stream = stream
        """The source of the batches."""
        self.multiple = made.steps_per_execution
        """The steps that Keras runs in one call."""
        self.announced = False
        """True if Keras has begun to iterate and has not taken a batch yet."""

    @property
    def num_batches(self) -> int | None:
        """The number of steps of the next iteration; None if only its end will tell."""
        raise NotImplementedError

    @property
    def batch_size(self) -> int | None:
        """The rows of a batch, if the stream has `batch`."""
        return self.stream.batch_size

    @property
    def has_partial_batch(self) -> bool:
        """True: the last batch before a declared end may be shorter."""
        return self.stream.has_end

    def batches(self, convert: Convert | None) -> Iterator[Any]:
        """The batches of the iteration that begins now."""
        raise NotImplementedError

    def look(self) -> Tree:
        """One batch, for its shapes only."""
        raise NotImplementedError

    def take_in_threads(self) -> None:
        """Called if a TensorFlow strategy will request batches in threads, ahead of training."""

    def get_numpy_iterator(self) -> Iterator[Tree]:
        """Batches as NumPy arrays."""
        return self.batches(None)

    def get_jax_iterator(self) -> Iterator[Tree]:
        """Batches as NumPy arrays, which JAX takes."""
        return self.batches(None)

    def get_torch_dataloader(self) -> Iterator[Tree]:
        """Batches as tensors over the same memory: a DataLoader would cost more than a training step."""
        return self.batches(_batches.to_torch)

    def get_tf_dataset(self) -> Any:
        """An iterable for TensorFlow's trainer, which iterates over it once for each epoch or round."""
        from unbounded.keras import _tensorflow

        if _tensorflow.is_distributed(getattr(self._made.iterator, "_distribute_strategy", None)):
            self.take_in_threads()
            return _tensorflow.distributed(self)
        return self.iterations()

    def iterations(self) -> Any:
        """The same without a strategy."""
        from unbounded.keras import _tensorflow

        return _tensorflow.Iterations(self)


class FitAdapter(_OfOneIterator):
    """The batches of one `fit`: those of one epoch for each iteration by Keras."""

    def __init__(self, made: internals.Making, feed: Feed, fit: Fit) -> None:
        super().__init__(made, feed.stream)
        self._feed = feed
        self.fit = fit
        """The state of this call of `fit`."""
        self._looking = True  # until Keras resets its iterator: before that it reads a batch to build the model

    @property
    def num_batches(self) -> int | None:
        """The first epoch's length, for the progress bar; with a director, each epoch's is set."""
        if self.fit.directed:
            return None
        done, total = _length.epoch_steps(self._feed.core, self.multiple)
        return total if total is None or not done else total - done

    def on_epoch_begin(self) -> None:
        """Keras begins to iterate: over an epoch, or over one batch to build the model."""
        self.announced = True
        if self._looking or self.fit.directed:
            return
        feed, core = self._feed, self._feed.core
        if feed.in_epoch:
            # The last fit left its epoch early: the new fit's first epoch is a new one.
            feed.close_epoch()
        if not self.fit.has_more():
            raise StreamError(
                f"The stream has come to its declared end after {core.steps:,} steps: there is nothing to train on. "
                "Declare more passes, or make a new feed to start over."
            )
        feed.in_epoch = True
        done, total = self.fit.begin_epoch()
        internals.set_length(self._made.iterator, None if total is None else total - done)

    def on_epoch_end(self) -> None:
        """Keras resets its iterator before training, or has finished the steps of an epoch."""
        if self._looking:
            self._looking = False
        elif not self.fit.directed and self._feed.in_epoch:
            self.fit.end_steps()
            self._feed.close_epoch()
            if not self.fit.has_more():
                self.fit.model.stop_training = True

    def take_in_threads(self) -> None:
        """Requesting a batch then does not confirm the last one."""
        self.fit.in_threads = True

    def look(self) -> Tree:
        """The next batch, without handing it out."""
        return self.fit.peek()

    def iterations(self) -> Any:
        """The iterable for TensorFlow's trainer without a strategy."""
        from unbounded.keras import _tensorflow

        return _tensorflow.Trainings(self)

    def batches(self, convert: Convert | None) -> Iterator[Any]:
        """The batches of the epoch that has begun."""
        if self._looking:
            return _all(iter([self.look()]), convert)
        self.begin_batches()
        if self.fit.idle:
            return iter([None])  # Keras on torch requests a batch before it calls on_train_batch_begin
        return _all(self.fit.batches(), convert)

    def begin_batches(self) -> None:
        """Keras begins to take the batches of the epoch that has begun."""
        # Without a length, Keras does not make another iterator after this epoch's number of steps.
        internals.set_length(self._made.iterator, None)
        if not (self.fit.directed or self.fit.in_threads):
            # Errors are raised here, while the model still has its variables.
            self.fit.prepare()


class RoundAdapter(_OfOneIterator):
    """The batches of `evaluate`, `predict` or validation: those of one round for each iteration by Keras."""

    def __init__(self, made: internals.Making, rounds: Rounds) -> None:
        super().__init__(made, rounds.feed.stream)
        self._rounds = rounds

    @property
    def num_batches(self) -> int | None:
        """The number of steps of a round."""
        return self._rounds.length(self._made.steps, self._made.role)

    def on_epoch_begin(self) -> None:
        """A round begins, or a look at one batch, after which the round begins again."""
        self.announced = True
        internals.set_length(self._made.iterator, self._rounds.begin(self._made.steps, self._made.role))

    def on_epoch_end(self) -> None:
        """Keras resets its iterator, or has finished the steps of a round."""
        if self._rounds.is_seen:
            self._rounds.end()

    def look(self) -> Tree:
        """The first batch of the next round, without handing it out."""
        self._rounds.back()
        return self._checked(self._rounds.feed.peek())

    def _checked(self, batch: Tree) -> Tree:
        check_leaves(batch, self.stream, self._made.model, self._made.role)
        return batch

    def batches(self, convert: Convert | None) -> Iterator[Any]:
        """The batches of the round that has begun."""
        internals.set_length(self._made.iterator, None)
        if self._rounds.fetch(self.multiple):
            self._checked(self._rounds.feed.upcoming(1)[0])
        return _all(self._safely(), convert)

    def _safely(self) -> Iterator[Tree]:
        rounds = self._rounds
        within = 0
        while True:
            try:
                there = rounds.fetch(self.multiple - within)
            except BaseException:
                # Keras (JAX) has moved the variables out of the model, and does not put them back after an error here.
                internals.reattach(self._made.model)
                raise
            if not there:
                rounds.end()
                return
            yield rounds.feed.take()
            within = (within + 1) % self.multiple


def _all(batches: Iterator[Tree], convert: Callable[[Iterator[Tree]], Iterable[Any]] | None) -> Iterator[Any]:
    return batches if convert is None else iter(convert(batches))
