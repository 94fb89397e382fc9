"""Moments: running mean and variance, with which each row is normalised, including itself.

The method is that of Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances" (1979): deviations are summed relative to the mean at the last multiple of `GROUP` rows, so that nothing
cancels however long the stream is. Sums are carried on row by row, so results are bit-equal for any cut into blocks.
Statistics of each key's own rows are in `keyed_moments`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core.trees import Array, Tree

GROUP = 1024

_FEW = 16  # rows: up to this many, a Python loop is faster than a sum along the first axis

Floats = NDArray[np.float64]


class State(NamedTuple):
    """The statistics of one leaf's rows so far; each array has one entry for each value of a row.

    `known` (counts), `mean` and `spread` (sums of squared deviations) are those at the last multiple of `GROUP` rows;
    `more`, `sum` and `squares` those of the rows since, relative to that mean. `rows` counts all rows, including NaN.
    """

    rows: int
    known: Floats
    mean: Floats
    spread: Floats
    more: Floats
    sum: Floats
    squares: Floats


def start(width: int) -> State:
    """The statistics of no rows."""
    return State(0, *(np.zeros(width) for _ in range(6)))


def flat(leaf: Array) -> Floats:
    """A leaf's values, of shape (rows, width)."""
    return leaf.reshape(len(leaf), -1).astype(np.float64)


def normalized(values: Floats, state: State) -> tuple[Floats, State]:
    """Values of shape (rows, width), each row normalised by the statistics up to and including it; and the state after
    the last row."""
    out = np.empty_like(values)
    done = 0
    while done < len(values):
        stop = min(len(values), done + GROUP - state.rows % GROUP)
        out[done:stop], state = _within(values[done:stop], state)
        done = stop
    return out, state


def _within(values: Floats, state: State) -> tuple[Floats, State]:
    """The same for rows that end at or before the next multiple of `GROUP`."""
    made = running(values, np.isfinite(values), *state[1:])
    rows = state.rows + len(values)
    last = [each[-1] for each in (made.more, made.sum, made.squares)]
    if rows % GROUP:
        return made.out, State(rows, state.known, made.mean, state.spread, *last)
    zeros = np.zeros_like(made.mean)
    mean, known = made.mean + made.shift[-1], state.known + last[0]
    return made.out, State(rows, known, mean, made.spread[-1], zeros, zeros, zeros)


class RunningMoments(NamedTuple):
    """Normalised values, and the statistics after each row; all but `mean` have the shape of the values."""

    out: Floats
    mean: Floats
    more: Floats
    sum: Floats
    squares: Floats
    shift: Floats
    spread: Floats


def running(
    values: Floats,
    finite: NDArray[np.bool_],
    known: Floats,
    mean: Floats,
    spread: Floats,
    more: Floats,
    total: Floats,
    squares: Floats,
) -> RunningMoments:
    """Normalise values of shape (rows, …), given the state before them, with arrays of shape (…).

    Args:
        finite: the mask of the values that count.
    """
    begun = known + more > 0
    if not begun.all():
        # Before the first group ends, the first finite value serves as the mean.
        first = np.take_along_axis(values, finite.argmax(0)[None], 0)[0]
        mean = np.where(begun, mean, np.where(finite.any(0), first, 0.0))
    deviation = values - mean
    if not finite.all():
        deviation[~finite] = 0.0

    def summed(carry: Floats, each: Floats) -> Floats:
        if len(each) <= _FEW:
            out = np.empty_like(each)
            for i, one in enumerate(each):
                carry = np.add(carry, one, out=out[i])
            return out
        # The carry comes first: the additions are then the same, in the same order, for any cut into blocks.
        return np.cumsum(np.concatenate([carry[None], each]), axis=0)[1:]

    mores = summed(more, finite.astype(np.float64))
    totals = summed(total, deviation)
    squared = summed(squares, deviation * deviation)
    count = np.maximum(known + mores, 1.0)
    shift = totals / count
    spreads = np.maximum(spread + squared - totals * shift, 0.0)
    scale = np.sqrt(spreads / count)
    out = (values - (mean + shift)) / np.where(scale > 0, scale, 1.0)
    return RunningMoments(out, mean, mores, totals, squared, shift, spreads)


class Moments:
    """The statistics of all rows, leaf by leaf."""

    def __init__(self) -> None:
        # Replaced, never changed in place: cursors refer to it.
        self._states: Mapping[str, State] = {}

    def advance(self, rows: Tree, leaves: Mapping[str, Array]) -> tuple[dict[str, Floats], Callable[[], None]]:
        """The normalised leaves, of shape (rows, width), and a function that makes the statistics advance."""
        states = dict(self._states)
        out = {}
        for path, leaf in leaves.items():
            values = flat(leaf)
            out[path], states[path] = normalized(values, states.get(path) or start(values.shape[1]))

        def accept() -> None:
            self._states = states

        return out, accept

    def own(self) -> Mapping[str, Any]:
        """The node's own part of its cursor."""
        return {"states": self._states}

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Restore from `own`."""
        self._states = {path: State(*state) for path, state in own["states"].items()}

    @property
    def expired(self) -> int:
        """0: there are no keys."""
        return 0
