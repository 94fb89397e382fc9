"""Fit: the state of one call of `fit` on a feed: the steps of its epochs, and which batches Keras took and trained on.

With a `Director` (see `_director.py`) each step is announced and confirmed by Keras's callbacks. Without one,
requesting a batch confirms the last one, and after a `fit` that ended early the optimizer's counter tells what was
trained on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import keras

from unbounded.core import user_code
from unbounded.core.node import StreamError
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.feed.epoch import Epoch
from unbounded.feed.feed import Feed as CoreFeed
from unbounded.feed.stats import Stats
from unbounded.keras import _batches, _length, _model_state, internals

if TYPE_CHECKING:
    from unbounded.keras._keras_feed import Feed
    from unbounded.keras._tensorflow import Blocks

Convert: TypeAlias = Callable[[Iterator[Tree]], Iterable[Any]]


class Fit:
    """The state of a `fit`, from the moment at which Keras makes its iterator.

    Args:
        feed: the training feed.
        made: the arguments with which Keras makes its iterator.
        directed: True if our callback is among those of this `fit`.

    Raises:
        ValueError: an argument beside the feed is not supported, or nothing defines the length of an epoch.
    """

    def __init__(self, feed: Feed, made: internals.Making, *, directed: bool) -> None:
        core = feed.core
        self._feed = weakref.ref(feed)
        self._core = core
        self.multiple = made.steps_per_execution
        """The steps that Keras runs in one call."""
        self.directed = directed
        self.is_new = True
        """True until the first epoch begins. A callback that finds another when training begins was given the feed of
        an earlier `fit`."""
        self.written: set[Path] = set()
        """The tables that callbacks of this fit write."""
        self.in_step = False
        """True while a step runs that Keras has announced: with a director, its batches are fetched already."""
        self.idle = False
        """True in an epoch that resumes after its last step: Keras gets one that does nothing."""
        self.error: BaseException | None = None
        """An error to raise when the current step is over: of a batch that is read ahead, or in a thread of TensorFlow,
        which would wrap it."""
        self.in_threads = False
        """True if TensorFlow takes batches in threads, ahead of training."""
        self.on_failure: Callable[[], None] | None = None
        """Called before an error of the data is raised, while the model is whole; set by the director."""
        self.blocks: Blocks | None = None
        """The blocks from which TensorFlow takes batches if it runs several steps in one call."""
        self._model = weakref.ref(made.model)
        self._weigh = _batches.weigher(made.others)
        self._asked = 0  # batches of the current epoch that Keras has requested
        self._epoch = _epoch_of(feed.own_epoch, made.steps, core)
        _batches.check_multiple(self._epoch, self.multiple)
        self.ahead = internals.taken_ahead(made.iterator)
        """The number of batches that Keras takes ahead of the step that it runs."""
        self._late: BaseException | None = None  # the error of such a batch
        self._is_checked = False  # True once a batch was looked at: all others have its structure and dtypes

    @property
    def model(self) -> Any:
        """The model."""
        return self._model()

    def is_of(self, model: Any) -> bool:
        """True if a `fit` of this model that begins now is this one."""
        return self.is_new and model is not None and self.model is model

    @property
    def runtime(self) -> Runtime:
        """The feed's runtime."""
        return self._core.runtime

    def begin(self) -> None:
        """Take over the feed: its epochs are this fit's."""
        self._core.resume()
        self._core.epoch = self._epoch

    def _own(self) -> CoreFeed:
        """The core feed; raises StreamError if another `fit` has taken it over since."""
        feed = self._feed()
        if feed is None or feed.fit is not self:
            raise StreamError(
                "The feed is already at work for another fit, which began while this one was running, and a batch can "
                "be trained on by one trainer only. Make a second feed of the same stream for the second one."
            )
        return self._core

    # -- epochs ----------------------------------------------------------------------------------------------

    def begin_epoch(self) -> tuple[int, int | None]:
        """An epoch begins, or resumes in its middle; return its steps done, and its number of steps."""
        core = self._own()
        self.is_new = False
        core.rewind()
        self._asked = 0
        self.note_updates()
        # From here on time counts as work, whatever was done before the first step.
        core.counters.work()
        return _length.epoch_steps(core, self.multiple)

    def note_updates(self) -> None:
        """Record the optimizer's counter, from which `settle` learns what was trained on."""
        feed = self._feed()
        assert feed is not None
        feed.updates = (self._model, (_model_state.iterations(self.model) or 0) - self._core.steps)

    def end_steps(self) -> None:
        """Keras has requested a batch in vain, or has run all steps of the epoch."""
        self._core.counters.pause()
        if not self.directed:
            self._core.trained()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def has_more(self) -> bool:
        """True if another batch follows; call it only where an end may come, since it may wait."""
        core = self._core
        if not core.stream.has_end:
            return True
        with user_code.CatchInterrupt():
            return core.available() or core.interrupted
        return True

    # -- batches ---------------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Fetch the batches of the step that begins; return False if there are none.

        All that can fail or wait happens here, while the model has its variables and the steps before this one are
        complete.
        """
        core = self._own()
        if self.in_threads:
            return not core.interrupted and (core.outstanding > 0 or not core.epoch_over)
        if self._late is not None:
            error, self._late = self._late, None
            self._fail(error)
        if not core.interrupted:
            self._fetch_with_ahead(max(0, self.multiple - core.outstanding))
            if self.blocks is not None and self.directed:
                self.blocks.fill()
        if core.interrupted:
            # Blocks that TensorFlow has not begun are given back; Keras on torch has requested the step's batch
            # already.
            return core.outstanding > 0 and self.blocks is None
        return core.outstanding > 0 or core.ready > 0

    def _fetch_with_ahead(self, batches: int) -> None:
        """Like `fetch`, with as many more batches as Keras takes ahead. If these fail, the current step does not."""
        there = self.fetch(batches) if batches else 0
        if self.ahead and there == batches:
            try:
                with user_code.CatchInterrupt():
                    self._own().fetch(batches + self.ahead, whole=self.multiple > 1)
            except Exception as error:
                self._late = error

    def fetch(self, batches: int) -> int:
        """`Feed.fetch`, in whole executions; a signal ends the wait."""
        core = self._own()
        try:
            with user_code.CatchInterrupt():
                there = core.fetch(batches, whole=self.multiple > 1)
                if there and not self._is_checked:
                    _batches.check_first(core.upcoming(1)[0], core.stream, self.model)
                    self._is_checked = True
                if there and self._weigh is not None:
                    # Batches that can't be weighted are refused here, not where Keras takes them.
                    self._weigh(core.upcoming(1)[0])
                return there
        except BaseException as error:
            self._fail(error)
        return 0

    def _fail(self, error: BaseException) -> NoReturn:
        if self.on_failure is not None:
            self.on_failure()
        raise error

    def take(self) -> Tree:
        """Hand out the next batch."""
        batch = self._core.take()
        return batch if self._weigh is None else self._weigh(batch)

    def upcoming(self, most: int) -> list[Tree]:
        """`Feed.upcoming`, with the weights that `take` adds."""
        batches = self._core.upcoming(most)
        return batches if self._weigh is None else [self._weigh(batch) for batch in batches]

    def peek(self) -> Tree:
        """The next batch, not handed out, for building a model. Batches that no model can use are refused here."""
        self.fetch(1)
        batch = self._core.peek()
        return batch if self._weigh is None else self._weigh(batch)

    def next_is_there(self) -> bool:
        """True if there is a batch for Keras's next request.

        With a director, the batches of a step were fetched by `prepare`. Keras's trainer for torch requests one before
        the step begins, and without a director no step is announced: then the wait is here.
        """
        core = self._core
        if self.directed or self.in_threads:
            waits = self.in_threads or not self.in_step
            return core.ready > 0 or (waits and not core.interrupted and self.fetch(1) > 0)
        core = self._own()
        # The batches that are read ahead belong to later steps: they are not confirmed.
        out = core.outstanding - self.ahead
        if out > 0:
            core.trained(out)
        within = (self._asked - self.ahead) % self.multiple
        self._asked += 1
        if core.ready > 0:
            return True
        if core.interrupted or self._late is not None:
            self.error, self._late = self._late, None
            return False
        self._fetch_with_ahead(max(0, self.multiple - self.ahead - within))
        if core.ready > 0:
            return True
        self.error, self._late = self._late, None
        return False

    def next_execution_is_there(self) -> bool:
        """The same for all steps of an execution at once, without a director, in a thread of TensorFlow."""
        core = self._core
        core.trained()
        try:
            return not core.interrupted and self.fetch(self.multiple) > 0
        except BaseException as error:
            self.error = error
            return False

    def batches(self) -> Iterator[Tree]:
        """The batches of the current epoch, one for each request by Keras."""
        core = self._core
        # Then requests are the only calls of the feed while steps run.
        asked_alone = not (self.directed or self.in_threads or self.ahead) and self._weigh is None
        while self.next_is_there():
            yield self.take()
            if asked_alone:
                before = core.handed
                yield from core.taken_in_turn(self.multiple)
                self._asked += core.handed - before


def _epoch_of(own: Epoch | None, steps: int | None, core: CoreFeed) -> Epoch | None:
    """The epoch of a fit."""
    capped = steps is not None and steps == keras.config.max_steps_per_epoch()  # a debugging limit: it always holds
    if steps is not None and own is not None and own != Epoch(steps=steps) and not capped:
        raise ValueError(f"steps_per_epoch={steps} was given beside a feed with {own!r}. Leave one of them out.")
    epoch = own if steps is None else Epoch(steps=steps)
    if epoch is None and not core.stream.has_end:
        raise ValueError(
            "The feed never ends, and nothing says what an epoch is. Give Feed(stream, "
            "epoch=ub.Epoch(steps=1000)), or fit(feed, steps_per_epoch=1000)."
        )
    return epoch


def settle(core: CoreFeed, updates: tuple[weakref.ref[Any], int] | None, fit: Fit | None) -> None:
    """Batches may be unconfirmed after an exception: find out which of them were trained on.

    Args:
        core: the feed.
        updates: the model of the last fit, and the difference between its optimizer's count and the feed's.
        fit: the last fit.
    """
    if fit is not None and fit.directed:
        # Its director has counted the steps, before any callback could fail.
        core.give_back(core.outstanding)
        return
    trained = updated(core, updates)
    if trained is not None:
        core.trained(trained)
        core.give_back(core.outstanding)


def updated(core: CoreFeed, updates: tuple[weakref.ref[Any], int] | None) -> int | None:
    """How many of the unconfirmed batches the optimizer has made updates with; None if unknown."""
    model = None if updates is None else updates[0]()
    if updates is None or model is None or not internals.is_attached(model):
        return None
    count = _model_state.iterations(model)
    if count is None:
        return None
    trained = count - updates[1] - core.steps
    return trained if 0 <= trained <= core.outstanding else None


def stats_for_logs(core: CoreFeed) -> dict[str, float]:
    """The stats of the current epoch as numbers for a trainer's logs."""
    stats: Stats = core.epoch_stats
    logs = stats.logs()
    # Of the whole run: over one epoch it would depend on how far ahead the source was read.
    if (reuse := core.stats.reuse) is not None:
        logs["reuse"] = reuse
    return logs
