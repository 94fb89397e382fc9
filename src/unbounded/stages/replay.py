"""Replay: recent rows, repeated, each used about `reuse` times.

Output row o may be any of the rows in the buffer when row `newest(o)` has arrived, which is the last row that had to
arrive for o uses. Its place in the buffer follows a golden-ratio sequence (the additive recurrence of Weyl and
Steinhaus), dealt in a keyed random order within groups: during the time that a row is in the buffer, its place comes up
almost equally often. At 4 uses for each row, the standard deviation of uses over rows is 0.5 to 0.7 with a buffer of
5,000 rows or more, and 1 with 500; independent draws have 2. With `half_life`, the sequence gives the age of the row,
and uses vary as with independent draws. Each output row is a function of the seed and o alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import check, trees
from unbounded.core.block import Block, Offset
from unbounded.core.input_buffer import Address, InputBuffer, compose_held
from unbounded.core.node import Context, Cursor, EndOfStream, Node, rows_are_gone
from unbounded.core.permutation import Permutation, seeds_of
from unbounded.core.trees import Array, Tree
from unbounded.stages.stage import Holding, Stage

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
_GROUP = 1024  # output rows that are dealt together; fewer for a smaller buffer, whose rows leave soon


@dataclass(frozen=True)
class Replay(Stage):
    """See `Stream.replay`."""

    capacity: int
    reuse: float = 4.0
    half_life: float | None = None
    seed: int = 0
    start_after: int = 0
    word = "replay"

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", check.positive(self.capacity, "replay(capacity)"))
        object.__setattr__(self, "seed", check.seed(self.seed, "replay(seed=n)"))
        check.above_zero(self.reuse, f"replay(reuse={self.reuse!r})", "a number above 0, such as 4.0 uses of each row")
        if self.half_life is not None:
            check.above_zero(
                self.half_life, f"replay(half_life={self.half_life!r})", "a number of rows above 0, or None"
            )
        object.__setattr__(self, "start_after", check.at_least(0, self.start_after, "replay(start_after=n)"))
        if self.start_after > self.capacity:
            raise ValueError(
                f"replay({self.capacity:,}, start_after={self.start_after:,}): the buffer holds {self.capacity:,} "
                f"rows, and those before them would never be used. Use start_after={self.capacity} or fewer."
            )

    def draw(self, place: int) -> Draw:
        """The arithmetic of this stage."""
        return Draw(self, place)

    def rows_per_pass(self, rows: int | None) -> int | None:
        return None

    def open(self, upstream: Node, context: Context) -> Node:
        return _ReplayNode(upstream, self.draw(context.place), context.batch_rows)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        oldest = self.draw(place).oldest(ordinal)
        return compose_held([Address(upstream(oldest))], {"row": oldest, "given": ordinal, "seam": [0, 0]})


class Draw:
    """The input row of each output row: arithmetic on ordinals."""

    def __init__(self, replay: Replay, place: int) -> None:
        self.capacity = replay.capacity
        # An exact fraction. For a very small `reuse`, one of the form 1/n.
        ratio = Fraction(replay.reuse).limit_denominator(1000) or Fraction(1, round(1 / replay.reuse))
        self._p, self._q = ratio.numerator, ratio.denominator
        self._half_life = replay.half_life
        self._before = max(0, replay.start_after - 1)  # rows that arrive before the first that makes an output due
        self._group = max(64, min(_GROUP, replay.capacity))
        self._key = (replay.seed, place)
        self._phase = seeds_of(self._key).generate_state(1, np.uint64)[0]

    def due(self, rows: int) -> int:
        """The output rows that are due after `rows` input rows."""
        return max(0, rows - self._before) * self._p // self._q

    def newest(self, ordinal: Any) -> Any:
        """The last input row that has to arrive for output row `ordinal`."""
        return ((ordinal + 1) * self._q - 1) // self._p + self._before

    def oldest(self, ordinal: int) -> int:
        """The oldest input row that output row `ordinal`, or a later one, may be. If few rows come out, some are never
        used; it includes those since the last output row, so that they are tested nevertheless."""
        newest, before = int(self.newest(ordinal)), int(self.newest(ordinal - 1)) if ordinal else -1
        return max(0, min(newest - self.capacity, before) + 1)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """The input rows of the output rows from `start` up to `stop`."""
        ordinals = np.arange(start, stop, dtype=np.int64)
        newest: NDArray[np.int64] = self.newest(ordinals)
        held = np.minimum(newest + 1, self.capacity)
        steps = np.empty(stop - start, np.uint64)
        size = self._group
        for group in range(start // size, (stop - 1) // size + 1):
            first, last = max(start, group * size), min(stop, (group + 1) * size)
            dealt = Permutation(size, (*self._key, group)).span(first - group * size, last - group * size)
            steps[first - start : last - start] = dealt + group * size
        with np.errstate(over="ignore"):
            # 53 bits: the precision of a float.
            u = ((steps * _GOLDEN + self._phase) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        if self._half_life is None:
            # The newest row at this place of the buffer, in which row r is at r mod its length.
            age = (newest - (u * held).astype(np.int64)) % held
        else:
            # The inverse of the exponential distribution function, truncated to the rows in the buffer.
            whole = -np.expm1(-held * (math.log(2) / self._half_life))
            age = (-np.log1p(-u * whole) * (self._half_life / math.log(2))).astype(np.int64)
        rows: NDArray[np.int64] = newest - np.minimum(age, held - 1)
        return rows


class _ReplayNode(Holding):
    def __init__(self, upstream: Node, draw: Draw, batch_rows: int) -> None:
        super().__init__(upstream)
        self._draw = draw
        # The most rows that come out, and that go in, at once: bounded, so that the ring never overwrites a row too
        # early.
        self._piece = max(1, 2048 // batch_rows) * batch_rows
        self._slack = max(1, self._piece // 4)
        self._begin(0, 0, Offset(0))

    def _begin(self, row: int, given: int, seam: Offset) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._first = row  # the number of the row at offset (0, 0) of the input buffer
        self._next = Offset(row)  # the rows read, and the boundaries after the last of them
        self._given = given
        self._seam = seam  # the last boundary that was passed on: boundaries up to it are read again after a restore
        self._pending: Block | None = None
        self._ring: Tree = None
        self._times: NDArray[np.float64] | None = None
        self._provenance: NDArray[np.int64] | None = None
        self._seen: NDArray[np.int64] | None = None
        self._most = 0  # the maximum of `seen` so far

    def pull(self, timeout: float | None) -> Block | None:
        while True:
            due = self._draw.due(self._next.rows)
            if self._given < due:
                return self._out(min(due, self._given + self._piece))
            if self._pending is None:
                try:
                    self._pending = self._held.read(timeout)
                except EndOfStream:
                    if self._given > due:
                        raise rows_are_gone() from None
                    raise
                if self._pending is None:
                    return None
            # In pieces: a row may be overwritten only when no later output can be that row.
            block = self._pending
            if block.count:
                piece = block.part(0, self._slack)
                left = piece.count < block.count or block.boundary
                rest = block.part(piece.count, block.count) if left else None
                self._push(piece)
                self._pending = rest
                continue
            self._pending = None
            if block.boundary:
                # All rows that were due before the boundary were passed on.
                self._next = Offset(self._next.rows, self._next.boundaries + 1)
                if self._next > self._seam:
                    self._seam = self._next
                    return block

    def _push(self, block: Block) -> None:
        size = self._draw.capacity + self._slack
        if self._ring is not None:
            self._ring = trees.map_leaves(_wide_enough, self._ring, block.rows)
        else:
            self._ring = trees.map_leaves(lambda leaf: np.empty((size, *leaf.shape[1:]), leaf.dtype), block.rows)
            self._provenance = None if block.provenance is None else np.empty(size, np.int64)
            self._seen = None if block.seen is None else np.zeros(size, np.int64)
        if self._times is None and block.times is not None:
            self._times = np.full(size, np.nan)  # earlier rows, of another input of a mix, have no arrival times
        start = self._next.rows % size
        first = min(block.count, size - start)

        def write(ring: Array, leaf: Array) -> None:
            ring[start : start + first] = leaf[:first]
            ring[: block.count - first] = leaf[first:]

        trees.map_leaves(write, self._ring, block.rows)
        if self._times is not None and block.times is not None:
            write(self._times, block.times)
        if self._provenance is not None and block.provenance is not None:
            write(self._provenance, block.provenance)
        if self._seen is not None and block.seen is not None:
            # In a mix, rows of other sources have 0: each row takes the last value before it.
            write(self._seen, np.maximum(np.maximum.accumulate(block.seen), self._most))
            self._most = max(self._most, int(block.seen.max()))
        self._next = Offset(self._next.rows + block.count)

    def _out(self, stop: int) -> Block:
        size = self._draw.capacity + self._slack
        index = self._draw.rows(self._given, stop) % size
        times = None if self._times is None else self._times[index]
        provenance = None if self._provenance is None else self._provenance[index]
        seen = None
        if self._seen is not None:
            seen = self._seen[self._draw.newest(np.arange(self._given, stop)) % size]
        out = Block(trees.gather(self._ring, index), stop - self._given, None, times, provenance, seen)
        self._given = stop
        self._held.keep(Offset(max(0, self._draw.oldest(stop) - self._first)))
        return out

    def _oldest(self) -> int:
        """The oldest row that the next output rows may be."""
        return min(max(self._first, self._draw.oldest(self._given)), self._next.rows)

    def needed(self) -> Offset:
        return Offset(self._oldest() - self._first)

    def own(self) -> Mapping[str, Any]:
        return {"row": self._oldest(), "given": self._given, "seam": list(self._seam)}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["row"], own["given"], Offset(*own["seam"]))


def _wide_enough(ring: Array, leaf: Array) -> Array:
    """The ring's memory, with a wider dtype if text has become longer."""
    if leaf.dtype.kind in "US" and leaf.dtype.itemsize > ring.dtype.itemsize and leaf.dtype.kind == ring.dtype.kind:
        return ring.astype(leaf.dtype)
    return ring
