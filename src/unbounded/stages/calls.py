"""How stages call the user's functions: with rows that can't be written to, and with a check of what comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unbounded.core import trees, user_code
from unbounded.core.block import Block, Run
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.owned_rows import owned


class Call:
    """Calls a function with rows.

    They are read-only: they may be the user's own memory, and are given again where the function fails. A function
    that writes into them all the same is given copies, from then on. What it returns is copied where it keeps that
    itself.
    """

    def __init__(self) -> None:
        self._writes = False

    def __call__(self, fn: Callable[[Tree], Any], rows: Tree) -> Any:
        """What `fn` makes of rows."""
        return self.each(fn, [rows])[0]

    def each(self, fn: Callable[[Tree], Any], many: Sequence[Tree]) -> list[Any]:
        """What `fn` makes of each of some trees of rows."""
        if not self._writes:
            lent: list[Array] = []
            try:
                return user_code.call(_each, fn, [_lent(rows, lent) for rows in many])  # type: ignore[no-any-return]
            except (TypeError, ValueError) as error:
                # NumPy, Cython and Numba have no class of their own for it.
                if "read-only" not in str(error) and "readonly" not in str(error):
                    raise
                self._writes = True
            finally:
                _take_back(lent)
        return user_code.call(_each, fn, [trees.map_leaves(np.array, rows) for rows in many])  # type: ignore[no-any-return]


def _each(fn: Callable[[Tree], Any], many: Sequence[Tree]) -> list[Any]:
    # Before the next call, which may fill the same memory again.
    return [owned([fn(rows)], rows) for rows in many]


def _lent(tree: Tree, lent: list[Array]) -> Tree:
    """The same arrays, none of which can be written to until `_take_back`, in dicts and lists of their own."""
    if isinstance(tree, np.ndarray):
        if tree.flags.writeable:
            lent.append(tree)
            tree.flags.writeable = False
        return tree
    if isinstance(tree, dict):
        return {key: _lent(value, lent) for key, value in tree.items()}
    if tree is None:
        return None
    parts = [_lent(part, lent) for part in tree]
    if isinstance(tree, list):
        return parts
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def _take_back(lent: list[Array]) -> None:
    for leaf in lent:
        try:
            leaf.flags.writeable = True
        except ValueError:
            pass  # NumPy can't know it of memory that another library owns: it stays read-only


class Caller:
    """What `map` does to a block, with a check that as many rows come back as went in."""

    def __init__(self, fn: Callable[[Tree], Tree], what: str) -> None:
        self._fn = fn
        self._what = what
        self._call = Call()

    def __call__(self, block: Any, fn: Callable[[Tree], Tree] | None = None) -> Any:
        """The block, or each batch of a run, changed by the function, or by `fn` in its place."""
        fn = fn or self._fn
        if isinstance(block, Run):
            made = self._call.each(fn, block.items)
            sizes = [min(block.size, block.total - i * block.size) for i in range(block.count)]
            items = [self._checked(rows, size, batch=True) for rows, size in zip(made, sizes, strict=True)]
            return replace(block, items=items, parts=tuple(items))
        if not block.count:
            return block
        assert isinstance(block, Block)
        return block.with_rows(self._checked(self._call(fn, block.rows), block.count))

    def _checked(self, made: Tree, count: int, *, batch: bool = False) -> Tree:
        try:
            rows = _fitting(made, count)
            if type(rows) is np.ndarray or next(trees.leaves(rows), None) is not None:
                return rows
        except _Misfit:
            rows = trees.map_leaves(np.asarray, made)
        got = trees.count_checked(rows, f"What {self._what} returned")
        remedy = (
            "a batch keeps its rows, though each may become wider: put what changes their number before .batch()."
            if batch
            else "use .filter() to leave rows out, and put a function that looks across rows after .batch()."
        )
        raise RowsError(
            f"{self._what} was given {count:,} rows and returned {got:,}. Expected one row for each: {remedy}"
        )


class _Misfit(Exception):
    """A leaf has other rows than it should."""


def _fitting(tree: Any, count: int) -> Tree:
    """A tree as arrays of `count` rows each, in dicts and lists of its own; raises _Misfit where it is not that.

    It runs once a batch, so it looks at each leaf once, and leaves the words to others.
    """
    if isinstance(tree, dict):
        return {key: _fitting(value, count) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [_fitting(part, count) for part in tree]
        if isinstance(tree, list):
            return parts
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if tree is None:
        return None
    leaf = np.asarray(tree)
    if not leaf.ndim or len(leaf) != count:
        raise _Misfit
    return leaf
