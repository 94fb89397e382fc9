"""Feed: a stream at work for one trainer. It hands out batches, and knows which of them were trained on.

Two step numbers say it all: up to which batch it handed out, and up to which the trainer says that it
trained. A position is where the second one points; what lies between the two is in doubt, and comes again
after a restart.
"""

from __future__ import annotations

import _thread
import logging
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from inspect import GEN_RUNNING, GEN_SUSPENDED, getgeneratorstate
from types import TracebackType
from typing import Any, Literal, TypeAlias

from unbounded import _check, _describe, _refuse, _rows, _sharing, _show, _torch
from unbounded._block import At, Run
from unbounded._clock import SYSTEM, Clock
from unbounded._describe import Position
from unbounded._epoch import Epoch
from unbounded._epoch_run import EpochRun, Loop
from unbounded._held import Held
from unbounded._lots import Count, Lot
from unbounded._mark import from_plain, to_plain
from unbounded._node import EndOfStream, Mark, Node, StreamError
from unbounded._progress import Progress
from unbounded._rows import Tree
from unbounded._show import words
from unbounded._stats import Stats
from unbounded._stream import Opened, Stream
from unbounded._tally import Tally
from unbounded._waiting import Waiting
from unbounded._words import checked
from unbounded.sources.arrays import Arrays
from unbounded.stages._base import WEAKEST_FIRST, Guarantee
from unbounded.stages.batch import BlocksAsBatches

_log = logging.getLogger("unbounded")

FORMAT = 1
OnNan: TypeAlias = Literal["raise", "pass", "skip"]
_SLICE = 0.05  # seconds: how long the feed waits for data before it looks whether it is to stop


class Feed:
    """Batches for one trainer, and the knowledge of which of them were trained on.

    Asking for the next batch, or ending the epoch, says that the previous batch is trained. Where that is not
    so (gradients that are accumulated over several batches), `confirm="manual"` leaves saying it to
    `trained()`.

    Args:
        stream: what to feed. Columns of text are handed out as they are; Python objects are refused at the first
            batch.
        epoch: how much progress an epoch is. None leaves it to a trainer that knows.
        require: the weakest guarantee that will do: "exact", "at_least_once" or "at_most_once".
        confirm: "auto" or "manual".
        on_nan: "raise" refuses a batch with a NaN or an infinity in it; "pass" hands it out, and counts its bad
            rows; "skip" leaves such rows out right before `batch`, counts them, and warns of the first
            (`NonFiniteRows`): batches keep their size. What a function makes non-finite after `batch` is refused. A
            run that "raise" ended goes on with "skip" from its checkpoint.
        clock: the time; tests pass one that they move.

    Raises:
        ValueError: where the stream promises less than is required, or has no passes and the epoch counts
            them.

    >>> import numpy as np, unbounded as ub
    >>> feed = ub.Feed(ub.arrays(np.arange(10), shuffle=False).batch(4), epoch=ub.Epoch(steps=2))
    >>> for epoch in feed.epochs(2):
    ...     for batch in epoch:
    ...         print(epoch.number, batch)
    0 [0 1 2 3]
    0 [4 5 6 7]
    1 [8 9 0 1]
    1 [2 3 4 5]
    >>> print(feed.position)
    pass 2, row 6 of 10
    >>> feed.close()
    """

    @checked(
        "ub.Feed(stream, epoch=…)",
        "Only the stream is given by its place: ub.Feed(stream, epoch=ub.Epoch(steps=1000)).",
    )
    def __init__(
        self,
        stream: Stream,
        *,
        epoch: Epoch | None = None,
        require: Guarantee | None = None,
        confirm: Literal["auto", "manual"] = "auto",
        on_nan: OnNan = "raise",
        clock: Clock = SYSTEM,
    ) -> None:
        if not isinstance(stream, Stream):
            raise TypeError(
                f"Feed() was given {type(stream).__name__}. Expected a stream, such as ub.arrays(…).batch(32)."
            )
        if confirm not in ("auto", "manual"):
            raise ValueError(f"Feed(confirm={confirm!r}): expected 'auto' or 'manual'.")
        if on_nan not in ("raise", "pass", "skip"):
            raise ValueError(f"Feed(on_nan={on_nan!r}): expected 'raise', 'pass' or 'skip'.")
        if require is not None and WEAKEST_FIRST.index(stream.guarantee) < WEAKEST_FIRST.index(require):
            raise ValueError(
                f"Feed(require={require!r}): the stream promises {stream.guarantee!r}. "
                f"{_describe.weakest(stream)} Choose a source that can go back, or require less."
            )
        self._as_given = stream  # without the stage that leaves rows out
        if on_nan == "skip":
            stream = _refuse.skipping(stream)
        self.stream = stream
        _torch.register(Feed)
        self.confirm = confirm
        self._auto = confirm == "auto"
        self._on_nan = on_nan
        self.clock = clock
        self._rows_per_pass = stream.rows_per_pass
        self._check_epoch(epoch)
        stream.check_gives_rows()
        if stream.batch_size is None and isinstance(stream.parts[0], Arrays):
            _log.warning(
                "%r has no .batch(): each batch is a block of rows as the source hands them out, some thousand rows. "
                ".batch(n) makes batches of one size.",
                stream,
            )
        self._closed = False
        self._savable = False  # the source's rows were looked at
        self._interrupted = False
        self._trainer: weakref.ref[Any] | None = None
        # Of the checkpoints that are kept, oldest first; None where there are none.
        self._kept: deque[Mark] | None = None
        self._directories: Any = None  # where it is saved and loaded, once it is: `_kept.Directories`
        self.progress = Progress(epoch, self._rows_per_pass, clock)
        """Where in its epoch the feed is."""
        self.tally = Tally(clock)
        """What it counts of its own doing."""
        self.last_epoch: Stats | None = None
        """What happened in the epoch that ended last."""
        self._opened: Opened = stream.open(clock)
        self._waiting = Waiting([(p.word, words(p)) for p in stream.parts], self._opened.top.counts, clock)
        self._top: Node = self._opened.top if stream.batch_size else BlocksAsBatches(self._opened.top)
        self._begin()
        # Of a feed that nobody holds any more. In a thread of its own: this one may hold, at any line at which Python
        # finds that, a lock that closing takes.
        self._dropped = weakref.finalize(self, _thread.start_new_thread, self._top.close, ())
        self._dropped.atexit = False  # then its threads end anyway
        _sharing.opened(self)

    def _begin(self) -> None:
        """The run's beginning: nothing at hand, nothing trained."""
        self._held: Held[Run] = Held(self._top)
        self._lots: deque[Lot] = deque()
        self._tail = Count()  # after all lots
        self._taking_in: tuple[At, Count] | None = None  # where it began, while a run is taken in
        self._handed = 0
        self._fetched = 0  # up to here batches were fetched, and are known to belong to the epoch at hand
        self._trained = 0
        self._ended = False
        self._bad: dict[int, int] = {}  # by step, the bad rows of batches that were handed out and not counted yet
        self._barren = 0  # passes that have ended since the last batch
        self._loop: Loop | None = None  # the one that began last
        # Of confirm="manual": whether trained() was called; the step at which this feed began; the number of an epoch
        # in which it should have been called and was not.
        self._confirmed = False
        self._since = 0
        self._unconfirmed: int | None = None

    # -- epochs --------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch | None:
        """How much progress an epoch is."""
        return self.progress.epoch

    @epoch.setter
    def epoch(self, epoch: Epoch | None) -> None:
        self._check_epoch(epoch)
        self.progress.epoch = epoch
        self._fetched = self._handed

    def _check_epoch(self, epoch: Epoch | None) -> None:
        if epoch is not None and epoch.passes is not None and self._rows_per_pass is None:
            if not self.stream.has_passes:
                raise ValueError(
                    f"{epoch!r} counts passes, and {self.stream!r} has none. Use steps=, rows= or seconds=."
                )
            if epoch.passes != int(epoch.passes):
                raise ValueError(f"{epoch!r}: how many rows a pass has is not known beforehand here. Use whole passes.")

    @property
    def epoch_number(self) -> int:
        """The number of the epoch at hand, from 0, counted from the run's beginning."""
        return self.progress.number

    @checked("feed.epochs(n)")
    def epochs(self, n: int | None = None) -> Iterator[EpochRun]:
        """The epochs up to number `n`, counted from the run's beginning: a run that was taken up in epoch 7
        goes on there, and one that was left in the middle of an epoch goes on with the rest of it.

        Args:
            n: how many epochs the run has in all; None for no end.

        Returns:
            An iterator of epochs, each an iterable of batches with a `number` (from 0), `stats` and `stop()`. To be
            iterated over in turn.

        Raises:
            ValueError: where nothing says what an epoch is.
            StreamError: another loop over the epochs is at work; or an epoch is asked for before the one before it
                has given a batch; or with `confirm="manual"`, a whole epoch went by without a call of `trained()`.
        """
        if self.epoch is None:
            raise ValueError(
                "Feed.epochs(n) needs to know what an epoch is. Give Feed(stream, epoch=ub.Epoch(steps=1000))."
            )
        if n is not None:
            n = _check.at_least(0, n, "epochs(n)")
        self._take_trainer()
        epochs = self._epochs(n)
        self._trainer = weakref.ref(epochs)
        return epochs

    def _take_trainer(self) -> None:
        self._usable()
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
            # Saved after its last batch and before the next epoch began: it is not begun again for no batch at all.
            self.end_epoch()
        if n is not None and self.progress.number >= n:
            _describe.finished(self.progress.number, n)
        while (n is None or self.progress.number < n) and not self._interrupted and self.available():
            self._check_confirmed()
            run = EpochRun(self, self.progress.number)
            yield run
            run.close()
            if self.progress.number != run.number:
                continue  # the body has ended the epoch, or moved the feed
            if self._interrupted and not self.epoch_over:
                return  # in its middle, where a later loop goes on
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
        """The rest of the epoch at hand; where the loop runs to its end, the epoch is over, and the next loop over the
        feed is the next epoch.

        This is what data loaders expect: torch's DataLoader(feed, batch_size=None), Lightning, Accelerate. As with
        theirs, `state_dict()` in the body of such a loop takes the batch at hand for trained, where the feed has a
        length; where it has none, trainers take a batch ahead, and only those before the batch at hand count.
        """
        self._usable()
        _torch.refuse_worker()
        if self.epoch is None and not self.stream.has_end:
            raise ValueError(
                "Iterating over a feed gives the batches of one epoch, and nothing says what that is. Give "
                "Feed(stream, epoch=ub.Epoch(steps=1000)); or use feed.batches(), which then never ends."
            )
        loop = self._loop
        if loop is not None and loop.whole_epoch and loop.state == "live" and self.epoch_over and self._auto:
            # A trainer that counts batches by len(feed) asks for no batch after the last one. It was not left by an
            # exception, which would have dropped the loop.
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
        """How many batches the epoch at hand has in all, those included that were trained before.

        Raises:
            TypeError: where time or the data decides.
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
        """How many batches the epoch at hand has in all; None where time or the data decides."""
        declared = self.stream._declared_rows()
        if self.stream.has_end and declared is None:
            return None
        return self.progress.length(self.stream.batch_size, declared)

    def batches(self) -> Iterator[Tree]:
        """The batches that the epoch at hand still has; `end_epoch` then begins the next.

        With `confirm="auto"`, asking for the next one, or finding that there is none, confirms the previous
        one. A feed has one loop at a time, the one that began last. What an earlier loop handed out and nobody
        confirmed, since it was left by an exception or a `break`, comes again, and is counted as in doubt.
        """
        return self._hand_out(Loop())

    def _hand_out(self, loop: Loop) -> Iterator[Tree]:
        self._usable()
        self._take_back()
        self._check_confirmed()
        _sharing.reads(self)
        self._loop = loop
        auto = self._auto
        progress = self.progress
        timed = self.epoch is not None and self.epoch.seconds is not None
        progress.enter()
        self.tally.work()
        try:
            while (lot := self._next_lot()) is not None:
                stop = min(progress.end_in(lot), lot.end)
                step, first = self._handed, lot.before.steps
                for batch in lot.run.items[step - first : stop - first]:
                    if not lot.checked:
                        self._check(lot, step)
                    self._handed = step = step + 1
                    yield batch
                    if self._handed != step or self._loop is not loop:
                        self._usable()
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
            loop.end()  # a loop that was left, too
            if self._loop is loop:
                self.tally.pause()

    def _take_back(self) -> None:
        """What a loop that was left handed out, and nobody confirmed, comes again.

        With confirm="manual", what a loop that ran to its end handed out stays with the trainer, who may confirm it
        later.
        """
        if self.outstanding and not self._held_by_trainer:
            self.rewind()
            self._loop = None

    @property
    def _held_by_trainer(self) -> bool:
        """Whether what is out, and not confirmed, may be confirmed later."""
        return not self._auto and self._loop is not None and self._loop.state == "over"

    def _check_confirmed(self) -> None:
        if self._unconfirmed is not None:
            raise StreamError(
                f"Epoch {self._unconfirmed} is over, and none of its {self.outstanding:,} batches was confirmed: "
                "confirm='manual' leaves that to you. Call feed.trained() once batches are trained on, at least once "
                "in each epoch; or make the feed with confirm='auto'."
            )

    def _next_lot(self) -> Lot | None:
        """The lot that the next batch is in; None where the epoch is over, the stream has ended, or the feed
        is to stop."""
        self._usable()
        while not self._interrupted and not self.epoch_over:
            if self._handed < self._tail.steps:
                return self._lot_of(self._handed)
            if not self._pull():
                return None
        return None

    def _pull(self, *, once: bool = False) -> bool:
        """Take the next run from the stream, waiting for it; False where there is none before the epoch is to
        end."""
        self._waiting.begin()
        with self.tally.waiting():
            while True:
                try:
                    lot = self._take_in()
                except EndOfStream:
                    self._ended = True
                    self._waiting.end()
                    if not self._tail.steps:
                        raise _refuse.empty(self.stream) from None
                    return False
                if lot is not None:
                    break
                self._waiting.look()
                if self._interrupted or once or self.epoch_over:
                    return False
        if lot.run.count:
            self._waiting.end()
            self._barren = 0
        else:
            self._barren += lot.passes
            self._waiting.look()
            if self._barren > 1 and self._waiting.sentence:
                _refuse.barren(self.stream, self._barren)
        return True

    def _take_in(self) -> Lot | None:
        """The next run, taken in whole or not at all; None where there is none yet.

        An exception that may come at any line, as SIGINT raises one, leaves nodes behind that stand anywhere: the next
        call puts them back. One that comes out of the stream does not: by the second law the nodes stand where they
        stood, and where functions fail often, going back each time would never get on.
        """
        if self._is_torn:
            self._mend()
        at, before = self._held.tail, self._tail
        self._taking_in = (at, before)
        try:
            run = self._held.read(_SLICE)
        except Exception:
            self._taking_in = None
            raise
        if run is None:
            self._taking_in = None
            return None
        lot = Lot(run, at, before)
        if run.count:
            self._lots.append(lot)
        self._tail = lot.count_at(lot.end)  # from here on it is taken in
        self._taking_in = None
        return lot

    @property
    def _is_torn(self) -> bool:
        """Whether an exception came while a run was taken in."""
        return self._taking_in is not None and self._tail is self._taking_in[1]

    def _mend(self) -> None:
        assert self._taking_in is not None
        at, before = self._taking_in
        while self._lots and self._lots[-1].end > before.steps:
            self._lots.pop()
        self._held.back_to(at)
        self._taking_in = None

    def available(self) -> bool:
        """Whether there is another batch; waits until that is known. False after a declared end, and where
        the feed is to stop."""
        self._usable()
        while self._handed >= self._tail.steps and not self._ended and not self._interrupted:
            self._pull()
        self.tally.pause()
        return self._handed < self._tail.steps and not self._interrupted

    def _lot_of(self, step: int) -> Lot | None:
        return next((lot for lot in self._lots if lot.before.steps <= step < lot.end), None)

    def _count_at(self, step: int) -> Count:
        lot = self._lot_of(step)
        return self._tail if lot is None else lot.count_at(step)

    @property
    def epoch_over(self) -> bool:
        """Whether the epoch at hand has handed out all of its batches."""
        if self.progress.left:
            return True
        if self._handed <= self.progress.start.steps:
            return False
        if self._ended and self._handed >= self._tail.steps:
            return True
        return self.progress.reached(self._count_at(self._handed))

    def end_epoch(self) -> None:
        """The epoch at hand is over: the next batch is the next epoch's first.

        What a loop that was left had handed out, and nobody has confirmed, comes again in the next epoch. With
        `confirm="manual"`, and a loop that ran to the epoch's end, it does not: it stays with the trainer, who may
        confirm it in the next epoch, as where gradients are accumulated over 4 batches and an epoch has 22. One that
        confirmed nothing at all in a whole epoch is told so when the next begins.
        """
        self._settle()
        if not self._held_by_trainer:
            self.rewind()
        elif self._handed > self.progress.start.steps >= self._since and not self._confirmed:
            self._unconfirmed = self.progress.number
        self.progress.end(self._count_at(self._handed))
        self._fetched = self._handed
        stats = self.stats
        self.last_epoch = self.tally.epoch(stats)
        self.tally.end_epoch(stats)

    def leave_epoch(self) -> None:
        """See `EpochRun.stop`, for a loop over `batches()` or over the feed itself."""
        self._usable()
        if self._auto:
            self.trained()
        self.progress.leave()
        if self._loop is not None:
            self._loop.stopped = True

    def interrupt(self) -> None:
        """Stop: waiting for data ends at once, and loops end after the batch at hand. Safe in a signal
        handler."""
        self._interrupted = True

    def resume(self) -> None:
        """Take back `interrupt`."""
        self._interrupted = False
        go_on = getattr(self._opened.source, "go_on", None)  # reading may rest since the last save
        if go_on is not None:
            go_on()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def sharing(self) -> list[Feed]:
        """The other open feeds that read the same function, of those that can't go back: each calls it anew, and where
        both calls draw from one queue, each feed gets a part of its rows only.

        >>> import numpy as np, unbounded as ub
        >>> def sensor():
        ...     while True:
        ...         yield np.zeros(8)
        >>> stream = ub.generate(sensor).batch(4)
        >>> with ub.Feed(stream) as training, ub.Feed(stream) as validation:
        ...     validation.sharing() == [training]
        True
        """
        return _sharing.others(self)

    # -- what was trained ------------------------------------------------------------------------------------------

    def trained(self, batches: int | None = None) -> None:
        """Say that batches are trained on: the oldest `batches` of those handed out and not confirmed; None
        says all of them."""
        self._usable()
        out = self._handed - self._trained
        if batches is None:
            batches = out
        if not 0 <= batches <= out:
            raise ValueError(f"trained({batches}): {out} batches are out and not confirmed. Confirm each batch once.")
        self._trained += batches
        self._confirmed, self._unconfirmed = True, None

    @property
    def outstanding(self) -> int:
        """How many batches were handed out and not confirmed."""
        return self._handed - self._trained

    @property
    def handed(self) -> int:
        """How many batches were handed out, from the run's beginning; those that come again count once."""
        return self._handed

    @property
    def count(self) -> Count:
        """The steps, rows and passes that were trained on, from the run's beginning."""
        return self._count_at(self._trained)

    @property
    def steps(self) -> int:
        """How many batches were trained on, from the run's beginning."""
        return self._trained

    def rewind(self) -> int:
        """Batches that were handed out and not confirmed come again; says how many these are.

        Those whose memory can be written to are read again from the stream: nobody knows what the trainer did to it.
        """
        doubtful = self._handed - self._trained
        if any(_rows.is_writable(item) for item in self._items(self._trained, self._handed)):
            self._forget_lots()
        self.tally.in_doubt += doubtful
        self._handed = self._trained
        return doubtful

    def _items(self, start: int, stop: int) -> Iterator[Tree]:
        """The batches from number `start` up to `stop` that are at hand."""
        for lot in self._lots:
            first = lot.before.steps
            yield from lot.run.items[max(0, start - first) : max(0, stop - first)]

    def _forget_lots(self) -> None:
        """Let go of what was taken in and is not trained on: the next pull begins there, as after a torn one."""
        before = self.count
        self._taking_in = (self._at(), before)
        self._fetched = self._trained
        self._ended = False
        self._tail = before

    # -- batches one by one, for a trainer that asks for them in its own time ------------------------------------

    def fetch(self, batches: int, *, whole: bool = False) -> int:
        """Have the next `batches` batches of the epoch at hand there, waited for and checked; none is handed out.

        Args:
            batches: how many are wanted.
            whole: an epoch that has a batch left has this many, though a bound falls among them. Only a number of
                steps and a declared end are kept to the batch.

        Returns:
            How many `take` can hand out now, up to `batches`: fewer where the epoch or the stream ends, or the feed is
            to stop.
        """
        have = self._fetched - self._handed
        if have >= batches:
            return batches
        self._usable()
        if have <= 0:
            have = 0
            self._settle()
            self.progress.enter()
            if self.epoch_over:
                return 0
        fixed = self.epoch.steps if self.epoch is not None else None
        stop = None if fixed is None else self.progress.start.steps + fixed
        while have < batches and not self._interrupted:
            step = self._handed + have
            if stop is not None and step >= stop:
                break
            if step >= self._tail.steps:
                if not self._pull():
                    break
                continue
            lot = self._lot_of(step)
            assert lot is not None
            if step > self._handed and not whole and step >= self.progress.end_in(lot):
                break
            if not lot.checked:
                self._check(lot, step)
            have += 1
            self._fetched = self._handed + have
        return have

    @property
    def ready(self) -> int:
        """How many batches `fetch` has found that are not handed out."""
        return max(0, self._fetched - self._handed)

    def take(self) -> Tree:
        """Hand out the next batch, which `fetch` has said is there."""
        step = self._handed
        assert step < self._fetched
        lot = self._lot_of(step)
        assert lot is not None
        self._handed = step + 1
        return lot.run.items[step - lot.before.steps]

    def upcoming(self, most: int) -> list[Tree]:
        """The next batches, up to `most`, that could be handed out without waiting; none of them is.

        The first is there where `fetch` has said so. None follow it where time ends the epoch.
        """
        first = self._handed
        lot = self._lot_of(first)
        if lot is None or first >= self._fetched:
            return []
        stop = self._fetched
        if lot.checked and not self._interrupted and (self.epoch is None or self.epoch.seconds is None):
            stop = max(stop, self.progress.end_in(lot))
        stop = min(stop, lot.end, first + most)
        self._fetched = max(self._fetched, stop)
        return lot.run.items[first - lot.before.steps : stop - lot.before.steps]

    def give_back(self, batches: int) -> None:
        """The newest `batches` of those handed out did not reach the trainer: they come again, and are in no doubt."""
        if not 0 <= batches <= self.outstanding:
            raise ValueError(f"give_back({batches}): {self.outstanding} batches are out and not confirmed.")
        self._handed -= batches

    def peek(self) -> Tree:
        """The next batch, without handing it out: for building a model. Waits for it."""
        # What a loop that was left had handed out comes again.
        left = self._loop is not None and self._loop.state == "left"
        step = self._trained if left else self._handed
        if step == self._handed and not self.available():
            if self._interrupted:
                raise StreamError(
                    "The feed was interrupted before there was a batch to look at. feed.resume() lets it go on."
                )
            raise StreamError(f"The stream has ended after {self._tail.steps:,} batches: there is none to look at.")
        lot = self._lot_of(step)
        assert lot is not None
        return lot.run.items[step - lot.before.steps]

    @property
    def waiting_for(self) -> str | None:
        """What the feed waits for, in words; None while it has not waited long. It is logged as well, at level WARNING
        of the logger "unbounded"."""
        return self._waiting.sentence

    def _settle(self) -> None:
        """Let go of what was trained."""
        while self._lots and self._lots[0].end <= self._trained:
            self.tally.trained(self._lots.popleft().run)
        self._count_bad()
        mark = self._mark()
        if self._kept is None:
            self._top.release(mark["from"])

    def _count_bad(self) -> None:
        # Once they are trained: a batch that comes again would else be counted twice, and after a resume as well.
        for step in [step for step in self._bad if step < self._trained]:
            self.tally.bad += self._bad.pop(step)

    def _check(self, lot: Lot, step: int) -> None:
        """Refuse what no trainer can use, before it is handed out. A lot without fault is looked at once."""
        if not self._savable:
            _refuse.unsavable(self._opened.source)
            self._savable = True
        if not _refuse.faulty(lot.run):
            lot.checked = True
        elif self._on_nan == "pass":
            self._bad[step] = _rows.non_finite_rows(lot.run.items[step - lot.before.steps])
        else:
            _refuse.non_finite(self.stream, lot, step, skipping=self._on_nan == "skip")

    # -- what it says of itself
    # ------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where training stands: it reads in words, and has `steps`, `rows` and `passes`."""
        return Position(self.count, _describe.position(self.stream, self.count, self._mark()))

    @property
    def stats(self) -> Stats:
        """What happened from the run's beginning."""
        self._count_bad()
        count = self.count
        counts = self._last_counts if self._closed else self._opened.top.counts()
        passes = float(self.progress.passes(count)) if self._rows_per_pass or self.stream.has_passes else None
        return self.tally.stats(count, passes, counts)

    @property
    def epoch_stats(self) -> Stats:
        """What happened in the epoch at hand."""
        return self.tally.epoch(self.stats)

    # -- state -------------------------------------------------------------------------------------------------------

    def _at(self) -> Any:
        lot = self._lot_of(self._trained)
        if lot is not None:
            return lot.at_step(self._trained)
        return self._taking_in[0] if self._is_torn and self._taking_in else self._held.tail

    def _mark(self) -> Mark:
        """The address of the first batch that was not trained on."""
        at = self._at()
        mark = self._held.noted(at) if self._is_torn else self._held.address(at)
        self._held.keep(at)
        return mark

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, as plain data: dicts, lists, numbers and strings.

        Of a source that can't go back, the rows that were read and not trained on are in it. In the body of a loop
        over the feed itself (`for batch in feed`) that has a length, asking for it says that the batch at hand is
        trained, as the data loaders of torch, Lightning and Accelerate have it.
        """
        from unbounded import _kept

        loop = self._loop
        if loop is not None and loop.whole_epoch and loop.state == "live" and self._auto and self.length is not None:
            # Without a length, a trainer takes one batch ahead to see the end coming: that one is not trained.
            self.trained()
        return {**self._state(), "rows": to_plain(_kept.dump(self._opened.source, self._mark()))}

    def _state(self) -> dict[str, Any]:
        self._usable()
        self._count_bad()
        return {
            "format": FORMAT,
            "fingerprint": self.stream.fingerprint,
            "stream": to_plain(self.stream.identity()),
            "position": to_plain(self._mark()),
            "count": list(self.count),
            "epoch": self.progress.state(),
            "tally": self.tally.state(),
            "on_nan": self._on_nan,
            "journal": to_plain(self._top.journal()),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, accept_changes: bool = False) -> None:
        """Go to where `state_dict` was taken: the next batch is the first that had not been trained on then.

        Args:
            state: what `state_dict` gave, or what JSON made of it.
            accept_changes: go on though the stream is not the one that the state is of.

        Raises:
            ValueError: for a newer format, or the state of another stream.
        """
        from unbounded import _kept

        rows = state.get("rows")
        self._restore(state, [] if rows is None else _kept.undump(from_plain(rows)), accept_changes=accept_changes)

    get_state = state_dict
    """The same under the name that Grain's iterators have."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """`load_state_dict` under the name that Grain's iterators have."""
        self.load_state_dict(state)

    def __reduce__(self) -> Any:
        raise TypeError(
            "A feed can't be copied or sent to another process: it has threads, and a batch can be trained on by one "
            "trainer only. Send the stream, and make a feed of it there; with a DataLoader, use num_workers=0: "
            ".prefetch(n) and .map(fn, workers=n) work ahead in threads."
        )

    def _restore(
        self, state: Mapping[str, Any], dumps: list[Mapping[str, Any]], *, accept_changes: bool = False
    ) -> None:
        from unbounded import _kept

        self._usable()
        # Up to where on_nan="raise" had come each row was finite: leaving out others changes none of them.
        stream = self._as_given if self._on_nan == "skip" and _was_raising(state) else self.stream
        _describe.check_state(stream, state, FORMAT, accept_changes=accept_changes)
        mark = from_plain(state["position"])
        self._top.recall(from_plain(state["journal"]))
        _kept.load(self._opened.source, dumps)
        try:
            self._go(state, mark)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The state's position does not fit {self.stream!r}: it is of a stream with other stages or another "
                "kind of source. Begin a new run, in another directory."
            ) from error

    def _go(self, state: Mapping[str, Any], mark: Mark) -> None:
        """Go to a position of this very feed, whose source still has, or can read again, what follows."""
        self._begin()
        self._held.restore(mark)
        self._tail = Count(*state["count"])
        self._handed = self._fetched = self._trained = self._since = self._tail.steps
        self.progress.restore(state["epoch"])
        self.tally.begin(state["tally"])

    def save(self, directory: Any, *, state: Tree = None, keep: int = 3) -> Any:
        """Write a checkpoint: the position and `state`, in one atomic cut.

        After an error of the source, or of a function in the stream, all batches that came before it are trained and
        confirmed: `except Exception: feed.save(…); raise` around the loop loses none of that training. After an error
        in the loop's own body its batch is still out: say `feed.trained()` or `feed.rewind()` first.

        Args:
            directory: where this run's checkpoints are, and no other run's: a local path, no URL. What another run
                wrote there is neither superseded nor removed.
            state: what else belongs to the moment, such as the model's and the optimizer's `state_dict()`:
                dicts, lists and tuples of arrays (NumPy's, JAX's, PyTorch's) and plain data.
            keep: how many checkpoints of this run are kept, the newest.

        Returns:
            The new checkpoint's path.

        Raises:
            StreamError: while a batch is out and not confirmed: whether its update is in `state` can't be
                known.
            CheckpointError: it could not be written, or the newest checkpoint there is of a run that this one did not
                go on from; what was there is still there, whole.
            ValueError: the directory is a URL.
        """
        from unbounded import _kept

        return _kept.save(self, directory, state, keep)

    def load(self, directory: Any, *, accept_changes: bool = False) -> Any:
        """Go to where the newest checkpoint in `directory` was saved, and give its `state`; None where there
        is none.

        >>> import tempfile, numpy as np, unbounded as ub
        >>> stream = ub.arrays(np.arange(100)).batch(8)
        >>> folder = tempfile.mkdtemp()
        >>> with ub.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...     for epoch in feed.epochs(1):
        ...         seen = len(list(epoch))
        ...     path = feed.save(folder, state={"weights": np.zeros(3)})
        >>> with ub.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...     state = feed.load(folder)
        ...     print(feed.steps, state["weights"])
        5 [0. 0. 0.]
        """
        from unbounded import _kept

        return _kept.load_newest(self, directory, accept_changes=accept_changes)

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End its threads and let go of the source. A second time does nothing."""
        if not self._closed:
            self._last_counts = self._opened.top.counts()
            self._closed = True
            self._loop = None
            self._dropped.detach()
            self._top.close()
            if self._directories is not None:
                self._directories.close()

    def _usable(self) -> None:
        if self._closed:
            raise StreamError(
                "The feed is closed. Make a new one: ub.Feed(stream, …), and load the checkpoint to go on."
            )

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Feed of {self.stream!r}: {'closed' if self._closed else self.position}>"

    def _repr_html_(self) -> str:
        stats, length = self.stats, self.length
        epoch = "none" if self.epoch is None else f"{self.epoch!r}"
        figures = [
            ("feed", "closed" if self._closed else f"at {self.position}"),
            ("epoch", f"{epoch}, number {self.epoch_number}" + ("" if length is None else f", {length:,} batches")),
            ("trained", str(stats)),
            ("out, not confirmed", f"{self.outstanding:,} batches"),
            ("waited", f"{stats.waiting:.0%} of the time" + (f". {self.waiting_for}" if self.waiting_for else "")),
        ]
        if self._lots:
            size = sum(_rows.row_bytes(lot.run.items[0]) * lot.run.total for lot in self._lots)
            figures.append(("at hand", f"{sum(lot.run.count for lot in self._lots):,} batches, {_show.size(size)}"))
        return _show.feed(figures, self.stream._repr_html_())


def _was_raising(state: Any) -> bool:
    """Whether a state is of a feed that refused batches with a NaN."""
    return isinstance(state, Mapping) and state.get("on_nan") == "raise"
