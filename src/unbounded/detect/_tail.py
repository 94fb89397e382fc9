"""Tail: the distribution of a size, as a histogram that slowly forgets, and the probability of larger sizes.

Beyond a high quantile the probability is that of a generalized Pareto distribution, fitted by its moments to the
excesses: peaks over threshold (Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017;
moments: Hosking and Wallis, Technometrics 29, 1987). So sizes that never occurred have a probability, too.
"""

from __future__ import annotations

import numpy as np

HIGHEST = 20.0
# Four bins for each doubling, from 2**-10 to 2**10.
_EDGES = 2.0 ** (np.arange(-40, 41) / 4.0)
_BINS = len(_EDGES) + 1
_MIDDLES = np.concatenate([[0.0], np.sqrt(_EDGES[1:] * _EDGES[:-1]), [_EDGES[-1]]])
ABOVE = 0.05  # the fraction of the sizes that make the tail
# What is known of a tail before it was seen: a shape slightly heavier than an exponential one, worth ten excesses, and
# a mean excess of a third of the quantile, as of a normal distribution, worth two. The quantile counts as at least half
# that of the opposite direction: a drift leaves no sizes in one of them.
PRIOR_SHAPE, SHAPE_WEIGHT = 0.1, 10.0
PRIOR_MEAN, MEAN_WEIGHT = 0.3, 2.0
HEAVIEST = 0.6


class Tail:
    """The distributions of several sizes, in constant memory.

    Args:
        spans: for each look, the number of readings over which its size hardly changes, [looks].
        opposite: for each look, that of the other direction, [looks].
        columns: the number of columns.
        memory: readings after which an observation counts about a third.

    Example:
        >>> tail = Tail(np.ones(1), np.zeros(1, dtype=int), columns=1, memory=1_000)
        >>> sizes = np.random.default_rng(0).exponential(size=(1_000, 1, 1))
        >>> tail.learn(sizes, np.ones_like(sizes), seen=np.array([1_000]))
        >>> tail.rarity(np.array([[[2.3]], [[4.6]]])).round().ravel()
        array([1., 2.])
    """

    def __init__(self, spans: np.ndarray, opposite: np.ndarray, columns: int, memory: int) -> None:
        self.memory = memory
        self.weights = np.zeros((len(spans), columns, _BINS), dtype=np.float32)
        self._spans, self._opposite = spans[:, None], opposite
        self._place = np.indices((len(spans), columns))
        self.fit()

    def rarity(self, size: np.ndarray) -> np.ndarray:
        """-log10 of the fraction of readings that are as large; at most 20.

        Args:
            size: not negative, [rows, looks, columns].

        Returns:
            The same shape; 0 before anything was learned.
        """
        looks, columns = self._place
        at = np.searchsorted(_EDGES, size)
        low = np.where(at > 0, _EDGES[np.maximum(at - 1, 0)], 0.0)
        high = _EDGES[np.minimum(at, len(_EDGES) - 1)]
        share = np.clip((size - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
        below, upper = self._above[looks, columns, at], self._above[looks, columns, at + 1]
        inside = -np.log10(np.maximum(below + share * (upper - below), 1e-20))
        excess = np.maximum(size - self._cut, 0.0) / self._scale
        beyond = np.log1p(self._shape * excess) / (self._shape * np.log(10.0)) - np.log10(self._share)
        out: np.ndarray = np.minimum(np.where(size > self._cut, beyond, inside), HIGHEST)
        return np.where(self._known, out, 0.0)

    def learn(self, size: np.ndarray, weight: np.ndarray, seen: np.ndarray) -> None:
        """Add observations, and forget older ones.

        Args:
            size: not negative, [rows, looks, columns], the newest last.
            weight: of each, the same shape.
            seen: the number of readings so far, including these, [columns].
        """
        rows = len(size)
        # At first it forgets faster (2 / n): the readings of a start are not typical.
        keep = 1.0 - np.minimum(1.0, np.maximum(1.0 / self.memory, 2.0 / (seen + 1.0)))
        fresh = keep ** np.arange(rows - 1, -1, -1)[:, None]
        self.weights *= (keep**rows)[:, None]
        at = (*self._place, np.searchsorted(_EDGES, size))
        np.add.at(self.weights, at, weight * fresh[:, None])
        self.fit()

    def fit(self) -> None:
        """Fit the tails: each begins at the edge of a bin above which lies about a twentieth of the weight."""
        weights = self.weights.astype(np.float64)
        total = weights.sum(axis=-1, keepdims=True)
        above = np.cumsum(weights[..., ::-1], axis=-1)[..., ::-1] / np.maximum(total, 1e-12)
        # Item i is the fraction in bin i and those higher; the last is that above all bins.
        self._above = np.concatenate([above, np.zeros_like(total)], axis=-1)
        self._known = total[..., 0] > 0
        edge = np.clip((above > ABOVE).sum(axis=-1) - 1, 0, len(_EDGES) - 1)
        self._cut = _EDGES[edge]
        self._share = np.maximum(np.take_along_axis(self._above, edge[..., None] + 1, axis=-1)[..., 0], 1e-4)
        weights *= np.arange(_BINS) > edge[..., None]
        over = _MIDDLES - self._cut[..., None]
        count = weights.sum(axis=-1)
        mean = (weights * over).sum(axis=-1) / np.maximum(count, 1e-12)
        square = (weights * over**2).sum(axis=-1) / np.maximum(count, 1e-12)
        # The excesses of a slow look come in runs: a run counts once.
        count /= self._spans
        shape = np.where(count > 0, 0.5 * (1.0 - mean**2 / np.maximum(square - mean**2, 1e-24)), 0.0)
        shape = np.clip(shape, 0.0, HEAVIEST)
        self._shape = (shape * count + PRIOR_SHAPE * SHAPE_WEIGHT) / (count + SHAPE_WEIGHT)
        usual = PRIOR_MEAN * np.maximum(self._cut, 0.5 * self._cut[self._opposite])
        mean = (mean * count + usual * MEAN_WEIGHT) / (count + MEAN_WEIGHT)
        self._scale = np.maximum(mean * (1.0 - self._shape), 1e-9)
