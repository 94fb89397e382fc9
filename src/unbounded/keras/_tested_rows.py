"""Rows that were tested, as rows of the table on the disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Tree

_ROW_BYTES = 1 << 12


def table_rows(numbers: dict[str, NDArray[np.int64]], predictions: Tree, targets: Tree) -> Any:
    """Rows for the table; text is left out, whose width may change.

    Args:
        numbers: columns of numbers, [rows].
        predictions: a tree of arrays, [rows, …].
        targets: the same.

    Raises:
        ValueError: a row is too large for a table that keeps all of them.

    Example:
        >>> table_rows({"row": np.arange(2)}, np.array([[0.5], [0.7]]), None)["prediction"].tolist()
        [[0.5], [0.7]]
    """
    columns: list[tuple[str, Any]] = list(numbers.items())
    for what, tree in (("prediction", predictions), ("target", targets)):
        for path, leaf in trees.leaves(tree):
            if np.asarray(leaf).dtype.kind in "biufc":
                columns.append((what + _dotted(path), np.asarray(leaf)))
    dtype = np.dtype([(name, leaf.dtype.newbyteorder("<"), leaf.shape[1:]) for name, leaf in columns])
    if dtype.itemsize > _ROW_BYTES:
        raise ValueError(
            f"A row tested has {dtype.itemsize:,} bytes of predictions and targets, too many for a table that keeps "
            "all of them. Give Prequential(table=False), and keep what you need in on_predictions."
        )
    out = np.empty(len(columns[0][1]), dtype)
    for name, leaf in columns:
        out[name] = leaf
    return out


def _dotted(path: str) -> str:
    """``['a'][0]`` as ``.a.0``."""
    return "".join(f".{part.strip(chr(39))}" for part in path.replace("]", "").split("[")[1:])
