"""The data adapters that Keras's iterators read from: one for each iterator that Keras makes.

Keras tells an adapter neither what its batches are for nor which of its iterators is asking, and calls the hooks of
one that several iterators share in an order from which nothing can be learnt. So a feed gives each iterator an adapter
of its own when Keras makes it: what that one is asked for is then for one purpose, in the order of one loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from unbounded.core.node import StreamError
from unbounded.core.trees import Tree
from unbounded.keras import _batches, _length, internals
from unbounded.keras._fit import Convert, Fit
from unbounded.keras._rounds import Rounds

if TYPE_CHECKING:
    from unbounded.keras._keras_feed import Feed
    from unbounded.stream import Stream


class _OfOneIterator(internals.DataAdapter):  # type: ignore[misc]
    """What both kinds share: the stream's own properties, and the forms in which the backends want batches.

    Args:
        made: the iterator, and what it was made with.
        stream: where the batches come from.
    """

    builtin_prefetch = True  # up to Keras 3.13: without it two batches are taken ahead on JAX, even on the CPU
    partial_batch_size = None  # it is not known beforehand

    def __init__(self, made: internals.Making, stream: Stream) -> None:
        super().__init__()
        self._made = made
        self.stream = stream
        """Where the batches come from."""
        self.multiple = made.steps_per_execution
        """Steps that Keras runs in one call."""
        self.announced = False
        """Whether Keras has begun to iterate, and nobody has taken up the batches yet."""

    @property
    def num_batches(self) -> int | None:
        """How many steps the iteration that follows has; None where only its end will tell."""
        raise NotImplementedError

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch, where the stream says so."""
        return self.stream.batch_size

    @property
    def has_partial_batch(self) -> bool:
        """Only a declared end may bring a shorter batch."""
        return self.stream.has_end

    def batches(self, convert: Convert | None) -> Iterator[Any]:
        """The batches of the iteration that begins now."""
        raise NotImplementedError

    def look(self) -> Tree:
        """One batch, for its shapes alone."""
        raise NotImplementedError

    def take_in_threads(self) -> None:
        """A strategy of TensorFlow's will ask for the batches, ahead of what is trained."""

    def get_numpy_iterator(self) -> Iterator[Tree]:
        """Batches as NumPy has them."""
        return self.batches(None)

    def get_jax_iterator(self) -> Iterator[Tree]:
        """Batches as NumPy has them, which JAX takes."""
        return self.batches(None)

    def get_torch_dataloader(self) -> Iterator[Tree]:
        """Batches as tensors over the same memory: a DataLoader would cost more than the training step."""
        return self.batches(_batches.to_torch)

    def get_tf_dataset(self) -> Any:
        """What TensorFlow's trainer iterates over, once for each epoch or round."""
        from unbounded.keras import _tensorflow

        if _tensorflow.is_distributed(getattr(self._made.iterator, "_distribute_strategy", None)):
            self.take_in_threads()
            return _tensorflow.distributed(self)
        return self.iterations()

    def iterations(self) -> Any:
        """What TensorFlow's trainer iterates over without a strategy."""
        from unbounded.keras import _tensorflow

        return _tensorflow.Iterations(self)


class FitAdapter(_OfOneIterator):
    """The batches of one `fit`: of one epoch for each time that Keras iterates."""

    def __init__(self, made: internals.Making, feed: Feed, fit: Fit) -> None:
        super().__init__(made, feed.stream)
        self._feed = feed
        self.fit = fit
        """The call of `fit`."""
        self._looking = True  # until Keras resets its iterator: before that it looks at a batch, to build the model

    @property
    def num_batches(self) -> int | None:
        """The first epoch's length, for the progress bar; a director knows each one's."""
        if self.fit.directed:
            return None
        done, total = _length.epoch_steps(self._feed.core, self.multiple)
        return total if total is None or not done else total - done

    def on_epoch_begin(self) -> None:
        """Keras begins to iterate: over an epoch, or for its look at one batch."""
        self.announced = True
        if self._looking or self.fit.directed:
            return
        feed, core = self._feed, self._feed.core
        if feed.in_epoch:
            # Left in its middle by a fit that ended early: the new fit's first epoch is a whole one.
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
        """Keras resets its iterator before training, or has done with the steps of an epoch."""
        if self._looking:
            self._looking = False
        elif not self.fit.directed and self._feed.in_epoch:
            self.fit.end_steps()
            self._feed.close_epoch()
            if not self.fit.has_more():
                self.fit.model.stop_training = True

    def take_in_threads(self) -> None:
        """What is asked for is not trained for that."""
        self.fit.in_threads = True

    def look(self) -> Tree:
        """The next batch, which training will see again."""
        return self.fit.peek()

    def iterations(self) -> Any:
        """What TensorFlow's trainer iterates over without a strategy."""
        from unbounded.keras import _tensorflow

        return _tensorflow.Trainings(self)

    def batches(self, convert: Convert | None) -> Iterator[Any]:
        """The batches of the epoch that has begun."""
        if self._looking:
            return _all(iter([self.look()]), convert)
        self.begin_batches()
        if self.fit.idle:
            return iter([None])  # for Keras on torch, which asks before it tells its callbacks
        return _all(self.fit.batches(), convert)

    def begin_batches(self) -> None:
        """Keras takes up the batches of the epoch that has begun."""
        # So that Keras doesn't make another iterator when it has had as many steps as the epoch has.
        internals.set_length(self._made.iterator, None)
        if not (self.fit.directed or self.fit.in_threads):
            # What can fail fails here, where the model still has its variables.
            self.fit.prepare()


class RoundAdapter(_OfOneIterator):
    """The batches of `evaluate`, `predict` or validation: of one round for each time that Keras iterates."""

    def __init__(self, made: internals.Making, rounds: Rounds) -> None:
        super().__init__(made, rounds.feed.stream)
        self._rounds = rounds

    @property
    def num_batches(self) -> int | None:
        """The length of a round."""
        return self._rounds.length(self._made.steps, self._made.role)

    def on_epoch_begin(self) -> None:
        """A round begins, or a look at one batch, which is the beginning of a round that is begun again."""
        self.announced = True
        internals.set_length(self._made.iterator, self._rounds.begin(self._made.steps, self._made.role))

    def on_epoch_end(self) -> None:
        """Keras resets its iterator, or has done with the steps of a round."""
        if self._rounds.is_seen:
            self._rounds.end()

    def look(self) -> Tree:
        """The batch with which the next round begins."""
        self._rounds.back()
        return self._rounds.feed.peek()

    def batches(self, convert: Convert | None) -> Iterator[Any]:
        """The batches of the round that has begun."""
        internals.set_length(self._made.iterator, None)
        self._rounds.fetch(self.multiple)
        return _all(self._safely(), convert)

    def _safely(self) -> Iterator[Tree]:
        rounds = self._rounds
        within = 0
        while True:
            try:
                there = rounds.fetch(self.multiple - within)
            except BaseException:
                # Keras has taken the variables out of the model, and here it does not put them back.
                internals.reattach(self._made.model)
                raise
            if not there:
                rounds.end()
                return
            yield rounds.feed.take()
            within = (within + 1) % self.multiple


def _all(batches: Iterator[Tree], convert: Callable[[Iterator[Tree]], Iterable[Any]] | None) -> Iterator[Any]:
    return batches if convert is None else iter(convert(batches))
