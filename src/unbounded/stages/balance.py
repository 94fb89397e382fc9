"""Balance: equal shares of classes within consecutive groups of rows.

Each `rows` consecutive rows are a group, from which as many rows are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unbounded.core import check
from unbounded.core.block import Block
from unbounded.core.node import Context, Node
from unbounded.core.permutation import seeds_of
from unbounded.stages.keys import check_by, hashable, keys_of
from unbounded.stages.row_groups import RowGroups
from unbounded.stages.stage import Stage


@dataclass(frozen=True)
class Balance(Stage):
    """See `Stream.balance`."""

    by: str
    rows: int = 10_000
    repeats: int = 20
    seed: int = 0
    word: ClassVar[str] = "balance"
    ends_with_pass = True

    def __post_init__(self) -> None:
        check_by(self.by, "balance")
        if not isinstance(self.by, str):
            raise TypeError(f"balance(by={self.by!r}): expected the name of a column.")
        object.__setattr__(self, "rows", check.at_least(2, self.rows, "balance(rows=n)"))
        object.__setattr__(self, "repeats", check.positive(self.repeats, "balance(repeats=n)"))
        object.__setattr__(self, "seed", check.seed(self.seed, "balance(seed=n)"))

    def arguments(self) -> dict[str, Any]:
        return {"": repr(self.by)} | {name: value for name, value in super().arguments().items() if name != "by"}

    def open(self, upstream: Node, context: Context) -> Node:
        return _BalanceNode(upstream, self, context)


def quotas(counts: NDArray[np.int64], rows: int, repeats: int) -> NDArray[np.int64]:
    """How many rows of each class come out of a group: shares as equal as possible, and `rows` in all, which is the sum
    of `counts`; each row of a class at most `repeats` times.

    >>> quotas(np.array([90, 9, 1]), 100, 20).tolist()
    [40, 40, 20]
    """
    most = counts * repeats
    found = np.zeros_like(counts)
    open_classes = np.arange(len(counts))
    left = rows
    while left and len(open_classes):
        share = left // len(open_classes)
        limited = open_classes[most[open_classes] <= share]
        if not len(limited):
            found[open_classes] = share
            # What is left over goes to the largest classes, the first of them where they are equal.
            order = open_classes[np.argsort(-counts[open_classes], kind="stable")]
            found[order[: left - share * len(open_classes)]] += 1
            break
        found[limited] = most[limited]
        left -= int(most[limited].sum())
        open_classes = np.setdiff1d(open_classes, limited)
    return found


class _BalanceNode(RowGroups):
    def __init__(self, upstream: Node, balance: Balance, context: Context) -> None:
        super().__init__(upstream, balance.rows, balance.seed, context)
        self._balance = balance

    def _ordered(self, group: Block, key: tuple[int, ...]) -> NDArray[np.int64]:
        keys = keys_of(group.rows, self._balance.by, f"balance(by={self._balance.by!r})")
        names: dict[Any, int] = {}
        classes = np.array([names.setdefault(each, len(names)) for each in hashable(keys)])
        counts = np.bincount(classes, minlength=len(names))
        rng = np.random.Generator(np.random.PCG64(seeds_of(key)))
        parts = []
        for name, quota in enumerate(quotas(counts, len(keys), self._balance.repeats).tolist()):
            rows = rng.permutation(np.flatnonzero(classes == name))
            # Each row equally often, or once more: those that come first in a random order.
            parts.append(np.resize(rows, quota))
        return rng.permutation(np.concatenate(parts))
