"""Prefetch and Buffer: stages that read ahead in a thread, so that training does not wait."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from unbounded.core import check
from unbounded.core.block import Block, Boundary, Run
from unbounded.core.cursor import compose, input_cursors, own_part
from unbounded.core.locked import locked
from unbounded.core.node import Context, Cursor, Node
from unbounded.core.prefetcher import Entry, Prefetcher
from unbounded.core.runtime import Runtime
from unbounded.stages.stage import Guarantee, Stage

Overflow = Literal["block", "drop_oldest"]
# What the arrival log says of rows that came to a buffer.
_KEPT, _DROPPED = "kept", "dropped"
_DROPPED_WITH_BOUNDARY = "dropped with boundary"  # one that stood alone before the first of them


@dataclass(frozen=True)
class Prefetch(Stage):
    """See `Stream.prefetch`."""

    batches: int
    word = "prefetch"
    moves_rows = False
    after_batch = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", check.positive(self.batches, "prefetch(batches)"))

    def open(self, upstream: Node, context: Context) -> Node:
        return Ahead(upstream, context.runtime, self.batches)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        return upstream(ordinal)

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        return ordinal


class Ahead(Prefetcher):
    """The node of `prefetch(n)`: queues n batches, or the next block if that has more."""

    def __init__(self, upstream: Node, runtime: Runtime, batches: int) -> None:
        super().__init__(upstream, runtime)
        self._batches = batches

    def size(self, block: Block | Run) -> int:
        """The number of batches; a block of a stream without `batch` is one."""
        return block.count if isinstance(block, Run) else 1

    def room(self) -> int:
        """The number of batches given to `prefetch`."""
        return self._batches


@dataclass(frozen=True)
class Buffer(Stage):
    """See `Stream.buffer`."""

    rows: int
    overflow: Overflow = "block"
    word = "buffer"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", check.positive(self.rows, "buffer(rows)"))
        if self.overflow not in ("block", "drop_oldest"):
            raise ValueError(f"buffer(overflow={self.overflow!r}): expected 'block' or 'drop_oldest'.")

    @property
    def moves_rows(self) -> bool:  # type: ignore[override]
        """True if it drops rows; a buffer that blocks only changes the speed."""
        return self.overflow != "block"

    @property
    def guarantee(self) -> Guarantee:
        return "exact" if self.overflow == "block" else "at_most_once"

    def open(self, upstream: Node, context: Context) -> Node:
        if self.overflow == "block":
            return _BufferNode(upstream, context.runtime, self.rows)
        return _DroppingNode(upstream, context, self.rows)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        if self.overflow != "block":
            return super().cursor_at(ordinal, upstream, rows, place)
        return upstream(ordinal)

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        if self.overflow != "block":
            return super().ordinal_of(ordinal, rows, place)
        return ordinal


class _BufferNode(Prefetcher):
    """A queue of rows; the source waits while it is full."""

    def __init__(self, upstream: Node, runtime: Runtime, rows: int) -> None:
        super().__init__(upstream, runtime)
        self._rows = rows

    def size(self, block: Block | Run) -> int:
        return block.count

    def room(self) -> int:
        return self._rows


class _DroppingNode(_BufferNode):
    """A queue of rows that drops its oldest rows while it is full; a gap takes their place.

    Which rows are dropped depends on the speed of training. So the arrival log says of each upstream row whether it was
    dropped, before the next row is passed on. A restored node drops the same rows, and decides anew after the last
    recorded one.

    The block after a gap that was returned is reserved for the consumer: if it were dropped as well, a consumer that is
    slower than the source would get gaps only.
    """

    _promised: int | None = None  # the number of that block

    def __init__(self, upstream: Node, context: Context, rows: int) -> None:
        self._log = context.arrivals.of(f"{context.place}.buffer", apart=(_DROPPED, _DROPPED_WITH_BOUNDARY))
        self._decisions = self._log.decisions
        self._dropped = 0  # rows dropped before the next one that is passed on
        self._row = 0  # the number of the next row from upstream
        self._to_skip = 0  # rows to skip after a restore into the middle of a block
        self._parts: deque[tuple[Block, Cursor]] = deque()  # of the last block, cut at the ranges in the log
        self._gap: Boundary | None = None  # the last gap that replaced rows
        self._swallowed = False  # it replaced a boundary without rows before them, too
        self._passed = False  # a pass ended among the rows that are being dropped again
        super().__init__(upstream, context.runtime, rows)
        self._cursor = compose([self._cursor], {"row": 0, "over": 0, "dropped": 0})

    def room(self) -> int:
        # Rows whose fate is decided are not dropped now: the source waits until they are passed on.
        return self._rows if _row(self._cursor) < self._decisions.stop else sys.maxsize

    def _next(self, timeout: float | None) -> Entry | None:
        if not self._decide(timeout):
            return None
        self._log.write()
        return super()._next(timeout)

    @locked
    def _decide(self, timeout: float | None) -> bool:
        """Wait for what is handed on next, and note what became of the rows up to its end; False where there is none in
        time. From here on it is not dropped, whether or not it gets so far."""
        if not self._state.wait_for(lambda: self._given in self._ready, timeout):
            return False
        block, cursor, error = self._ready[self._given]
        if error is None:
            self._decisions.note(_row(self._cursor), _row(cursor), self._what(block))
        return True

    def _what(self, block: Any) -> str:
        if not self._is_ours(block):
            return _KEPT
        return _DROPPED_WITH_BOUNDARY if self._swallowed else _DROPPED

    def _is_ours(self, block: Any) -> bool:
        return block is not None and block.boundary is not None and block.boundary is self._gap

    def _take(self, block: Any, cursor: Cursor) -> None:
        own = own_part(cursor)
        self._dropped += own["row"] - _row(self._cursor) - block.count
        super()._take(block, compose(input_cursors(cursor), {**own, "dropped": self._dropped}))
        self._promised = None if block.count else self._given

    def _pull(self) -> Entry | None:
        # Called by the thread that uses the upstream, without the lock: only it uses the row, the parts and the gap.
        if not self._parts:
            before = self._upstream.cursor()
            made = super()._pull()
            if made is None or made[2] is not None:
                return made
            self._cut(made[0], before, made[1])
            if not self._parts:
                return None
        block, cursor = self._parts.popleft()
        return block, cursor, None

    def _begin(self, cursor: Cursor) -> None:
        super()._begin(cursor)
        self._promised = None

    def _cut(self, block: Block, before: Cursor, after: Cursor) -> None:
        """Cut a block at the ranges that the log has as dropped; each becomes a gap."""
        over, self._to_skip = min(self._to_skip, block.count), max(0, self._to_skip - block.count)
        first, last = self._row, self._row + block.count - over
        start = first

        def add(part: Block, row: int) -> None:
            whole = row == last
            skip = 0 if whole else over + row - first
            self._parts.append((part, compose([after if whole else before], {"row": row, "over": skip})))

        def rows(start: int, stop: int) -> Block:
            return block.part(over + start - first, over + stop - first)

        for low, high, what in self._decisions.between(first, max(last, first + 1)):
            if what == _KEPT:
                continue
            if low > start:
                add(rows(start, low), low)
            start = min(high, last)
            # A boundary inside the range, or right after it, was dropped with it; one that was noticed later was not.
            inside = last < high if first < last else low < last or what == _DROPPED_WITH_BOUNDARY
            inside = inside or (last == high and first < last)
            if inside and block.boundary:
                self._passed = self._passed or block.boundary.kind == "pass"
            # The gap comes once, after the last row of the range.
            if high <= last:
                self._gap = Boundary("pass" if self._passed else "gap", high - low)
                add(Block(None, 0, self._gap), start)
                self._passed = False
            if inside:
                self._row = last
                return
        if start < last or block.boundary:
            add(rows(start, last), last)
        self._row = last

    def admit(self) -> None:
        """Drop the oldest rows until the queue fits."""
        while self._ahead > self._rows and _row(self._cursor) >= self._decisions.stop:
            first = self._first_to_drop
            found = self._oldest(first)
            if found is None:
                return
            entries, (gone, cursor, _) = found
            # A gap of this buffer grows; another boundary without rows is merged into the gap of the rows after it.
            kinds = {block.boundary.kind for block, _, _ in entries if block.boundary}
            self._swallowed = self._swallowed if self._is_ours(entries[0][0]) else not entries[0][0].count
            self._gap = Boundary("pass" if "pass" in kinds else "gap", _row(cursor) - self._row_before(first))
            for _ in entries[1:]:
                self._leave_out(first)
                first += 1
            self._ready[first] = (Block(None, 0, self._gap), cursor, None)
            self._ahead -= gone.count

    def _oldest(self, first: int) -> tuple[list[Entry], Entry] | None:
        """The entries from number `first` up to the first that has rows, and that one; None where there is none before
        an error."""
        entries: list[Entry] = []
        while (entry := self._ready.get(first + len(entries))) is not None and entry[2] is None:
            entries.append(entry)
            if entry[0].count:
                return entries, entry
        return None

    def restore(self, cursor: Cursor) -> None:
        self._decisions = self._log.decisions
        self._dropped = own_part(cursor).get("dropped", 0)
        super().restore(cursor)

    @property
    def _first_to_drop(self) -> int:
        """The number of the oldest block that is not the consumer's."""
        return self._given + (self._promised == self._given)

    def _row_before(self, number: int) -> int:
        """The number of the row at which an entry begins, the first or the second of the queue."""
        return _row(self._cursor if number == self._given else self._ready[self._given][1])

    def _leave_out(self, number: int) -> None:
        """Take an entry out of the queue, the first or the second: numbers stay without a gap."""
        before = self._ready.pop(self._given)
        self._given += 1
        if number == self._given:
            self._ready[number] = before
            self._promised = number

    def _rewind(self, cursor: Cursor) -> None:
        self._upstream.restore(*input_cursors(cursor))
        own = own_part(cursor)
        self._row, self._to_skip = own["row"], own["over"]
        self._parts.clear()
        self._gap, self._swallowed, self._passed = None, False, False

    def release(self, cursor: Cursor) -> None:
        super().release(*input_cursors(cursor))
        # Not past what was handed on: a prefetch thread may pass it on after a state of before was loaded.
        self._log.release(min(_row(cursor), _row(self._cursor)))

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "dropped": counts.get("dropped", 0) + self._dropped_so_far()}

    @locked
    def _dropped_so_far(self) -> int:
        first = self._first_to_drop
        gap = self._ready.get(first)
        queued = _row(gap[1]) - self._row_before(first) if gap is not None and self._is_ours(gap[0]) else 0
        return self._dropped + queued


def _row(cursor: Cursor) -> int:
    """The number of the next row from upstream."""
    row: int = own_part(cursor)["row"]
    return row
