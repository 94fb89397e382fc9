"""Held: the one helper with which stages hold rows, skip them, and say from where to read them again.

A stage that holds rows back marks itself with the upstream's mark from before the oldest of them, and how
many rows to skip from there. Upstream marks are taken before each pull, and thinned out so that some 64 of
them cover whatever is held: reading again costs the rows held and a little more, however old the stream is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from unbounded import _block
from unbounded._block import At, Block, Run
from unbounded._node import Mark, Node

LIMIT = 64

B = TypeVar("B", Block, Run)


class Held(Generic[B]):
    """What was pulled from `upstream` and is still needed, first in, first out.

    `head` is the point before the first row held, `tail` the point after the last one pulled. Points count
    from where this helper began or was restored to.
    """

    def __init__(self, upstream: Node) -> None:
        self._upstream = upstream
        self._start({})

    def _start(self, skip: Mapping[str, Any]) -> None:
        self.blocks: deque[B] = deque()
        self.count = 0
        self.run = 0  # of the rows held, those before the first break
        self.closed = False  # a break is among what is held: `run` will not grow
        self.head = self.tail = At(0)
        # What is still to be read over: as many blocks as it takes, since they may be cut in another way this
        # time.
        self._skip_rows: int = skip.get("rows", 0)
        self._skip_breaks: int = skip.get("breaks", 0)
        self._oldest: Mark = self._upstream.mark()
        self._marks: deque[tuple[At, Mark, Mapping[str, int]]] = deque()
        self._spacing = 0

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, timeout: float | None) -> B | None:
        """The next block from upstream, past what is to be skipped. It is not held: that is `pull`."""
        while True:
            # Before the pull: a mark taken after it would lose the block.
            if not self._marks or self.tail.rows - self._marks[-1][0].rows >= self._spacing:
                skip = {"rows": self._skip_rows, "breaks": self._skip_breaks}
                self._note(self._upstream.mark(), skip)
            block = cast("B | None", self._upstream.pull(timeout))
            if block is None:
                return None
            if self._skip_rows or self._skip_breaks:
                rest = self._skipped(block)
                if rest is None:
                    continue
                block = rest
            self.tail = self.tail.after(block)
            return block

    def _skipped(self, block: B) -> B | None:
        """What is left of a block once the rows and breaks to skip are taken from its front; None where that
        is nothing."""
        if self._skip_rows:
            over = min(self._skip_rows, block.count)
            self._skip_rows -= over
            if over < block.count:
                self._skip_breaks = 0
                return block.part(over, block.count)
            if self._skip_rows:
                return None
            if not block.ends:
                return None
            block = block.part(over, block.count)  # no rows: the break alone
        if block.count == 0 and block.ends and self._skip_breaks:
            self._skip_breaks -= 1
            return None
        # Rows come before the break that was to be skipped: it was not there after all.
        self._skip_breaks = 0
        return block

    def _note(self, mark: Mark, skip: Mapping[str, int]) -> None:
        if self._marks and self._marks[-1][0] == self.tail:
            self._marks[-1] = (self.tail, mark, skip)
            return
        self._marks.append((self.tail, mark, skip))
        if len(self._marks) > LIMIT:
            first, *rest = self._marks
            self._marks = deque([first, *rest[1::2]])
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
            self.closed = block.ends is not None

    def peek(self, rows: int) -> B:
        """The first `rows` rows, at most those before the first break, joined; the break comes with the last
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
            if block.ends:
                break
        return _block.join(parts)  # type: ignore[arg-type, return-value]

    def drop(self, rows: int) -> None:
        """Let go of what `peek(rows)` gives."""
        need, breaks = rows, 0
        while self.blocks:
            block = self.blocks[0]
            if block.count > need:
                if need:
                    self.blocks[0] = block.part(need, block.count)
                break
            self.blocks.popleft()
            need -= block.count
            if block.ends:
                breaks = 1
                break
        self.count -= rows
        self.run -= rows
        self.head = At(self.head.rows + rows, breaks + (0 if rows else self.head.breaks))
        if breaks:
            self.run, self.closed = 0, False
            for block in self.blocks:
                self._extend_run(block)

    def pop(self, rows: int) -> B:
        """`peek` and `drop`."""
        out = self.peek(rows)
        self.drop(out.count)
        return out

    # -- marks ---------------------------------------------------------------------------------------------------

    def keep(self, at: At) -> None:
        """Nothing before `at` is needed any more: forget the marks that only it needed."""
        while len(self._marks) > 1 and self._marks[1][0] <= at:
            self._marks.popleft()
        if self._spacing and len(self._marks) < LIMIT // 4:
            self._spacing = (self.tail.rows - at.rows) // (LIMIT // 2)

    def address(self, at: At) -> dict[str, Any]:
        """From where to read again so that the next row is the one at `at`: plain data, part of a mark."""
        if at == self.tail and not (self._skip_rows or self._skip_breaks):
            mark = self._upstream.mark()
            # Noted, since the caller may release what lies before it: `noted` must not give an older mark then.
            self._note(mark, {"rows": 0, "breaks": 0})
            return {"from": mark, "rows": 0, "breaks": 0}
        return self.noted(at)

    def noted(self, at: At) -> dict[str, Any]:
        """The same by the marks that were noted before pulls, for when the upstream may stand anywhere."""
        for point, mark, skip in reversed(self._marks):
            if point <= at:
                rows, breaks = skip["rows"] + at.rows - point.rows, at.breaks
                if at.rows == point.rows:
                    breaks = skip["breaks"] + at.breaks - point.breaks
                return {"from": mark, "rows": rows, "breaks": breaks}
        # Restored, and not pulled since.
        return {
            "from": self._oldest,
            "rows": self._skip_rows + at.rows,
            "breaks": self._skip_breaks + at.breaks,
        }

    def back_to(self, at: At) -> None:
        """Restore the upstream, wherever it stands, so that `read` gives what follows `at`. Only where nothing is
        held."""
        address = self.noted(at)
        self._upstream.restore(address["from"])
        self._skip_rows, self._skip_breaks = address["rows"], address["breaks"]
        self.tail = at
        while self._marks and self._marks[-1][0] > at:
            self._marks.pop()

    def restore(self, address: Mapping[str, Any]) -> None:
        """Go to where an address leads; what was held is forgotten."""
        self._upstream.restore(address["from"])
        self._start(address)

    def release(self, address: Mapping[str, Any]) -> None:
        """Tell the upstream that nothing before an address will be asked for again."""
        self._upstream.release(address["from"])
