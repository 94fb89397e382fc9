"""A source as a part of a stream: what is known of it beforehand, and which node it is put to work in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from unbounded.core.block import Block, Run
from unbounded.core.identity import name_of
from unbounded.core.node import CannotTell, Context, Cursor, Node, Over, SourceNode
from unbounded.core.runtime import Runtime
from unbounded.core.turn import Turn
from unbounded.sources.as_block import AsBlock
from unbounded.sources.inline import Inline
from unbounded.sources.log_options import LogOptions
from unbounded.sources.logged import Logged
from unbounded.sources.reader import JSON, Source
from unbounded.sources.replayed import Replayed

Guarantee: TypeAlias = Literal["exact", "at_least_once", "at_most_once"]


@dataclass(frozen=True)
class SourcePart:
    """A source at the beginning of a stream.

    Args:
        source: what keeps the public protocol.
        log: a description of its row log, which it has then though it can seek; None for what is usual.
    """

    source: Source
    log: LogOptions | None = None

    @property
    def word(self) -> str:
        """What the user wrote."""
        return getattr(self.source, "word", "from_source")

    @property
    def name(self) -> str:
        """What it is called in messages, such as `sensor()`."""
        fn = getattr(self.source, "fn", None)
        if fn is not None:
            return f"{name_of(fn)}()"
        return f"{self.word}()" if hasattr(self.source, "word") else type(self.source).__name__

    @property
    def is_logged(self) -> bool:
        """Whether rows are kept in the row log, from the oldest that a checkpoint needs."""
        return self.log is not None or not self.source.replayable

    @property
    def guarantee(self) -> Guarantee:
        """What is promised of each row at the door: before it is in the row log, where there is one."""
        if self.source.replayable:
            return "exact"
        return "at_least_once" if getattr(self.source, "redelivers", False) else "at_most_once"

    @property
    def promise(self) -> str:
        """The guarantee in words: at the door, and from the row log on."""
        words = self.guarantee.replace("_", " ")
        return f"{words} at the door, exact from the row log on" if self.is_logged else words

    @property
    def passes(self) -> int | None:
        """How many passes come before a declared end; None where that is not said."""
        return getattr(self.source, "passes", None)

    def identity(self) -> JSON:
        """What tells it from another source, as plain data for the fingerprint."""
        return self.source.identity()

    @cached_property
    def first_identity(self) -> JSON:
        """What `identity` gave when it was first asked for: what functions hold may change once they run."""
        return self.identity()

    def arguments(self) -> dict[str, Any]:
        """What it was given, as the stream's repr shows it."""
        arguments = getattr(self.source, "arguments", None)
        return arguments() if arguments is not None else {"": type(self.source).__name__}

    def rows_per_pass(self) -> int | None:
        """How many rows a pass has; None where there are no passes."""
        count = getattr(self.source, "rows_per_pass", None)
        return None if count is None else count()

    @property
    def repeats(self) -> bool:
        """Whether the same rows come in each pass, so that whole passes without a batch will not give one later."""
        return self.rows_per_pass() is not None

    def numbered(self) -> SourcePart:
        """The same source over its rows' numbers in place of the rows."""
        numbered = getattr(self.source, "numbered", None)
        if numbered is None:
            raise CannotTell(f"{self.word}() does not know its rows beforehand")
        return SourcePart(numbered())

    def cursor_at(self, ordinal: int) -> Cursor:
        """The cursor before row `ordinal`."""
        position_at = getattr(self.source, "position_at", None)
        if position_at is None or (self.is_logged and not hasattr(self.source, "fn")):
            raise CannotTell(f"{self.word}() can't go to a row without running up to it")
        position = position_at(ordinal)
        return {"row": ordinal} if position == ordinal else {"position": position, "row": ordinal}

    def ordinal_of(self, row: int, after: int) -> int:
        """The ordinal, at least `after`, at which row `row` comes next."""
        row_after = getattr(self.source, "row_after", None)
        if row_after is None:
            raise CannotTell(f"{self.word}() does not know its rows beforehand")
        found: int = row_after(row, after)
        return found

    def open(self, context: Context) -> SourceNode:
        """Put it to work."""
        if getattr(self.source, "any_thread", False) and self.log is None:
            return Inline(self.source, context)
        if self.is_logged:
            return Logged(self.source, context, AsBlock(self.name, context.runtime), self.log or LogOptions())
        return Replayed(self.source, context, self.name)


class Turns(Over):
    """Stands after each source, and gives None when it is time: see `Turn`."""

    def __init__(self, source: Node, runtime: Runtime) -> None:
        super().__init__(source)
        self._turn = Turn(runtime)

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The source's, when it is its turn."""
        return None if self._turn.is_due() else self._upstream.pull(timeout)
