"""What the sources share: how one is described. At work, a source is a `Node` like any other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

from unbounded.core import trees
from unbounded.core.block import Block, Run
from unbounded.core.node import CannotTell, Context, Cursor, Node, Over
from unbounded.core.runtime import Runtime
from unbounded.core.turn import Turn


@dataclass(frozen=True)
class Source(ABC):
    """Where rows come from, described; nothing runs yet."""

    word: ClassVar[str]

    @property
    @abstractmethod
    def guarantee(self) -> Literal["exact", "at_least_once", "at_most_once"]:
        """What it promises of each row."""

    @abstractmethod
    def open(self, context: Context) -> Node:
        """Put it to work."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells it from another source, as plain data for the fingerprint: never a host or a path."""

    @cached_property
    def first_identity(self) -> dict[str, Any]:
        """What `identity` gave when it was first asked for: what functions hold may change once they run."""
        return self.identity()

    def arguments(self) -> dict[str, Any]:
        """What it was given, as the stream's repr shows it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def rows_per_pass(self) -> int | None:
        """How many rows a pass has; None where there are no passes."""
        return None

    def cursor_at(self, ordinal: int) -> Cursor:
        """The cursor before row `ordinal`."""
        raise CannotTell(f"{self.word}() can't go to a row without running up to it")

    def ordinal_of(self, row: int, after: int) -> int:
        """The ordinal, at least `after`, at which row `row` comes next."""
        raise CannotTell(f"{self.word}() does not know its rows beforehand")


def block_rows(context: Context, row_bytes: int) -> int:
    """How many rows to hand out at once."""
    return context.block_rows or max(1, int(trees.block_rows(row_bytes, context.batch_rows) * context.share))


class Turns(Over):
    """Stands after each source, and gives None when it is time: see `Turn`."""

    def __init__(self, source: Node, runtime: Runtime) -> None:
        super().__init__(source)
        self._turn = Turn(runtime)

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The source's, when it is its turn."""
        return None if self._turn.is_due() else self._upstream.pull(timeout)
