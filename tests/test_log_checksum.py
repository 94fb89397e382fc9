"""A change anywhere in a record's data changes its checksum, for large arrays too."""

from __future__ import annotations

import doctest
import itertools
import zlib

import numpy as np
import pytest

from unbounded.sources import log_checksum
from unbounded.sources.log_checksum import checksum

LARGE = (1 << 15) + 2048 * 3 + 13


def data(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)


def test_it_is_crc_32_of_small_data() -> None:
    for size in (0, 1, 100, (1 << 15) - 1):
        assert checksum(memoryview(data(size)), 7) == zlib.crc32(data(size), 7)


def test_it_does_not_depend_on_where_the_bytes_lie() -> None:
    room = np.zeros(LARGE + 8, np.uint8)
    for at in range(8):
        room[at : at + LARGE] = data(LARGE)
        assert checksum(memoryview(room)[at : at + LARGE], 3) == checksum(memoryview(data(LARGE)), 3)


@pytest.mark.parametrize("seed", range(300))
def test_bits_that_flip_are_noticed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = data(LARGE)
    found = checksum(memoryview(whole), 0)
    # Also the highest bit of several words, of one line and of one column: sums of words alone would not notice that.
    words = rng.choice(LARGE // 8 - 300, 1 + seed % 3, replace=False)
    places = [words * 8 + 7, (words[:1] + np.arange(2)) * 8 + 7, (words[:1] % 1000 + np.arange(2) * 256) * 8 + 7]
    for at in (*places, rng.integers(0, LARGE, 1 + seed % 4)):
        changed = whole.copy()
        changed[np.unique(at)] ^= 0x80
        assert checksum(memoryview(changed), 0) != found


def test_pieces_in_another_order_or_gone_are_noticed() -> None:
    pieces = np.array_split(data(1 << 17), 32)
    seen = {checksum(memoryview(np.concatenate(pieces)), 0)}
    for one, other in itertools.combinations(range(0, 32, 3), 2):
        order = list(pieces)
        order[one], order[other] = order[other], order[one]
        seen.add(checksum(memoryview(np.concatenate(order)), 0))
        order[other] = np.zeros_like(order[other])
        seen.add(checksum(memoryview(np.concatenate(order)), 0))
    assert len(seen) == 1 + 2 * 55


def test_it_is_chained_to_what_came_before() -> None:
    assert checksum(memoryview(data(LARGE)), 1) != checksum(memoryview(data(LARGE)), 2)


def test_the_examples_run() -> None:
    assert doctest.testmod(log_checksum).failed == 0
