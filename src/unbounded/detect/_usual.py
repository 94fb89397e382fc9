"""Usual: the distribution of a size, as a histogram that slowly forgets, and the rarity of larger sizes.

Its tail is extrapolated as an exponential (peaks over threshold; Siffer et al., "Anomaly Detection in Streams with
Extreme Value Theory", KDD 2017, with the simplest tail), so that sizes that never occurred have a probability, too.
"""

from __future__ import annotations

import numpy as np

HIGHEST = 12.0
# Four bins for each doubling, from 2**-14 to 2**10: all sizes on the model's scale.
_EDGES = 2.0 ** (np.arange(-56, 41) / 4.0)
_SHARES = np.array([0.5, 0.9, 0.98])


class Usual:
    """The distributions of several sizes, in constant memory.

    Args:
        shape: the number of sizes, (looks, columns).
        memory: readings after which an observation counts about a third.

    Example:
        >>> usual = Usual((1, 1), memory=1_000)
        >>> sizes = np.random.default_rng(0).exponential(size=(1, 1_000, 1))
        >>> usual.learn(sizes, np.ones_like(sizes), seen=1_000)
        >>> usual.rarity(np.array([[[2.3], [4.6]]])).round().ravel()
        array([1., 2.])
    """

    def __init__(self, shape: tuple[int, int], memory: int) -> None:
        self.memory = memory
        self.weights = np.zeros((*shape, len(_EDGES) + 1))

    def rarity(self, size: np.ndarray) -> np.ndarray:
        """-log10 of the fraction of readings that are as large; at most 12.

        Args:
            size: not negative, [looks, rows, columns].

        Returns:
            The same shape; 0 before anything was learned.
        """
        out = np.zeros_like(size)
        if not self.weights.any():
            return out
        below = np.cumsum(self.weights, axis=-1)
        for look, column in np.ndindex(size.shape[0], size.shape[2]):
            cut = np.searchsorted(below[look, column], _SHARES * below[look, column, -1])
            out[look, :, column] = _rarity(size[look, :, column], _EDGES[np.minimum(cut, len(_EDGES) - 1)])
        np.minimum(out, HIGHEST, out=out)
        return out

    def learn(self, size: np.ndarray, weight: np.ndarray, seen: int) -> None:
        """Add observations, and forget older ones.

        Args:
            size: not negative, [looks, rows, columns], the newest last.
            weight: of each, the same shape.
            seen: the number of readings so far, including these.
        """
        looks, rows, columns = size.shape
        # At first it forgets faster (2 / n): the readings of a start are not typical.
        rate = min(1.0, max(1.0 / self.memory, 2.0 / (seen + 1)))
        fresh = rate * (1.0 - rate) ** np.arange(rows - 1, -1, -1)
        self.weights *= (1.0 - rate) ** rows
        at = np.arange(looks)[:, None, None], np.arange(columns), np.searchsorted(_EDGES, size)
        np.add.at(self.weights, at, weight * fresh[:, None])


def _rarity(size: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Linear interpolation through the cuts, extrapolated with the smallest slope, which never underestimates the
    tail."""
    known = np.concatenate([[0.0], cut])
    rarity = np.concatenate([[0.0], -np.log10(1.0 - _SHARES)])
    # Equal sizes leave no distance between the cuts; a tiny one keeps the line increasing.
    known = np.maximum.accumulate(known + np.arange(len(known)) * 1e-6)
    slope = np.min(np.diff(rarity) / np.diff(known))
    beyond = rarity[-1] + (size - known[-1]) * slope
    return np.asarray(np.where(size <= known[-1], np.interp(size, known, rarity), beyond))
