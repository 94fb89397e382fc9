"""SourcePart: a source as the first part of a stream, with the properties that the stream needs and its choice of
node."""

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
        source: an object with the public protocol.
        log: the options of its row log; None for the default, which is a row log for sources that can't seek.
    """

    source: Source
    log: LogOptions | None = None

    @property
    def word(self) -> str:
        """The constructor that the user called."""
        return getattr(self.source, "word", "from_source")

    @property
    def name(self) -> str:
        """The source's name in messages, such as `sensor()`."""
        if hasattr(self.source, "word") and hasattr(self.source, "title"):
            return str(self.source.title)
        fn = getattr(self.source, "fn", None)
        if fn is not None:
            return f"{name_of(fn)}()"
        return f"{self.word}()" if hasattr(self.source, "word") else type(self.source).__name__

    @property
    def is_logged(self) -> bool:
        """True if rows are kept in the row log, from the oldest that a checkpoint needs."""
        return self.log is not None or not self.source.replayable

    @property
    def guarantee(self) -> Guarantee:
        """What is promised of each row at the door: before it is in the row log, where there is one."""
        if self.log is not None and self.log.drops:
            return "at_most_once"
        if self.source.replayable:
            return "exact"
        return "at_least_once" if getattr(self.source, "redelivers", False) else "at_most_once"

    @property
    def promise(self) -> str:
        """The guarantee in words: at the source, and from the row log on."""
        words = self.guarantee.replace("_", " ")
        words = f"{words} at the source, exact from the row log on" if self.is_logged else words
        caveat = "" if self.is_logged else getattr(self.source, "caveat", "")
        return f"{words} {caveat}" if caveat else words

    @property
    def passes(self) -> int | None:
        """The number of passes before a declared end; None if there is none."""
        return getattr(self.source, "passes", None)

    def identity(self) -> JSON:
        """The source's identity as plain data, for the fingerprint."""
        return self.source.identity()

    @cached_property
    def first_identity(self) -> JSON:
        """The first result of `identity`: values that functions read may change once they run."""
        return self.identity()

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        arguments = getattr(self.source, "arguments", None)
        return arguments() if arguments is not None else {"": type(self.source).__name__}

    def rows_per_pass(self) -> int | None:
        """The number of rows in a pass; None if there are no passes."""
        count = getattr(self.source, "rows_per_pass", None)
        return None if count is None else count()

    @property
    def repeats(self) -> bool:
        """True if each pass has the same rows: a pass without a batch then means that there will never be one."""
        return self.rows_per_pass() is not None or getattr(self.source, "has_passes", False)

    @property
    def has_passes(self) -> bool:
        """True if rows come in passes, of a known number of rows or not."""
        return self.repeats or self.passes is not None

    def numbered(self) -> SourcePart:
        """The same source with the rows' numbers in place of the rows."""
        numbered = getattr(self.source, "numbered", None)
        if numbered is None:
            raise CannotTell(f"{self.word}() does not know its rows beforehand")
        return SourcePart(numbered())

    def cursor_at(self, ordinal: int) -> Cursor:
        """The cursor before the row with this ordinal."""
        position_at = getattr(self.source, "position_at", None)
        if position_at is None or (self.is_logged and not hasattr(self.source, "fn")):
            raise CannotTell(f"{self.word}() can't go to a row without running up to it")
        position = position_at(ordinal)
        return {"row": ordinal} if position == ordinal else {"position": position, "row": ordinal}

    def ordinal_of(self, row: int, after: int) -> int:
        """The first ordinal, at least `after`, at which row `row` comes."""
        row_after = getattr(self.source, "row_after", None)
        if row_after is None:
            raise CannotTell(f"{self.word}() does not know its rows beforehand")
        found: int = row_after(row, after)
        return found

    def open(self, context: Context) -> SourceNode:
        """Open the source as a node."""
        if getattr(self.source, "any_thread", False) and self.log is None:
            return Inline(self.source, context)
        if self.is_logged:
            return Logged(self.source, context, AsBlock(self.name, context.runtime), self.log or LogOptions())
        return Replayed(self.source, context, self.name)


class Turns(Over):
    """A node after each source that returns None when a turn is due (see `Turn`)."""

    def __init__(self, source: Node, runtime: Runtime) -> None:
        super().__init__(source)
        self._turn = Turn(runtime)

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The source's next block, or None if a turn is due."""
        return None if self._turn.is_due() else self._upstream.pull(timeout)
