"""Hashes of the values of a column: the same for ever, on each machine and with each version of Python and NumPy.

Text is hashed by a multilinear function of its code points, with a fixed key for each position (Lemire and Kaser 2014,
"Strongly universal string hashing is fast", The Computer Journal 57(11), section 3), and mixed by the finaliser of
SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA). All of it is
arithmetic modulo 2**64 on whole columns. Changing a constant here would change the codes that models were trained on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unbounded.core.trees import Array

Hashes = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_CHUNK = 1 << 17  # characters that are processed at once, so that they stay in the cache

HASHED = "biuUS"
"""The kinds of dtypes whose values have a hash."""


def mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser, a bijection of 64-bit integers."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hashes(column: Array) -> Hashes:
    """The hash of each value, of the column's shape.

    Equal numbers have equal hashes whatever their dtype, and equal texts whatever the width of theirs. Bytes are text
    in UTF-8.

    Args:
        column: whole numbers, bools or text, of any shape.

    >>> hashes(np.array([7, -1])).tolist()
    [7191089600892374487, 16490336266968443936]
    >>> hashes(np.array(["kitchen", ""])).tolist()
    [8634211340397072715, 0]
    """
    if column.dtype.kind in "biu":
        whole = column.astype(np.int64, copy=False) if column.dtype.kind != "u" else column
        return mixed(whole.astype(np.uint64) + _GAMMA)
    text = np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column
    width = text.dtype.itemsize // 4
    if not width or not text.size:
        return np.zeros(text.shape, np.uint64)
    # The native byte order, and one row of code points for each text. Zeros, with which NumPy pads, add nothing.
    plain = np.ascontiguousarray(text.ravel(), text.dtype.newbyteorder("="))
    points = plain.view(np.uint32).reshape(len(plain), width)
    keys = _keys(width)
    sums = np.empty(len(plain), np.uint64)
    rows = max(1, _CHUNK // width)
    for start in range(0, len(plain), rows):
        part = points[start : start + rows]
        np.matmul(part.astype(np.uint64), keys, out=sums[start : start + rows])
    return mixed(sums).reshape(text.shape)


def _keys(width: int) -> Hashes:
    """The key of each position: odd numbers, so that two texts that differ in one place never have one sum."""
    return mixed(np.arange(1, width + 1, dtype=np.uint64) * _GAMMA) | np.uint64(1)
