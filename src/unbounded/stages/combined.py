"""Combined: the description of a mix or a join, which stands in place of a source in a stream of several inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

from unbounded.core.cursor import Cursor
from unbounded.core.node import CannotTell, Context, Node
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee
from unbounded.stages.tap import NewRows


class CombinedNode(Node, Protocol):
    """A running mix or join."""

    waits_for: str | None
    """The name of the input that it waits for."""

    @property
    def new_rows(self) -> NewRows | None:
        """Of one that makes new rows, those: it keeps them itself."""


class Combined(ABC):
    """Several streams combined to one: a frozen dataclass that opens a node over its inputs' nodes."""

    word: ClassVar[str]
    """The user's word for it."""
    makes_new_rows: ClassVar[bool] = False
    """True if new rows for testing are those that it returns; False if they are those of its inputs."""
    branches: Mapping[str, Any]
    """The input streams by name."""

    @property
    def guarantee(self) -> Guarantee:
        """The weakest guarantee of its inputs."""
        return min((branch.guarantee for branch in self.branches.values()), key=WEAKEST_FIRST.index)

    @property
    def promise(self) -> str:
        """The guarantee in words."""
        return self.guarantee.replace("_", " ")

    @property
    @abstractmethod
    def has_end(self) -> bool:
        """True if it has a declared end."""

    @property
    @abstractmethod
    def shares(self) -> dict[str, float]:
        """The greatest share that each input ever has of the output rows."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The arguments without the input streams."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Plain data for the fingerprint: what decides which rows come where."""

    @cached_property
    def first_identity(self) -> dict[str, Any]:
        """The first result of `identity`: values that functions read may change once they run."""
        return self.identity()

    @abstractmethod
    def open(self, inputs: Sequence[Node], leaves: Sequence[int], context: Context) -> CombinedNode:
        """Open the node over its inputs' nodes; `leaves` are the numbers of sources of each."""

    # -- positions of rows, if they can be computed without running up to them
    # ------------------------------------------

    def taken(self, ordinal: int, place: int) -> list[int]:
        """The number of rows of each input before output row `ordinal`."""
        raise self._cannot_tell()

    def ordinal_of(self, index: int, row: int, place: int) -> int:
        """The output row that is row `row` of input `index`, provided that no input ends before."""
        raise self._cannot_tell()

    def cursor_at(self, ordinal: int, inputs: Sequence[Callable[[int], Cursor]], place: int) -> Cursor:
        """The cursor before output row `ordinal`; `inputs` return those of the inputs."""
        raise self._cannot_tell()

    def declared_rows(self, rows: Sequence[int | None], place: int) -> int | None:
        """The rows before the declared end, if known; `rows` are those of the inputs."""
        return None

    def numbered(self) -> Combined:
        """The same over the numbers of its sources' rows in place of the rows."""
        raise self._cannot_tell()

    def _cannot_tell(self) -> CannotTell:
        return CannotTell(f"which rows come out of {self.word}() at a given step depends on all rows before it")
