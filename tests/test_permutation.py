"""Permutation: a bijection in constant memory for each n, statistically like a Fisher-Yates shuffle."""

from __future__ import annotations

import numpy as np
import pytest

from unbounded.core.permutation import TABLE, Permutation


def permutation(n: int, key: tuple[int, ...], table: int = TABLE) -> np.ndarray:
    return Permutation(n, key, table=table).at(np.arange(n))


def is_bijection(order: Permutation) -> bool:
    rows = order.at(np.arange(order.n))
    seen = np.zeros(order.n, bool)
    seen[rows] = True
    return bool(seen.all() and (order.find(rows) == np.arange(order.n)).all())


@pytest.mark.parametrize("table", [TABLE, 0], ids=["table", "network"])
def test_each_small_n_has_a_bijection_and_its_inverse(table: int) -> None:
    for n in range(1, 700):
        assert is_bijection(Permutation(n, (3, 0, n), table=table)), n


@pytest.mark.slow
def test_each_n_up_to_some_thousands_has_a_bijection() -> None:
    for n in range(700, 3100):
        assert is_bijection(Permutation(n, (n, 1, 2), table=0)), n


@pytest.mark.parametrize("k", [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, pytest.param(21, marks=pytest.mark.slow)])
def test_powers_of_two_and_their_neighbours_have_bijections(k: int) -> None:
    for n in (2**k - 1, 2**k, 2**k + 1):
        assert is_bijection(Permutation(n, (k,), table=0)), n


@pytest.mark.parametrize("n", [65_537, 262_145, 1_048_577])
def test_the_lengths_at_which_others_fail_have_bijections(n: int) -> None:
    for key in range(2):
        assert is_bijection(Permutation(n, (key,))), n


def test_a_position_far_out_is_found_without_the_others() -> None:
    order = Permutation(10**15 + 7, (1, 2, 3))
    positions = np.array([0, 1, 10**12, 10**15 + 6])
    rows = order.at(positions)
    assert ((rows >= 0) & (rows < order.n)).all()
    assert order.find(rows).tolist() == positions.tolist()
    assert order.find_one(int(rows[2])) == 10**12


@pytest.mark.parametrize("bits", [24, 32])
def test_words_of_another_length_hold_a_bijection_on_both_sides_of_their_limit(bits: int) -> None:
    random = np.random.default_rng(bits)
    for n in (2**bits - 1, 2**bits, 2**bits + 1):
        order = Permutation(n, (7, n))
        positions = np.unique(np.append(random.integers(0, n, 20_000), [0, n - 1]))
        rows = order.at(positions)
        assert rows.min() >= 0
        assert rows.max() < n
        assert len(np.unique(rows)) == len(rows)
        assert (order.find(rows) == positions).all()
        assert abs(deviation(np.bincount(rows * 64 // n, minlength=64), 63)) < 4


@pytest.mark.parametrize("n", [100, 5_000, 2**24 + 5])
def test_a_span_is_the_rows_at_consecutive_positions(n: int) -> None:
    order = Permutation(n, (1, n))
    for start, stop in ((0, n), (0, 1), (17, 17), (n - 40, n), (n // 3, n // 2)):
        stop = min(stop, start + 100_000)
        assert order.span(start, stop).tolist() == order.at(np.arange(start, stop)).tolist()


@pytest.mark.parametrize("n", [100, 10_000])
def test_seed_7_pass_1_is_not_seed_8_pass_0(n: int) -> None:
    orders = [permutation(n, key).tolist() for key in [(7, 0, 1), (8, 0, 0), (7, 0, 0), (7, 1, 0), (0, 7, 1)]]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert permutation(n, (7, 0, 1)).tolist() == orders[0]


@pytest.mark.parametrize(("one", "other"), [((2**32, 0, 0), (0, 1, 0)), ((5, 0), (5, 0, 0)), ((2**64 + 3,), (3, 0, 1))])
def test_keys_of_any_size_and_length_are_told_apart(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert permutation(50, one).tolist() != permutation(50, other).tolist()


def cells(rows: np.ndarray, bins: int) -> np.ndarray:
    """How often a row of each group stands at a position of each group."""
    n = len(rows)
    place = np.arange(n) * bins // n
    return np.bincount(place * bins + rows * bins // n, minlength=bins**2)


def neighbours(rows: np.ndarray, bins: int) -> np.ndarray:
    """How often the next row is so much further on, in groups."""
    n = len(rows)
    return np.bincount(np.diff(rows) % n * bins // n, minlength=bins)


def deviation(counts: np.ndarray, free: int, shares: np.ndarray | None = None) -> float:
    """Chi-square against the shares (None: equal ones), as so many standard deviations from what chance gives."""
    shares = np.ones(len(counts)) if shares is None else shares
    expected = counts.sum() * shares / shares.sum()
    return float((((counts - expected) ** 2 / expected).sum() - free) / np.sqrt(2 * free))


@pytest.mark.parametrize("n", [512, 1_024, 2_000, 30_016, 65_536])
def test_chi_square_tells_it_no_better_from_chance_than_fisher_and_yates(n: int) -> None:
    bins, many = 16, 800_000 // n
    found = {}
    for name, table in (("network", 0), ("Fisher-Yates", n)):
        orders = [permutation(n, (11, key), table) for key in range(many)]
        at, next_to = sum(cells(rows, bins) for rows in orders), sum(neighbours(rows, bins) for rows in orders)
        # No row is its own neighbour: the difference 0 does not come.
        differences = np.bincount(np.arange(1, n) * bins // n)
        found[name] = (deviation(at, (bins - 1) ** 2), deviation(next_to, bins - 1, differences))
    for name, (at_deviation, next_deviation) in found.items():
        assert abs(at_deviation) < 4, (name, found)
        assert abs(next_deviation) < 4, (name, found)


def test_the_first_position_may_hold_any_row() -> None:
    firsts = np.array([Permutation(100, (key,), table=0).at(np.array([0, 1])) for key in range(5_000)])
    assert abs(deviation(np.bincount(firsts[:, 0], minlength=100), 99)) < 4
    # Two neighbours are independent but for being different.
    pairs = np.bincount(firsts[:, 0] // 10 * 10 + firsts[:, 1] // 10, minlength=100).reshape(10, 10)
    shares = np.full((10, 10), 100) - np.eye(10) * 10
    assert abs(deviation(pairs.ravel(), 99, shares.ravel())) < 4
