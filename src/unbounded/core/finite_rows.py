"""Search for rows with NaN or infinite values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unbounded.core import ragged
from unbounded.core.trees import Array, Tree, leaves


def first_non_finite(rows: Tree) -> tuple[str, int] | None:
    """The path of the first leaf with a NaN or an infinity, and the row's number; None if all values are finite."""
    for path, leaf in leaves(rows):
        if not _may_be_non_finite(leaf):
            continue
        # A sum is finite only if all its terms are. `einsum` adds in plain order, which is exact enough here, in a
        # third of the time of `sum`. It can't add dtypes of other packages, and sums of half floats overflow.
        plain = leaf.dtype.kind in "fc" and leaf.dtype.itemsize > 2
        if plain and np.isfinite(np.einsum(leaf, range(leaf.ndim), [])):
            continue
        bad = np.flatnonzero(_non_finite(leaf))
        if len(bad):
            return path, int(bad[0])
    return None


def non_finite_rows(rows: Tree) -> int:
    """The number of rows that have a NaN or an infinity in any leaf."""
    mask = non_finite_mask(rows)
    return 0 if mask is None else int(mask.sum())


def non_finite_mask(rows: Tree) -> NDArray[np.bool_] | None:
    """The mask of the rows that have a NaN or an infinity in any leaf, of shape (rows,); None if there is no such
    row."""
    if first_non_finite(rows) is None:
        return None
    bad = [_non_finite(leaf) for _, leaf in leaves(rows) if _may_be_non_finite(leaf)]
    mask: NDArray[np.bool_] = np.logical_or.reduce(bad)
    return mask


def _may_be_non_finite(leaf: Array) -> bool:
    if leaf.dtype == object:
        return ragged.is_ragged(leaf) and any(
            isinstance(row, np.ndarray) and row.dtype.kind in "fc" for row in leaf.flat
        )
    if leaf.dtype.names:
        return any(_may_be_non_finite(leaf[name]) for name in leaf.dtype.names)
    # Dtypes that other packages register: for NumPy, bfloat16 and float8 are not of kind "f", but they have NaN.
    return leaf.dtype.kind in "fc" or (leaf.dtype.isbuiltin == 2 and "float" in leaf.dtype.name)


def _non_finite(leaf: Array) -> NDArray[np.bool_]:
    if leaf.dtype.names:  # structured: each field by itself
        fields = [leaf[name] for name in leaf.dtype.names]
        found: NDArray[np.bool_] = np.logical_or.reduce([_non_finite(f) for f in fields if _may_be_non_finite(f)])
        return found
    if leaf.dtype == object:
        return np.array([isinstance(row, np.ndarray) and not np.isfinite(row).all() for row in leaf], bool)
    bad: NDArray[np.bool_] = (~np.isfinite(leaf.reshape(len(leaf), -1))).any(axis=1)  # type: ignore[assignment]
    return bad
