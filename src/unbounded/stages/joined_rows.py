"""Joined rows: the columns of a row and those of its label, or missing values for a row without a label."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.missing import missing, missing_value


def check_columns(rows: Tree, labels: Tree, on: str, time: str | None) -> None:
    """Raise RowsError where rows and labels, of which these are some, can't be joined."""
    if _kind(rows[on]) != _kind(labels[on]):
        raise RowsError(
            f"join(on={on!r}): the column is {rows[on].dtype} in the rows and {labels[on].dtype} in the labels, and no "
            "key of the one equals one of the other. Bring one to the other's dtype by .map()."
        )
    for name in labels:
        if name in rows and name not in (on, time):
            raise RowsError(
                f"join(): rows and labels both have a column {name!r}. Expected other names for the labels' columns "
                "but the one they are joined on: rename it by .map()."
            )


def with_labels(rows: Tree, labels: Tree, lost: NDArray[np.bool_], shared: Collection[str | None]) -> dict[Any, Tree]:
    """Rows with the columns of their labels but those that both have; `lost` says which rows have none, whatever stands
    in their places of `labels`. The arrays of `labels` are given away."""
    joined = dict(rows)
    for name, column in labels.items():
        if name not in shared:
            joined[name] = _without(name, column, lost)
    return joined


def _without(name: str, column: Tree, lost: NDArray[np.bool_]) -> Tree:
    if not lost.any():
        return column

    def fill(leaf: Array) -> Array:
        if missing(leaf[:0]) is None:
            raise RowsError(
                f"join(unmatched='keep'): the labels' column {name!r} is {leaf.dtype}, which has no NaN for rows "
                "without a label. Expected floating-point labels: .map() can make them, with .astype('float32')."
            )
        leaf[lost] = missing_value(leaf.dtype)
        return leaf

    return trees.map_leaves(fill, column)


def _kind(keys: Array) -> str:
    """Keys of one kind can be equal."""
    return "number" if keys.dtype.kind in "biufc" else keys.dtype.kind
