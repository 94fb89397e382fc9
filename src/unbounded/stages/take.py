"""take: the first n rows, and then a declared end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unbounded import _check
from unbounded._block import Block, Run
from unbounded._node import CannotTell, Context, EndOfStream, Mark, Node
from unbounded.stages._base import Stage, Through


@dataclass(frozen=True)
class Take(Stage):
    """See `Stream.take`."""

    rows: int
    word = "take"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _check.positive(self.rows, "take(n)"))

    def open(self, upstream: Node, context: Context) -> Node:
        return _Take(upstream, self.rows)

    def mark_at(self, ordinal: int, upstream: Callable[[int], Mark], rows: int | None, place: int) -> Mark:
        if ordinal >= self.rows:
            raise CannotTell(f"take({self.rows:,}) ends before row {ordinal:,}")
        return {"from": upstream(ordinal), "given": ordinal}

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        if ordinal >= self.rows:
            raise CannotTell(f"take({self.rows:,}) ends before that row comes")
        return ordinal


class _Take(Through):
    def __init__(self, upstream: Node, rows: int) -> None:
        super().__init__(upstream)
        self._rows = rows
        self._given = 0

    def pull(self, timeout: float | None) -> Block | Run | None:
        if self._given == self._rows:
            raise EndOfStream
        return super().pull(timeout)

    def apply(self, block: Block | Run) -> Block | Run:
        out = block.part(0, self._rows - self._given)
        self._given += out.count
        return out

    def mark(self) -> Mark:
        return self._failed[1] if self._failed else {"from": self._upstream.mark(), "given": self._given}

    def restore(self, mark: Mark) -> None:
        super().restore(mark["from"])
        self._given = mark["given"]

    def release(self, mark: Mark) -> None:
        super().release(mark["from"])
