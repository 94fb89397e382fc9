"""PassOrder: the order in which the rows of finite data come, pass after pass, and PassIndex, which reads it in
sequence.

A position in it is the ordinal of the next row over all passes, a whole number: any position costs the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unbounded.core.node import CannotTell
from unbounded.core.permutation import Permutation
from unbounded.sources.reader import JSON

_AHEAD = 1 << 16  # positions of the order that are computed at once


@dataclass(frozen=True)
class PassOrder:
    """The order of `rows` rows in each pass.

    Args:
        rows: the number of rows in a pass.
        shuffle: True for a new random order in each pass, False for the rows' own order.
        seed: of the random orders.
        passes: the number of passes before the declared end; None for no end.
        word: the constructor that the user called, for errors.
    """

    rows: int
    shuffle: bool
    seed: int
    passes: int | None
    word: str

    @property
    def end(self) -> int | None:
        """The ordinal after the last row; None without a declared end."""
        return None if self.passes is None else self.passes * self.rows

    def identity(self) -> dict[str, JSON]:
        """What decides the order, apart from the number of rows."""
        return {"shuffle": self.shuffle, "seed": self.seed if self.shuffle else 0, "passes": self.passes}

    def of_pass(self, number: int) -> Permutation:
        """The order of the rows in pass `number`, counted from 0."""
        return Permutation(self.rows, (self.seed, 0, number))

    def position_at(self, row: int) -> int:
        """The position before row number `row`, counted over all passes."""
        if self.end is not None and row >= self.end:
            raise CannotTell(f"{self.word}(passes={self.passes}) ends before row {row:,}")
        return row

    def row_after(self, row: int, after: int, what: str) -> int:
        """The first ordinal, at least `after`, at which row `row` comes; `what` is the data in words, for the error."""
        if not 0 <= row < self.rows:
            raise ValueError(f"step_of(row={row}): {what} the rows 0 to {self.rows - 1:,}.")
        first, start = divmod(after, self.rows)
        for number in (first, first + 1):
            place = self.of_pass(number).find_one(row) if self.shuffle else row
            if number > first or place >= start:
                return number * self.rows + place
        raise AssertionError("a row comes in each pass")


class PassIndex:
    """Reads an order in sequence: the pass and the range of the next rows, and which rows they are.

    Args:
        order: the order.
        batch: the rows of a batch.
    """

    def __init__(self, order: PassOrder, batch: int) -> None:
        self._order = order
        self._batch = batch
        self._permutation: tuple[int, Permutation] | None = None  # (pass, its order)
        # (position in the pass, the rows from there on): computed ahead.
        self._ahead = (0, np.empty(0, np.int64))

    def following(self, row: int, piece: int) -> tuple[int, int, int]:
        """The pass of the ordinal `row`, its place there, and the place after a piece of at most `piece` rows."""
        number, start = divmod(row, self._order.rows)
        # The rows up to the next edge of a batch are returned alone: all later blocks then begin with a batch, in
        # aligned memory.
        until_batch = 0 if piece % self._batch else -row % self._batch
        return number, start, min(start + (until_batch or piece), self._order.rows)

    def rows(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """The rows at the places from `start` up to `stop` of pass `number`, shuffled."""
        if self._permutation is None or self._permutation[0] != number:
            self._permutation = (number, self._order.of_pass(number))
            self._ahead = (0, np.empty(0, np.int64))
        first, ahead = self._ahead
        end = first + len(ahead)
        if not first <= start <= stop <= end:
            # A sequential read computes several blocks' positions at once: each call of `Permutation.span` has a cost.
            length = max(1, _AHEAD // (stop - start)) * (stop - start) if start == end else stop - start
            span = self._permutation[1].span(start, min(start + length, self._order.rows))
            self._ahead = first, ahead = start, span
        return ahead[start - first : stop - first]
