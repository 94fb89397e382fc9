"""Delivery: which batches of a feed were read, handed out, and confirmed as trained on.

Two step numbers tell the state of each batch: those before the first were trained on, those before the second were
handed out. A position is that of the first batch that was not trained on. Batches between the two are in doubt, and
come again after a restart.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from unbounded.core import trees
from unbounded.core.cursor import input_cursors, leaf_cursors, with_leaves
from unbounded.core.node import Cursor, EndOfStream, LogFull, Node, StreamError
from unbounded.core.runtime import Runtime
from unbounded.feed import describe, validate
from unbounded.feed.batch_reader import BatchReader
from unbounded.feed.counters import Counters
from unbounded.feed.describe import Position
from unbounded.feed.epoch import Epoch
from unbounded.feed.excluded import Weights, plain
from unbounded.feed.in_flight import Count, InFlight, InputCount
from unbounded.feed.progress import Progress
from unbounded.feed.releases import Releases
from unbounded.feed.stats import InputStats, Stats
from unbounded.opened import Opened
from unbounded.stages.batch import BlocksAsBatches
from unbounded.stages.tap import NewRows
from unbounded.store.writer import Writer
from unbounded.stream import Stream
from unbounded.waiting import Waiting

OnNan: TypeAlias = Literal["raise", "pass", "skip"]
_SLICE = 0.05  # seconds between two attempts to read while a checkpoint is written


class Delivery:
    """The delivery state of batches: which were read, handed out and confirmed. The part of `Feed` below the loops.

    Args:
        stream: the stream.
        epoch: the length of an epoch.
        on_nan: see `Feed`.
        runtime: the clock, threads and files.
    """

    def __init__(self, stream: Stream, epoch: Epoch | None, on_nan: OnNan, runtime: Runtime) -> None:
        self.stream = stream
        self.on_nan = on_nan
        """What happens to rows with a NaN or an infinity: see `Feed`."""
        self.runtime = runtime
        self._check_epoch(epoch)
        self._has_passes = bool(stream.rows_per_pass or stream.has_passes)
        self._closed = False
        self.sharing_said = False
        """True once the feed was checked for a source that another feed reads, too."""
        self._last_counts: dict[str, int] = {}  # the nodes' counts when the feed was closed
        self._interrupted = False
        inputs = stream.input_passes()
        self.progress = Progress(epoch, stream.rows_per_pass, runtime, inputs)
        """The feed's place in its epoch."""
        self.counters = Counters(runtime)
        """The counters of waits, ages and batches in doubt."""
        self._opened: Opened = stream.open(runtime)
        self._excluded = stream.exclusions
        self._weights = Weights(stream, self._excluded, runtime) if self._excluded else None
        self.excluded: list[Any] = [[0, plain(self._excluded)]] if self._excluded else []
        """The record of excluded rows: (first step, for each source its ranges of rows)."""
        self._new_rows: NewRows | None = None  # those of one source, if they were asked for
        self._waiting = Waiting(stream, self._opened, runtime)
        self._top: Node = self._opened.top if stream.batch_size else BlocksAsBatches(self._opened.top)
        self.releases = Releases(self._top, self._opened.sources)
        """What the nodes may forget."""
        # How many stages read ahead of those after them.
        self._ahead = sum(part.word in ("buffer", "prefetch") or hasattr(part, "workers") for part in stream.all_parts)
        self.writer = Writer(runtime)
        """Writes the feed's checkpoints, one at a time."""
        self._reader = BatchReader(self._top, Count(inputs=(InputCount(),) * len(inputs)), self._weights)
        self._begin()

    def _begin(self) -> None:
        """Begin the run: nothing read, handed out or trained on."""
        self._reader.begin()
        self._handed = 0
        self._fetched = 0  # batches before this one were fetched: read, checked, and in the current epoch
        # Batches before this one need no check by `fetch`: they are of one run that is in the current epoch.
        self._sure = 0
        self._trained = 0
        self._ended = False
        self._bad: dict[int, int] = {}  # by step: bad rows of batches that were checked and not trained on yet
        self._passes_without_batch = 0

    @property
    def epoch(self) -> Epoch | None:
        """The length of an epoch."""
        return self.progress.epoch

    @epoch.setter
    def epoch(self, epoch: Epoch | None) -> None:
        self._check_epoch(epoch)
        self.progress.epoch = epoch
        self._fetched, self._sure = self._handed, 0

    def _check_epoch(self, epoch: Epoch | None) -> None:
        if epoch is not None and not isinstance(epoch, Epoch):
            raise TypeError(f"Feed(epoch={epoch!r}): expected an epoch, such as ub.Epoch(steps=1000).")
        if epoch is not None:
            validate.passes_of(self.stream, epoch)

    def check_usable(self) -> None:
        """Raise StreamError for a feed that is closed."""
        if self._closed:
            raise StreamError(
                "The feed is closed. Make a new one: ub.Feed(stream, …), and load the checkpoint to go on."
            )

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    @property
    def interrupted(self) -> bool:
        """True after `interrupt`."""
        return self._interrupted

    def interrupt(self) -> None:
        """Stop: a wait for data ends at once, and loops end after the current batch. Safe to call in a signal
        handler."""
        self._interrupted = True

    def resume(self) -> None:
        """Undo `interrupt`."""
        self._interrupted = False

    # -- reading -----------------------------------------------------------------------------------------------------

    def _pull(self) -> bool:
        """Read the next run of batches, waiting for it; False if there is none before the epoch ends or the feed is
        interrupted."""
        self._waiting.begin()
        refused = 0
        with self.counters.waiting():
            while True:
                can_make_room = self.writer.busy or self.releases.has_posted
                try:
                    flight = self._reader.read()
                except LogFull:
                    # A prefetching stage met the full log before the batches that it had read were trained on, and
                    # passes a release on when it is pulled again. So each of them is asked again once.
                    refused = 0 if can_make_room else refused + 1
                    if refused > self._ahead:
                        refused = 0
                        if not any([node.take_beyond() for _, node in self._opened.logged()]):
                            raise
                    if can_make_room:
                        self.runtime.wait(self.runtime.event(), _SLICE)  # until the checkpoint is written
                    flight = None
                except EndOfStream:
                    self._ended = True
                    self._waiting.end()
                    if not self._reader.tail.steps:
                        raise validate.empty(self.stream) from None
                    return False
                if flight is not None:
                    break
                self.releases.release_posted()  # a source whose log is full waits for it
                self._waiting.look()
                if self._interrupted or self.epoch_over:
                    return False
        if flight.run.count:
            self._waiting.end()
            self._passes_without_batch = 0
        else:
            self._passes_without_batch += flight.passes
            self._waiting.look()
            if self._passes_without_batch > 1 and self._waiting.sentence:
                self.stream.refuse_without_batches(self._passes_without_batch)
        return True

    def available(self) -> bool:
        """True if there is another batch; waits until that is known. False after a declared end and after
        `interrupt`."""
        self.check_usable()
        while self._handed >= self._reader.tail.steps and not self._ended and not self._interrupted:
            self._pull()
        self.counters.pause()
        return self._handed < self._reader.tail.steps and not self._interrupted

    @property
    def epoch_over(self) -> bool:
        """True if the current epoch has handed out all of its batches."""
        if self.progress.left:
            return True
        if self._handed <= self.progress.start.steps:
            return False
        if self._ended and self._handed >= self._reader.tail.steps:
            return True
        return self.progress.reached(self._reader.count_at(self._handed))

    @property
    def waiting_for(self) -> str | None:
        """What the feed waits for, in words; None during the first seconds of a wait. It is also logged, to "unbounded"
        at level WARNING."""
        return self._waiting.sentence

    # -- acknowledging -----------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """The number of batches that were handed out and not confirmed."""
        return self._handed - self._trained

    @property
    def handed(self) -> int:
        """The number of batches handed out, from the run's beginning; batches that come again count once."""
        return self._handed

    @property
    def count(self) -> Count:
        """The steps, rows and passes that were trained on, from the run's beginning."""
        return self._reader.count_at(self._trained)

    @property
    def steps(self) -> int:
        """The number of batches that were trained on, from the run's beginning."""
        return self._trained

    def rewind(self) -> int:
        """Make batches that were handed out and not confirmed come again; return their number.

        They are read from the stream again if their memory is writable: the trainer may have changed it.
        """
        doubtful = self._handed - self._trained
        if any(trees.is_writable(item) for item in self._reader.items(self._trained, self._handed)):
            self._forget_unconfirmed()
        self.counters.in_doubt += doubtful
        self._handed = self._trained
        return doubtful

    def _forget_unconfirmed(self) -> None:
        """Forget the batches that were read and not trained on: they are read again."""
        self._fetched, self._sure = self._trained, 0
        self._ended = False
        self._reader.forget(self._trained)

    def give_back(self, batches: int) -> None:
        """Take back the newest `batches` of those handed out, which did not reach the trainer: they come again, and are
        not counted as in doubt."""
        if not 0 <= batches <= self.outstanding:
            raise ValueError(f"give_back({batches}): {self.outstanding} batches are out and not confirmed.")
        self._handed -= batches

    def _settle(self) -> None:
        """Forget what was trained on."""
        for run in self._reader.drop(self._trained):
            self.counters.trained(run)
            if self._new_rows is not None and run.seen is not None:
                self._new_rows.forget(int(run.seen.max()))
        self._count_bad()
        self.releases.trained(self.needed())

    def keep_new_rows(self, index: int) -> NewRows:
        """From now on keep the rows of a source, by its number among the leaves, until they are trained on."""
        rows = self._opened.new_rows[index]
        if self._new_rows is not None and self._new_rows is not rows:
            raise ValueError("The new rows of another source of this feed are kept already; expected those of one.")
        if rows.wanted:
            return rows
        if self.outstanding:
            raise StreamError(
                f"{self.outstanding} batches are out and not confirmed, and the rows before them are gone. Ask for new "
                "rows before the loop begins."
            )
        self._new_rows, rows.wanted = rows, True
        for each in self._opened.new_rows:
            each.others_wanted = each is not rows
        if self._reader.has_read:
            self._forget_unconfirmed()  # rows read so far were not kept: read them again
        return rows

    def seen_at(self, step: int) -> int:
        """The number of source rows that had been read for batch number `step`, which must be read and not dropped."""
        flight = self._reader.flight_of(step)
        if flight is None or flight.run.seen is None:
            raise StreamError(f"Batch {step:,} was not read yet or was forgotten, or new rows are not kept.")
        return int(flight.run.seen[step - flight.before.steps])

    @property
    def opened(self) -> Opened:
        """The running nodes of the stream."""
        return self._opened

    def needed(self) -> Cursor:
        """The cursor from which to read again so that the first batch that was not trained on follows."""
        (cursor,) = input_cursors(self._cursor())
        return cursor

    def _count_bad(self) -> None:
        # Counted when they are trained on: a batch that comes again, in this process or after a resume, counts once.
        for step in [step for step in self._bad if step < self._trained]:
            self.counters.bad += self._bad.pop(step)

    def _check(self, flight: InFlight, step: int) -> None:
        """Refuse a batch that no trainer can use, before it is handed out. Each run of batches is checked once."""
        if flight.bad is None:
            flight.bad = validate.bad_rows(flight)
        if self.on_nan == "pass":
            self._bad.update(flight.bad)
        elif step in flight.bad:
            flight.bad = None  # check again if the batch is requested again: the user may have corrected the arrays
            validate.non_finite(self.stream, flight, step, skipping=self.on_nan == "skip")
        flight.checked = self.on_nan == "pass" or not flight.bad

    # -- position and stats ------------------------------------------------------------------------------------------

    def _cursor(self) -> Cursor:
        """The cursor before the first batch that was not trained on."""
        cursor = self._reader.cursor(self._trained)
        # A stage that holds rows back may have noted its cursor before a source was opened. The source knows by now at
        # which position it began.
        leaves = leaf_cursors(cursor)
        settled = [node.settled(leaf) for node, leaf in zip(self._opened.sources, leaves, strict=True)]
        is_new = any(one is not leaf for one, leaf in zip(settled, leaves, strict=True))
        return with_leaves(cursor, settled) if is_new else cursor

    @property
    def position(self) -> Position:
        """The position of training: it has `steps`, `rows` and `passes`, and `str` describes it in words."""
        words = describe.position(self.stream, self.count, self._cursor(), self.runtime.time())
        return Position(self.count, words)

    @property
    def stats(self) -> Stats:
        """The stats from the run's beginning."""
        self._count_bad()
        count = self.count
        counts = self._last_counts if self._closed else self._opened.top.counts()
        passes = float(self.progress.passes(count)) if self._has_passes else None
        return self.counters.stats(count, passes, counts, self._input_stats(count))

    def _input_stats(self, count: Count) -> dict[str, InputStats]:
        leaves = self.stream.leaves.items() if count.inputs else ()
        return {
            name: InputStats(each.rows, float(self.progress.passes(count, name)) if leaf.has_passes else None)
            for (name, leaf), each in zip(leaves, count.inputs, strict=True)
        }

    @property
    def epoch_stats(self) -> Stats:
        """The stats of the current epoch."""
        return self.counters.epoch(self.stats)
