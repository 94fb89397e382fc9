"""Exclude: rows that keep their numbers and places, and get the sample weight 0.

Leaving a row out would move all later rows, and a run could not resume. So excluded rows stay in their batches. The
node changes nothing: the feed sets the weights of a batch when it receives it (`unbounded.feed.excluded`), since the
batch's step tells which rows it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core import check
from unbounded.core.node import Context, Node
from unbounded.core.trees import Tree
from unbounded.stages.stage import OneToOne

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Exclude(OneToOne):
    """See `Stream.exclude`.

    Args:
        ranges: pairs (first, end), ascending and disjoint.
        source: the name of the rows' source; None if there is one source only.
    """

    ranges: Ranges
    source: str | None = None
    word = "exclude"
    moves_rows = False
    after_batch = True

    def arguments(self) -> dict[str, Any]:
        rows = sum(stop - start for start, stop in self.ranges)
        return {"": f"{rows:,} rows", **({} if self.source is None else {"source": self.source})}

    def open(self, upstream: Node, context: Context) -> Node:
        return upstream

    def names(self, numbers: Any) -> Any:
        """The mask of excluded rows among the row numbers `numbers`, of the same shape."""
        starts, stops = np.array(self.ranges, np.int64).reshape(-1, 2).T
        at = np.searchsorted(starts, numbers, side="right") - 1
        return (at >= 0) & (numbers < stops[at])


def ranges_of(rows: Any, known: int | None) -> Ranges:
    """The user's row numbers and ranges as `Ranges`; `known` is the number of rows, if it is known."""
    if isinstance(rows, range) or not isinstance(rows, Iterable) or isinstance(rows, str):
        rows = [rows]
    found = []
    for each in rows:
        if isinstance(each, range):
            if each.step != 1:
                raise ValueError(f"exclude(rows=…) was given {each!r}. Expected ranges without a step.")
            if len(each):
                found.append((check.at_least(0, each.start, "exclude(rows=[range(start, stop)])"), each.stop))
        else:
            row = check.at_least(0, each, "exclude(rows=[row])")
            found.append((row, row + 1))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    if not merged:
        raise ValueError("exclude(rows=…) was given no rows. Expected row numbers, such as [17, range(100, 200)].")
    last = merged[-1][1] - 1
    if known is not None and last >= known:
        raise ValueError(
            f"exclude(rows=…) names row {last:,}, and the source has {known:,} rows, numbered from 0. Expected rows "
            "that are there."
        )
    return tuple(merged)


def weighted(batch: Tree, without: Any) -> Tree:
    """A batch with weight 0 for the rows where `without` is true: `(x, y)` becomes `(x, y, sample_weight)`."""
    if isinstance(batch, dict):
        return {**batch, "sample_weight": _weights(batch.get("sample_weight"), without)}
    x, y, weight = (*batch, None, None)[:3] if isinstance(batch, tuple) else (batch, None, None)
    return x, y, _weights(weight, without)


def _weights(weight: Any, without: Any) -> Any:
    if weight is None:
        return np.where(without, 0, 1).astype(np.float32)
    return np.where(without.reshape(-1, *[1] * (weight.ndim - 1)), 0, weight).astype(weight.dtype)
