"""Stage: the description of a step of a stream, and the node classes that stages share.

A stage is a frozen dataclass that opens a node. A node that makes an output block of each input block is a `Through`,
and only implements that. One that holds rows back is a `Holding`, over an `InputBuffer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

from unbounded.core.block import Block, Offset, Run
from unbounded.core.cursor import own_part
from unbounded.core.identity import identity_of, name_of
from unbounded.core.input_buffer import InputBuffer, addresses, compose_held
from unbounded.core.node import CannotTell, Context, Cursor, Node, Over

__all__ = ["WEAKEST_FIRST", "Guarantee", "Holding", "OneToOne", "Stage", "Through", "name_of", "plain"]

Guarantee: TypeAlias = Literal["exact", "at_least_once", "at_most_once"]
WEAKEST_FIRST: tuple[Guarantee, ...] = ("at_most_once", "at_least_once", "exact")


@dataclass(frozen=True)
class Stage(ABC):
    """One step of a stream: an immutable description."""

    word: ClassVar[str]
    """The user's word for it."""
    moves_rows: ClassVar[bool] = True
    """True if the stage changes the order or number of rows; such stages are part of the fingerprint."""
    after_batch: ClassVar[bool] = False
    """True if it may follow `batch`."""
    ends_with_pass: ClassVar[bool] = False
    """True if the end of a pass closes what it holds, so that rows are counted from the beginning of their pass."""
    has_place: ClassVar[bool] = True
    """True if it counts in the numbering of stages, which keys the random choices of later stages."""

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee for each row, provided that the input is exact."""
        return "exact"

    @property
    def promise(self) -> str:
        """The guarantee in words."""
        return self.guarantee.replace("_", " ")

    @abstractmethod
    def open(self, upstream: Node, context: Context) -> Node:
        """Open the stage as a node."""

    def arguments(self) -> dict[str, Any]:
        """The arguments that differ from their defaults, for the stream's repr."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def identity(self) -> dict[str, Any]:
        """Plain data for the fingerprint: all that decides which rows come where. Functions count by their code and the
        constants that they read; numbers of workers and depths of queues do not count."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @cached_property
    def first_identity(self) -> dict[str, Any]:
        """The first result of `identity`: values that functions read may change once they run."""
        return self.identity()

    def rows_per_pass(self, rows: int | None) -> int | None:
        """The number of output rows for the rows of one pass; None if it is not known beforehand."""
        return rows

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        """The cursor before output row `ordinal`; `upstream` returns that of the stage before, `rows` is the number of
        rows in a pass."""
        raise CannotTell(f"what comes out of {self.word}() at a given step depends on all rows before it")

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        """The output row that is input row `ordinal`."""
        raise CannotTell(f"where a row comes out of {self.word}() depends on all rows before it")


@dataclass(frozen=True)
class OneToOne(Stage):
    """A stage with one output row for each input row, in order."""

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        """The upstream's own."""
        return upstream(ordinal)

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        """The same."""
        return ordinal


def plain(value: Any) -> Any:
    """`value` as plain data: functions by their identity."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if callable(value):
        return identity_of(value)
    return value


class Through(Over):
    """A node that makes each output block of one input block, and holds nothing back."""

    def __init__(self, upstream: Node) -> None:
        super().__init__(upstream)
        # The block whose function raised, with the cursor before it: the next pull retries.
        self._failed: tuple[Block | Run, Cursor] | None = None

    def apply(self, block: Block | Run) -> Block | Run | None:
        """The output for a block; None if nothing is left of it."""
        raise NotImplementedError

    def apply_boundary(self, block: Block | Run) -> Block | Run | None:
        """The output for a block without rows, which carries a boundary."""
        return block

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next block, after `apply`."""
        while True:
            if self._failed is None:
                before = self.cursor()
                block = self._upstream.pull(timeout)
                if block is None:
                    return None
            else:
                block, before = self._failed
            # Set before the call, so that the cursor stays before this block if the call raises.
            self._failed = (block, before)
            out = self.apply(block) if block.count else self.apply_boundary(block)
            self._failed = None
            if out is not None:
                return out

    def cursor(self) -> Cursor:
        """The cursor after the last block returned, or before the block whose function raised."""
        return super().cursor() if self._failed is None else self._failed[1]

    def restore(self, cursor: Cursor) -> None:
        """Restore the upstream."""
        self._failed = None
        super().restore(cursor)


class Holding(Over):
    """A node that holds rows of its input back in an `InputBuffer`: its cursor is the address from which to read them
    again, and its own part."""

    _held: InputBuffer[Block]

    def needed(self) -> Offset:
        """The offset in the input buffer from which a restored node must read again."""
        return self._held.head

    def own(self) -> Mapping[str, Any]:
        """The node's own part of its cursor, apart from rows."""
        return {}

    def cursor(self) -> Cursor:
        return compose_held([self._held.address(self.needed())], self.own())

    def restore(self, cursor: Cursor) -> None:
        self.take_up(own_part(cursor))
        self._held.restore(*addresses(cursor))
