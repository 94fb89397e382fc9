"""Missing values: NaN among floats, NaT among times, "" among text; whole numbers and bools have none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core.trees import Array

Mask = NDArray[np.bool_]


def missing(leaf: Array) -> Mask | None:
    """A mask of the leaf's shape; None if its dtype has no missing value."""
    kind = leaf.dtype.kind
    if kind in "fc":
        return np.isnan(leaf)
    if kind in "mM":
        return np.isnat(leaf)
    if kind == "U":
        return leaf == ""  # type: ignore[no-any-return]
    if kind == "S":
        return leaf == b""  # type: ignore[no-any-return]
    return None


def missing_rows(leaf: Array) -> Mask | None:
    """A mask of shape (rows,): True if some value of the row is missing; None if none can be, or none is."""
    found = missing(leaf)
    if found is None or not found.any():
        return None
    rows: Mask = found if found.ndim == 1 else np.any(found.reshape(len(found), -1), axis=1)
    return rows


def missing_value(dtype: np.dtype[Any]) -> Any:
    """The value of a dtype that stands for a missing one."""
    if dtype.kind in "mM":
        return np.array("NaT", dtype)[()]
    return {"U": "", "S": b""}.get(dtype.kind, np.nan)
