"""Quotas: the input of a mix from which each output row comes, as a function of weights, seed and row number.

Output rows are dealt in groups of 1,024. In each group every input has a quota, an integer; the rounding error is
carried to the next group. So after any number of groups an input's rows differ from its exact share by less than one
row; the input with the greatest weight takes the remainder, and differs by less than the number of other inputs. Within
a group the rows come in a keyed random order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unbounded.core.permutation import seeds_of

GROUP = 1024
INPUTS = 16
"""The most inputs of a mix: the greatest weight is then at least 1/16, and its 64 rows in a group are never fewer than
what the other inputs can have beyond their shares, which is less than 2 rows each."""
BLOCK = 16
"""The number of groups that are dealt at once."""

Table: TypeAlias = Sequence[tuple[int, Sequence[int]]]
"""Pairs (first group, weights): integers, one for each input, that hold from that group on."""


def edge_after(row: int) -> int:
    """The end of the group that contains an output row."""
    return (row // GROUP + 1) * GROUP


class _GroupRange(NamedTuple):
    """A sequence of groups with the same weights."""

    first: int  # the number of its first group
    taken: list[int]  # rows of each input in earlier groups
    owed: list[int]  # the carried rounding error of each input, in units of 1/total rows
    weights: list[int]  # with the sum `total`, or 0
    total: int

    def taken_by(self, group: int) -> list[int]:
        """The rows of each input in the groups before `group`."""
        out = GROUP * (group - self.first)
        if not out or not any(self.weights):
            return self.taken
        more = [max(0, (o + w * out) // self.total) for o, w in zip(self.owed, self.weights, strict=True)]
        # The remainder goes to one input, so that a group's quotas have a closed form.
        greatest = self.weights.index(max(self.weights))
        more[greatest] += out - sum(more)
        return [before + now for before, now in zip(self.taken, more, strict=True)]


class Quotas:
    """The number of rows of each input before any group.

    Args:
        table: the weights.
        since: the group at which counting begins, with no error carried.
        out: inputs without a share from there on.
    """

    def __init__(self, table: Table, since: int = 0, out: Collection[int] = ()) -> None:
        at = max(0, bisect_right([first for first, _ in table], since) - 1)
        weights = [[0 if i in out else w for i, w in enumerate(row)] for _, row in table[at:]]
        self._firsts = [since, *(first for first, _ in table[at + 1 :])]
        # One unit for all rows of the table: the error is carried exactly from one to the next.
        total = math.lcm(*(sum(row) or 1 for row in weights))
        self._ranges: list[_GroupRange] = []
        taken, owed = [0] * len(weights[0]), [0] * len(weights[0])
        for first, row in zip(self._firsts, weights, strict=True):
            if self._ranges:
                before = self._ranges[-1]
                taken = before.taken_by(first)
                if any(before.weights):
                    out_rows = GROUP * (first - before.first)
                    owed = [
                        max(-total, min(o + w * out_rows - (now - then) * total, total))
                        for o, w, now, then in zip(before.owed, before.weights, taken, before.taken, strict=True)
                    ]
            whole = [w * (total // (sum(row) or 1)) for w in row]
            self._ranges.append(_GroupRange(first, taken, owed, whole, total))

    def _at(self, group: int) -> int:
        return max(0, bisect_right(self._firsts, group) - 1)

    def taken(self, group: int) -> list[int]:
        """The rows of each input in the groups from `since` up to `group`."""
        return self._ranges[self._at(group)].taken_by(group)

    def of(self, group: int) -> list[int]:
        """The rows of each input in one group."""
        return [after - before for before, after in zip(self.taken(group), self.taken(group + 1), strict=True)]

    def next_with_rows(self, group: int) -> int | None:
        """The first group from `group` on in which an input has a share; None if there is none."""
        at = self._at(group)
        if any(self._ranges[at].weights):
            return group
        return next((each.first for each in self._ranges[at + 1 :] if any(each.weights)), None)

    def group_of(self, index: int, row: int) -> int:
        """The group that has row number `row` of an input, both counted from `since`; LookupError if there is none."""
        last = self._ranges[-1]
        if not last.weights[index] and self.taken(last.first)[index] <= row:
            raise LookupError
        low, high = self._firsts[0], self._firsts[-1] + 1
        while self.taken(high)[index] <= row:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.taken(middle)[index] <= row else (low, middle)
        return low


class Dealer:
    """Assigns an input to each output row.

    Args:
        inputs: the number of inputs.
        key: of the random order, together with the number of the group.
    """

    def __init__(self, inputs: int, key: tuple[int, ...]) -> None:
        self._inputs = inputs
        self._key = key
        self._orders: tuple[int, NDArray[Any]] | None = None  # (number of a block of groups, their orders)
        self._dealt: tuple[int, Quotas, NDArray[np.uint8]] | None = None

    def deal(self, block: int, quotas: Quotas) -> NDArray[np.uint8]:
        """The input of each output row in a block of groups; `inputs` if no input has a share."""
        if self._dealt is None or self._dealt[0] != block or self._dealt[1] is not quotas:
            taken = [quotas.taken(group) for group in range(block * BLOCK, (block + 1) * BLOCK + 1)]
            counts = np.zeros((BLOCK, self._inputs + 1), np.int64)
            counts[:, :-1] = np.diff(np.array(taken, object), axis=0)
            counts[:, -1] = GROUP - counts[:, :-1].sum(axis=1)
            each = np.tile(np.arange(self._inputs + 1, dtype=np.uint8), BLOCK)
            inputs = np.repeat(each, counts.ravel()).reshape(BLOCK, GROUP)
            dealt = np.take_along_axis(inputs, self._order(block), axis=1).ravel()
            self._dealt = (block, quotas, dealt)
        return self._dealt[2]

    def _order(self, block: int) -> NDArray[Any]:
        if self._orders is None or self._orders[0] != block:
            rng = np.random.Generator(np.random.PCG64(seeds_of((*self._key, block))))
            # Sorted by random 16-bit numbers, which NumPy does in linear time: a third of the time of a shuffle. Equal
            # numbers, one pair in 65,536, keep their order.
            drawn = rng.integers(0, 1 << 16, (BLOCK, GROUP), np.uint16)
            self._orders = (block, drawn.argsort(axis=1, kind="stable"))
        return self._orders[1]

    def before(self, ordinal: int, quotas: Quotas) -> list[int]:
        """The rows of each input among the first `ordinal` output rows, counted from group 0."""
        group, within = divmod(ordinal, GROUP)
        block, start = divmod(group, BLOCK)
        dealt = self.deal(block, quotas)[start * GROUP : start * GROUP + within]
        more = np.bincount(dealt, minlength=self._inputs + 1)[: self._inputs]
        return [before + int(now) for before, now in zip(quotas.taken(group), more, strict=True)]

    def ordinal_of(self, index: int, row: int, quotas: Quotas) -> int:
        """The output row that is row `row` of input `index`, counted from group 0; LookupError if there is none."""
        group = quotas.group_of(index, row)
        block, start = divmod(group, BLOCK)
        dealt = self.deal(block, quotas)[start * GROUP : (start + 1) * GROUP]
        return group * GROUP + int(np.flatnonzero(dealt == index)[row - quotas.taken(group)[index]])
