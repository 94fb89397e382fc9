"""Logged: the node over a reader that can't seek; a thread reads, and writes rows to the row log before it passes them
on.

So a wait for data can be interrupted at any moment, no rows are missed while the model trains, and a cursor is the
number of a row in the log. Once the log is on the disk, memory holds only the rows that were not pulled yet.
"""

from __future__ import annotations

import logging
from typing import Any

from unbounded.core import row_spec, trees, user_code
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.locked import locked
from unbounded.core.node import Context, Cursor, DataLoss, LogFull, StreamError
from unbounded.core.trees import RowsError, Tree
from unbounded.sources.as_block import AsBlock
from unbounded.sources.log_options import LogOptions
from unbounded.sources.log_sync import LogSync
from unbounded.sources.memory_log import MemoryLog
from unbounded.sources.read_ahead import AheadBound, ReadAhead
from unbounded.sources.reader import JSON, Opening, Reader, Source
from unbounded.sources.reader_thread import ReaderThread
from unbounded.sources.record_log import SEGMENTS, Full
from unbounded.sources.row_log import RowLog
from unbounded.sources.row_stage import RowStage

_log = logging.getLogger("unbounded")

# Limits of reading ahead: blocks and rows, or the bytes of two blocks.
_BLOCKS = 64
_ROWS = 4096
_BYTES = 1 << 26
_SOON = 0.01  # seconds within which a reader with `logged` is told that its rows are on the disk
# Rows that come singly within _BURST seconds of each other are passed on so many at a time, or fewer if the consumer
# asks for fewer, as with small batches: a thread switch for each row would take as long as all other work for it.
_BURST = 0.0005
_TOLD = 128
_TOLD_UNASKED = 32  # where the consumer does not say


class Logged(ReaderThread):
    """A node over a reader in its own thread, with a row log between them.

    Args:
        source: the source, which need not be able to seek.
        context: the arguments with which nodes are opened.
        as_block: makes blocks of what the reader returns.
        described: the limit of the log, and what happens when it is reached.
    """

    def __init__(self, source: Source, context: Context, as_block: AsBlock, described: LogOptions) -> None:
        super().__init__(source, context.runtime, as_block)
        self._coalesce = context.coalesce
        self._told = min(_TOLD, context.coalesce or _TOLD_UNASKED)  # rows of a burst that are passed on together
        self._described = described
        # A cursor begins at a block, so a checkpoint releases whole blocks. In a log with a limit a block has at most a
        # segment's share: one as large as the limit could be released only when all of it is trained on.
        self.block_bytes = None if described.max_bytes is None else described.max_bytes // SEGMENTS
        """The most bytes of several blocks that are joined; None for no limit."""
        self._log: RowLog | MemoryLog = MemoryLog(context.runtime, max_bytes=described.max_bytes)
        self._changing = context.runtime.lock()  # held during an append, and while the log is replaced
        self._handing_on = context.runtime.lock()  # held while rows are passed on, and while some are dropped
        self._sync: LogSync | None = None  # of a log on the disk
        self._at = Offset(0)
        self._handed = Offset(0)  # rows before it may have been passed on, in this process or another
        self._ahead = ReadAhead(AheadBound(_BLOCKS, _BYTES, _ROWS))
        self._burst = False  # the last rows came so fast that the consumer is not notified of each
        self._untold = 0
        self._kept_at = 0.0
        self._stop_at = Offset(0)  # the end of the log
        self._releases = 0  # counts releases, each of which may have made room in the log
        self._said_full = False
        self._too_large: Block | None = None  # the block for which the log has no room
        self._beyond = False  # append it although it exceeds the limit
        self._refusal: OSError | None = None  # the error of writing the block that waits
        self._unlogged: float | None = None  # since when the reader waits for a call of `logged`
        self._form: Tree = None  # of the rows of an earlier process, until the first one is read by this process
        self._position: JSON = None  # the reader's position after the last row in the log
        self._is_offered = False  # the reader offers what a function yields, value by value, to `_take_value`
        self._stage: RowStage | None = None  # for these

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _opening(self) -> Opening:
        self._refuse_taken()
        log = self._log
        return Opening(log.stop.rows, log.counts.last_time, log.counts.passed, runtime=self._runtime)

    def _wrapped(self, reader: Reader) -> Reader:
        if self.joins_blocks and hasattr(reader, "offer"):
            reader.offer, self._is_offered = self._take_value, True
        return reader

    def _read(self, reader: Reader) -> Any:
        self._refuse_taken()
        return super()._read(reader)

    def _refuse_taken(self) -> None:
        """Raise StreamError if another feed of this process continues the log: that one reads the rows now."""
        if self._log.is_closed:
            raise StreamError(
                f"Another feed of this process goes on with the row log of {self._as_block.name}, in "
                f"{self._log.where}, and reads the source now: this feed, not closed, has given way to it. Train "
                "on the new one. A feed that is no longer used is closed by feed.close(), or at the end of "
                "`with ub.Feed(…) as feed:`."
            )

    def _has_room(self) -> bool:
        return self._described.drops or self._ahead.bound.has_room()

    def _reopened(self) -> None:
        stop = self._log.stop
        if stop.rows and not stop.boundaries and not self._source.replayable:
            # Rows may have been missed while the reader was closed.
            self._accept(Block(None, 0, Boundary("gap")), self._position, self._generation)

    def _accept(self, block: Block, position: JSON, generation: int) -> None:
        if not (block.count or block.boundary):
            return
        while True:
            releases = self._releases
            try:
                if self._is_appended(block, position):
                    return
                if self._has_dropped(block):
                    continue
            except OSError as error:
                self._refuse_taken()
                # The block stays here, and nothing more is read. Rows in the log are still returned; the pull after
                # them raises this error, and the next pull makes this thread retry the block.
                if not self._await_retry(error):
                    return
                continue
            if not self._await_room(block, releases):
                return

    def _is_appended(self, block: Block, position: JSON) -> bool:
        """Append a block; False if the log has no room for it."""
        try:
            self._append(block, position)
        except Full:
            return False
        return True

    def _append(self, block: Block, position: JSON) -> None:
        with self._changing:
            first = self._log.stop
            if block.count and not first.rows:
                _refuse_objects(block)  # here, so that it is refused with the first row rather than at a save
            if block.count and self._form is not None:
                self._check_form(block)
            self._log.append(block, position, beyond=self._beyond)
            self._beyond = False
            self._position = self._seek = position
            self._stage = RowStage.like(block, self.block_bytes) if self._is_offered else None
            size = self._keep(first, block)
            if self._sync is not None:
                self._sync.appended(size)
        if self._unlogged is None:
            self._unlogged = self._runtime.monotonic()

    def _check_form(self, block: Block) -> None:
        """Raise RowsError unless rows are of the form of those in the log; later ones are compared with these."""
        try:
            row_spec.check_same(self._form, block.rows, f"Row {self._log.stop.rows:,} of {self._as_block.name}")
        except RowsError as error:
            raise RowsError(
                f"{error} The rows before it were read by an earlier process, and are in the row log in "
                f"{self._log.where}. For rows of another form, begin a new run in another directory."
            ) from None
        self._form = None

    @locked
    def _keep(self, first: Offset, block: Block) -> int:
        """Keep a block until it is pulled; return its bytes."""
        size, end = 0, first.after(block)
        for leaf in trees.arrays(block.rows):
            # A replay may read this memory again. It is our copy, or a view of it.
            leaf.setflags(write=False)
            size += leaf.nbytes
        if self._is_kept_ahead(first):
            self._ahead.add(first, end, block, size)
        self._stop_at = end
        self._tell(block.count)
        return size

    def _is_kept_ahead(self, first: Offset) -> bool:
        """True if a block that begins at `first` stays in memory until it is pulled; others are read from the log."""
        return self._ahead.follows(first) and (not self._described.drops or self._ahead.bound.has_room())

    def _take_value(self, value: Any, is_sample: bool) -> int:
        """Take rows that a function has just yielded: log them, and pass them on. Return how many; 0 if they go the
        general way, by `_accept`, which makes a stage for the rows after them, and has all errors."""
        with self._changing:
            stage, first = self._stage, self._log.stop
            if stage is None:
                return 0
            rows = stage.put(value, self._runtime.time(), is_sample=is_sample)
            if not rows:
                return 0
            try:
                self._log.append_staged(stage, rows)
            except OSError:
                return 0
            if self._sync is not None:
                self._sync.appended(rows * stage.row_bytes)
            self._keep_staged(first, stage, rows)
        return rows

    @locked
    def _keep_staged(self, first: Offset, stage: RowStage, rows: int) -> None:
        end = Offset(first.rows + rows)
        if self._is_kept_ahead(first):
            self._ahead.add_staged(first, end, stage)
        self._stop_at = end
        self._tell(rows)

    def _tell(self, rows: int) -> None:
        now = self._runtime.monotonic()
        burst = now - self._kept_at < _BURST
        self._untold += rows
        if not (burst and self._burst) or self._untold >= self._told:
            self._untold = 0
            self._state.notify_all()
        self._burst, self._kept_at = burst, now

    def _has_dropped(self, block: Block) -> bool:
        """Drop rows that were not passed on, to make room for a block; True if some were dropped."""
        if not self._described.drops:
            return False
        with self._changing, self._handing_on:
            rows = self._log.drop(self._handed, block)
            if rows:
                self._clear_ahead()
        return rows > 0

    @locked
    def _clear_ahead(self) -> None:
        self._ahead.clear()

    def _await_room(self, block: Block, releases: int) -> bool:
        """Wait until rows are released; False if the node was closed."""
        if self._token is None:
            return False
        if not self._said_full:
            self._said_full = True
            _log.warning(
                "The row log of %s, in %s, has the %s bytes that max_bytes allows. Nothing more is read until a "
                "checkpoint is saved and the rows before it are removed.",
                self._as_block.name,
                self._log.where,
                f"{self._described.max_bytes:,}",
            )
        return self._await_release(block, releases)

    @locked
    def _await_release(self, block: Block, releases: int) -> bool:
        token = self._token  # None if the node was closed before this
        if self._releases == releases:
            self._too_large = block
            self._state.notify_all()
        self._state.wait_for(lambda: self._releases != releases or token is None or self._token is not token)
        return token is not None and self._token is token

    @locked
    def _released(self) -> None:
        self._releases += 1
        self._too_large, self._beyond = None, False
        self._state.notify_all()

    @locked
    def _await_retry(self, error: OSError) -> bool:
        """Wait for a retry by the next pull; False if the node was closed."""
        token = self._token
        self._refusal = error
        self._state.notify_all()
        self._state.wait_for(lambda: self._refusal is None or token is None or self._token is not token)
        return token is not None and self._token is token

    def _after_read(self, reader: Reader, *, nothing: bool) -> None:
        logged = getattr(reader, "logged", None)
        if logged is None or self._unlogged is None:
            return
        if self._sync is None or nothing or self._runtime.monotonic() - self._unlogged >= _SOON:
            try:
                self._log.sync()
            except OSError:
                return  # the reader is not told; the sync thread retries soon
            self._unlogged = None
            user_code.call(logged, self._position)

    # -- the node's side -----------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | None:
        if self._token is None:
            self._launch()
        if not self._await(timeout):
            return None
        with self._handing_on: return self._hand_on()  # fmt: skip  # noqa: E701 - see `locked`

    def _hand_on(self) -> Block | None:
        found = self._joined() or self._read_log()
        if found is None:
            return None
        block, end = found
        self._pulled(end)
        return block

    def _read_log(self) -> tuple[Block, Offset] | None:
        try:
            return self._log.read(self._at, self._coalesce, self.block_bytes)
        except OSError as error:
            raise StreamError(
                f"Rows of {self._as_block.name} can't be read again from the row log in {self._log.where}: "
                f"{error.strerror or error}."
            ) from error

    @locked
    def _await(self, timeout: float | None) -> bool:
        """Wait up to `timeout` seconds for rows; True if there are some.

        Raises:
            LogFull: the log has no room for the next block, and all its rows were passed on.
            StreamError: the next block can't be written.
        """
        if timeout != 0 and self._burst and not self._is_enough():
            self._await_more(timeout)
        if self._stop_at <= self._at:
            self._await_rows(timeout)
        if self._stop_at > self._at:
            return True
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self._state.notify_all()
            raise StreamError(
                f"Rows of {self._as_block.name} can't be written to the row log in {self._log.where}: "
                f"{refusal.strerror or refusal}. All rows in the log were handed on, and nothing more is read. Once "
                "there is room, the next attempt to read goes on with the next row."
            ) from refusal
        error = self._taken_error()
        if error is not None:
            raise error
        # Not if the caller does not wait, as a mix that checks which inputs have rows: it can go on without these.
        if self._too_large is not None and timeout != 0:
            raise LogFull(self._full_words(self._too_large))
        return False

    def _full_words(self, block: Block) -> str:
        log, needed = self._log, self._log.size + block.nbytes
        return (
            f"The row log of {self._as_block.name}, in {log.where}, is full: it has {log.size:,} bytes, and max_bytes "
            f"allows {self._described.max_bytes:,}. Its rows {log.start.rows:,} to {log.stop.rows:,} were all handed "
            f"on, and a checkpoint or a stage needs them. {block.count:,} more rows ({block.nbytes:,} bytes) are "
            "waited for, and while training waits, no checkpoint comes that lets rows go. More than "
            f"{needed:,} bytes are needed: give LogOptions(max_bytes={2 * needed}), save more often, or keep fewer "
            "checkpoints. A checkpoint that is saved now may let rows go, and the next attempt to read goes on."
        )

    def _is_enough(self) -> bool:
        """During a burst: True if the rows at hand are to be passed on now."""
        return (
            self._stop_at.rows - self._at.rows >= self._told
            or self._stop_at.boundaries > 0
            or self._ahead.bound.is_full
            or self._is_stuck()
            or self._too_large is not None
        )

    def _is_stuck(self) -> bool:
        return self._error is not None or self._refusal is not None

    def _await_more(self, timeout: float | None) -> None:
        """In a burst, wait for several rows: passing on one at a time would take longer than all other work for it."""
        self._untold = self._stop_at.rows - self._at.rows
        if not self._state.wait_for(self._is_enough, _SOON if timeout is None else min(timeout, _SOON)):
            self._burst = False  # the burst may be over

    def _await_rows(self, timeout: float | None) -> None:
        self._state.wait_for(
            lambda: self._stop_at > self._at or self._is_stuck() or (timeout != 0 and self._too_large is not None),
            timeout,
        )

    @locked
    def _joined(self) -> tuple[Block, Offset] | None:
        return self._ahead.joined(self._at, self._coalesce, self.block_bytes)

    @locked
    def _pulled(self, at: Offset) -> None:
        self._at, self._handed = at, max(at, self._handed)
        self._ahead.drop_before(at)
        if self._ahead.bound.is_full and self._ahead.bound.has_room():
            self._state.notify_all()

    def cursor(self) -> Cursor:
        return {"row": self._at.rows, "boundaries": self._at.boundaries}

    @locked
    def restore(self, cursor: Cursor) -> None:
        at = Offset(cursor["row"], cursor["boundaries"])
        start, stop = self._log.start, self._log.stop
        if at.rows == stop.rows:
            at = min(at, stop)  # a boundary without rows may be gone from the log together with the rows before it
        if not start <= at <= stop:
            raise DataLoss(
                f"The stream is to go on at row {at.rows:,} of {self._as_block.name}, and the row log in "
                f"{self._log.where} has rows {start.rows:,} to {stop.rows:,} of a source that can't seek. Put the "
                "run's directory back as it was, with its log; or begin a new run in another directory."
            )
        self._at = at

    def release(self, cursor: Cursor) -> None:
        self._log.release(Offset(cursor["row"], cursor["boundaries"]))
        if self._described.max_bytes is not None:
            self._released()

    @locked
    def take_beyond(self) -> bool:
        """Let the block that waits for room exceed the limit, once: training waits for it, and otherwise no checkpoint
        would come. True if there is such a block."""
        most = self._described.max_bytes
        if self._too_large is None or most is None or self._log.size > most:
            return False
        self._releases += 1
        self._too_large, self._beyond = None, True
        self._state.notify_all()
        return True

    def commit(self, trained: Cursor, needed: Cursor) -> None:
        """Pass the positions of the newest and the oldest checkpoint to the reader."""
        if hasattr(self._reader, "commit"):
            positions = [self._log.position_at(Offset(c["row"], c["boundaries"])) for c in (trained, needed)]
            if None not in positions:
                self._request(lambda reader: reader.commit(*positions))  # type: ignore[attr-defined]

    def settled(self, cursor: Cursor) -> Cursor:
        """Unchanged: cursors count rows from the beginning of the log."""
        return cursor

    def close(self) -> None:
        self._stop()
        forget = getattr(self._source, "forget", None)
        if forget is not None and not self.has_read:
            forget()
        if self._sync is not None:
            self._sync.close()
        self._log.close()

    def counts(self) -> dict[str, int]:
        counts = self._log.counts
        return {
            "fetched": self._stop_at.rows,
            "missed": counts.missed,
            "dropped": counts.dropped,
            "retries": self._retries,
        }

    # -- the log -------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The source's name in messages."""
        return self._as_block.name

    @property
    def joins_blocks(self) -> bool:
        """True if rows may be passed on in other blocks than they came in; without `batch`, a block is a batch."""
        return self._coalesce > 0

    @property
    def has_read(self) -> bool:
        """True if it has read in this process."""
        return self._thread is not None

    @property
    def has_begun(self) -> bool:
        """True if it has rows, from this process or a saved state."""
        return self.has_read or self._log.stop > Offset(0)

    @property
    def log(self) -> RowLog | MemoryLog:
        """The log that has its rows."""
        return self._log

    def move_log(self, log: RowLog) -> None:
        """Keep rows on the disk from now on; those in memory are written to `log`. If nothing was read yet, the rows in
        `log` come first."""
        with self._changing: self._move(log)  # fmt: skip  # noqa: E701 - see `locked`

    def _move(self, log: RowLog) -> None:
        memory = self._log
        if not isinstance(memory, MemoryLog):
            raise ValueError(f"The rows are in {memory.where} already.")
        if memory.stop > Offset(0):
            memory.spill(log)
        else:
            self._begin(log)
        self._keep_in(log)

    def take_log(self, log: RowLog) -> None:
        """Continue with a log on the disk that has the rows in memory, and later ones. Nothing was read yet."""
        with self._changing: self._take(log)  # fmt: skip  # noqa: E701 - see `locked`

    def _take(self, log: RowLog) -> None:
        at = self._at
        self._begin(log)
        self._at = at
        self._keep_in(log)

    def _keep_in(self, log: RowLog) -> None:
        log.limit(self._described.max_bytes)  # not before: rows that are in memory are written whatever their size
        self._log, self._sync = log, LogSync(log, self._runtime)
        self._sync.appended(0)

    @locked
    def _begin(self, log: RowLog | MemoryLog) -> None:
        self._at, self._stop_at = log.start, log.stop
        self._handed = log.stop  # an earlier process may have passed them on, and a checkpoint may need them
        self._position = self._seek = log.position_at(log.stop)
        self._as_block.row = log.stop.rows
        self._form = log.form

    def put(self, log: MemoryLog) -> None:
        """Begin with rows from a saved state, before anything was read."""
        with self._changing: self._put(log)  # fmt: skip  # noqa: E701 - see `locked`

    def _put(self, log: MemoryLog) -> None:
        self._begin(log)
        self._log = log


def _refuse_objects(block: Block) -> None:
    for path, leaf in trees.leaves(block.rows):
        if leaf.dtype.hasobject:
            raise RowsError(
                f"{trees.name(path)} of the source is {leaf.dtype} (Python objects). Rows of a source that can't go "
                "back are kept in the row log, and these can't be written so that reading them runs no code. Yield "
                "numbers, or text: np.array(names, dtype='U')."
            )
