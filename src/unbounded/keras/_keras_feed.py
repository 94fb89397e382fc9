"""Feed for Keras: a stream for `fit`, `evaluate` and `predict`.

Keras accepts an instance of its `DataAdapter` as data. This one gives each iterator that Keras makes its own adapter
(`_adapters.py`), so that training and rounds of validation never mix; the state of a `fit` is in `_fit.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import keras
import numpy as np
from numpy.typing import NDArray

from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.trees import Tree
from unbounded.feed import sharing
from unbounded.feed.describe import Position
from unbounded.feed.epoch import Epoch
from unbounded.feed.feed import Feed as CoreFeed
from unbounded.feed.stats import Stats
from unbounded.keras import _adapters, _batches, _fit, internals
from unbounded.keras._rounds import Rounds, Validation
from unbounded.stages.stage import Guarantee
from unbounded.stream import Stream

_ASKED = {"validation": "fit(validation_data=…)", "evaluate": "evaluate", "predict": "predict"}

if TYPE_CHECKING:
    from unbounded.keras._checkpoint import Checkpoint


class Feed(internals.DataAdapter):  # type: ignore[misc]
    """A stream for Keras: give it to `fit`, `evaluate` or `predict` as x, or as validation data.

    Training continues where the last `fit` ended: an epoch never starts the data over. `evaluate` and `predict` have
    their own position in the stream, and leave that of training alone. With `Checkpoint(feed, …)` each step is
    confirmed by Keras's callbacks. Without it, requesting a batch confirms the last one, and when a `fit` has ended
    early, the optimizer's counter tells what was trained; a model without a compiled optimizer has no such counter, and
    its last batch comes again, counted in `stats.in_doubt`.

    Args:
        stream: batches of `(x, y)`, `(x, y, sample_weight)` or x alone: each an array of shape (rows, …), or a tuple,
            list or dict of such.
        epoch: the length of an epoch; None leaves it to `steps_per_epoch`, or to the stream's declared end.
        validation: for validation data: "same" gives the same batches each time, "next" those that follow.
        require: the weakest acceptable guarantee.
        on_nan: "raise" refuses a batch with a NaN or an infinity, "pass" lets it through and counts it, "skip" leaves
            such rows out before they are batched.
        show: the feed's stats that Keras's progress bar shows besides loss and metrics, with `Checkpoint`: names of
            `Stats.logs()`, such as "waiting", "rows", "passes", "reuse", "age". All of them are in the `History`.
        runtime: clock, threads and files; tests pass one whose clock they move.

    Raises:
        ValueError: as for the core `Feed`.

    Example:
        >>> import keras, numpy as np, unbounded as ub
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> stream = ub.from_arrays((np.ones((10, 3)), np.ones((10, 1)))).batch(4)
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
        validation: Validation = "same",
        require: Guarantee | None = None,
        on_nan: Literal["raise", "pass", "skip"] = "raise",
        show: Sequence[str] = ("waiting",),
        runtime: Runtime = SYSTEM,
    ) -> None:
        super().__init__()
        if validation not in ("same", "next"):
            raise ValueError(f"Feed(validation={validation!r}): expected 'same' or 'next'.")
        if isinstance(show, str):
            raise TypeError(f"Feed(show={show!r}): expected a sequence of names, such as ({show!r},).")

        def core() -> CoreFeed:
            return CoreFeed(stream, epoch=epoch, require=require, confirm="manual", on_nan=on_nan, runtime=runtime)

        self.core = core()
        """The core feed, for training."""
        self.own_epoch = epoch
        """The length of an epoch as given to the feed; None leaves it to `fit`."""
        self.show = tuple(show)
        """The stats that the progress bar shows."""
        self.fit: _fit.Fit | None = None
        """The current `fit`, or the last one."""
        self.in_epoch = False
        """True if a `fit` has begun an epoch that is not over."""
        self.run: Path | str | None = None
        """With `Checkpoint`, the directory of the run whose epochs are counted."""
        self.last_epoch: Stats | None = None
        """The stats of the last epoch that ended; `str` gives "1,000 batches × 32 = 32,000 rows"."""
        self.updates: tuple[weakref.ref[Any], int] | None = None
        """The model of the last `fit`, and the difference between its optimizer's count and the feed's."""
        self._make_rounds: Callable[[], Rounds] = lambda: Rounds(core(), validation)
        self._rounds: Rounds | None = None

    # -- the user's methods ----------------------------------------------------------------------------------

    @property
    def stream(self) -> Stream:
        """The stream."""
        return self.core.stream

    @property
    def epoch(self) -> Epoch | None:
        """The length of an epoch; None if `steps_per_epoch` or the stream's end decides."""
        return self.own_epoch

    @property
    def epoch_number(self) -> int:
        """The number of the current epoch, from 0, counted from the run's beginning."""
        return self.core.epoch_number

    @property
    def steps(self) -> int:
        """The number of batches that were trained on, from the run's beginning."""
        return self._up_to_date().steps

    @property
    def position(self) -> Position:
        """The position of training: it has `steps`, `rows` and `passes`, and `str` describes it in words."""
        return self._up_to_date().position

    @property
    def stats(self) -> Stats:
        """The stats from the run's beginning."""
        return self._up_to_date().stats

    def peek(self) -> Tree:
        """The next batch, without handing it out. Waits for it."""
        return self.core.peek()

    def rows_at(self, step: int, *, source: str | None = None) -> NDArray[np.int64]:
        """The rows of a source that batch number `step` has: see `Stream.rows_at`."""
        return self.core.rows_at(step, source=source)

    def state_dict(self) -> dict[str, Any]:
        """The position of training, as plain data; for programs that save the model's state by other means."""
        return self._up_to_date().state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, accept_changes: bool = False) -> None:
        """Restore a position from `state_dict`."""
        self.core.load_state_dict(state, accept_changes=accept_changes)
        self.moved()

    def interrupt(self) -> None:
        """Stop: a wait for data ends at once. Safe to call in a signal handler."""
        self.core.interrupt()
        if self._rounds is not None:
            self._rounds.feed.interrupt()

    def close(self) -> None:
        """Wait for the checkpoint that is being written, then end the threads and close the sources. A second call does
        nothing."""
        try:
            self.core.close()
        finally:
            if self._rounds is not None:
                self._rounds.feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.core.__exit__(kind, error, trace)
        self.close()

    def __iter__(self) -> Iterator[Tree]:
        raise TypeError(
            "This feed is for Keras: model.fit(feed). For a loop of your own make ub.Feed(stream, epoch=…), and write "
            "for epoch in feed.epochs(10): for batch in epoch: … A layer's adapt takes a batch: "
            "layer.adapt(feed.peek()[0])."
        )

    def __repr__(self) -> str:
        return repr(self.core).replace("<Feed", "<keras.Feed", 1)

    def _up_to_date(self) -> CoreFeed:
        """The core feed, after the last batches of a `fit` that ended early without our callback were counted by the
        optimizer."""
        core = self.core
        if core.outstanding and self.fit is not None and not self.fit.directed:
            trained = _fit.updated(core, self.updates)
            if trained:
                core.trained(trained)
        return core

    # -- for this package ------------------------------------------------------------------------------------

    @property
    def rounds(self) -> Rounds:
        """The rounds of `evaluate`, `predict` and validation."""
        if self._rounds is None:
            self._rounds = self._make_rounds()
        return self._rounds

    def moved(self) -> None:
        """Training was moved to another position: the epoch that had begun is forgotten."""
        self.in_epoch = False

    def close_epoch(self) -> None:
        """End the current epoch, for the core feed as well."""
        if self.in_epoch:
            self.in_epoch = False
            if self.fit is not None and self.fit.directed:
                # Batches that Keras took ahead, and no counter has counted, have not reached the model.
                self.core.give_back(self.core.outstanding)
            self.last_epoch = self.core.epoch_stats
            self.core.end_epoch()

    # -- Keras's data adapter --------------------------------------------------------------------------------

    @property
    def num_batches(self) -> int | None:
        """Called by an iterator that Keras is making: gives it its own adapter, and returns that adapter's answer."""
        made = internals.making()
        if made is None:
            return None
        adapter = self._begin_fit(made) if made.role == "fit" else self._begin_round(made)
        internals.adopt(made.iterator, adapter)
        return adapter.num_batches

    def _begin_fit(self, made: internals.Making) -> _adapters.FitAdapter:
        _batches.refuse_others(made.others, ("class_weight",))
        _batches.refuse_sharding()
        if self._rounds is not None:
            sharing.refuse_round(self.core, "fit, after a round with the same feed,")
        checkpoint = self._checkpoint(made.callbacks)
        fit = _fit.Fit(self, made, directed=checkpoint is not None)
        _fit.settle(self.core, self.updates, self.fit)
        self.core.rewind()
        self.fit = fit
        fit.begin()
        if checkpoint is not None:
            # Before Keras reads a batch: a source that can't seek can't be moved once it is read.
            checkpoint.take_place()
        return _adapters.FitAdapter(made, self, fit)

    def _begin_round(self, made: internals.Making) -> _adapters.RoundAdapter:
        _batches.refuse_others(made.others, ())
        if self.fit is not None:
            sharing.refuse_round(self.core, _ASKED[made.role])
        return _adapters.RoundAdapter(made, self.rounds)

    def _checkpoint(self, callbacks: Any) -> Checkpoint | None:
        """The `Checkpoint` of this feed among the callbacks of `fit`."""
        from unbounded.keras._checkpoint import Checkpoint
        from unbounded.keras._director import Director

        given = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
        for callback in keras.tree.flatten(given):
            found = callback.checkpoint if isinstance(callback, Director) else callback
            if isinstance(found, Checkpoint) and found.feeds[0] is self:
                if given is not callbacks and found is callback:
                    raise ValueError(
                        "fit(callbacks=CallbackList(…)) was given a CallbackList that was made without parameters, so "
                        "its callbacks know nothing of this fit and Checkpoint would save nothing. Give fit the list "
                        "of callbacks itself: callbacks=[ub.keras.Checkpoint(feed, …)]."
                    )
                return found
        return None

    @property
    def batch_size(self) -> int | None:
        """The rows of a batch, if the stream has `batch`."""
        return self.stream.batch_size

    def _is_asked_by_nobody(self) -> Any:
        raise internals.UnsupportedKeras(
            f"Keras {keras.__version__} reads a feed in a way that unbounded does not know. Give the feed to fit, "
            "evaluate or predict."
        )

    has_partial_batch = False
    partial_batch_size = None
    get_numpy_iterator = get_jax_iterator = get_torch_dataloader = get_tf_dataset = _is_asked_by_nobody
