"""Loops: the part of Feed with the loops over batches, epoch by epoch.

A feed has one loop at a time: the one that began last. Batches that an earlier one handed out and nobody confirmed come
again; the epoch continues where it was.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from inspect import GEN_RUNNING, GEN_SUSPENDED, getgeneratorstate
from typing import Any, Literal

from unbounded import torch
from unbounded.core import check
from unbounded.core.node import StreamError
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.core.words import checked
from unbounded.feed import describe, sharing
from unbounded.feed.delivery import OnNan
from unbounded.feed.epoch import Epoch
from unbounded.feed.epoch_run import EpochRun, Loop
from unbounded.feed.in_flight import InFlight
from unbounded.feed.one_by_one import OneByOne
from unbounded.feed.stats import Stats
from unbounded.stream import Stream

_log = logging.getLogger("unbounded")


class Loops(OneByOne):
    """The part of `Feed` with epochs, and the loops over their batches.

    Args:
        stream: the stream.
        epoch: the length of an epoch.
        confirm: "auto" or "manual".
        on_nan: see `Feed`.
        runtime: clock, threads and files.
    """

    def __init__(
        self, stream: Stream, epoch: Epoch | None, confirm: Literal["auto", "manual"], on_nan: OnNan, runtime: Runtime
    ) -> None:
        self.confirm = confirm
        self._auto = confirm == "auto"
        self._trainer: weakref.ref[Any] | None = None  # the running generator of `epochs`
        self.last_epoch: Stats | None = None
        """The stats of the last epoch that ended."""
        super().__init__(stream, epoch, on_nan, runtime)

    def _begin(self) -> None:
        super()._begin()
        self._loop: Loop | None = None  # the one that began last
        # For confirm="manual": True if trained() was called in this epoch; the step at which this feed began; the
        # number of an epoch without a call.
        self._confirmed = False
        self._since = 0
        self._unconfirmed: int | None = None

    @property
    def epoch_number(self) -> int:
        """The number of the current epoch, from 0, counted from the run's beginning."""
        return self.progress.number

    @checked("feed.epochs(n)")
    def epochs(self, n: int | None = None) -> Iterator[EpochRun]:
        """The epochs up to number `n`, counted from the run's beginning: a run that was saved in epoch 7 continues
        there, and one that was left in the middle of an epoch begins with the rest of it.

        Args:
            n: the number of epochs of the whole run; None for no end.

        Returns:
            An iterator of epochs, to be iterated in turn; each is an iterable of batches with a `number` (from 0),
            `stats` and `stop()`.

        Raises:
            ValueError: the feed has no epoch.
            StreamError: another loop over the epochs is running; or an epoch is requested before the last one has given
                a batch; or with `confirm="manual"`, `trained()` was not called in a whole epoch.
        """
        if self.epoch is None:
            raise ValueError(
                "Feed.epochs(n) needs to know what an epoch is. Give Feed(stream, epoch=ub.Epoch(steps=1000))."
            )
        if n is not None:
            n = check.at_least(0, n, "epochs(n)")
        self._take_trainer()
        epochs = self._epochs(n)
        self._trainer = weakref.ref(epochs)
        return epochs

    def _take_trainer(self) -> None:
        self.check_usable()
        trainer = self._trainer() if self._trainer is not None else None
        if trainer is not None and getgeneratorstate(trainer) in (GEN_RUNNING, GEN_SUSPENDED):
            raise StreamError(
                "The feed is already at work for another loop, and a batch can be trained on by one trainer only. "
                "Make a second feed of the same stream for the second trainer, or end the first loop: what "
                "epochs() gave has a close()."
            )

    def _epochs(self, n: int | None) -> Iterator[EpochRun]:
        self._take_back()
        if self.epoch_over:
            # Saved between an epoch's last batch and the next epoch: do not repeat the epoch without a batch.
            self.end_epoch()
        if n is not None and self.progress.number >= n:
            describe.finished(self.progress.number, n)
        while (n is None or self.progress.number < n) and not self._interrupted and self.available():
            self._check_confirmed()
            run = EpochRun(self, self.progress.number)
            yield run
            run.close()
            if self.progress.number != run.number:
                continue  # the loop's body has ended the epoch, or moved the feed
            if self._interrupted and not self.epoch_over:
                return  # in the middle of the epoch: a later loop continues it
            if self._handed <= self.progress.start.steps and not self.progress.left:
                raise StreamError(
                    f"Epoch {run.number} was left before its first batch, and an epoch has at least one. Iterate over "
                    "each epoch before the next is asked for: for epoch in feed.epochs(n): for batch in epoch: …"
                )
            self.end_epoch()
        if n is not None and self._ended and self.progress.number < n and not self._interrupted:
            _log.warning(
                "The stream came to its declared end in epoch %s of the %s that were asked for.",
                f"{self.progress.number:,}",
                f"{n:,}",
            )

    def __iter__(self) -> Iterator[Tree]:
        """The batches left in the current epoch. When the loop has run to its end, the epoch is over: the next loop
        over the feed is the next epoch.

        Data loaders work like this: torch's DataLoader(feed, batch_size=None), Lightning, Accelerate. As with theirs,
        `state_dict()` inside the loop takes the current batch for trained, if the feed has a length. Without a length,
        trainers request a batch ahead, and only the batches before the current one count.
        """
        self.check_usable()
        torch.refuse_worker()
        torch.refuse_collation()
        if self.epoch is None and not self.stream.has_end:
            raise ValueError(
                "Iterating over a feed gives the batches of one epoch, and nothing says what that is. Give "
                "Feed(stream, epoch=ub.Epoch(steps=1000)); or use feed.batches(), which then never ends."
            )
        loop = self._loop
        if loop is not None and loop.whole_epoch and loop.state == "live" and self.epoch_over and self._auto:
            # A trainer that counts batches by len(feed) does not request one more after the last. An exception can't
            # have ended its loop: then the loop would have been closed.
            self.trained()
        self._take_back()
        if self.epoch_over:
            self.end_epoch()
        return self._whole_epoch()

    def _whole_epoch(self) -> Iterator[Tree]:
        yield from self._hand_out(Loop(whole_epoch=True))
        if self.epoch_over:
            self.end_epoch()

    def __len__(self) -> int:
        """The number of batches of the current epoch, including those trained on before.

        Raises:
            TypeError: it depends on time or on the data.
        """
        length = self.length
        if length is None:
            raise TypeError(
                f"The feed has no length: how many batches an epoch of {self.epoch!r} has is not known beforehand. "
                "Epoch(steps=…) always has one."
            )
        return length

    def __bool__(self) -> bool:
        return True  # not by its length

    @property
    def length(self) -> int | None:
        """The number of batches of the current epoch; None if it depends on time or on the data."""
        declared = self.stream.declared_rows()
        if self.stream.has_end and declared is None:
            return None
        return self.progress.length(self.stream.batch_size, declared)

    def batches(self) -> Iterator[Tree]:
        """The batches left in the current epoch; call `end_epoch` to begin the next.

        With `confirm="auto"`, requesting the next batch, or the end, confirms the previous one. A feed has one loop at
        a time, the one that began last. Batches that an earlier loop handed out and nobody confirmed, because it was
        left by an exception or a `break`, come again, and are counted as in doubt.
        """
        return self._hand_out(Loop())

    def _hand_out(self, loop: Loop) -> Iterator[Tree]:
        self.check_usable()
        self._take_back()
        self._check_confirmed()
        sharing.reads(self)
        self._loop = loop
        auto = self._auto
        progress = self.progress
        timed = self.epoch is not None and self.epoch.seconds is not None
        progress.enter()
        self.counters.work()
        try:
            while (flight := self._next_flight()) is not None:
                stop = min(progress.end_in(flight), flight.end)
                step, first = self._handed, flight.before.steps
                for batch in flight.run.items[step - first : stop - first]:
                    if not flight.checked:
                        self._check(flight, step)
                    self._handed = step = step + 1
                    yield batch
                    if self._handed != step or self._loop is not loop:
                        self.check_usable()
                        raise StreamError(
                            "The feed was moved while this loop was at work: another loop over it began, or it was "
                            "rewound, or a state was loaded. Begin a new loop."
                        )
                    if auto:
                        self._trained = step
                    if self._interrupted or loop.stopped or (timed and progress.out_of_time):
                        break
                self._settle()
            loop.state = "over"
        finally:
            loop.end()  # also if the loop was left
            if self._loop is loop:
                self.counters.pause()

    def _take_back(self) -> None:
        """Take back the batches that a loop handed out, was left with, and did not confirm: they come again.

        With confirm="manual", the batches of a loop that ran to its end stay with the trainer, who may confirm them
        later.
        """
        if self.outstanding and not self._held_by_trainer:
            self.rewind()
            self._loop = None

    @property
    def _held_by_trainer(self) -> bool:
        """True if the batches that are not confirmed may be confirmed later."""
        return not self._auto and self._loop is not None and self._loop.state == "over"

    def _check_confirmed(self) -> None:
        if self._unconfirmed is not None:
            raise StreamError(
                f"Epoch {self._unconfirmed} is over, and none of its {self.outstanding:,} batches was confirmed: "
                "confirm='manual' leaves that to you. Call feed.trained() once batches are trained on, at least once "
                "in each epoch; or make the feed with confirm='auto'."
            )

    def _next_flight(self) -> InFlight | None:
        """The run that has the next batch; None if the epoch is over, the stream has ended, or the feed was
        interrupted."""
        self.check_usable()
        while not self._interrupted and not self.epoch_over:
            if self._handed < self._reader.tail.steps:
                return self._reader.flight_of(self._handed)
            if not self._pull():
                return None
        return None

    def end_epoch(self) -> None:
        """End the current epoch: the next batch is the first of the next epoch.

        Batches that a loop handed out, was left with, and did not confirm come again in the next epoch. With
        `confirm="manual"`, the batches of a loop that ran to the epoch's end stay with the trainer, who may confirm
        them in the next epoch, as when gradients are accumulated over 4 batches and an epoch has 22. If a whole epoch
        had no call of `trained()`, the next one raises.
        """
        self._settle()
        if not self._held_by_trainer:
            self.rewind()
        elif self._handed > self.progress.start.steps >= self._since and not self._confirmed:
            self._unconfirmed = self.progress.number
        self.progress.end(self._reader.count_at(self._handed))
        self._fetched, self._sure = self._handed, 0
        stats = self.stats
        self.last_epoch = self.counters.epoch(stats)
        self.counters.end_epoch(stats)

    def leave_epoch(self) -> None:
        """Like `EpochRun.stop`, for a loop over `batches()` or over the feed itself."""
        self.check_usable()
        if self._auto:
            self.trained()
        self.progress.leave()
        self._sure = 0
        if self._loop is not None:
            self._loop.stopped = True

    def trained(self, batches: int | None = None) -> None:
        """Confirm batches as trained on: the oldest `batches` of those handed out and not confirmed; None for all of
        them."""
        self.check_usable()
        out = self._handed - self._trained
        batches = out if batches is None else check.whole(batches, "trained(batches)")
        if not 0 <= batches <= out:
            raise ValueError(f"trained({batches}): {out} batches are out and not confirmed. Confirm each batch once.")
        self._trained += batches
        self._confirmed, self._unconfirmed = True, None

    def peek(self) -> Tree:
        """The next batch, without handing it out, for building a model. Waits for it."""
        # Batches of a loop that was left come again.
        left = self._loop is not None and self._loop.state == "left"
        step = self._trained if left else self._handed
        if step == self._handed and not self.available():
            if self._interrupted:
                raise StreamError(
                    "The feed was interrupted before there was a batch to look at. feed.resume() lets it go on."
                )
            raise StreamError(f"The stream has ended after {step:,} batches: there is none to look at.")
        flight = self._reader.flight_of(step)
        assert flight is not None
        return flight.run.items[step - flight.before.steps]
