"""Pad: rows of several lengths become rows of one length; longer ones are cut and counted, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from unbounded.core import check, ragged, trees
from unbounded.core.block import Block, Run
from unbounded.core.cursor import compose
from unbounded.core.node import Context, Cursor, Node
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.stage import OneToOne, Through


@dataclass(frozen=True)
class Pad(OneToOne):
    """See `Stream.pad`."""

    length: int
    columns: Any = None
    value: Any = 0
    lengths: str | None = None
    truncate: bool = False
    word: ClassVar[str] = "pad"

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", check.positive(self.length, "pad(length)"))
        names = self.columns
        if names is not None:
            names = (names,) if isinstance(names, (str, int)) else tuple(names)
            if not names or not all(isinstance(name, (str, int)) for name in names):
                raise TypeError(f"pad(columns={self.columns!r}): expected the name of a column, or a list of names.")
        object.__setattr__(self, "columns", names)
        if self.lengths is not None and not isinstance(self.lengths, str):
            raise TypeError(f"pad(lengths={self.lengths!r}): expected the name of the new column.")
        check.yes_or_no(self.truncate, f"pad(truncate={self.truncate!r})", "True cuts rows that are longer.")

    def open(self, upstream: Node, context: Context) -> Node:
        return _PadNode(upstream, self)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        return compose([upstream(ordinal)], {"seen": ordinal, "cut": 0})

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "value": repr(self.value)}


class _PadNode(Through):
    """Counts input rows, for errors, and those that were cut, for the stats."""

    def __init__(self, upstream: Node, pad: Pad) -> None:
        super().__init__(upstream)
        self._pad = pad
        self._seen = self._cut = 0

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        rows, cut = padded_rows(block.rows, self._pad, self._seen)
        self._seen += block.count
        self._cut += cut
        return block.with_rows(rows)

    def own(self) -> Mapping[str, Any]:
        return {"seen": self._seen, "cut": self._cut}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._seen, self._cut = own["seen"], own["cut"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "cut": counts.get("cut", 0) + self._cut}


def padded_rows(rows: Tree, pad: Pad, first: int) -> tuple[Tree, int]:
    """Rows with padded columns, and how many of them were cut; `first` is the number of the first row, for errors.

    Raises:
        RowsError: see `Stream.pad`.
    """
    chosen = chosen_leaves(rows, pad.columns, "pad()")
    found: dict[str, tuple[Array, Array]] = {}
    for path, leaf in chosen.items():
        found[path] = _padded(leaf, pad, f"pad({pad.length}): {trees.name(path)}", first)
    cut = np.zeros(trees.count(rows), bool)
    for _, lengths in found.values():
        cut |= lengths > pad.length
    made = _with_leaves(rows, {path: array for path, (array, _) in found.items()})
    if pad.lengths is not None:
        _, lengths = next(iter(found.values()))
        made = with_lengths(made, pad.lengths, np.minimum(lengths, pad.length), len(found), "pad()")
    return made, int(cut.sum())


def _padded(leaf: Array, pad: Pad, what: str, first: int) -> tuple[Array, Array]:
    if not ragged.is_ragged(leaf) and leaf.ndim > 1:  # rows that have one length already
        leaf = ragged.column_of(list(leaf))
    try:
        array, lengths = ragged.padded(leaf, pad.length, pad.value)
    except ragged.NotRagged as error:
        raise RowsError(f"{what} {error}. Expected arrays that differ in their length alone.") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise RowsError(f"{what} can't be padded by value={pad.value!r}: {error}.") from None
    longer = np.flatnonzero(lengths > pad.length)
    if len(longer) and not pad.truncate:
        raise RowsError(
            f"{what} has {lengths[longer[0]]:,} values in row {first + int(longer[0]):,} of the stream. Expected at "
            f"most {pad.length:,}: write a larger length, or truncate=True, which cuts such rows and counts them."
        )
    return array, lengths


def chosen_leaves(rows: Tree, names: tuple[Any, ...] | None, what: str) -> dict[str, Array]:
    """The ragged leaves with these names, or all that are arrays, by their paths.

    Raises:
        RowsError: there is none; the message begins with `what`.
    """
    leaves = dict(trees.leaves(rows))
    if names is None:
        found = {p: leaf for p, leaf in leaves.items() if ragged.is_ragged(leaf) and type(leaf.flat[0]) is not bytes}
        if not found:
            raise RowsError(
                f"{what} was given rows without a column of several lengths; they have {trees.columns(rows)}. Name the "
                "columns to change, if their rows have one length already."
            )
        return found
    paths = {name: f"[{name!r}]" for name in names}
    for name, path in paths.items():
        if path not in leaves:
            raise RowsError(f"{what} was asked for column {name!r}, and the rows have {trees.columns(rows)}.")
        leaf = leaves[path]
        if not (ragged.is_ragged(leaf) and type(leaf.flat[0]) is not bytes) and leaf.ndim < 2:
            raise RowsError(
                f"{what}: column {name!r} is {leaf.dtype} of shape {leaf.shape}. Expected rows that are arrays, of any "
                "length."
            )
    return {path: leaves[path] for path in paths.values()}


def with_lengths(rows: Tree, name: str, lengths: Array, columns: int, what: str) -> Tree:
    """Rows with a new column of lengths.

    Raises:
        RowsError: there are several columns, whose lengths may differ, or rows that are no dict, or such a column.
    """
    if not isinstance(rows, dict) or name in rows or columns != 1:
        raise RowsError(
            f"{what} is to add the lengths as {name!r}, and "
            + (
                f"the rows have {trees.columns(rows)}. Expected a dict of columns without that name."
                if columns == 1
                else f"there are {columns} columns of several lengths. Expected the name of one of them."
            )
        )
    return {**rows, name: lengths}


def _with_leaves(tree: Tree, changed: Mapping[str, Array], path: str = "") -> Tree:
    """The tree with other leaves at some paths."""
    if isinstance(tree, dict):
        return {key: _with_leaves(part, changed, f"{path}[{key!r}]") for key, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [_with_leaves(part, changed, f"{path}[{i}]") for i, part in enumerate(tree)]
        if isinstance(tree, list):
            return parts
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return changed.get(path, tree)
