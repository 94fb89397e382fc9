"""The gathering of the rows of many pieces in a new order, column by column."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import ALIGNMENT, Array


def gathered(parts: dict[str, list[Array]], order: NDArray[np.int64]) -> dict[str, Array]:
    """The rows of all parts in a new order.

    One column after the other is joined, and gathered at once while it is in the processor's cache: for 11 columns of
    800,000 float32, 16 ns a row; 30 if all columns are joined first, and 60 for a block of all columns at a time.

    Args:
        parts: for each column its parts, which share the shape of a row. Text may have several widths.
        order: the number of each row among those of all parts.
    """
    dtypes = {name: _dtype(several) for name, several in parts.items()}
    shapes = {name: (len(order), *several[0].shape[1:]) for name, several in parts.items()}
    sizes = {
        name: -(-math.prod(shapes[name]) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        for name, dtype in dtypes.items()
        if not dtype.hasobject
    }
    # One allocation for all columns: NumPy asks for huge pages from 4 MiB on, which take a fifth of the time to be
    # given by the system.
    whole = trees.empty((sum(sizes.values()),), np.dtype(np.uint8))
    joined = np.empty(max(sizes.values(), default=0), np.uint8)
    rows, at = {}, 0
    for name, several in parts.items():
        if name not in sizes:
            rows[name] = trees.gather(trees.join(several), order)
            continue
        out: Array = np.ndarray(shapes[name], dtypes[name], whole, at)
        at += sizes[name]
        column = several[0]
        if len(several) > 1:
            column = np.concatenate(several, out=np.ndarray(shapes[name], dtypes[name], joined))
        # mode="clip": with mode="raise", NumPy buffers `out`, to leave it unchanged after an error.
        column.take(order, axis=0, out=out, mode="clip")
        rows[name] = out
    return rows


def _dtype(parts: list[Array]) -> np.dtype[np.generic]:
    several = {part.dtype for part in parts}
    # np.result_type would make another byte order the machine's own.
    return several.pop() if len(several) == 1 else np.result_type(*several)
