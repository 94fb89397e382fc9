"""LoggingThread: a reader's thread that writes rows to the row log before they may be passed on.

So rows are read while the model trains, none is passed on that a kill could lose, and a wait for rows can be
interrupted at any moment.
"""

from __future__ import annotations

import logging
from typing import Any

from unbounded.core import ragged, row_spec, trees, user_code
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.locked import locked
from unbounded.core.node import Context, StreamError
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
# Seconds within which a reader with `logged` is told that its rows are on the disk, and rows of a burst are passed on.
SOON = 0.01
# Rows that come singly within _BURST seconds of each other are passed on so many at a time, or fewer if the consumer
# asks for fewer, as with small batches: a thread switch for each row would take as long as all other work for it.
_BURST = 0.0005
_TOLD = 128
_TOLD_UNASKED = 32  # where the consumer does not say


class LoggingThread(ReaderThread):
    """The side of a logged node that reads and logs. `_lock` guards what is read ahead, and how far the log goes.

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

    @property
    def joins_blocks(self) -> bool:
        """True if rows may be passed on in other blocks than they came in; without `batch`, a block is a batch."""
        return self._coalesce > 0

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
        was_removed = False
        while True:
            releases = self._releases
            try:
                if self._is_appended(block, position):
                    return
                if self._has_dropped(block):
                    continue
            except OSError as error:
                self._refuse_taken()
                if isinstance(error, FileNotFoundError) and not was_removed:
                    was_removed = True  # the directory, between two calls to the disk: it is made again
                    continue
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
            size += ragged.nbytes(leaf)
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
        if self._sync is None or nothing or self._runtime.monotonic() - self._unlogged >= SOON:
            try:
                self._log.sync()
            except OSError:
                return  # the reader is not told; the sync thread retries soon
            self._unlogged = None
            user_code.call(logged, self._position)


def _refuse_objects(block: Block) -> None:
    for path, leaf in trees.leaves(block.rows):
        if leaf.dtype.hasobject and not ragged.is_ragged(leaf):
            raise RowsError(
                f"{trees.name(path)} of the source is {leaf.dtype} (Python objects). Rows of a source that can't go "
                "back are kept in the row log, and these can't be written so that reading them runs no code. Yield "
                "numbers, or text: np.array(names, dtype='U'); arrays of several lengths and bytes: ub.ragged(rows)."
            )
