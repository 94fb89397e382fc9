"""RandomMap: random changes of rows, such as augmentation, that are the same after any number of resumes.

The function's generator is seeded by the seed, the stage's place and an ordinal: before `batch`, that of a group of
rows at a fixed place; after `batch`, that of the batch. So draws do not depend on how rows arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unbounded.core import check, trees
from unbounded.core.block import Block, Run
from unbounded.core.cursor import compose
from unbounded.core.input_buffer import Address, InputBuffer, compose_held
from unbounded.core.node import Context, Cursor, EndOfStream, Node
from unbounded.core.permutation import seeds_of
from unbounded.core.trees import Tree
from unbounded.stages.calls import Caller
from unbounded.stages.stage import Holding, Stage, Through, name_of

RandomFn = Callable[[Tree, np.random.Generator], Tree]


@dataclass(frozen=True)
class RandomMap(Stage):
    """See `Stream.random_map`."""

    fn: RandomFn
    seed: int = 0
    group: int = 64
    batched: bool = False
    word = "random_map"
    after_batch = True

    def __post_init__(self) -> None:
        check.function(self.fn, "random_map(fn)", "rows", "rng")
        check.positive(self.group, "random_map(group=n)")
        object.__setattr__(self, "seed", check.seed(self.seed, "random_map(seed=n)"))

    @property
    def ends_with_pass(self) -> bool:  # type: ignore[override]
        """True if rows are changed in groups."""
        return not self.batched

    def arguments(self) -> dict[str, Any]:
        return {k: v for k, v in super().arguments().items() if k != "batched"}

    def open(self, upstream: Node, context: Context) -> Node:
        draw = _AddressedCall(self.fn, (self.seed, context.place))
        return _PerBatch(upstream, draw) if self.batched else _PerGroup(upstream, draw, self.group)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        if self.batched:
            return compose([upstream(ordinal)], {"number": ordinal})
        # A pass is a whole number of groups, the last of which is short: the end of a pass closes a group.
        passed, within = divmod(ordinal, rows) if rows else (0, ordinal)
        in_pass, given = divmod(within, self.group)
        number = passed * -(-(rows or 0) // self.group) + in_pass
        return compose_held([Address(upstream(ordinal - given))], {"number": number, "given": given})

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        return ordinal


class _AddressedCall:
    """Calls the function with a generator that is seeded by an ordinal."""

    def __init__(self, fn: RandomFn, key: tuple[int, int]) -> None:
        self._fn = fn
        self._key = key
        self._call = Caller(lambda rows: rows, f"random_map({name_of(fn)})")

    def __call__(self, block: Any, number: int) -> Any:
        seeds = seeds_of((*self._key, number))
        # A new generator for each call: a repeated call must draw the same numbers.
        return self._call(block, lambda rows: self._fn(rows, np.random.Generator(np.random.PCG64(seeds))))


class _PerBatch(Through):
    """The node after `batch`: one generator for each batch."""

    def __init__(self, upstream: Node, draw: _AddressedCall) -> None:
        super().__init__(upstream)
        self._draw = draw
        self._number = 0

    def apply(self, block: Block | Run) -> Run:
        assert isinstance(block, Run)
        items: list[Tree] = []
        for i in range(block.count):
            items += self._draw(block.part(i, i + 1), self._number + i).items
        out = replace(block, items=items, parts=tuple(items))
        self._number += block.count
        return out

    def own(self) -> Mapping[str, Any]:
        return {"number": self._number}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._number = own["number"]


class _PerGroup(Holding):
    """The node before `batch`: one generator for each group of rows; a group begins at a fixed row, and ends early at a
    boundary."""

    def __init__(self, upstream: Node, draw: _AddressedCall, size: int) -> None:
        super().__init__(upstream)
        self._draw = draw
        self._size = size
        self._held: InputBuffer[Block] = InputBuffer(upstream)
        self._number = 0
        # Rows of the current group that were returned: after a restore the group is made again without them.
        self._given = 0

    def pull(self, timeout: float | None) -> Block | None:
        held = self._held
        ended = False
        while held.run < self._size and not held.closed:
            try:
                if not held.pull(timeout):
                    return None
            except EndOfStream:
                if not held.count:
                    raise
                ended = True
                break
        whole = held.run if held.closed or ended else held.run // self._size * self._size
        parts: list[Block] = []
        number, left = self._number, self._given
        view = held.peek(whole)
        for start in range(0, max(1, view.count), self._size):
            made = self._draw(view.part(start, start + self._size), number)
            number += 1 if made.count else 0
            parts.append(made.part(left, made.count) if left else made)
            left = 0
        out = parts[0]
        if len(parts) > 1:
            count = sum(p.count for p in parts)
            out = replace(view.part(view.count - count, view.count), rows=trees.join([p.rows for p in parts]))
        held.drop(whole)
        held.keep(held.head)
        self._number, self._given = number, 0
        return out

    def own(self) -> Mapping[str, Any]:
        return {"number": self._number, "given": self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._number, self._given = own["number"], own["given"]
