"""A keyed order of n rows: a bijection of [0, n) in constant memory, any position in O(1).

The order is a Feistel network over Z_a x Z_b, with a * b just above n, and walks on where it lands outside of
[0, n) (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, methods 2 and 3). Small n,
where a network mixes badly and a table costs nothing, are permuted outright.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
TABLE = 4096
"""Up to so many rows the order is a table, drawn by Fisher and Yates' method: constant memory all the
same."""

# Odd multipliers for words of 32 and of 64 bits (from xxHash by Yann Collet).
_PRIMES: dict[type, tuple[int, int, int]] = {
    np.uint32: (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D),
    np.uint64: (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9),
}
_32 = np.uint64(32)


def seeds_of(key: tuple[int, ...]) -> np.random.SeedSequence:
    """What a key's random numbers come from: different keys, of any length and size, give unrelated ones."""
    words: list[int] = []
    for number in key:
        # NumPy cuts numbers into words of 32 bits and fills up with zeros: to it (2**32, 0) is (0, 1), and (5, 0)
        # is (5,).
        size = -(-number.bit_length() // 32)
        words += [size, *((number >> 32 * i) & 0xFFFFFFFF for i in range(size))]
    return np.random.SeedSequence([len(key), *words])


class Order:
    """A keyed order of the rows [0, n), for n of at least 1.

    `key` is a sequence of non-negative integers of any size, such as (seed, place, pass): equal keys give
    equal orders, on every machine, and different ones give unrelated orders.

    >>> Order(5, (0, 0, 0)).at(np.arange(5)).tolist() == sorted(range(5), key=Order(5, (0, 0, 0)).find_one)
    True
    """

    def __init__(self, n: int, key: tuple[int, ...], *, table: int = TABLE) -> None:
        self.n = n
        seeds = seeds_of(key)
        self._table: NDArray[np.int64] | None = None
        if n <= table:
            self._table = np.random.Generator(np.random.PCG64(seeds)).permutation(n)
            return
        self._a = math.isqrt(n - 1) + 1
        self._b = -(-n // self._a)
        # Halves of fewer than 2**16 values fit words of 32 bits, which go through the processor twice as
        # fast.
        self._word: Any = np.uint32 if self._a < 2**16 else np.uint64
        self._primes = [self._word(p) for p in _PRIMES[self._word]]
        self._keys = [self._word(k) for k in seeds.generate_state(ROUNDS, self._word)]

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

    def _walk(self, values: NDArray[Any], step: Any) -> NDArray[np.int64]:
        out = step(values.astype(self._word))
        # a * b exceeds n by less than a: of n values fewer than sqrt(n) land outside, and walk on along their
        # cycle.
        while out.max(initial=0) >= self.n:
            outside = np.flatnonzero(out >= self.n)
            out[outside] = step(out[outside])
        rows: NDArray[np.int64] = out.astype(np.int64)
        return rows

    def _forward(self, value: NDArray[Any]) -> NDArray[Any]:
        left, right = self._split(value)
        for i in range(0, ROUNDS, 2):
            left = _shift(left, self._mix(right, i, self._a), self._word(self._a))
            right = _shift(right, self._mix(left, i + 1, self._b), self._word(self._b))
        return self._unite(left, right)

    def _backward(self, value: NDArray[Any]) -> NDArray[Any]:
        left, right = self._split(value)
        a, b = self._word(self._a), self._word(self._b)
        for i in range(ROUNDS - 2, -1, -2):
            right = _shift(right, b - self._mix(left, i + 1, self._b), b)
            left = _shift(left, a - self._mix(right, i, self._a), a)
        return self._unite(left, right)

    def _split(self, value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        b = self._word(self._b)
        left = value // b
        return left, value - left * b

    def _unite(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
        left *= self._word(self._b)
        left += right
        return left

    def _mix(self, half: NDArray[Any], i: int, below: int) -> NDArray[Any]:
        """A keyed hash of `half`, in [0, below): multiply, fold, multiply, and the high bits scaled to the
        range."""
        h: Any = half * self._primes[0]
        h += self._keys[i]
        h ^= h >> self._word(15)
        h *= self._primes[1]
        wide = h.astype(np.uint64) if self._word is np.uint32 else h >> _32
        wide *= np.uint64(below)
        wide >>= _32
        mixed: NDArray[Any] = wide.astype(self._word, copy=False)
        return mixed


def _shift(half: NDArray[Any], by: NDArray[Any], size: Any) -> NDArray[Any]:
    """(half + by) mod size, for half < size and by <= size.

    Taking `size` off where it may not be wraps round to a large number: the smaller of the two is the answer.
    """
    total = half + by
    shifted: NDArray[Any] = np.minimum(total, total - size)
    return shifted
