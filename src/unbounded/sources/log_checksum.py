"""The checksum of a record's content: CRC-32; for large arrays, CRC-32 of sums that are computed much faster.

CRC-32 can take as long as writing the bytes. A large array is taken as a table of 64-bit words; CRC-32 is computed over
the sums of its lines (words times fixed odd weights, modulo 2**64) and of its columns (exclusive or). A change of up to
three words changes at least one sum: that of a line in which one word differs, since its weight is odd; or those of two
columns, if two words of one line differ. One change in 2**32 goes undetected, as with CRC-32.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

_LARGE = 1 << 15  # bytes from which on the sums are faster
_COLUMNS = 256


def checksum(data: bytes | memoryview, before: int) -> int:
    """The checksum of bytes, chained to the checksum of what precedes them.

    >>> checksum(memoryview(b"rows"), 0) == zlib.crc32(b"rows")
    True
    """
    if len(data) < _LARGE:
        return zlib.crc32(data, before)
    lines = len(data) // (8 * _COLUMNS)
    words = np.frombuffer(data, "<u8", lines * _COLUMNS).reshape(lines, _COLUMNS)
    before = zlib.crc32(np.einsum("ij,j->i", words, _WEIGHTS), before)
    before = zlib.crc32(np.bitwise_xor.reduce(words, axis=0), before)
    return zlib.crc32(data[words.nbytes :], before)


def _weights() -> Iterator[int]:
    # SplitMix64, after Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    whole = (1 << 64) - 1
    for i in range(1, _COLUMNS + 1):
        z = i * 0x9E3779B97F4A7C15 & whole
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
        z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
        yield z ^ z >> 31 | 1


_WEIGHTS = np.array(list(_weights()), np.uint64)
