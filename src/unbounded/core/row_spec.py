"""The spec of rows: structure, dtypes and trailing shapes, which must stay the same from block to block of a source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from unbounded.core.trees import RowsError, Tree, leaves, map_leaves, name


def spec(rows: Tree) -> Tree:
    """For each leaf its dtype and its shape after the first dimension."""
    return map_leaves(lambda leaf: (leaf.dtype, leaf.shape[1:]), rows)


def has_objects(expected: Tree) -> bool:
    """True if a spec has a column of objects: a ragged one."""
    return any(dtype.hasobject for _, (dtype, _) in _spec_leaves(expected))


def fits(expected: Tree, rows: Tree) -> bool:
    """Whether `expected` is the spec of rows, keys of dicts in the same order: faster than to make a spec of them."""
    # Called for each row of a source that gives single rows: loops, and types before `isinstance`, are the fastest.
    if type(rows) is not np.ndarray and isinstance(rows, (dict, tuple, list)):
        if isinstance(rows, dict):
            if type(expected) is not dict or list(expected) != list(rows):
                return False
            expected, rows = expected.values(), rows.values()
        elif not isinstance(expected, tuple if isinstance(rows, tuple) else list):
            return False
        if len(expected) != len(rows):
            return False
        for spec_there, part in zip(expected, rows, strict=True):  # noqa: SIM110 - `all` is slower
            if not fits(spec_there, part):
                return False
        return True
    if rows is None or not isinstance(expected, tuple) or len(expected) != 2:
        return rows is None and expected is None
    dtype, shape = expected
    return shape == rows.shape[1:] and dtype == rows.dtype  # type: ignore[no-any-return]


def check_same(expected: Tree, rows: Tree, what: str) -> None:
    """Raise RowsError, naming the leaf, if rows differ in structure, dtype or trailing shape from `expected`.

    `expected` is a `spec`; `what` names the rows in the message, such as "row 1,024 of sensor()".
    """
    if spec(rows) == expected:
        return
    was = {path: leaf for path, leaf in _spec_leaves(expected)}
    now = {path: leaf for path, leaf in _spec_leaves(spec(rows))}
    for path in was.keys() - now.keys():
        advice = f"Yield the same structure each time.{_of_list(path)}"
        raise RowsError(f"{what}: {name(path)} is missing, and was there before. {advice}")
    for path in now.keys() - was.keys():
        raise RowsError(
            f"{what}: {name(path)} is new. Yield the same structure each time, from the first row on.{_of_list(path)}"
        )
    for path, (dtype, shape) in was.items():
        got, got_shape = now[path]
        if not _same_dtype(dtype, got):
            raise RowsError(
                f"{what}: {name(path)} is now {got} and was {dtype}. Yield one dtype: .astype({_dtype_name(dtype)!r})."
            )
        if shape != got_shape:
            raise RowsError(
                f"{what}: {name(path)} has rows of shape {got_shape} and they had {shape} before. Yield one shape: "
                f"pad or cut the rows. Several lengths are allowed by ragged=[{path[1:-1]}] of from_samples and "
                "from_dataset, and in a generator by yielding ub.ragged(rows)."
            )


def same_spec(one: Tree, other: Tree) -> bool:
    """True if two trees of rows agree in structure, dtypes and trailing shapes."""
    if spec(one) == spec(other):
        return True
    ours, theirs = dict(leaves(one)), dict(leaves(other))
    return ours.keys() == theirs.keys() and all(
        _same_dtype(leaf.dtype, theirs[path].dtype) and leaf.shape[1:] == theirs[path].shape[1:]
        for path, leaf in ours.items()
    )


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return {"U": "str", "S": "bytes"}.get(dtype.kind, dtype.name)


def _same_dtype(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    # A string dtype is as wide as the longest string in the array: the width is no property of the rows.
    return one == other or (one.kind == other.kind and one.kind in "US")


def _spec_leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, tuple) and len(tree) == 2 and isinstance(tree[0], np.dtype):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _spec_leaves(value, f"{path}[{key!r}]")
    elif tree is not None:
        for index, value in enumerate(tree):
            yield from _spec_leaves(value, f"{path}[{index}]")


def _of_list(path: str) -> str:
    """What to write where the leaf is an item of a list, which is probably meant as the values of one column."""
    found = re.match(r"\['(\w+)'\]\[\d+\]$", path)
    if found is None:
        return ""
    return f" A list is a tree of leaves: make it an array; or, if its length varies, write ragged={found[1]!r}."
