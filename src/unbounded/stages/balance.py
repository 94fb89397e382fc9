"""Balance: equal shares of classes within consecutive groups of rows.

Each `rows` consecutive rows are a group, from which as many rows are drawn. Groups begin at fixed rows and close at a
boundary, as the buffers of `shuffle` do, so that a row's place follows from the seed and the rows of its group alone:
nothing is kept from one group to the next, and a cursor is the group's first row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unbounded.core import check, trees
from unbounded.core.block import Block
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Context, EndOfStream, Node
from unbounded.core.permutation import seeds_of
from unbounded.stages.keys import check_by, hashable, keys_of
from unbounded.stages.stage import Holding, Stage


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


class _BalanceNode(Holding):
    def __init__(self, upstream: Node, balance: Balance, context: Context) -> None:
        super().__init__(upstream)
        self._balance = balance
        self._key = (balance.seed, context.place)
        self._batch = context.batch_rows
        self._held: InputBuffer[Block] = InputBuffer(upstream)
        self._begin(0, 0)

    def _begin(self, number: int, given: int) -> None:
        self._number = number
        self._given = given
        self._group: Block | None = None
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def pull(self, timeout: float | None) -> Block | None:
        if self._group is None and not self._fill(timeout):
            return None
        group = self._group
        assert group is not None
        total = len(self._order)
        stop = total
        if total:
            stop = min(total, self._given + trees.block_rows(trees.row_bytes(group.rows), self._batch))
        out = group.gather(self._order[self._given : stop]) if total else group
        if stop < total:
            self._given = stop
            return out
        out = replace(out, boundary=group.boundary)
        self._held.drop(group.count)
        self._held.keep(self._held.head)
        self._begin(self._number + (1 if group.count else 0), 0)
        return out

    def _fill(self, timeout: float | None) -> bool:
        held = self._held
        while held.run < self._balance.rows and not held.closed:
            try:
                if not held.pull(timeout):
                    return False
            except EndOfStream:
                if not held.count:
                    raise
                break
        group = held.peek(min(self._balance.rows, held.run))
        if group.count:
            self._order = self._drawn(keys_of(group.rows, self._balance.by, f"balance(by={self._balance.by!r})"))
            if group.seen is not None:
                # The whole group has to be read before its first row is known.
                group = replace(group, seen=np.full(group.count, group.seen.max()))
        self._group = group
        return True

    def _drawn(self, keys: trees.Array) -> NDArray[np.int64]:
        """The rows of a group that come out, in their order."""
        names: dict[Any, int] = {}
        classes = np.array([names.setdefault(key, len(names)) for key in hashable(keys)])
        counts = np.bincount(classes, minlength=len(names))
        rng = np.random.Generator(np.random.PCG64(seeds_of((*self._key, self._number))))
        parts = []
        for name, quota in enumerate(quotas(counts, len(keys), self._balance.repeats).tolist()):
            rows = rng.permutation(np.flatnonzero(classes == name))
            # Each row equally often, or once more: those that come first in a random order.
            parts.append(np.resize(rows, quota))
        return rng.permutation(np.concatenate(parts))

    def own(self) -> Mapping[str, Any]:
        return {"number": self._number, "given": self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["number"], own["given"])
