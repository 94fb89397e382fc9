"""Row hashes: 64 bits of the values of a row, the same in every process, on every machine and in every version.

Numbers that are equal have one hash, whatever their dtype: an id that was read as int32, int64 or, beside a missing
value, as float64. So do texts that are equal, however wide their column is. Values are hashed as by `stable_hash`, and
bytes by BLAKE2b.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.stable_hash import Hashes, mixed
from unbounded.core.stable_hash import hashes as hashes_of
from unbounded.core.trees import Array, RowsError, Tree

_WIDE = 64
"""Numbers in one row of a leaf, beyond which the bytes of the row are hashed together: images, windows of signals."""
_EXACT = 2.0**53
"""Below it, each whole number is a float64 of its own."""


def row_hashes(rows: Tree, what: str) -> Hashes:
    """The hash of each row, of shape (rows,); the order of the columns of a dict does not count.

    Raises:
        RowsError: a leaf has Python objects other than text, bytes and arrays; the message begins with `what`.
    """
    total = np.zeros(trees.count(rows), np.uint64)
    for path, leaf in trees.leaves(rows):
        total += mixed(_of_leaf(leaf, f"{what}: {trees.name(path)}") ^ np.uint64(_of_bytes(path.encode())))
    return mixed(total)


def fractions(hashes: Hashes, seed: int, number: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each hash; different seeds or numbers give unrelated ones."""
    key = np.uint64(_of_bytes(f"{seed} {number}".encode()))
    return (mixed(hashes ^ key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _of_leaf(leaf: Array, what: str) -> Hashes:
    count, width = len(leaf), math.prod(leaf.shape[1:])
    if leaf.dtype.names:
        return row_hashes({name: leaf[name] for name in leaf.dtype.names}, what)
    if width > _WIDE and leaf.dtype.kind in "biufcmM":
        plain = np.ascontiguousarray(leaf, leaf.dtype.newbyteorder("<"))
        return _array(_of_bytes(row.tobytes()) for row in plain)
    values = _of_values(leaf.reshape(-1), what)
    if leaf.ndim == 1:
        return values
    # Each column has an odd factor of its own, so that the order of the values counts.
    factors = mixed(np.arange(1, width + 1, dtype=np.uint64)) | np.uint64(1)
    hashes: Hashes = (values.reshape(count, width) * factors).sum(axis=1, dtype=np.uint64)
    return hashes


def _of_values(values: Array, what: str) -> Hashes:
    """The hash of each value of an array of one dimension."""
    kind = values.dtype.kind
    if kind in "biuU":
        return hashes_of(values)
    if kind in "mM":
        unit = "datetime64[us]" if kind == "M" else "timedelta64[us]"
        return hashes_of(values.astype(unit).view(np.int64))
    if kind == "c":
        return _of_values(values.real.copy(), what) * np.uint64(3) + _of_values(values.imag.copy(), what)
    if kind == "f" or values.dtype.isbuiltin == 2:
        return _of_floats(values.astype(np.float64))
    if kind == "S":
        return _array(map(_of_bytes, values.tolist()))
    return _array(_of_object(value, what) for value in values)


def _of_floats(values: NDArray[np.float64]) -> Hashes:
    whole = (np.trunc(values) == values) & (abs(values) < _EXACT)
    bits = np.where(np.isnan(values), np.nan, values).view(np.int64)  # each NaN has the same bits
    return hashes_of(np.where(whole, np.where(whole, values, 0).astype(np.int64), bits))


def _of_object(value: Any, what: str) -> int:
    if isinstance(value, str):
        return int(hashes_of(np.array([value]))[0])
    if isinstance(value, bytes):
        return _of_bytes(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        # A row of a ragged column: its length counts, and then its values as those of one wide row.
        inner = _of_leaf(value.reshape(1, -1), what)[0] if value.size else np.uint64(0)
        return int(mixed(np.array([inner], np.uint64) + np.uint64(len(value)))[0])
    raise RowsError(
        f"{what} has Python objects, such as {value!r:.60}, which have no stable hash. Expected numbers, text, bytes "
        "or arrays: convert them with .map(), or name another column, by='id'."
    )


def _of_bytes(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _array(hashes: Any) -> Hashes:
    return np.fromiter(hashes, np.uint64)
