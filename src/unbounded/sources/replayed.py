"""Replayed: the node over a reader that can seek; a thread reads a little ahead, and a cursor is the reader's position.

Queued blocks were returned to nobody: they are read again after a restore.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from unbounded.core.block import Block
from unbounded.core.decisions import Decisions
from unbounded.core.locked import locked
from unbounded.core.node import Context, Cursor
from unbounded.sources.as_block import AsBlock
from unbounded.sources.partitions import PartitionedReader
from unbounded.sources.read_ahead import AheadBound
from unbounded.sources.reader import JSON, Opening, Reader, Source
from unbounded.sources.reader_thread import ReaderThread
from unbounded.sources.retention import RetentionWatch

_BLOCKS = 8
_BYTES = 1 << 26


class _Queued(NamedTuple):
    block: Block
    position: JSON  # the reader's position after the block
    size: int


class Replayed(ReaderThread):
    """A node over a reader in its own thread, which can seek to any position that it returned."""

    def __init__(self, source: Source, context: Context, name: str) -> None:
        super().__init__(source, context.runtime, AsBlock(name, context.runtime))
        self._context = context
        self._queue: deque[_Queued] = deque()
        self._bound = AheadBound(_BLOCKS, _BYTES)
        self._position: JSON = None  # of the next row to hand on; None before it is known
        self._row = 0
        self._time: float | None = None  # when the last row before it arrived
        self._missed = 0
        retention = getattr(source, "retention", None)
        self._watch = None if retention is None else RetentionWatch(name, retention, context.runtime)
        # The partition of each row and boundary, for a source with partitions.
        self._log = context.arrivals.of(f"{context.place}.source") if getattr(source, "partitions", False) else None
        self._order = None if self._log is None else self._log.decisions

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _opening(self) -> Opening:
        context = self._context
        return Opening(
            rows=self._row, block_rows=context.block_rows, batch_rows=context.batch_rows, runtime=context.runtime
        )

    def _wrapped(self, reader: Reader) -> Reader:
        return reader if self._log is None else PartitionedReader(reader, self._order_now)

    def _order_now(self) -> Decisions:
        assert self._order is not None
        return self._order

    def _has_room(self) -> bool:
        return self._bound.has_room()

    @locked
    def _accept(self, block: Block, position: JSON, generation: int) -> None:
        if generation != self._generation:
            return  # the reader was sought during the read
        self._seek = position  # where to continue if it has to be opened again
        if not (block.count or block.boundary):
            return
        size = block.nbytes
        self._queue.append(_Queued(block, position, size))
        self._bound.add(block.count, size)
        self._state.notify_all()

    # -- the node's side -----------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | None:
        if self._token is None:
            self._launch()
        if self._log is not None and self._await_rows(timeout):
            self._log.write()  # what was read so far: some blocks at once
        block = self._next(timeout)
        if self._watch is not None:
            self._watch.look(self._row, block)
        return block

    @locked
    def _await_rows(self, timeout: float | None) -> bool:
        if not self._queue:
            self._state.wait_for(lambda: self._queue or self._error is not None, timeout)
        return bool(self._queue)

    @locked
    def _next(self, timeout: float | None) -> Block | None:
        if not self._queue and self._log is None:
            self._state.wait_for(lambda: self._queue or self._error is not None, timeout)
        if self._queue:
            block, position, size = self._queue.popleft()
            self._bound.take(block.count, size)
            if self._bound.is_full and self._has_room():
                self._state.notify_all()
            self._position = position
            self._row += block.count
            if block.times is not None and block.count:
                self._time = float(block.times[-1])
            if block.boundary is not None and block.boundary.kind == "gap":
                self._missed += block.boundary.missed
            return block
        error = self._taken_error()
        if error is not None:
            raise error
        return None

    def cursor(self) -> Cursor:
        position = self._opening_position if self._position is None else self._position
        return {"position": position, "row": self._row, "time": self._time, "missed": self._missed}

    def settled(self, cursor: Cursor) -> Cursor:
        """Taken before it was opened, it is a cursor of the beginning, which has a position since; and the reader may
        know more of a position since it read there."""
        position = self._known(cursor["position"])
        if self._settle is not None:
            position = self._settle(position)
        return cursor if position is cursor["position"] else {**cursor, "position": position}

    @locked
    def restore(self, cursor: Cursor) -> None:
        if self._log is not None:
            self._order = self._log.decisions
        self._queue.clear()
        self._bound.clear()
        # A cursor that was computed has the row alone, where that is the position, and counts no gaps.
        self._position, self._row = cursor.get("position", cursor["row"]), cursor["row"]
        self._missed = cursor.get("missed", 0)
        self._time = cursor.get("time")
        if self._watch is not None:
            self._watch.restored(self._row, self._time)
        self._as_block.row = self._row
        self._go_to(self._known(self._position))

    def _known(self, position: JSON) -> JSON:
        """A position of a cursor: None is the beginning of a source that was not open yet."""
        return self._opening_position if position is None else position

    def release(self, cursor: Cursor) -> None:
        """The source keeps its rows; the order in which partitions were read before is forgotten."""
        if self._watch is not None:
            self._watch.need(cursor["row"], cursor.get("time"))
        if self._log is not None and self._position is not None and cursor["position"] is not None:
            # Not past what was handed on: a prefetch thread may pass it on after a state of before was loaded.
            handed = self._position["item"] + self._position["skip"]
            self._log.release(min(cursor["position"]["item"], handed))

    def commit(self, trained: Cursor, needed: Cursor) -> None:
        """Pass the positions of the newest and the oldest checkpoint to the reader."""
        if hasattr(self._reader, "commit"):
            positions = self._known(trained["position"]), self._known(needed["position"])
            self._request(lambda reader: reader.commit(*positions))  # type: ignore[attr-defined]

    @property
    def name(self) -> str:
        """What the source is called in messages."""
        return self._as_block.name

    def close(self) -> None:
        self._stop()

    def counts(self) -> dict[str, int]:
        return {"fetched": self._row, "missed": self._missed, "retries": self._retries}
