"""exclude: rows that keep their numbers and places, and weigh nothing.

A row that was left out would move all that come after it, and a run could not go on where it stood. So it stays in its
batches, with a sample weight of 0. The stage moves and holds nothing: a feed puts the weights on batches where it takes
them in (`unbounded.feed.excluded`), since it knows their steps, from which follows which rows they have.
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
        ranges: first and one past the last, rising and apart.
        source: whose rows they are; None where there is one source.
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
        """Which of some rows, by their numbers, are meant: bool, of the same shape."""
        starts, stops = np.array(self.ranges, np.int64).reshape(-1, 2).T
        at = np.searchsorted(starts, numbers, side="right") - 1
        return (at >= 0) & (numbers < stops[at])


def ranges_of(rows: Any) -> Ranges:
    """What the user gave as ranges: numbers, and ranges of numbers."""
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
        raise ValueError("exclude(rows=…) was given no row. Expected row numbers, such as [17, range(100, 200)].")
    return tuple(merged)


def weighted(batch: Tree, without: Any) -> Tree:
    """A batch whose rows in a mask weigh nothing: `(x, y)` becomes `(x, y, sample_weight)`."""
    if isinstance(batch, dict):
        return {**batch, "sample_weight": _weights(batch.get("sample_weight"), without)}
    x, y, weight = (*batch, None, None)[:3] if isinstance(batch, tuple) else (batch, None, None)
    return x, y, _weights(weight, without)


def _weights(weight: Any, without: Any) -> Any:
    if weight is None:
        return np.where(without, 0, 1).astype(np.float32)
    return np.where(without.reshape(-1, *[1] * (weight.ndim - 1)), 0, weight).astype(weight.dtype)
