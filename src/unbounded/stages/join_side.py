"""JoinSide: the rows or the labels of a join, with keys and times, and a changelog of those that wait."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import trees
from unbounded.core.node import Node
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.changelog import Changelog
from unbounded.stages.keys import hashable, keys_of
from unbounded.stages.mix_input import MixInput

Floats = NDArray[np.float64]


class JoinSide:
    """One input of a join, and the changelog of its rows that wait."""

    def __init__(self, node: Node, name: str, first_leaf: int, unique: str, on: str, time: str | None) -> None:
        self.name = name
        self.on = on
        self.time = time
        self.input = MixInput(node, name, first_leaf, "join")
        self.changes = Changelog(unique)
        self.sample: Tree = None  # one row, for its structure
        self.begin(0, 0, 0.0)

    def begin(self, passes: int, read: int, clock: float) -> None:
        """Begin with nothing read ahead, after `read` rows up to the time `clock`."""
        self.input.begin(passes)
        self.read = read
        self.clock = clock
        self.times: Floats = np.empty(0)  # of the rows read ahead
        self.since = (read, clock)  # at the last snapshot

    def times_of(self, rows: Tree) -> Floats:
        """The times of the rows that follow those taken so far. A time that is missing, infinite or earlier than a
        previous one counts as the previous one."""
        count = trees.count(rows)
        if self.time is None:
            return np.arange(self.read, self.read + count, dtype=np.float64)
        column = keys_of(rows, self.time, f"join(time={self.time!r}), for its {self.name},")
        if column.dtype.kind not in "iufM":
            raise RowsError(
                f"join(time={self.time!r}): the column is {column.dtype} in the {self.name}. Expected seconds as "
                "numbers, or datetime64."
            )
        if column.dtype.kind == "M":
            times = (column - np.datetime64(0, "s")) / np.timedelta64(1, "s")
        else:
            times = column.astype(np.float64)
        times[~np.isfinite(times)] = np.nan
        if not self.read and not np.isnan(times[0]):
            return np.fmax.accumulate(times)
        clock: Floats = np.fmax.accumulate(np.append(self.clock, times))[1:]
        return clock

    def keys(self, start: int, stop: int) -> list[Any]:
        """The keys of the changelog's rows from `start` up to `stop`, as dict keys."""
        keys: Array = self.changes.rows["rows"][self.on][start:stop]
        # In one unit for both sides, since the numbers are compared.
        return hashable(keys.astype(f"{keys.dtype.kind}8[ns]") if keys.dtype.kind in "mM" else keys)
