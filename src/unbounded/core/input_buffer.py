"""InputBuffer: with it a stage holds rows of an input back, skips rows, and says from where to read them again.

The address of a row is a cursor of the input from before that row, and how many rows to skip from there. Cursors are
taken before each pull, and thinned out so that some 64 of them cover whatever is held: reading again costs the rows
held and a little more, however old the stream is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

from unbounded.core.block import Block, Offset, Run
from unbounded.core.block import join as join_blocks
from unbounded.core.cursor import Cursor, compose, input_cursors, own_part
from unbounded.core.node import Node

LIMIT = 64


class Address(NamedTuple):
    """From where to read an input again: a cursor of it, and what to skip from there: rows, and boundaries after the
    last of them."""

    cursor: Cursor
    rows: int = 0
    boundaries: int = 0


def compose_held(addresses: Sequence[Address], own: Mapping[str, Any]) -> Cursor:
    """The cursor of what holds rows of its inputs back: the addresses from where to read them again, and the rest."""
    skip = [list(address[1:]) for address in addresses]
    # Left out where nothing is to be skipped, as is most common: positions stay small.
    return compose([address.cursor for address in addresses], {"skip": skip, **own} if any(map(any, skip)) else own)


def addresses(cursor: Cursor) -> list[Address]:
    """The address for each input in such a cursor."""
    inputs = input_cursors(cursor)
    skip = own_part(cursor).get("skip") or [(0, 0)] * len(inputs)
    return [Address(each, *skipped) for each, skipped in zip(inputs, skip, strict=True)]


B = TypeVar("B", Block, Run)


class InputBuffer(Generic[B]):
    """What was pulled from `upstream` and is still needed, first in, first out.

    `head` is the point before the first row held, `tail` the point after the last one pulled. Points count
    from where this helper began or was restored to.
    """

    def __init__(self, upstream: Node) -> None:
        self._upstream = upstream
        self._start(0, 0)

    def _start(self, skip_rows: int, skip_boundaries: int) -> None:
        self.blocks: deque[B] = deque()
        self.count = 0
        self.run = 0  # of the rows held, those before the first boundary
        self.closed = False  # a boundary is among what is held: `run` will not grow
        self.head = self.tail = Offset(0)
        # What is still to be read over: as many blocks as it takes, since they may be cut in another way this
        # time.
        self._skip_rows = skip_rows
        self._skip_boundaries = skip_boundaries
        self._oldest: Cursor = self._upstream.cursor()
        self._cursors: deque[tuple[Offset, Address]] = deque()
        self._spacing = 0

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, timeout: float | None) -> B | None:
        """The next block from upstream, past what is to be skipped. It is not held: that is `pull`."""
        while True:
            # Before the pull: a cursor taken after it would lose the block.
            if not self._cursors or self.tail.rows - self._cursors[-1][0].rows >= self._spacing:
                self._note(Address(self._upstream.cursor(), self._skip_rows, self._skip_boundaries))
            block = cast("B | None", self._upstream.pull(timeout))
            if block is None:
                return None
            if self._skip_rows or self._skip_boundaries:
                rest = self._skipped(block)
                if rest is None:
                    continue
                block = rest
            self.tail = self.tail.after(block)
            return block

    def _skipped(self, block: B) -> B | None:
        """What is left of a block once the rows and boundaries to skip are taken from its front; None where that
        is nothing."""
        if self._skip_rows:
            over = min(self._skip_rows, block.count)
            self._skip_rows -= over
            if over < block.count:
                self._skip_boundaries = 0
                return block.part(over, block.count)
            if self._skip_rows:
                return None
            if not block.boundary:
                return None
            block = block.part(over, block.count)  # no rows: the boundary alone
        if block.count == 0 and block.boundary and self._skip_boundaries:
            self._skip_boundaries -= 1
            return None
        # Rows come before the boundary that was to be skipped: it was not there after all.
        self._skip_boundaries = 0
        return block

    def _note(self, address: Address) -> None:
        if self._cursors and self._cursors[-1][0] == self.tail:
            self._cursors[-1] = (self.tail, address)
            return
        self._cursors.append((self.tail, address))
        if len(self._cursors) > LIMIT:
            first, *rest = self._cursors
            self._cursors = deque([first, *rest[1::2]])
            self._spacing = max(1, (self.tail.rows - first[0].rows) // (LIMIT // 2))

    # -- holding -------------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> bool:
        """Read the next block and hold it; False where there is none yet."""
        block = self.read(timeout)
        if block is None:
            return False
        self.blocks.append(block)
        self.count += block.count
        self._extend_run(block)
        return True

    def _extend_run(self, block: B) -> None:
        if not self.closed:
            self.run += block.count
            self.closed = block.boundary is not None

    def peek(self, rows: int) -> B:
        """The first `rows` rows, at most those before the first boundary, joined; the boundary comes with the last
        of them."""
        parts: list[B] = []
        need = rows
        for block in self.blocks:
            if block.count > need:
                if need or not parts:
                    parts.append(block.part(0, need))
                break
            parts.append(block)
            need -= block.count
            if block.boundary:
                break
        return join_blocks(parts)  # type: ignore[arg-type, return-value]

    def drop(self, rows: int) -> None:
        """Let go of what `peek(rows)` gives."""
        need, boundaries = rows, 0
        while self.blocks:
            block = self.blocks[0]
            if block.count > need:
                if need:
                    self.blocks[0] = block.part(need, block.count)
                break
            self.blocks.popleft()
            need -= block.count
            if block.boundary:
                boundaries = 1
                break
        self.count -= rows
        self.run -= rows
        self.head = Offset(self.head.rows + rows, boundaries + (0 if rows else self.head.boundaries))
        if boundaries:
            self.run, self.closed = 0, False
            for block in self.blocks:
                self._extend_run(block)

    def pop(self, rows: int) -> B:
        """`peek` and `drop`."""
        out = self.peek(rows)
        self.drop(out.count)
        return out

    # -- cursors ---------------------------------------------------------------------------------------------------

    def keep(self, at: Offset) -> None:
        """Nothing before `at` is needed any more: forget the cursors that only it needed."""
        while len(self._cursors) > 1 and self._cursors[1][0] <= at:
            self._cursors.popleft()
        if self._spacing and len(self._cursors) < LIMIT // 4:
            self._spacing = (self.tail.rows - at.rows) // (LIMIT // 2)

    def address(self, at: Offset) -> Address:
        """From where to read again so that the next row is the one at `at`."""
        if at == self.tail and not (self._skip_rows or self._skip_boundaries):
            address = Address(self._upstream.cursor())
            # Noted, since the caller may release what lies before it: `noted` must not give an older cursor then.
            self._note(address)
            return address
        return self.noted(at)

    def noted(self, at: Offset) -> Address:
        """The same by the cursors that were noted before pulls, for when the upstream may stand anywhere."""
        for point, address in reversed(self._cursors):
            if point <= at:
                rows, boundaries = address.rows + at.rows - point.rows, at.boundaries
                if at.rows == point.rows:
                    boundaries = address.boundaries + at.boundaries - point.boundaries
                return Address(address.cursor, rows, boundaries)
        # Restored, and not pulled since.
        return Address(self._oldest, self._skip_rows + at.rows, self._skip_boundaries + at.boundaries)

    def back_to(self, at: Offset) -> None:
        """Restore the upstream, wherever it stands, so that `read` gives what follows `at`. Only where nothing is
        held."""
        address = self.noted(at)
        self._upstream.restore(address.cursor)
        self._skip_rows, self._skip_boundaries = address.rows, address.boundaries
        self.tail = at
        while self._cursors and self._cursors[-1][0] > at:
            self._cursors.pop()

    def restore(self, address: Address) -> None:
        """Go to where an address leads; what was held is forgotten."""
        self._upstream.restore(address.cursor)
        self._start(address.rows, address.boundaries)
