"""Whose memory a user's function returned: arrays that it keeps, and may fill again, are copied.

A function may return one buffer again and again, or a part of a table of its own. What a stage holds, and what is
handed out to be trained on, must be neither. An array belongs to the stage where nobody else refers to it or to its
memory: CPython counts references, so that can be seen. A copy too many costs time alone.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Tree


def owned(made: list[Any], given: Tree) -> Tree:
    """The only item of `made`, as a function returned it, with copies of the arrays that somebody else refers to.

    `given` is what the function was given: views of that are the stage's already, and are read-only.
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
        # NumPy makes an array of it. JAX's can't be written to; of a list it makes a new one.
        array = None if tree is None else np.asarray(tree)
        shares = array is not None and array.base is not None and array.flags.writeable
        return trees.copied(array) if shares and held else tree if array is None else array
    if not held and (tree.base is None or sys.getrefcount(tree.base) <= _BASE):
        return tree
    return tree if _shows(given, tree, _owner(tree)) else trees.copied(tree)


def _shows(given: Tree, leaf: Any, memory: Any) -> bool:
    """Whether `leaf`, which shows `memory`, is among what was given, or a view of it."""
    if isinstance(given, np.ndarray):
        return given is leaf or _owner(given) is memory
    parts = given.values() if isinstance(given, dict) else given or ()
    for part in parts:  # noqa: SIM110 - once a batch, and a loop is quicker
        if _shows(part, leaf, memory):
            return True
    return False


def _owner(leaf: Any) -> Any:
    while type(leaf) is np.ndarray and leaf.base is not None:
        leaf = leaf.base
    return leaf if (base := getattr(leaf, "base", None)) is None else _owner(base)


# Of what nothing but a list, or an array, refers to.
_ITEM = (lambda holder: sys.getrefcount(holder[0]))([np.empty(0)])
_BASE = (lambda leaf: sys.getrefcount(leaf.base))(np.empty(2)[:1])
