"""Feed for Keras: a data adapter over the core feed, so that `fit` takes an endless stream as it is.

Keras takes an instance of its `DataAdapter` without another look. This one gives it batches as they are, with no
queue in between, ends each epoch where the feed says that it ends, and knows from Keras's own calls whether a
batch is for training, for a round of validation, or only to be looked at (`_asked.py`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from unbounded._clock import SYSTEM, Clock
from unbounded._epoch import Epoch
from unbounded._feed import Feed as CoreFeed
from unbounded._feed import OnNan
from unbounded._rows import Tree
from unbounded._stats import Stats
from unbounded._stream import Stream
from unbounded.keras import _asked, _bar, _batches, _length
from unbounded.keras._base import Adapter
from unbounded.keras._face import Face
from unbounded.keras._fitting import Convert, Fitting
from unbounded.keras._rounds import EachRound, Rounds
from unbounded.stages._base import Guarantee


@dataclass
class Use:
    """What Keras made one of its iterators for."""

    training: bool
    steps: int | None
    steps_per_execution: int


class Feed(Face, Adapter):  # type: ignore[misc]
    """A stream at work for Keras: give it to `fit`, `evaluate` or `predict` in place of x, or as validation data.

    Training goes on where the last `fit` ended: an epoch never starts the data over. Evaluating and predicting
    have a place in the stream of their own, and leave training's alone. Without a callback of ours, asking for
    the next batch says that the last one is trained; with `Checkpoint(feed, …)`, each step says so.

    Args:
        stream: batches that are `(x, y)`, `(x, y, sample_weight)` or x alone: each an array of shape (rows, …),
            or a tuple, list or dict of such.
        epoch: how much an epoch is; None leaves it to `steps_per_epoch`, or to the stream's declared end.
        each_round: of validation: "same" shows the same batches each time, "next" those that follow.
        require: the weakest guarantee that will do.
        on_nan: "raise" refuses a batch with a NaN or an infinity in it, "pass" lets it through and counts its bad
            rows, "skip" leaves such rows out before `batch`.
        clock: the time; tests pass one that they move.

    Raises:
        ValueError: as the core `Feed` does.

    Example:
        >>> import keras, numpy as np, unbounded as ub
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> stream = ub.arrays((np.ones((10, 3)), np.ones((10, 1)))).batch(4)
        >>> with ub.keras.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...     history = model.fit(feed, epochs=2, verbose=0)
        ...     print(feed.steps, feed.position)
        10 pass 5, row 0 of 10
    """

    def __init__(
        self,
        stream: Stream,
        epoch: Epoch | None = None,
        *,
        each_round: EachRound = "same",
        require: Guarantee | None = None,
        on_nan: OnNan = "raise",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__()
        if each_round not in ("same", "next"):
            raise ValueError(f"Feed(each_round={each_round!r}): expected 'same' or 'next'.")

        def core(confirm: Literal["auto", "manual"]) -> CoreFeed:
            return CoreFeed(stream, epoch=epoch, require=require, confirm=confirm, on_nan=on_nan, clock=clock)

        self.core = core("manual")
        """The feed underneath, for training."""
        self.fitting = Fitting(self.core)
        self._make_rounds: Callable[[], Rounds] = lambda: Rounds(core("auto"), each_round)
        self._rounds: Rounds | None = None
        self._announced: Literal["build", "training", "round"] | None = None
        self._uses: weakref.WeakKeyDictionary[Any, Use] = weakref.WeakKeyDictionary()

    # -- what a user asks of it ------------------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch | None:
        """How much an epoch is; None where `steps_per_epoch` or the stream's end says so."""
        return self.fitting.own_epoch

    @property
    def last_epoch(self) -> Stats | None:
        """What happened in the epoch that ended last; its text says "1,000 batches × 32 = 32,000 rows"."""
        return self.fitting.last_epoch

    def close(self) -> None:
        """End its threads and let go of the source. A second time does nothing."""
        super().close()
        if self._rounds is not None:
            self._rounds.feed.close()

    def __repr__(self) -> str:
        return repr(self.core).replace("<Feed", "<keras.Feed", 1)

    @property
    def rounds(self) -> Rounds:
        """The rounds of evaluating and predicting."""
        if self._rounds is None:
            self._rounds = self._make_rounds()
        return self._rounds

    def interrupt(self) -> None:
        """Stop: waiting for data ends at once. Safe in a signal handler."""
        self.core.interrupt()
        if self._rounds is not None:
            self._rounds.feed.interrupt()

    # -- what Keras asks of it -------------------------------------------------------------------------------

    @property
    def num_batches(self) -> int | None:
        """How many steps the epoch at hand still has, or a number that is never reached."""
        given = _asked.beside()
        if given is not None:
            self._take(given)
        use = self.use(_asked.iterator() if given is None else given.iterator)
        if use is None:
            return _length.ENDLESS
        if not use.training:
            return use.steps or _length.ENDLESS
        return _length.left(*_length.epoch_steps(self.core, use.steps_per_execution)) or _length.ENDLESS

    def use(self, iterator: Any) -> Use | None:
        """What Keras made an iterator of its own for; None for one that isn't known."""
        return None if iterator is None else self._uses.get(iterator)

    def _take(self, given: _asked.Beside) -> None:
        """Keras makes an iterator for this feed: refuse what it would drop in silence, and take over counting."""
        for name, value in given.others.items():
            _batches.refuse(name, value)
        _batches.refuse_sharding()
        who = _asked.caller()
        training = who is None or (who.verb == "fit" and not who.begun)
        if training:
            self.fitting.begin(given, who, self)
        self._uses[given.iterator] = Use(training, given.steps, given.steps_per_execution)
        # The feed ends each epoch by itself, and exactly. Keras's own counting would keep one iterator over all
        # epochs, and it warns of data that ran out where an epoch has just ended.
        given.iterator.steps_per_epoch = None
        given.iterator._interrupted_warning = _no_warning

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch, where the stream says so."""
        return self.stream.batch_size

    @property
    def has_partial_batch(self) -> bool:
        """Only a declared end may bring a shorter batch."""
        return _length.ends(self.stream)

    @property
    def partial_batch_size(self) -> int | None:
        """It is not known beforehand."""
        return None

    def on_epoch_begin(self) -> None:
        """Keras begins to iterate: over an epoch, over a round, or for a look at one batch."""
        iterator, who = _asked.iterator(), _asked.caller()
        use = self.use(iterator)
        if iterator is None or use is None or who is None:
            return
        self._announced = "build" if who.verb == "build" else "training" if use.training else "round"
        if who.verb == "build":
            return
        if use.training:
            self.fitting.begin_epoch(iterator, use.steps_per_execution, who)
            return
        steps = self.rounds.begin(use.steps)
        iterator._num_batches = steps or _length.ENDLESS
        if who.callbacks is not None:
            _bar.set_round_target(who.callbacks, steps)

    def on_epoch_end(self) -> None:
        """Keras has done with iterating; it says so more often than it begins."""
        iterator = _asked.iterator()
        use = self.use(iterator)
        if use is None:
            return
        if not use.training:
            self.rounds.end()
        elif self.fitting.is_of(iterator):
            self.fitting.end_steps(_asked.caller())

    def get_numpy_iterator(self) -> Iterator[Tree]:
        """Batches as NumPy has them."""
        return self.iterate(None)

    def get_jax_iterator(self) -> Iterator[Tree]:
        """Batches as NumPy has them, which JAX takes."""
        return self.iterate(None)

    def get_torch_dataloader(self) -> Iterator[Tree]:
        """Batches as tensors over the same memory: a DataLoader would cost more than the training step."""
        return self.iterate(_batches.to_torch)

    def get_tf_dataset(self) -> Any:
        """What TensorFlow's trainer iterates over, once for each epoch or round."""
        from unbounded.keras import _tensorflow

        iterator = _asked.iterator()
        if not _tensorflow.is_distributed(getattr(iterator, "_distribute_strategy", None)):
            return _tensorflow.Iterations(self)
        use = self.use(iterator)
        return _tensorflow.distributed(self.stream, self._look(use), lambda: self._announced_batches(use))

    def _announced_batches(self, use: Use | None) -> Iterator[Tree]:
        """The batches of the epoch or round that was announced last, once; for threads that nobody can look into."""
        announced, self._announced = self._announced, None
        if announced == "build":
            yield self._look(use)
        elif announced == "training":
            # What a strategy takes ahead is not trained; it is confirmed by a callback of ours, or when all of it is.
            yield from _batches.rounded_up(self.core, 1 if use is None else use.steps_per_execution)
        elif announced == "round":
            yield from self.rounds.batches()

    def _look(self, use: Use | None) -> Tree:
        """One batch, for its shapes alone."""
        if use is None or use.training:
            return self.core.peek()
        self.rounds.settle()
        return self.rounds.feed.peek()

    def iterate(self, convert: Convert | None) -> Iterator[Any]:
        """The batches for whoever asks."""
        use, who = self.use(_asked.iterator()), _asked.caller()
        training = use is None or use.training
        if who is not None and who.verb == "build":
            if training:
                # A source that can't go back can't be moved once it was looked at: first to where the run stands.
                for callback in _asked.callbacks():
                    if hasattr(callback, "take_position"):
                        callback.take_position(self)
            batch = self._look(use)
            return iter([batch] if convert is None else convert(iter([batch])))
        if not training:
            return _batches.converted(self.rounds.batches(), convert)
        return self.fitting.batches(1 if use is None else use.steps_per_execution, convert)


def _no_warning() -> None:
    """An epoch that the feed has ended is no data that ran out."""
