"""Calls of user functions by stages: with read-only rows, and with a check of the result."""

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

    The rows are read-only: they may be the user's own memory, and are given again if the function fails. A function
    that raises because it writes to them is called with copies from then on. Its result is copied if the function keeps
    a reference to it.
    """

    def __init__(self) -> None:
        self._writes = False

    def __call__(self, fn: Callable[[Tree], Any], rows: Tree) -> Any:
        """The result of `fn` for rows."""
        return self.each(fn, [rows])[0]

    def each(self, fn: Callable[[Tree], Any], many: Sequence[Tree]) -> list[Any]:
        """The results of `fn` for each of several trees of rows."""
        if not self._writes:
            lent: list[Array] = []
            try:
                return user_code.call(_each, fn, [_lent(rows, lent) for rows in many])  # type: ignore[no-any-return]
            except (TypeError, ValueError) as error:
                # NumPy, Cython and Numba raise plain ValueErrors for it.
                if "read-only" not in str(error) and "readonly" not in str(error):
                    raise
                self._writes = True
            finally:
                _take_back(lent)
        return user_code.call(_each, fn, [trees.map_leaves(np.array, rows) for rows in many])  # type: ignore[no-any-return]


def _each(fn: Callable[[Tree], Any], many: Sequence[Tree]) -> list[Any]:
    # Copied before the next call, which may reuse the same memory.
    return [owned([fn(rows)], rows) for rows in many]


def _lent(tree: Tree, lent: list[Array]) -> Tree:
    """The same arrays, made read-only until `_take_back`, in new dicts and lists."""
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
            pass  # NumPy does not make memory of another library writable again: it stays read-only


class Caller:
    """Applies `map`'s function to a block, and checks that the number of rows stays the same."""

    def __init__(self, fn: Callable[[Tree], Tree], what: str) -> None:
        self._fn = fn
        self._what = what
        self._call = Call()

    def __call__(self, block: Any, fn: Callable[[Tree], Tree] | None = None) -> Any:
        """The block, or each batch of a run, after `fn` or the default function."""
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
    """A leaf has another number of rows than expected."""


def _fitting(tree: Any, count: int) -> Tree:
    """A tree as arrays of `count` rows each, in new dicts and lists; raises _Misfit if a leaf has another number.

    Called for each batch: it looks at each leaf once, and leaves the message to its caller.
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
