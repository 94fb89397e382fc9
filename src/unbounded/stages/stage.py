"""What the stages share: how one is described, and the node behind those that hold nothing back.

A stage is described by a frozen dataclass (`Stage`), which opens a node. A stage whose output follows block
by block from its input is a `Through`: it only says what becomes of a block. One that holds rows back is a
`Holding`, over an `InputBuffer`.
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
    """One step of a stream, described; nothing runs yet."""

    word: ClassVar[str]
    """What the user writes for it."""
    moves_rows: ClassVar[bool] = True
    """Whether it has a part in which rows come when: those that have are in the stream's fingerprint."""
    after_batch: ClassVar[bool] = False
    """Whether it may follow `batch`."""
    has_place: ClassVar[bool] = True
    """Whether it counts where stages are numbered, which keys the random choices of those after it."""

    @property
    def guarantee(self) -> Guarantee:
        """What it promises of each row, if what comes before promises `exact`."""
        return "exact"

    @property
    def promise(self) -> str:
        """The guarantee in words."""
        return self.guarantee.replace("_", " ")

    @abstractmethod
    def open(self, upstream: Node, context: Context) -> Node:
        """Put it to work."""

    def arguments(self) -> dict[str, Any]:
        """What it was given, as the stream's repr shows it: arguments at their defaults are left out."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def identity(self) -> dict[str, Any]:
        """What moves rows, as plain data for the fingerprint: functions by their code and the constants that they read,
        no workers, no depths."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    @cached_property
    def first_identity(self) -> dict[str, Any]:
        """What `identity` gave when it was first asked for: what functions hold may change once they run."""
        return self.identity()

    def rows_per_pass(self, rows: int | None) -> int | None:
        """How many rows come out for the rows of one pass; None where that can't be said beforehand."""
        return rows

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        """The cursor before output row `ordinal`; `upstream` gives that of the stage before, `rows` come in a
        pass."""
        raise CannotTell(f"what comes out of {self.word}() at a given step depends on all rows before it")

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        """The output row at which input row `ordinal` comes."""
        raise CannotTell(f"where a row comes out of {self.word}() depends on all rows before it")


@dataclass(frozen=True)
class OneToOne(Stage):
    """A stage that gives one row for each row, in order."""

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        """The upstream's own."""
        return upstream(ordinal)

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        """The same."""
        return ordinal


def plain(value: Any) -> Any:
    """`value` as plain data: a function is what `identity_of` says of it."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if callable(value):
        return identity_of(value)
    return value


class Through(Over):
    """A node whose output follows block by block from its input: nothing is held."""

    def __init__(self, upstream: Node) -> None:
        super().__init__(upstream)
        # A block whose function raised: it is tried again at the next pull, and the cursor stays before it.
        self._failed: tuple[Block | Run, Cursor] | None = None

    def apply(self, block: Block | Run) -> Block | Run | None:
        """What becomes of a block; None where nothing is left of it."""
        raise NotImplementedError

    def apply_boundary(self, block: Block | Run) -> Block | Run | None:
        """What becomes of a block without rows, which carries a boundary alone."""
        return block

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next block, changed."""
        while True:
            if self._failed is None:
                before = self.cursor()
                block = self._upstream.pull(timeout)
                if block is None:
                    return None
            else:
                block, before = self._failed
            # Set before the function is called, so that whatever it raises finds the cursor in its place.
            self._failed = (block, before)
            out = self.apply(block) if block.count else self.apply_boundary(block)
            self._failed = None
            if out is not None:
                return out

    def cursor(self) -> Cursor:
        """The point after the last block that was given on, or before the one whose function raised."""
        return super().cursor() if self._failed is None else self._failed[1]

    def restore(self, cursor: Cursor) -> None:
        """Restore the upstream."""
        self._failed = None
        super().restore(cursor)


class Holding(Over):
    """A node that holds rows of its input back, in an `InputBuffer`: its cursor is the address from which to read them
    again, and what `own` says."""

    _held: InputBuffer[Block]

    def needed(self) -> Offset:
        """The point in the input, as the buffer counts, from which a restored node must read again."""
        return self._held.head

    def own(self) -> Mapping[str, Any]:
        """What it keeps of its own, beside rows."""
        return {}

    def cursor(self) -> Cursor:
        return compose_held([self._held.address(self.needed())], self.own())

    def restore(self, cursor: Cursor) -> None:
        self.take_up(own_part(cursor))
        self._held.restore(*addresses(cursor))
