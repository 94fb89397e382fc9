"""Ownership of arrays that a user function returns: those that the function may reuse are copied.

A function may return the same buffer each time, or a view of its own table; rows in a stage or in training must not
change with it. An array is not copied if nothing else refers to it or to its memory, which CPython's reference counts
tell. A needless copy only costs time.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Tree


def owned(made: list[Any], given: Tree) -> Tree:
    """The only item of `made`, a function's result, with copies of the arrays that other objects refer to.

    `given` is the function's argument: views of it need no copy, since it belongs to the stage and is read-only.
    """
    return _owned(made, 0, given, held=False)


def _owned(holder: Any, key: Any, given: Tree, *, held: bool) -> Tree:
    held = held or sys.getrefcount(holder[key]) > _ITEM
    tree = holder[key]
    if type(tree) is np.ndarray and not held and tree.base is None:
        return tree
    if isinstance(tree, dict):
        return {name: _owned(tree, name, given, held=held) for name in tree}
    if isinstance(tree, (tuple, list)):
        parts = [_owned(tree, i, given, held=held) for i in range(len(tree))]
        if isinstance(tree, list):
            return parts
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if tree is None or not isinstance(tree, np.ndarray):
        # A list becomes a new array. A JAX array is immutable.
        array = None if tree is None else np.asarray(tree)
        shares = array is not None and array.base is not None and array.flags.writeable
        return trees.copied(array) if shares and held else tree if array is None else array
    if not held and (tree.base is None or sys.getrefcount(tree.base) <= _BASE):
        return tree
    return tree if _shows(given, tree, _owner(tree)) else trees.copied(tree)


def _shows(given: Tree, leaf: Any, memory: Any) -> bool:
    """True if `leaf`, a view of `memory`, is a part of `given` or a view of it."""
    if isinstance(given, np.ndarray):
        return given is leaf or _owner(given) is memory
    parts = given.values() if isinstance(given, dict) else given or ()
    for part in parts:  # noqa: SIM110 - called for each batch: a loop is faster than any()
        if _shows(part, leaf, memory):
            return True
    return False


def _owner(leaf: Any) -> Any:
    while type(leaf) is np.ndarray and leaf.base is not None:
        leaf = leaf.base
    return leaf if (base := getattr(leaf, "base", None)) is None else _owner(base)


# The reference count of an item to which only one list or array refers.
_ITEM = (lambda holder: sys.getrefcount(holder[0]))([np.empty(0)])
_BASE = (lambda leaf: sys.getrefcount(leaf.base))(np.empty(2)[:1])
