"""Take: the first n rows, followed by a declared end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from unbounded.core import check
from unbounded.core.block import Block, Run
from unbounded.core.cursor import compose
from unbounded.core.node import CannotTell, Context, Cursor, EndOfStream, Node
from unbounded.stages.stage import Stage, Through


@dataclass(frozen=True)
class Take(Stage):
    """See `Stream.take`."""

    rows: int
    word = "take"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", check.positive(self.rows, "take(n)"))

    def open(self, upstream: Node, context: Context) -> Node:
        return _TakeNode(upstream, self.rows)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        if ordinal >= self.rows:
            raise CannotTell(f"take({self.rows:,}) ends before row {ordinal:,}")
        return compose([upstream(ordinal)], {"given": ordinal})

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        if ordinal >= self.rows:
            raise CannotTell(f"take({self.rows:,}) ends before that row comes")
        return ordinal


class _TakeNode(Through):
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

    def own(self) -> Mapping[str, Any]:
        return {"given": self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._given = own["given"]
