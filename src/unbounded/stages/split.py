"""Split: one of the two parts of a stream that is split by a hash of each row, or of its key.

Which part a row belongs to depends on its values alone, not on its place: it is the same in each pass, in each order,
and in each process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.trees import RowsError, Tree, columns
from unbounded.stages.row_hash import fractions, row_hashes
from unbounded.stages.stage import Stage, Through

Part: TypeAlias = Literal["first", "rest"]


@dataclass(frozen=True)
class Split(Stage):
    """See `Stream.split`; `part` tells which of the two streams it is, and `number` counts the splits before it: with
    equal keys, a second split of the first one's rest would give all or nothing."""

    share: float
    part: Part
    by: tuple[str, ...] | None = None
    seed: int = 0
    number: int = 0
    word: ClassVar[str] = "split"

    def arguments(self) -> dict[str, Any]:
        return {name: value for name, value in super().arguments().items() if name != "number"}

    def rows_per_pass(self, rows: int | None) -> int | None:
        return None

    def open(self, upstream: Node, context: Context) -> Node:
        return _SplitNode(upstream, self)

    def key(self, rows: Tree) -> Tree:
        """The columns that decide; all of them without `by`."""
        if self.by is None:
            return rows
        missing = [name for name in self.by if not isinstance(rows, dict) or name not in rows]
        if missing:
            raise RowsError(
                f"split(by={missing[0]!r}) was given rows without that column. Expected a dict of columns with it; "
                f"the rows have {columns(rows)}."
            )
        return {name: rows[name] for name in self.by}


class _SplitNode(Through):
    def __init__(self, upstream: Node, split: Split) -> None:
        super().__init__(upstream)
        self._split = split

    def apply(self, block: Block | Run) -> Block | None:
        assert isinstance(block, Block)
        split = self._split
        hashes = row_hashes(split.key(block.rows), "split()")
        is_first = fractions(hashes, split.seed, split.number) < split.share
        mask = is_first if split.part == "first" else ~is_first
        return block if mask.all() else block.only(mask)
