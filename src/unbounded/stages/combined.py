"""Combined: what takes the place of a source where a stream has several inputs: a mix or a join, described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

from unbounded.core.cursor import Cursor
from unbounded.core.node import CannotTell, Context, Node
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee


class CombinedNode(Node, Protocol):
    """It at work."""

    waits_for: str | None
    """The input for which it waits."""


class Combined(ABC):
    """Several streams made one. It is described by a frozen dataclass, and opens a node over those of its inputs."""

    word: ClassVar[str]
    """What the user writes for it."""
    makes_new_rows: ClassVar[bool] = False
    """Whether what comes out of it, and not what its inputs have, are the rows that can be tested before training."""
    branches: Mapping[str, Any]
    """The streams, by their names."""

    @property
    def guarantee(self) -> Guarantee:
        """The weakest of its inputs'."""
        return min((branch.guarantee for branch in self.branches.values()), key=WEAKEST_FIRST.index)

    @property
    def promise(self) -> str:
        """The guarantee in words."""
        return self.guarantee.replace("_", " ")

    @property
    @abstractmethod
    def has_end(self) -> bool:
        """Whether it has a declared end."""

    @property
    @abstractmethod
    def shares(self) -> dict[str, float]:
        """The greatest share that each input ever has of the rows."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What it was given, as the stream's repr shows it."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The same without the streams."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What moves rows, as plain data for the fingerprint."""

    @cached_property
    def first_identity(self) -> dict[str, Any]:
        """What `identity` gave when it was first asked for: what functions hold may change once they run."""
        return self.identity()

    @abstractmethod
    def open(self, inputs: Sequence[Node], leaves: Sequence[int], context: Context) -> CombinedNode:
        """Put it to work over the nodes of its inputs, which have so many sources each."""

    # -- where rows come: as far as that can be said without running up to them ----------------------------------------

    def taken(self, ordinal: int, place: int) -> list[int]:
        """How many rows of each input come before output row `ordinal`."""
        raise self._cannot_tell()

    def ordinal_of(self, index: int, row: int, place: int) -> int:
        """The output row that row number `row` of an input is, where no input ends before."""
        raise self._cannot_tell()

    def cursor_at(self, ordinal: int, inputs: Sequence[Callable[[int], Cursor]], place: int) -> Cursor:
        """The cursor before output row `ordinal`; `inputs` give those of the inputs."""
        raise self._cannot_tell()

    def declared_rows(self, rows: Sequence[int | None], place: int) -> int | None:
        """How many rows come before the declared end, where that can be said; `rows` are those of the inputs."""
        return None

    def numbered(self) -> Combined:
        """The same over the numbers of its sources' rows in place of the rows."""
        raise self._cannot_tell()

    def _cannot_tell(self) -> CannotTell:
        return CannotTell(f"which rows come out of {self.word}() at a given step depends on all rows before it")
