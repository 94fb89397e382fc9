"""Fitting: one `fit` after the other on a feed, as Keras's adapter sees it.

It takes over the counting of steps from Keras, begins and ends the core feed's epochs, and knows what is trained:
from a `Counting` callback where there is one, and else from being asked for the next batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import keras

from unbounded._epoch import Epoch
from unbounded._feed import Feed as CoreFeed
from unbounded._node import StreamError
from unbounded._rows import Tree
from unbounded._stats import Stats
from unbounded.keras import _asked, _bar, _batches, _length, _model
from unbounded.keras._signals import Interrupted

if TYPE_CHECKING:
    from unbounded.keras._counting import Counting
    from unbounded.keras._tensorflow import Blocks


Convert: TypeAlias = Callable[[Iterator[Tree]], Iterable[Any]]


class Fitting:
    """The training side of a feed.

    Args:
        core: the feed underneath, which confirms by hand.
    """

    def __init__(self, core: CoreFeed) -> None:
        self.core = core
        self.own_epoch = core.epoch
        self.counting: Counting | None = None
        """Says what is trained, in the fit at hand; None without a callback of ours."""
        self.last_epoch: Stats | None = None
        """What happened in the epoch that ended last."""
        self.blocks: Blocks | None = None
        """What TensorFlow takes batches from, in the fit at hand, where it takes several at once."""
        self._made: Iterable[Any] = ()  # the batches of the epoch at hand, as the backend wants them
        self._iterator: weakref.ref[Any] | None = None  # Keras's, of the fit at hand
        self._open = False  # an epoch has begun and is not over
        self._model: weakref.ref[Any] | None = None
        self._updates = 0  # the optimizer's own count, less the feed's, when nothing was in doubt

    # -- a fit -----------------------------------------------------------------------------------------------

    def begin(self, given: _asked.Beside, who: _asked.Caller | None, adapter: object) -> None:
        """A `fit` begins: settle what an epoch is, and what the last fit left in doubt."""
        steps, own = given.steps, self.own_epoch
        capped = steps is not None and steps == keras.config.max_steps_per_epoch()  # for debugging: it always holds
        if steps is not None and own is not None and own != Epoch(steps=steps) and not capped:
            raise ValueError(f"steps_per_epoch={steps} was given beside a feed with {own!r}. Leave one of them out.")
        epoch = own if steps is None else Epoch(steps=steps)
        if epoch is None and not _length.ends(self.core.stream):
            raise ValueError(
                "The feed never ends, and nothing says what an epoch is. Give Feed(stream, "
                "epoch=ub.Epoch(steps=1000)), or fit(feed, steps_per_epoch=1000)."
            )
        _batches.check_multiple(epoch, given.steps_per_execution)
        if _asked.is_fitting(adapter):
            raise StreamError(
                "The feed is already at work for another fit, and a batch can be trained on by one trainer only. "
                "Make a second feed of the same stream for the second one."
            )
        self._settle(None if who is None else who.model)
        self.core.resume()
        self.core.epoch = epoch
        self._iterator = weakref.ref(given.iterator)
        self.counting, self.blocks = None, None

    def is_of(self, iterator: Any) -> bool:
        """Whether Keras's iterator is that of the fit at hand."""
        return self._iterator is not None and iterator is not None and self._iterator() is iterator

    def moved(self) -> None:
        """The core feed was put somewhere else: the epoch that was begun is another one."""
        self._open = False

    def _settle(self, model: Any) -> None:
        """Batches may be out, as after an exception: what the optimizer has counted of them was trained."""
        core, before = self.core, None if self._model is None else self._model()
        updates = None if model is None or model is not before else _model.iterations(model)
        if updates is not None and 0 <= updates - self._updates - core.steps <= core.outstanding:
            core.trained(updates - self._updates - core.steps)
            core.give_back(core.outstanding)
        core.give_back(min(core.outstanding, getattr(self._made, "spare", 0)))
        core.rewind()
        self._model = None if model is None else weakref.ref(model)

    # -- an epoch --------------------------------------------------------------------------------------------

    def begin_epoch(self, iterator: Any, multiple: int, who: _asked.Caller) -> None:
        """Keras begins to iterate over an epoch: every callback has had its `on_epoch_begin`."""
        core = self.core
        if self._open and self.counting is None:
            # Left in its middle by a fit that ended early: the new fit's first epoch is a whole one.
            core.end_epoch()
        core.rewind()
        self._open = True
        if self.counting is not None:
            self.counting.begin_epoch(iterator, who)
        else:
            if not self.has_more():
                raise StreamError(
                    f"The stream has come to its declared end after {core.steps:,} steps: there is nothing to "
                    "train on. Declare more passes, or make a new feed to start over."
                )
            done, total = _length.epoch_steps(core, multiple)
            iterator._num_batches = _length.left(done, total)
            if who.callbacks is not None:
                _bar.set_target(who.callbacks, total, done=done)
        self._updates = (_model.iterations(who.model) or 0) - core.steps
        # From here on the model works, whatever was done before the first step.
        core.tally.work()

    def prepare(self, step: int) -> None:
        """Have the data of this step of the epoch there, waited for in the main thread, where a signal ends it."""
        if self.blocks is not None:
            self.blocks.fill(step)

    def end_steps(self, who: _asked.Caller | None) -> None:
        """Keras has no more steps in this epoch: it asked for more in vain, or had as many as it wanted."""
        if not self._open:
            return
        self.core.tally.pause()
        if self.counting is None:
            self.core.trained()
        if who is not None and who.callbacks is not None:
            _bar.set_end(who.callbacks, self.core.steps - self.core.progress.start.steps)
        if self.counting is not None:
            self.counting.end_steps()
            return
        self.close_epoch()
        self.stop_at_the_end(who)

    def close_epoch(self) -> None:
        """The epoch at hand is over, for the feed as well."""
        if self._open:
            self._open = False
            if self.counting is not None:
                # What was taken ahead, and counted by nobody, has not reached the model.
                self.core.give_back(self.core.outstanding)
            self.last_epoch = self.core.epoch_stats
            self.core.end_epoch()

    def has_more(self) -> bool:
        """Whether there is another batch; asked only where an end may come, since asking may mean waiting."""
        return not _length.ends(self.core.stream) or self.available() or self.core.interrupted

    def available(self) -> bool:
        """Whether there is another batch, waited for; a signal ends the wait."""
        try:
            return self.core.available()
        except Interrupted:
            return False

    def stop_at_the_end(self, who: _asked.Caller | None) -> bool:
        """Let `fit` end with this epoch where a declared end leaves nothing for the next."""
        if who is None or who.epoch is None or who.epochs is None or who.epoch + 1 >= who.epochs:
            return False
        if self.has_more():
            return False
        who.model.stop_training = True
        return True

    # -- batches ---------------------------------------------------------------------------------------------

    def begin_blocks(self, blocks: Blocks, multiple: int) -> Iterator[Any]:
        """The same as `batches`, in blocks."""
        self.blocks = blocks
        idle = self.counting is not None and self.counting.idle
        blocks.begin(iter(()) if idle else _batches.rounded_up(self.core, multiple), auto=self.counting is None)
        return iter(blocks)

    def batches(self, multiple: int, convert: Convert | None) -> Iterator[Any]:
        """What the epoch at hand still has; asking for the next confirms the last, where nobody counts.

        Args:
            multiple: the epoch's steps come in groups of so many.
            convert: what the backend wants made of batches; it may take some ahead.
        """
        core, counting = self.core, self.counting
        if counting is not None and counting.idle:
            yield None
            return
        held = 1 if _asked.looks_ahead() else 0
        batches = _batches.rounded_up(core, multiple)
        self._made = batches if convert is None else convert(batches)
        for batch in self._made:
            yield batch
            if counting is None:
                if held:
                    held -= 1
                else:
                    core.trained(1)
