"""Fit: one call of `fit` on a feed: which steps its epochs have, what Keras was given, and what of that was trained.

With a `Director` (see `_director.py`) each step is announced and confirmed by Keras's callbacks. Without one, asking
for the next batch says that the last one is trained, and the optimizer's own counter settles what is in doubt after
a `fit` that ended early.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
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
    """A `fit` at work on a feed, from the moment at which Keras makes its iterator.

    Args:
        feed: what is trained on.
        made: what Keras makes its iterator with.
        directed: whether a callback of ours stands among those of this `fit`.

    Raises:
        ValueError: something stands beside the feed that it can't do, or nothing says what an epoch is.
    """

    def __init__(self, feed: Feed, made: internals.Making, *, directed: bool) -> None:
        core = feed.core
        self._feed = weakref.ref(feed)
        self._core = core
        self.multiple = made.steps_per_execution
        """Steps that Keras runs in one call."""
        self.directed = directed
        self.in_step = False
        """Whether Keras has announced a step that has not ended: with a director, what it takes is there already."""
        self.idle = False
        """Whether the epoch at hand goes on after its last step: Keras is then given one that does nothing."""
        self.error: BaseException | None = None
        """What has failed while Keras runs a step, and is raised when that step is over: for a batch that is taken
        ahead, or in a thread of TensorFlow's, which would wrap it."""
        self.in_threads = False
        """Whether batches are taken in threads of TensorFlow's, ahead of what is trained."""
        self.on_failure: Callable[[], None] | None = None
        """Called before an error of the data is raised, while the model is whole; set by the director."""
        self.blocks: Blocks | None = None
        """What TensorFlow takes batches from where it runs several steps in one call."""
        self._model = weakref.ref(made.model)
        self._weigh = _batches.weigher(made.others)
        self._asked = 0  # batches of the epoch at hand that Keras has asked for
        self._epoch = _epoch_of(feed.own_epoch, made.steps, core)
        _batches.check_multiple(self._epoch, self.multiple)
        self.ahead = internals.taken_ahead(made.iterator)
        """Batches that Keras takes before those of the step that it runs."""
        self._late: BaseException | None = None  # what has failed for such a batch

    @property
    def model(self) -> Any:
        """What is trained."""
        return self._model()

    @property
    def runtime(self) -> Runtime:
        """The feed's time."""
        return self._core.runtime

    def begin(self) -> None:
        """Take over the feed: the epochs are this fit's."""
        self._core.resume()
        self._core.epoch = self._epoch

    def _own(self) -> CoreFeed:
        """The core feed, if no other `fit` has taken it over since."""
        feed = self._feed()
        if feed is None or feed.fit is not self:
            raise StreamError(
                "The feed is already at work for another fit, which began while this one was running, and a batch can "
                "be trained on by one trainer only. Make a second feed of the same stream for the second one."
            )
        return self._core

    # -- epochs ----------------------------------------------------------------------------------------------

    def begin_epoch(self) -> tuple[int, int | None]:
        """An epoch begins, or goes on in its middle; says how many of its steps are done, and how many it has."""
        core = self._own()
        core.rewind()
        self._asked = 0
        self.note_updates()
        # From here on the model works, whatever was done before the first step.
        core.counters.work()
        return _length.epoch_steps(core, self.multiple)

    def note_updates(self) -> None:
        """Remember the optimizer's own count, from which `settle` learns what was trained."""
        feed = self._feed()
        assert feed is not None
        feed.updates = (self._model, (_model_state.iterations(self.model) or 0) - self._core.steps)

    def end_steps(self) -> None:
        """Keras has asked for more in vain, or had as many steps as the epoch has."""
        self._core.counters.pause()
        if not self.directed:
            self._core.trained()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def has_more(self) -> bool:
        """Whether another batch follows; asked only where an end may come, since asking may mean waiting."""
        core = self._core
        if not core.stream.has_end:
            return True
        with user_code.CatchInterrupt():
            return core.available() or core.interrupted
        return True

    # -- batches ---------------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Have the batches of the step that begins there; says whether there are any.

        All that can fail or wait happens here: Keras has still to take the variables out of the model, and the steps
        before this one are whole.
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
            # Blocks that TensorFlow has not come to are given back; Keras on torch has asked for the step's batch.
            return core.outstanding > 0 and self.blocks is None
        return core.outstanding > 0 or core.ready > 0

    def _fetch_with_ahead(self, batches: int) -> None:
        """`fetch`, and as many more as Keras takes ahead. That these can't be had is no failure of the step at hand."""
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
                if there and self._weigh is not None:
                    # Batches that can't be weighed are refused here as well, and not where Keras takes them.
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
        """`Feed.upcoming`, as `take` will give them."""
        batches = self._core.upcoming(most)
        return batches if self._weigh is None else [self._weigh(batch) for batch in batches]

    def peek(self) -> Tree:
        """The next batch, not handed out: for building a model. What no model can take is refused here already."""
        self.fetch(1)
        batch = self._core.peek()
        return batch if self._weigh is None else self._weigh(batch)

    def next_is_there(self) -> bool:
        """Whether Keras, which asks for the next batch now, can have one.

        With a director the batches of a step that has begun were fetched by `prepare`. Keras's trainer for torch asks
        before the step begins, and without a director nobody announces it: there the wait is here.
        """
        core = self._core
        if self.directed or self.in_threads:
            waits = self.in_threads or not self.in_step
            return core.ready > 0 or (waits and not core.interrupted and self.fetch(1) > 0)
        core = self._own()
        # Those that are asked for beyond what runs were taken ahead: nothing is known of them yet.
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
        """The same for all steps of an execution at once, without a director, in a thread of TensorFlow's."""
        core = self._core
        core.trained()
        try:
            return not core.interrupted and self.fetch(self.multiple) > 0
        except BaseException as error:
            self.error = error
            return False

    def batches(self) -> Iterator[Tree]:
        """The batches of the epoch at hand, one for each time that Keras asks."""
        core = self._core
        # Then nothing but being asked for a batch happens to the feed while steps are run.
        asked_alone = not (self.directed or self.in_threads or self.ahead) and self._weigh is None
        while self.next_is_there():
            yield self.take()
            if asked_alone:
                before = core.handed
                yield from core.taken_in_turn(self.multiple)
                self._asked += core.handed - before


def _epoch_of(own: Epoch | None, steps: int | None, core: CoreFeed) -> Epoch | None:
    """What an epoch of a fit is."""
    capped = steps is not None and steps == keras.config.max_steps_per_epoch()  # for debugging: it always holds
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
    """Batches may be out when nobody is at work, as after an exception: say what of them was trained.

    Args:
        core: the feed.
        updates: the model of the last fit, and by how much its optimizer's count was ahead of the feed's.
        fit: the last fit.
    """
    if fit is not None and fit.directed:
        # Its director has counted what was trained, before any callback could fail.
        core.give_back(core.outstanding)
        return
    trained = updated(core, updates)
    if trained is not None:
        core.trained(trained)
        core.give_back(core.outstanding)


def updated(core: CoreFeed, updates: tuple[weakref.ref[Any], int] | None) -> int | None:
    """How many of the batches that are out the optimizer has made updates with; None where that can't be known."""
    model = None if updates is None else updates[0]()
    if updates is None or model is None or not internals.is_attached(model):
        return None
    count = _model_state.iterations(model)
    if count is None:
        return None
    trained = count - updates[1] - core.steps
    return trained if 0 <= trained <= core.outstanding else None


def stats_for_logs(core: CoreFeed) -> dict[str, float]:
    """What happened in the epoch at hand, as numbers for a trainer's logs."""
    stats: Stats = core.epoch_stats
    logs = stats.logs()
    # Over one epoch it would only say how far ahead of it the source was read.
    if (reuse := core.stats.reuse) is not None:
        logs["reuse"] = reuse
    return logs
