"""normalize: columns to mean 0 and variance 1, by the statistics of all rows so far.

Each row is normalised with the mean and variance of the rows up to and including it, kept as in Chan, Golub
and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979): deviations
are summed relative to the mean at the last multiple of `GROUP` rows, so that nothing cancels however long the
stream is. Sums run row by row from a carried state, so that they come out bit-equal however the rows are cut
into blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.stage import Stage, Through

GROUP = 1024


@dataclass(frozen=True)
class Normalize(Stage):
    """See `Stream.normalize`."""

    columns: tuple[Any, ...] = ()
    by: str | None = None
    word = "normalize"

    def open(self, upstream: Node, context: Context) -> Node:
        return _Normalize(upstream, self)


class State(NamedTuple):
    """The statistics of one leaf's rows so far, each array one number for each value in a row.

    `known`, `mean` and `spread` (the summed squares of deviations) are those at the last multiple of `GROUP`
    rows; `more`, `sum` and `squares` those of the rows since, relative to that mean. `rows` counts rows, NaN
    or not.
    """

    rows: int
    known: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    more: NDArray[np.float64]
    sum: NDArray[np.float64]
    squares: NDArray[np.float64]


def start(width: int) -> State:
    """No rows yet."""
    return State(0, *(np.zeros(width) for _ in range(6)))


def normalized(values: NDArray[np.float64], state: State) -> tuple[NDArray[np.float64], State]:
    """Values of shape (rows, width), each row by the statistics up to and including it; and the state after
    them."""
    out = np.empty_like(values)
    done = 0
    while done < len(values):
        stop = min(len(values), done + GROUP - state.rows % GROUP)
        out[done:stop], state = _within(values[done:stop], state)
        done = stop
    return out, state


def _within(values: NDArray[np.float64], state: State) -> tuple[NDArray[np.float64], State]:
    """The same for rows that do not reach past the next multiple of `GROUP`."""
    known = np.isfinite(values)
    # The first value there is serves as the mean until there is one.
    first = np.where(known.any(0), values[known.argmax(0), np.arange(values.shape[1])], 0.0)
    mean = np.where(state.known + state.more > 0, state.mean, first)
    deviation = np.where(known, values - mean, 0.0)

    def running(carry: NDArray[np.float64], each: NDArray[Any]) -> NDArray[np.float64]:
        # The carry goes first, so that the additions are the same ones in the same order whatever the cut.
        return np.cumsum(np.concatenate([carry[None], each]), axis=0)[1:]

    more = running(state.more, known.astype(np.float64))
    total = running(state.sum, deviation)
    squares = running(state.squares, deviation * deviation)
    count = np.maximum(state.known + more, 1.0)
    shift = total / count
    spread = np.maximum(state.spread + squares - total * shift, 0.0)
    scale = np.sqrt(spread / count)
    out = (values - (mean + shift)) / np.where(scale > 0, scale, 1.0)
    rows = state.rows + len(values)
    if rows % GROUP:
        return out, State(rows, state.known, mean, state.spread, more[-1], total[-1], squares[-1])
    zeros = np.zeros_like(mean)
    return out, State(rows, state.known + more[-1], mean + shift[-1], spread[-1], zeros, zeros, zeros)


class _Normalize(Through):
    def __init__(self, upstream: Node, normalize: Normalize) -> None:
        super().__init__(upstream)
        self._columns = normalize.columns
        self._by = normalize.by
        # By key and leaf path. Never changed in place: cursors refer to it.
        self._states: Mapping[Any, Mapping[str, State]] = {}
        self._bad = 0

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        rows = block.rows
        keys: list[Any] = [""]
        groups: list[Array] = [np.arange(block.count)]
        if self._by is not None:
            if not isinstance(rows, dict) or self._by not in rows:
                raise RowsError(
                    f"normalize(by={self._by!r}) was given rows without that column. Expected a dict with it; the rows "
                    f"have {trees.columns(rows)}."
                )
            unique, inverse = np.unique(rows[self._by], return_inverse=True)
            keys = unique.tolist()
            groups = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
        states = {key: dict(self._states.get(key, {})) for key in keys}
        bad = np.zeros(block.count, bool)
        out: dict[str, Array] = {}
        for path, leaf in trees.leaves(rows):
            if not self._chosen(rows, path, leaf):
                continue
            flat = leaf.reshape(block.count, -1).astype(np.float64)
            bad |= ~np.isfinite(flat).all(axis=1)
            made = np.empty_like(flat)
            for key, index in zip(keys, groups, strict=True):
                state = states[key].get(path) or start(flat.shape[1])
                made[index], states[key][path] = normalized(flat[index], state)
            out[path] = trees.empty(leaf.shape, leaf.dtype)
            out[path][...] = made.reshape(leaf.shape)
        for column in self._columns:
            if not any(path.startswith(f"[{column!r}]") for path, _ in trees.leaves(rows)):
                have = trees.columns(rows)
                raise RowsError(f"normalize() was asked for column {column!r}, and the rows have {have}.")
        if not out:
            raise RowsError(
                "normalize() found no floating-point column in the rows. Expected one: .map() can make it, with "
                ".astype('float32')."
            )
        paths = iter([path for path, _ in trees.leaves(rows)])
        changed = block.with_rows(trees.map_leaves(lambda leaf: out.get(next(paths), leaf), rows))
        self._states = {**self._states, **states}
        self._bad += int(bad.sum())
        return changed

    def _chosen(self, rows: Tree, path: str, leaf: Array) -> bool:
        if self._columns:
            for column in self._columns:
                if path.startswith(f"[{column!r}]"):
                    if leaf.dtype.kind != "f":
                        raise RowsError(
                            f"normalize({column!r}) was given {leaf.dtype}. Expected a floating-point dtype."
                        )
                    return True
            return False
        return leaf.dtype.kind == "f"

    def own(self) -> Mapping[str, Any]:
        return {"states": self._states, "bad": self._bad}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._states = {k: {p: State(*s) for p, s in paths.items()} for k, paths in own["states"].items()}
        self._bad = own["bad"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "bad": counts.get("bad", 0) + self._bad}
