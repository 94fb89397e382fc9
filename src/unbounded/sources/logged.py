"""Logged: the node over a reader that can't seek; a thread reads, and writes rows to the row log before they are passed
on.

A cursor is the number of a row in the log. Once the log is on the disk, memory holds only the rows that were not pulled
yet.
"""

from __future__ import annotations

from unbounded.core.block import Block, Offset
from unbounded.core.locked import locked
from unbounded.core.node import Cursor, DataLoss, LogFull, StreamError
from unbounded.sources.log_sync import LogSync
from unbounded.sources.logging_thread import SOON, LoggingThread
from unbounded.sources.memory_log import MemoryLog
from unbounded.sources.row_log import RowLog


class Logged(LoggingThread):
    """A node over a reader in its own thread, with a row log between them: its arguments are those of the thread."""

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
        if not self._state.wait_for(self._is_enough, SOON if timeout is None else min(timeout, SOON)):
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
