"""Live: rows that come once, from an iterator that can't go back, read in a thread of its own.

The thread puts what it reads into a spool, so that waiting for data can be interrupted at any moment, nothing
is missed while the model trains, and rows that were read but not trained on travel with the checkpoint.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from unbounded.core import trees
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.locked import locked
from unbounded.core.node import Cursor, DataLoss, EndOfStream, StreamError
from unbounded.sources.spool import Spool

_BLOCKS = 64
_BYTES = 1 << 26
_JOIN = 1.0  # seconds: how long closing waits for a thread that sits in somebody else's code


class Past(NamedTuple):
    """What a source that goes on may want to know of the run before: how many rows are kept of it, when the
    last of them arrived (seconds since 1970; None: there is none), how many it had read and lost, and how many
    passes had ended."""

    rows: int
    last: float | None
    lost: int
    passed: int = 0


Begin = Callable[[Past, threading.Event], Iterator[Block]]
"""Opens the iterator of blocks, given its past, and an event that is set when it is to stop."""


class Live:
    """A node over an iterator of blocks.

    `begin` opens the iterator at the first pull, and again when it is pulled after it had failed: the rows in between
    may be missing, and a gap stands in their place. At most `_BLOCKS` blocks, and no more than two where these
    hold `_BYTES`, are read before they are pulled.
    """

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._most = _BLOCKS
        self.run = uuid.uuid4().hex
        self.spool = Spool()
        self._at = Offset(0)
        self._farthest = Offset(0)  # after the last block that was pulled
        self._waiting = 0  # blocks that were read and not pulled yet
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._reader: object | None = None  # whose thread reads; any other leaves
        self._idle = True  # the thread is not in the middle of a read
        self._settled = False  # reading rests, until `go_on`
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._state = threading.Condition(self._lock)
        self._lost_before = 0  # of the rows lost, those that runs before the last one lost
        self._missed = 0
        self.lost = 0
        """Rows that a killed run had read and not saved; filled in by whoever knows how many there were."""
        self.on_rows: Callable[[int], None] | None = None
        """Told how many rows were read in all, after each read."""

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _run(self, reader: object) -> None:
        try:
            past = self._past(reader)
            if past is None:
                return
            blocks = self._begin(past, self._stop)
            try:
                while self._await_room() and self._take(next(blocks, None)):
                    pass
            finally:
                close = getattr(blocks, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            self._fail(error)

    @locked
    def _past(self, reader: object) -> Past | None:
        # Looked at before anything is opened: a thread whose launch was interrupted is not the reader.
        if self._reader is not reader:
            return None
        return Past(self.spool.stop.rows, self.spool.last_time, self.lost - self._lost_before, self.spool.passed)

    @locked
    def _take(self, block: Block | None) -> bool:
        """Keep what was read; False where there is no more."""
        self._idle = True
        if block is None:
            if not self._stop.is_set():
                self._error = EndOfStream()
            self._state.notify_all()
            return False
        if block.count or block.boundary:
            self._keep(block)
        self._state.notify_all()
        return True

    def _keep(self, block: Block) -> None:
        self.spool.append(block)
        self._waiting += 1
        if block.count:
            size = block.count * trees.row_bytes(block.rows)
            self._most = min(_BLOCKS, max(2, _BYTES // max(1, size)))
        if block.boundary and block.boundary.kind == "gap":
            self._missed += block.boundary.missed
        if self.on_rows is not None:
            self.on_rows(self.spool.stop.rows)

    @locked
    def _fail(self, error: BaseException) -> None:
        self._error, self._idle = error, True
        self._state.notify_all()

    @locked
    def _await_room(self) -> bool:
        """Wait until more may be read; once enough is waiting, until half is gone: waking a thread is slow."""
        if self._waiting >= self._most or self._settled:
            self._state.wait_for(self._may_read)
        self._idle = False
        return not self._stop.is_set()

    def _may_read(self) -> bool:
        return self._stop.is_set() or (self._waiting <= self._most // 2 and not self._settled)

    # -- the node's side -----------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | None:
        if self._reader is None:
            self._launch()
        block = self.spool.read(self._at)
        if block is None:
            self._wait(timeout)
            block = self.spool.read(self._at)
            if block is None:
                error = self._error
                if error is None:
                    return None
                if not isinstance(error, EndOfStream):
                    self._forget_failure()
                raise error
        self._note_pulled(block)
        self._at = self._at.after(block)
        return block

    @locked
    def _wait(self, timeout: float | None) -> None:
        self._state.wait_for(lambda: self.spool.stop > self._at or self._error is not None, timeout)

    @locked
    def _launch(self) -> None:
        reader = object()
        self._thread = threading.Thread(target=self._run, args=(reader,), name="unbounded-live", daemon=True)
        self._thread.start()
        # Last: a thread whose launch was interrupted finds that it is not the reader, and leaves.
        self._reader = reader

    @locked
    def _forget_failure(self) -> None:
        """The next pull opens the iterator again: as for every node, the pull after an error is a new attempt."""
        self._error, self._reader = None, None
        if self.spool.stop.rows and not self.spool.stop.boundaries:
            self._keep(Block(None, 0, Boundary("gap")))

    @locked
    def _note_pulled(self, block: Block) -> None:
        end = self._at.after(block)
        if end > self._farthest:  # and not read again after a restore
            self._farthest = end
            self._waiting = max(0, self._waiting - 1)
            if self._waiting <= self._most // 2:
                self._state.notify_all()

    def cursor(self) -> Cursor:
        return {"row": self._at.rows, "breaks": self._at.boundaries}

    def restore(self, cursor: Cursor) -> None:
        at = Offset(cursor["row"], cursor["breaks"])
        if at.rows == self.spool.stop.rows:
            at = min(at, self.spool.stop)  # a boundary that was passed already may be gone with the rows before it
        if at < self.spool.start or at > self.spool.stop:
            raise DataLoss(
                f"The stream is to go on at row {at.rows:,}, and rows {self.spool.start.rows:,} to "
                f"{self.spool.stop.rows:,} are "
                "kept of a source that can't go back. Load the checkpoint that the rows came with."
            )
        self._at = at

    def release(self, cursor: Cursor) -> None:
        self.spool.release(Offset(cursor["row"], cursor["breaks"]))

    @locked
    def settle(self, timeout: float) -> bool:
        """Wait until the thread is not in the middle of a read, so that nothing is on its way; says whether
        it is so."""
        self._settled = True
        return self._state.wait_for(lambda: self._idle, timeout)

    @locked
    def go_on(self) -> None:
        """Take back `settle`. A pull must not: a stage that works ahead pulls while the run stops."""
        self._settled = False
        self._state.notify_all()

    def close(self) -> None:
        self._stop.set()
        self._wake()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(_JOIN)

    @locked
    def _wake(self) -> None:
        self._state.notify_all()

    def counts(self) -> dict[str, int]:
        return {"fetched": self.spool.stop.rows, "missed": self._missed, "lost": self.lost}

    def arrivals(self) -> dict[str, Any]:
        return {"missed": self._missed, "lost": self.lost}

    def recall(self, arrivals: Mapping[str, Any]) -> None:
        self._missed, self.lost = arrivals["missed"], arrivals["lost"]
        self._lost_before = self.lost

    def load(self, dumps: list[Mapping[str, Any]]) -> None:
        """Take up the rows that were saved with a position, before `restore`."""
        if self._reader is None:
            self.spool.load(dumps)
            self._farthest = self.spool.stop
        # The thread that reads can't be moved, but it may still have all rows that followed the position.
        elif not dumps or dumps[0]["run"] != self.run or dumps[0]["first"] < self.spool.start.rows:
            raise StreamError(
                "A source that can't go back is being read already, and can't be put to another place. Load the "
                "state into a new feed, "
                "before its first batch."
            )

    def dump(self, start: int, stop: int) -> dict[str, Any]:
        """The rows from number `start` up to `stop`, as plain data and arrays."""
        return {**self.spool.dump(start, stop), "run": self.run}
