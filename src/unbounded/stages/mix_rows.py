"""Rows of several blocks, interleaved into one block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.trees import Array


def scattered(
    count: int, parts: Sequence[tuple[NDArray[Any], Block]], provenance: NDArray[np.int64], *, timed: bool
) -> Block:
    """One block of `count` rows.

    Args:
        count: the number of rows.
        parts: pairs (positions of the block's rows in the result, block); together they cover it.
        provenance: of the result's rows.
        timed: True if the result has arrival times: NaN for rows without one.
    """
    rows, times, seen = parts[0][1].rows, None, None
    if len(parts) > 1:
        rows = trees.map_leaves(lambda *leaves: _scatter(count, parts, leaves), *(block.rows for _, block in parts))
    if timed:
        times = np.full(count, np.nan)
        for here, block in parts:
            if block.times is not None:
                times[here] = block.times
    if any(block.seen is not None for _, block in parts):
        seen = np.zeros(count, np.int64)
        for here, block in parts:
            if block.seen is not None:
                seen[here] = block.seen
    return Block(rows, count, None, times, provenance, seen)


def _scatter(count: int, parts: Sequence[tuple[NDArray[Any], Block]], leaves: tuple[Array, ...]) -> Array:
    out = trees.empty((count, *leaves[0].shape[1:]), np.result_type(*(leaf.dtype for leaf in leaves)))
    into = _as_items(out)
    for (here, _), leaf in zip(parts, leaves, strict=True):
        items = _as_items(leaf) if leaf.dtype == out.dtype else None
        if into is not None and items is not None:
            into[here] = items
        else:
            out[here] = leaf
    return out


def _as_items(leaf: Array) -> Array | None:
    """The array with each row as one item of a void dtype, which NumPy copies twice as fast as a row of several items;
    None if that is impossible."""
    # Not `leaf[0].size`: the memory may be uninitialised, and NumPy raises SystemError for such text.
    size = leaf.dtype.itemsize * math.prod(leaf.shape[1:]) if len(leaf) else 0
    if leaf.ndim < 2 or not size or leaf.dtype.hasobject or not leaf.flags.c_contiguous or type(leaf) is not np.ndarray:
        return None
    return leaf.reshape(len(leaf), -1).view(np.dtype((np.void, size))).ravel()
