"""AtHand: the batches that a feed has at hand, and where among them it stands.

Runs of batches are taken in from the stream, whole or not at all, and handed out one by one. Two step numbers say all
else: up to which batch was handed out, and up to which the trainer says that it trained. A position is where the second
one points; what lies between the two is in doubt, and comes again after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

from unbounded.core import trees
from unbounded.core.block import Offset, Run
from unbounded.core.cursor import input_cursors, leaf_cursors, with_leaves
from unbounded.core.input_buffer import InputBuffer, compose_held
from unbounded.core.node import Cursor, EndOfStream, Node, StreamError
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.feed import describe, validate
from unbounded.feed.counters import Counters
from unbounded.feed.describe import Position
from unbounded.feed.epoch import Epoch
from unbounded.feed.excluded import Weights, plain
from unbounded.feed.in_flight import Count, InFlight, InputCount
from unbounded.feed.progress import Progress
from unbounded.feed.stats import InputStats, Stats
from unbounded.opened import Opened
from unbounded.stages.batch import BlocksAsBatches
from unbounded.stages.tap import NewRows
from unbounded.stream import Stream
from unbounded.waiting import Waiting

OnNan: TypeAlias = Literal["raise", "pass", "skip"]
_SLICE = 0.05  # seconds: how long the feed waits for data before it looks whether it is to stop


class AtHand:
    """Batches taken in, handed out and trained. See `Feed`, of which this is the part under the loops.

    Args:
        stream: what to feed.
        epoch: how much progress an epoch is.
        on_nan: as `Feed` has it.
        runtime: the time and the rest.
    """

    def __init__(self, stream: Stream, epoch: Epoch | None, on_nan: OnNan, runtime: Runtime) -> None:
        self.stream = stream
        self._on_nan = on_nan
        self.runtime = runtime
        self._rows_per_pass = stream.rows_per_pass
        self._check_epoch(epoch)
        self._closed = False
        self.sharing_said = False
        """Whether it was looked whether another feed reads the same source."""
        self._last_counts: dict[str, int] = {}  # the nodes', once it is closed
        self._interrupted = False
        self._holding = False  # what is trained is not released: checkpoints, or positions taken, may need it
        self._needed: deque[Cursor] = deque()  # what the kept checkpoints need, oldest first
        # Of checkpoints that have reached the disk since, and how many are kept: left by the thread that wrote them.
        self._posted: deque[tuple[Cursor, int]] = deque()
        self._input_passes = stream.input_passes()
        self.progress = Progress(epoch, self._rows_per_pass, runtime, self._input_passes)
        """Where in its epoch the feed is."""
        self.counters = Counters(runtime)
        """What it counts of its own doing."""
        self._opened: Opened = stream.open(runtime)
        self._excluded = stream.exclusions
        self._weights = Weights(stream, self._excluded, runtime) if self._excluded else None
        self.excluded: list[Any] = [[0, plain(self._excluded)]] if self._excluded else []
        """From which step on which rows are excluded: a step, and for each source its ranges of rows."""
        self._new_rows: NewRows | None = None  # those of one source, where somebody asks for them
        self._waiting = Waiting(stream, self._opened, runtime)
        self._top: Node = self._opened.top if stream.batch_size else BlocksAsBatches(self._opened.top)
        self._begin()

    def _begin(self) -> None:
        """The run's beginning: nothing at hand, nothing trained."""
        self._held: InputBuffer[Run] = InputBuffer(self._top)
        self._flights: deque[InFlight] = deque()
        self._tail = Count(inputs=(InputCount(),) * len(self._input_passes))  # after all flights
        self._taking_in: tuple[Offset, Count] | None = None  # where it began, while a run is taken in
        self._handed = 0
        self._fetched = 0  # up to here batches were fetched, and are known to belong to the epoch at hand
        # Up to here `fetch` has nothing to wait for nor to check: batches of one run, all of them in the epoch at hand.
        self._sure = 0
        self._trained = 0
        self._ended = False
        self._bad: dict[int, int] = {}  # by step, the bad rows of batches that were looked at and not counted yet
        self._passes_without_batch = 0

    @property
    def epoch(self) -> Epoch | None:
        """How much progress an epoch is."""
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
        """Whether `close` was called."""
        return self._closed

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def interrupt(self) -> None:
        """Stop: waiting for data ends at once, and loops end after the batch at hand. Safe in a signal
        handler."""
        self._interrupted = True

    def resume(self) -> None:
        """Take back `interrupt`."""
        self._interrupted = False

    # -- the stream's side -------------------------------------------------------------------------------------------

    def _pull(self) -> bool:
        """Take the next run from the stream, waiting for it; False where there is none before the epoch is to
        end."""
        self._waiting.begin()
        with self.counters.waiting():
            while True:
                try:
                    flight = self._take_in()
                except EndOfStream:
                    self._ended = True
                    self._waiting.end()
                    if not self._tail.steps:
                        raise validate.empty(self.stream) from None
                    return False
                if flight is not None:
                    break
                self.release_posted()  # a source whose log is full waits for it
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

    def _take_in(self) -> InFlight | None:
        """The next run, taken in whole or not at all; None where there is none yet.

        An exception that may come at any line, as SIGINT raises one, leaves nodes behind that stand anywhere: the next
        call puts them back. One that comes out of the stream does not: by the second law the nodes stand where they
        stood, and where functions fail often, going back each time would never get on.
        """
        if self._read_interrupted:
            self._undo_read()
        at, before = self._held.tail, self._tail
        self._taking_in = (at, before)
        try:
            run = self._held.read(_SLICE)
            if run is not None and run.count and self._weights is not None:
                run = self._weights.weigh(run, before.steps)
        except Exception:
            self._taking_in = None
            raise
        if run is None:
            self._taking_in = None
            return None
        flight = InFlight(run, at, before)
        if run.count:
            self._flights.append(flight)
        self._tail = flight.count_at(flight.end)  # from here on it is taken in
        self._taking_in = None
        return flight

    @property
    def _read_interrupted(self) -> bool:
        """Whether an exception came while a run was taken in."""
        return self._taking_in is not None and self._tail is self._taking_in[1]

    def _undo_read(self) -> None:
        """Put the nodes back to where they stood before the read that was interrupted."""
        assert self._taking_in is not None
        at, before = self._taking_in
        while self._flights and self._flights[-1].end > before.steps:
            self._flights.pop()
        self._held.back_to(at)
        self._taking_in = None

    def available(self) -> bool:
        """Whether there is another batch; waits until that is known. False after a declared end, and where
        the feed is to stop."""
        self.check_usable()
        while self._handed >= self._tail.steps and not self._ended and not self._interrupted:
            self._pull()
        self.counters.pause()
        return self._handed < self._tail.steps and not self._interrupted

    def _flight_of(self, step: int) -> InFlight | None:
        for flight in self._flights:
            if flight.before.steps <= step < flight.end:
                return flight
        return None

    def _count_at(self, step: int) -> Count:
        flight = self._flight_of(step)
        return self._tail if flight is None else flight.count_at(step)

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

    @property
    def waiting_for(self) -> str | None:
        """What the feed waits for, in words; None while it has not waited long. It is logged as well, at level WARNING
        of the logger "unbounded"."""
        return self._waiting.sentence

    # -- what was handed out and what was trained --------------------------------------------------------------------

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
        if any(trees.is_writable(item) for item in self._items(self._trained, self._handed)):
            self._forget_flights()
        self.counters.in_doubt += doubtful
        self._handed = self._trained
        return doubtful

    def _items(self, start: int, stop: int) -> Iterator[Tree]:
        """The batches from number `start` up to `stop` that are at hand."""
        for flight in self._flights:
            first = flight.before.steps
            yield from flight.run.items[max(0, start - first) : max(0, stop - first)]

    def _forget_flights(self) -> None:
        """Let go of what was taken in and is not trained on: the next pull begins there, as after an interrupted
        one."""
        before = self.count
        self._taking_in = (self._at(), before)
        self._fetched, self._sure = self._trained, 0
        self._ended = False
        self._tail = before

    def give_back(self, batches: int) -> None:
        """The newest `batches` of those handed out did not reach the trainer: they come again, and don't count as in
        doubt."""
        if not 0 <= batches <= self.outstanding:
            raise ValueError(f"give_back({batches}): {self.outstanding} batches are out and not confirmed.")
        self._handed -= batches

    def _settle(self) -> None:
        """Let go of what was trained."""
        while self._flights and self._flights[0].end <= self._trained:
            run = self._flights.popleft().run
            self.counters.trained(run)
            if self._new_rows is not None and run.seen is not None:
                self._new_rows.forget(int(run.seen.max()))
        self._count_bad()
        cursor = self._cursor()
        self.release_posted()
        if not self._holding:
            self._top.release(*input_cursors(cursor))

    def keep_new_rows(self, index: int) -> NewRows:
        """From here on, keep the rows of a source, by its number among the leaves, until they are trained on."""
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
        if self._flights or self._tail.steps or self._held.tail != Offset(0):
            self._forget_flights()  # what was read so far was not kept: it is read again
        return rows

    def seen_at(self, step: int) -> int:
        """How many rows of the source had been read for batch number `step`, which is at hand; 0 where none were."""
        flight = self._flight_of(step)
        if flight is None or flight.run.seen is None:
            raise StreamError(f"Batch {step:,} is not at hand, or new rows are not kept.")
        return int(flight.run.seen[step - flight.before.steps])

    @property
    def opened(self) -> Opened:
        """The stream's nodes at work."""
        return self._opened

    def needed(self) -> Cursor:
        """From where the stream is to be read again, so that the first batch follows that was not trained on."""
        (cursor,) = input_cursors(self._cursor())
        return cursor

    def hold(self, needed: Iterable[Cursor] = ()) -> None:
        """From here on nothing is released but by `post`: every position taken stays good in this process.

        Args:
            needed: what checkpoints that are on the disk need, oldest first.
        """
        self._holding = True
        self._needed.extend(needed)

    def post(self, needed: Cursor, keep: int) -> None:
        """A checkpoint that needs `needed` is on the disk, one of `keep` that are kept: sources may forget what none
        of them needs. From any thread; done when the feed lets go of rows the next time."""
        self._posted.append((needed, keep))

    def release_posted(self) -> None:
        """Let go of what no checkpoint needs any more."""
        while self._posted:
            needed, keep = self._posted.popleft()
            self._needed.append(needed)
            while len(self._needed) > keep:
                self._needed.popleft()
            oldest = self._needed[0]
            self._top.release(oldest)
            for node, trained, kept in zip(
                self._opened.sources, leaf_cursors(needed), leaf_cursors(oldest), strict=True
            ):
                node.commit(trained, kept)

    def _count_bad(self) -> None:
        # Once they are trained: a batch that comes again would else be counted twice, and after a resume as well.
        for step in [step for step in self._bad if step < self._trained]:
            self.counters.bad += self._bad.pop(step)

    def _check(self, flight: InFlight, step: int) -> None:
        """Refuse what no trainer can use, before it is handed out. The rows of a run of batches are looked at once."""
        if flight.bad is None:
            flight.bad = validate.bad_rows(flight)
        if self._on_nan == "pass":
            self._bad.update(flight.bad)
        elif step in flight.bad:
            flight.bad = None  # looked at anew when the batch is asked for again: the user may have mended the arrays
            validate.non_finite(self.stream, flight, step, skipping=self._on_nan == "skip")
        flight.checked = self._on_nan == "pass" or not flight.bad

    # -- where training stands ---------------------------------------------------------------------------------------

    def _at(self) -> Any:
        flight = self._flight_of(self._trained)
        if flight is not None:
            return flight.at_step(self._trained)
        return self._taking_in[0] if self._read_interrupted and self._taking_in else self._held.tail

    def _cursor(self) -> Cursor:
        """The address of the first batch that was not trained on."""
        at = self._at()
        address = self._held.noted(at) if self._read_interrupted else self._held.address(at)
        self._held.keep(at)
        # Stages that hold rows back may have taken theirs before a source was opened, and known where it begins.
        cursor = compose_held([address], {})
        leaves = leaf_cursors(cursor)
        settled = [node.settled(leaf) for node, leaf in zip(self._opened.sources, leaves, strict=True)]
        is_new = any(one is not leaf for one, leaf in zip(settled, leaves, strict=True))
        return with_leaves(cursor, settled) if is_new else cursor

    @property
    def position(self) -> Position:
        """Where training stands: it reads in words, and has `steps`, `rows` and `passes`."""
        words = describe.position(self.stream, self.count, self._cursor(), self.runtime.time())
        return Position(self.count, words)

    @property
    def stats(self) -> Stats:
        """What happened from the run's beginning."""
        self._count_bad()
        count = self.count
        counts = self._last_counts if self._closed else self._opened.top.counts()
        passes = float(self.progress.passes(count)) if self._rows_per_pass or self.stream.has_passes else None
        return self.counters.stats(count, passes, counts, self._input_stats(count))

    def _input_stats(self, count: Count) -> dict[str, InputStats]:
        leaves = self.stream.leaves.items() if count.inputs else ()
        return {
            name: InputStats(each.rows, float(self.progress.passes(count, name)) if leaf.has_passes else None)
            for (name, leaf), each in zip(leaves, count.inputs, strict=True)
        }

    @property
    def epoch_stats(self) -> Stats:
        """What happened in the epoch at hand."""
        return self.counters.epoch(self.stats)
