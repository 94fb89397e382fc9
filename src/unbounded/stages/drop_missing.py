"""DropMissing: leaves out rows with a missing value, and counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unbounded.core import trees
from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.trees import Tree
from unbounded.stages.missing import Mask, missing_rows
from unbounded.stages.named_columns import check_name, column_of
from unbounded.stages.stage import Stage, Through


@dataclass(frozen=True)
class DropMissing(Stage):
    """See `Stream.drop_missing`."""

    columns: Any = None
    word = "drop_missing"

    def __post_init__(self) -> None:
        columns = self.columns
        if columns is not None:
            names = tuple(columns) if isinstance(columns, (list, tuple)) else (columns,)
            if not names:
                raise ValueError(
                    "drop_missing([]) names no column. Expected at least one name; None looks at all columns."
                )
            for name in names:
                check_name(name, "drop_missing(columns)")
            columns = names
        object.__setattr__(self, "columns", columns)

    def arguments(self) -> dict[str, Any]:
        if self.columns is None:
            return {}
        return {"": repr(self.columns[0] if len(self.columns) == 1 else list(self.columns))}

    def rows_per_pass(self, rows: int | None) -> int | None:
        return None

    def open(self, upstream: Node, context: Context) -> Node:
        return _DropMissingNode(upstream, self.columns or ())


class _DropMissingNode(Through):
    def __init__(self, upstream: Node, columns: tuple[str, ...]) -> None:
        super().__init__(upstream)
        self._columns = columns
        self._left_out = 0

    def apply(self, block: Block | Run) -> Block | None:
        assert isinstance(block, Block)
        bad = self._bad(block.rows)
        if bad is None:
            return block
        out = block.only(~bad)
        self._left_out += int(bad.sum())
        return out

    def _bad(self, rows: Tree) -> Mask | None:
        named = [column_of(rows, name, f"drop_missing({name!r})") for name in self._columns]
        bad: Mask | None = None
        for leaf in named or trees.arrays(rows):
            found = missing_rows(leaf)
            if found is not None:
                bad = found if bad is None else bad | found
        return bad

    def own(self) -> Mapping[str, Any]:
        return {"left_out": self._left_out}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._left_out = own["left_out"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "left_out": counts.get("left_out", 0) + self._left_out}
