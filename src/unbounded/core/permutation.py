"""Permutation: a keyed order of n rows, a bijection of [0, n) in constant memory, with any position in O(1).

The order is a Feistel network over Z_a x Z_(2^k), with a * 2^k at or just above n. Values outside of [0, n) are mapped
again until they are inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002,
methods 2 and 3). It has six rounds: with fewer, the pairs of a whole order can be told from random ones (Patarin,
"Generic Attacks on Feistel Schemes", ASIACRYPT 2001). For small n, where a network mixes badly, the order is a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
TABLE = 4096
"""Up to this many rows the order is a table, made by a Fisher-Yates shuffle: memory stays bounded by this constant."""

_CHUNK = 1 << 15
"""Values that go through the network at a time: few NumPy calls, with operands that stay in a core's cache."""

# (bits of a value, dtype of its halves, shift, multiplier). Products are computed in words of the dtype; the fold is a
# shift, the multiplier an odd prime (Chris Wellons's hash prospector; xxHash by Yann Collet). Shorter words take less
# time: 16 bits, of which the upper half are well mixed, are enough for orders of up to 2^24 rows.
_WORDS: tuple[tuple[int, Any, int, int], ...] = (
    (24, np.uint16, 7, 0x88B5),
    (32, np.uint32, 15, 0x9E3779B1),
    (64, np.uint64, 31, 0x9E3779B185EBCA87),
)


def seeds_of(key: tuple[int, ...]) -> np.random.SeedSequence:
    """What a key's random numbers come from: different keys, of any length and size, give unrelated ones."""
    words: list[int] = []
    for number in key:
        # NumPy cuts numbers into words of 32 bits and fills up with zeros: to it (2**32, 0) is (0, 1), and (5, 0)
        # is (5,).
        size = -(-number.bit_length() // 32)
        words += [size, *((number >> 32 * i) & 0xFFFFFFFF for i in range(size))]
    return np.random.SeedSequence([len(key), *words])


class Permutation:
    """A keyed order of the rows [0, n), for n of at least 1.

    `key` is a sequence of non-negative integers of any size, such as (seed, place, pass). Equal keys give equal orders
    on every machine; different keys give independent orders.

    >>> Permutation(5, (0, 0, 0)).at(np.arange(5)).tolist() == sorted(range(5), key=Permutation(5, (0, 0, 0)).find_one)
    True
    """

    def __init__(self, n: int, key: tuple[int, ...], *, table: int = TABLE) -> None:
        self.n = n
        seeds = seeds_of(key)
        self._table: NDArray[np.int64] | None = None
        if n <= table:
            self._table = np.random.Generator(np.random.PCG64(seeds)).permutation(n)
            return
        bits = (n - 1).bit_length()
        word, fold, prime = next(entry[1:] for entry in _WORDS if bits <= entry[0])
        self._half = np.dtype(word)
        self._value = np.dtype(np.uint32 if bits <= 32 else np.uint64)
        width = self._half.itemsize * 8
        k = bits // 2
        a = -(-n >> k)  # n / 2^k, rounded up
        self._a, self._k = self._array(a), np.array(k, self._value)
        self._mask = self._array((1 << k) - 1)
        # The topmost bits of a hash are its best. Of the right half's, k are used; for the remainder mod a, as many as
        # a has, and some more if a is no power of two, so that all remainders are about equally likely.
        self._top = self._array(width - k)
        spare = 0 if a & (a - 1) == 0 else min(8, width - 1 - a.bit_length())
        self._high = self._array(width - (a - 1).bit_length() - spare)
        # Each round has a number to add and an odd number to multiply by.
        keys = seeds.generate_state(2 * ROUNDS, np.uint64) >> np.uint64(64 - width)
        self._added = [self._array(key) for key in keys[:ROUNDS]]
        self._multiplied = [self._array(int(key) | 1) for key in keys[ROUNDS:]]
        self._fold, self._prime = self._array(fold), self._array(prime)

    def _array(self, value: Any) -> NDArray[Any]:
        # A 0-d array: from a Python number, each ufunc call would make one itself, in 0.2 µs.
        return np.array(value, self._half)

    def at(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """The row at each position; positions are integers in [0, n)."""
        if self._table is not None:
            rows: NDArray[np.int64] = self._table[positions]
            return rows
        return self._walk(positions, self._forward)

    def find(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """The position of each row: the inverse of `at`."""
        if self._table is not None:
            inverse = np.empty_like(self._table)
            inverse[self._table] = np.arange(self.n)
            positions: NDArray[np.int64] = inverse[rows]
            return positions
        return self._walk(rows, self._backward)

    def find_one(self, row: int) -> int:
        """The position of one row."""
        return int(self.find(np.array([row]))[0])

    def span(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows at the positions from `start` up to `stop`: as `at` of consecutive positions, but faster. The array
        may be a view of the table: do not write to it."""
        if self._table is not None:
            return self._table[start:stop]
        return self._walk(np.arange(start, stop, dtype=self._value), self._forward)

    def _walk(self, values: NDArray[Any], step: Any) -> NDArray[np.int64]:
        values = values.astype(self._value, copy=False)
        out = np.empty_like(values)
        for i in range(0, len(values), _CHUNK):
            step(values[i : i + _CHUNK], out[i : i + _CHUNK])
        # a * 2^k exceeds n by less than 2^k: fewer than 2^k of n values land outside and walk on.
        while out.max(initial=0) >= self.n:
            outside = np.flatnonzero(out >= self.n)
            again = out[outside]
            step(again, again)
            out[outside] = again
        return out.astype(np.int64)

    # Each line below is a pass over memory, and these passes are the cost of an order: they write into four arrays that
    # stay in the cache.

    def _forward(self, value: NDArray[Any], out: NDArray[Any]) -> None:
        left, right = self._split(value)
        h, t = np.empty_like(left), np.empty_like(left)
        for i in range(0, ROUNDS, 2):
            self._hash(right, i, h, t)
            # left = (left + h) mod a.
            np.right_shift(h, self._high, h)
            np.add(h, left, h)
            np.floor_divide(h, self._a, t)
            np.multiply(t, self._a, t)
            np.subtract(h, t, left)
            self._hash(left, i + 1, h, t)
            np.right_shift(h, self._top, h)
            np.bitwise_xor(right, h, right)
        self._unite(left, right, out)

    def _backward(self, value: NDArray[Any], out: NDArray[Any]) -> None:
        left, right = self._split(value)
        h, t = np.empty_like(left), np.empty_like(left)
        for i in range(ROUNDS - 2, -1, -2):
            self._hash(left, i + 1, h, t)
            np.right_shift(h, self._top, h)
            np.bitwise_xor(right, h, right)
            self._hash(right, i, h, t)
            np.right_shift(h, self._high, h)
            # left = (left - h) mod a, as left + a - (h mod a), which may be a or more.
            np.remainder(h, self._a, h)
            np.add(left, self._a, left)
            np.subtract(left, h, left)
            np.remainder(left, self._a, left)
        self._unite(left, right, out)

    def _split(self, value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        left, right = (value >> self._k).astype(self._half), value.astype(self._half)
        np.bitwise_and(right, self._mask, right)
        return left, right

    def _unite(self, left: NDArray[Any], right: NDArray[Any], out: NDArray[Any]) -> None:
        out[...] = left
        np.left_shift(out, self._k, out)
        np.bitwise_or(out, right.astype(self._value, copy=False), out)

    def _hash(self, half: NDArray[Any], i: int, h: NDArray[Any], t: NDArray[Any]) -> None:
        """A keyed hash of `half` into `h`, its high bits the best: multiply, fold, multiply. `t` is scratch."""
        np.multiply(half, self._prime, h)
        np.add(h, self._added[i], h)
        np.right_shift(h, self._fold, t)
        np.bitwise_xor(h, t, h)
        np.multiply(h, self._multiplied[i], h)
