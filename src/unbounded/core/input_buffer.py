"""InputBuffer: the rows of one input that a stage holds back, and the cursors from which to read them again.

The address of a row is a cursor of the input from before that row, and the number of rows to skip from there. A cursor
is taken before each pull. Some 64 of them are kept, spread over the rows held: reading again costs little more than
the rows held, however old the stream is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

from unbounded.core.block import Block, Offset, Run
from unbounded.core.block import join as join_blocks
from unbounded.core.cursor import Cursor, compose, input_cursors, own_part
from unbounded.core.node import EndOfStream, Node, rows_are_gone

LIMIT = 64


class Address(NamedTuple):
    """Where to read an input again: a cursor of the input, then the rows to skip, then the boundaries to skip after the
    last of these rows."""

    cursor: Cursor
    rows: int = 0
    boundaries: int = 0


def compose_held(addresses: Sequence[Address], own: Mapping[str, Any]) -> Cursor:
    """The cursor of a stage that holds rows back: an address for each input, and the stage's own part."""
    skip = [list(address[1:]) for address in addresses]
    # "skip" is left out if nothing is to be skipped, which is the common case: it keeps cursors small.
    return compose([address.cursor for address in addresses], {"skip": skip, **own} if any(map(any, skip)) else own)


def addresses(cursor: Cursor) -> list[Address]:
    """The addresses of the inputs in a cursor from `compose_held`."""
    inputs = input_cursors(cursor)
    skip = own_part(cursor).get("skip") or [(0, 0)] * len(inputs)
    return [Address(each, *skipped) for each, skipped in zip(inputs, skip, strict=True)]


B = TypeVar("B", Block, Run)


class InputBuffer(Generic[B]):
    """A first-in-first-out buffer of the blocks that were pulled from `upstream` and are still needed.

    `head` is the offset of the first row held, `tail` the offset after the last row pulled. Offsets count from where
    this object began or was restored.
    """

    def __init__(self, upstream: Node) -> None:
        self._upstream = upstream
        self._start(0, 0)

    def _start(self, skip_rows: int, skip_boundaries: int) -> None:
        self.blocks: deque[B] = deque()
        self.count = 0
        self.run = 0  # rows held before the first boundary
        self.closed = False  # True once a boundary is held: `run` is final
        self.head = self.tail = Offset(0)
        # Counted in rows, not blocks: block edges may differ when rows are read again.
        self._skip_rows = skip_rows
        self._skip_boundaries = skip_boundaries
        self._oldest: Cursor = self._upstream.cursor()
        self._cursors: deque[tuple[Offset, Address]] = deque()
        self._spacing = 0

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, timeout: float | None) -> B | None:
        """The next block from upstream after the rows to skip, without holding it; `pull` holds it."""
        while True:
            # Take the cursor before the pull: one taken after it would skip this block on a restore.
            if not self._cursors or self.tail.rows - self._cursors[-1][0].rows >= self._spacing:
                self._note(Address(self._upstream.cursor(), self._skip_rows, self._skip_boundaries))
            try:
                block = cast("B | None", self._upstream.pull(timeout))
            except EndOfStream:
                if not self._skip_rows:
                    raise
                raise rows_are_gone() from None
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
        """The rest of a block after removing the rows and boundaries to skip; None if nothing is left."""
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
            block = block.part(over, block.count)  # no rows, only the boundary
        if block.count == 0 and block.boundary and self._skip_boundaries:
            self._skip_boundaries -= 1
            return None
        # Rows came before the boundary to skip, so there was no such boundary this time.
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
        """Read the next block and hold it; return False if there is none yet."""
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
        """The first `rows` rows as one block, up to the first boundary; the boundary is included if the last row before
        it is."""
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
        """Remove what `peek(rows)` returns."""
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
        """`peek`, then `drop`."""
        out = self.peek(rows)
        self.drop(out.count)
        return out

    # -- cursors ---------------------------------------------------------------------------------------------------

    def keep(self, at: Offset) -> None:
        """Forget the cursors that only rows before `at` need."""
        while len(self._cursors) > 1 and self._cursors[1][0] <= at:
            self._cursors.popleft()
        if self._spacing and len(self._cursors) < LIMIT // 4:
            self._spacing = (self.tail.rows - at.rows) // (LIMIT // 2)

    def address(self, at: Offset) -> Address:
        """The address from which the next row read is the one at `at`."""
        if at == self.tail and not (self._skip_rows or self._skip_boundaries):
            address = Address(self._upstream.cursor())
            # Noted here: the caller may release up to this address, and `noted` must not return an older one later.
            self._note(address)
            return address
        return self.noted(at)

    def noted(self, at: Offset) -> Address:
        """The same, from the cursors noted before pulls only: valid while another thread moves the upstream."""
        for point, address in reversed(self._cursors):
            if point <= at:
                rows, boundaries = address.rows + at.rows - point.rows, at.boundaries
                if at.rows == point.rows:
                    boundaries = address.boundaries + at.boundaries - point.boundaries
                return Address(address.cursor, rows, boundaries)
        # Nothing was pulled since the restore.
        return Address(self._oldest, self._skip_rows + at.rows, self._skip_boundaries + at.boundaries)

    def back_to(self, at: Offset) -> None:
        """Restore the upstream so that `read` continues at `at`. Requires that nothing is held."""
        address = self.noted(at)
        self._upstream.restore(address.cursor)
        self._skip_rows, self._skip_boundaries = address.rows, address.boundaries
        self.tail = at
        while self._cursors and self._cursors[-1][0] > at:
            self._cursors.pop()

    def restore(self, address: Address) -> None:
        """Continue at an address; what was held is dropped."""
        self._upstream.restore(address.cursor)
        self._start(address.rows, address.boundaries)
