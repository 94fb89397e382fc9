"""How stages call the user's functions: with rows that can't be written to, and with a check of what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from unbounded import _rows, _user_code
from unbounded._block import Block, Run
from unbounded._rows import Array, RowsError, Tree


class Call:
    """Calls a function with rows.

    They are read-only: they may be the user's own memory, and are given again where the function fails. A function
    that writes into them all the same is given copies, from then on.
    """

    def __init__(self) -> None:
        self._writes = False

    def __call__(self, fn: Callable[[Tree], Any], rows: Tree) -> Any:
        """What `fn` makes of rows; what it returns as it was given it is the memory that it was given."""
        if not self._writes:
            given: dict[int, Array] = {}
            try:
                made = _user_code.call(fn, _rows.map_leaves(lambda leaf: _lent(leaf, given), rows))
            except (TypeError, ValueError) as error:
                # NumPy, Cython and Numba have no class of their own for it.
                if "read-only" not in str(error) and "readonly" not in str(error):
                    raise
                self._writes = True
            else:
                return _rows.map_leaves(lambda leaf: given.get(id(leaf), leaf), made)
        return _user_code.call(fn, _rows.map_leaves(np.array, rows))


def _lent(leaf: Array, given: dict[int, Array]) -> Array:
    if not leaf.flags.writeable:
        return leaf
    view = leaf.view()
    view.flags.writeable = False
    given[id(view)] = leaf
    return view


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
            items = [self._rows(fn, item, _rows.count(item), batch=True) for item in block.items]
            return replace(block, items=items, parts=tuple(items))
        if not block.count:
            return block
        assert isinstance(block, Block)
        return block.with_rows(self._rows(fn, block.rows, block.count))

    def _rows(self, fn: Callable[[Tree], Tree], rows: Tree, count: int, *, batch: bool = False) -> Tree:
        made = _rows.map_leaves(np.asarray, self._call(fn, rows))
        got = _rows.count_checked(made, f"What {self._what} returned")
        if got == count:
            return made
        remedy = (
            "a batch keeps its rows, though each may become wider: put what changes their number before .batch()."
            if batch
            else "use .filter() to leave rows out, and put a function that looks across rows after .batch()."
        )
        raise RowsError(
            f"{self._what} was given {count:,} rows and returned {got:,}. Expected one row for each: {remedy}"
        )
