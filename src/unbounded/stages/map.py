"""Map, MapRows, Filter and Columns: stages whose output for a row depends on that row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core import check, ragged, trees
from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.prefetcher import Prefetcher
from unbounded.core.runtime import Runtime
from unbounded.core.trees import RowsError, Tree
from unbounded.stages.calls import Call, Caller
from unbounded.stages.stage import OneToOne, Stage, Through, name_of, plain


class _Apply(Through):
    """Calls a function with the rows of each block, or with each batch of a run."""

    def __init__(self, upstream: Node, fn: Callable[[Tree], Tree], what: str) -> None:
        super().__init__(upstream)
        self._call = Caller(fn, what)

    def apply(self, block: Block | Run) -> Block | Run | None:
        changed: Block | Run = self._call(block)
        return changed


@dataclass(frozen=True)
class Map(OneToOne):
    """See `Stream.map`."""

    fn: Callable[[Tree], Tree]
    workers: int = 0
    word = "map"
    after_batch = True

    def __post_init__(self) -> None:
        check.function(self.fn, "map(fn)", "rows")
        object.__setattr__(self, "workers", check.at_least(0, self.workers, "map(workers=n)"))

    def identity(self) -> dict[str, Any]:
        return {"fn": plain(self.fn)}

    def open(self, upstream: Node, context: Context) -> Node:
        what = f"map({name_of(self.fn)})"
        if self.workers:
            return Workers(upstream, context.runtime, Caller(self.fn, what), self.workers)
        return _Apply(upstream, self.fn, what)


class Workers(Prefetcher):
    """The node of `map(fn, workers=n)`: n threads call the function; the order of blocks is kept."""

    def __init__(self, upstream: Node, runtime: Runtime, fn: Callable[[Any], Any], workers: int) -> None:
        super().__init__(upstream, runtime, work=fn, threads=workers)


@dataclass(frozen=True)
class MapRows(OneToOne):
    """See `Stream.map_rows`."""

    fn: Callable[[Tree], Tree]
    word = "map_rows"

    def __post_init__(self) -> None:
        check.function(self.fn, "map_rows(fn)", "row")

    def open(self, upstream: Node, context: Context) -> Node:
        def each(rows: Tree) -> Tree:
            kept = ragged.names_of(rows)
            made = [
                _row_of(self.fn(trees.map_leaves(lambda leaf, i=i: leaf[i], rows)), kept)
                for i in range(trees.count(rows))
            ]
            for i, row in enumerate(made[1:], 1):
                _check_same_row(made[0], row, f"map_rows({name_of(self.fn)})", i)
            return trees.map_leaves(lambda *same: np.concatenate(same), *made)

        return _Apply(upstream, each, f"map_rows({name_of(self.fn)})")


def _row_of(made: Tree, kept: frozenset[Any]) -> Tree:
    """A function's result for one row as arrays of one row, copied: the function may reuse its memory. The columns
    `kept` are ragged, and stay so."""
    made = ragged.box_columns(made, kept)
    return trees.map_leaves(lambda leaf: np.array(leaf)[None], made)


def _check_same_row(first: Tree, row: Tree, what: str, number: int) -> None:
    """Raise RowsError if a row's structure or shapes differ from those of the first row."""
    was, now = ({path: leaf.shape[1:] for path, leaf in trees.leaves(one)} for one in (first, row))
    if was == now:
        return
    path = next(path for path in [*was, *now] if was.get(path) != now.get(path))
    shapes = [f"of shape {one[path]}" if path in one else "not there" for one in (was, now)]
    raise RowsError(
        f"{what} returned rows of two kinds: {trees.name(path)} is {shapes[0]} in the first row of a block and "
        f"{shapes[1]} in row {number:,}. Expected the same structure and shapes for each row."
    )


@dataclass(frozen=True)
class Filter(Stage):
    """See `Stream.filter`."""

    fn: Callable[[Tree], Any]
    word = "filter"

    def __post_init__(self) -> None:
        check.function(self.fn, "filter(fn)", "rows")

    def rows_per_pass(self, rows: int | None) -> int | None:
        return None

    def open(self, upstream: Node, context: Context) -> Node:
        return _FilterNode(upstream, self.fn)


class _FilterNode(Through):
    def __init__(self, upstream: Node, fn: Callable[[Tree], Any]) -> None:
        super().__init__(upstream)
        self._fn = fn
        self._call = Call()

    def apply(self, block: Block | Run) -> Block | None:
        assert isinstance(block, Block)
        mask = np.asarray(self._call(self._fn, block.rows))
        if mask.shape != (block.count,) or mask.dtype != bool:
            raise RowsError(
                f"filter({name_of(self._fn)}) returned {mask.dtype} of shape {mask.shape} for {block.count:,} rows. "
                f"Expected bool of shape ({block.count},): True for each row to keep."
            )
        return block if mask.all() else block.only(mask)


@dataclass(frozen=True)
class Columns(OneToOne):
    """See `Stream.columns`."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    word = "columns"

    def __post_init__(self) -> None:
        if self.x is None:
            raise ValueError("columns() was given no x. Expected the name of a column, or a list or dict of names.")
        for given, wanted in (("x", self.x), ("y", self.y), ("sample_weight", self.sample_weight)):
            if wanted is not None:
                _check_names(wanted, given)
        if self.y is None and self.sample_weight is not None:
            raise ValueError(
                "columns(sample_weight=…) was given without y. Expected columns(x=…, y=…, sample_weight=…)."
            )

    def open(self, upstream: Node, context: Context) -> Node:
        return _ColumnsNode(upstream, self._pick)

    def _pick(self, rows: Tree) -> Tree:
        if not isinstance(rows, dict):
            raise RowsError(
                f"columns() was given rows that are a {type(rows).__name__}. Expected a dict of columns: it names "
                "them. Use .map(lambda rows: …) to pick parts of other rows."
            )
        return self._arranged([_column(rows, wanted) for wanted in self._wanted])

    @property
    def _wanted(self) -> list[Any]:
        return [wanted for wanted in (self.x, self.y, self.sample_weight) if wanted is not None]

    @staticmethod
    def _arranged(parts: list[Any]) -> Tree:
        # A list alone in a tuple: `fit` would take a bare list for a tuple of x, y and weights.
        return parts[0] if len(parts) == 1 and not isinstance(parts[0], list) else tuple(parts)

    def column_at(self, path: str) -> Any:
        """The name of the column that comes out as the leaf at `path`; None if none does."""
        return dict(trees.leaves(self._arranged(self._wanted))).get(path)


class _ColumnsNode(Through):
    def __init__(self, upstream: Node, pick: Callable[[Tree], Tree]) -> None:
        super().__init__(upstream)
        self._pick = pick

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        return block.with_rows(self._pick(block.rows))


def _check_names(wanted: Any, given: str) -> None:
    """Raise TypeError unless `wanted` is a name, or a list or dict of names."""
    parts = wanted.values() if isinstance(wanted, Mapping) else wanted
    if isinstance(wanted, (Mapping, list, tuple)) and len(wanted):
        for part in parts:
            _check_names(part, given)
    elif not isinstance(wanted, (str, int)) or isinstance(wanted, bool):
        raise TypeError(
            f"columns({given}=…) was given {wanted!r}. Expected the name of a column, or a list or dict of names."
        )


def _column(rows: Mapping[Any, Tree], wanted: Any) -> Tree:
    if isinstance(wanted, Mapping):
        return {name: _column(rows, inner) for name, inner in wanted.items()}
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return [_column(rows, inner) for inner in wanted]
    if wanted not in rows:
        raise RowsError(f"columns() was asked for column {wanted!r}, and the rows have {', '.join(map(repr, rows))}.")
    return rows[wanted]
