"""Normalize: scales columns to mean 0 and variance 1, by the statistics of all rows so far, or of each key's own rows.

The statistics are computed by `moments` and `keyed_moments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core import check, trees
from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.keyed_moments import KeyedMoments
from unbounded.stages.keys import EXPIRE, check_by
from unbounded.stages.moments import Moments
from unbounded.stages.stage import Stage, Through


@dataclass(frozen=True)
class Normalize(Stage):
    """See `Stream.normalize`."""

    columns: tuple[Any, ...] = ()
    by: str | None = None
    expire: int | None = EXPIRE
    word = "normalize"

    def __post_init__(self) -> None:
        check_by(self.by, "normalize")
        if self.expire is not None:
            if self.by is None and self.expire != EXPIRE:
                raise ValueError(
                    "normalize(expire=…) was given without by=. Expected the column that tells the keys apart."
                )
            check.positive(self.expire, "normalize(expire=…)")

    def arguments(self) -> dict[str, Any]:
        # `expire` is shown even at its default, since it changes the result.
        return super().arguments() | ({} if self.by is None else {"expire": self.expire})

    def open(self, upstream: Node, context: Context) -> Node:
        if self.by is None:
            return _NormalizeNode(upstream, self, Moments())
        return _NormalizeNode(upstream, self, KeyedMoments(self.by, self.expire, context.runtime.unique()))


class _NormalizeNode(Through):
    def __init__(self, upstream: Node, normalize: Normalize, moments: Moments | KeyedMoments) -> None:
        super().__init__(upstream)
        self._columns = normalize.columns
        self._moments = moments
        self._bad = 0

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        rows = block.rows
        leaves = {path: leaf for path, leaf in trees.leaves(rows) if self._chosen(rows, path, leaf)}
        for column in self._columns:
            if not any(path.startswith(f"[{column!r}]") for path, _ in trees.leaves(rows)):
                have = trees.columns(rows)
                raise RowsError(f"normalize() was asked for column {column!r}, and the rows have {have}.")
        made, accept = self._moments.advance(rows, leaves)
        if not leaves:
            raise RowsError(
                "normalize() found no floating-point column in the rows. Expected one: .map() can make it, with "
                ".astype('float32')."
            )
        bad = np.zeros(block.count, bool)
        out: dict[str, Array] = {}
        for path, leaf in leaves.items():
            bad |= ~np.isfinite(leaf.reshape(block.count, -1)).all(axis=1)
            out[path] = trees.empty(leaf.shape, leaf.dtype)
            out[path][...] = made[path].reshape(leaf.shape)
        paths = iter([path for path, _ in trees.leaves(rows)])
        changed = block.with_rows(trees.map_leaves(lambda leaf: out.get(next(paths), leaf), rows))
        # All that can fail is done.
        accept()
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
        return {**self._moments.own(), "bad": self._bad}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._moments.take_up(own)
        self._bad = own["bad"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        ours = {"bad": self._bad, "expired": self._moments.expired}
        return {**counts, **{name: counts.get(name, 0) + count for name, count in ours.items()}}
