"""TimeGaps: puts a boundary between two rows whose event times are too far apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unbounded.core.block import Block, Boundary
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Node
from unbounded.stages.stage import Holding


class TimeGaps(Holding):
    """The node before `windows(max_gap=)` over all rows: a gap in time is a gap in the stream.

    Args:
        upstream: gives blocks with times.
        most: seconds between two rows above which there is a gap, in either direction.
    """

    def __init__(self, upstream: Node, most: float) -> None:
        super().__init__(upstream)
        self._most = most
        self._begin(None)

    def _begin(self, last: float | None) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._last = last  # the time of the last row passed on; None after a boundary

    def pull(self, timeout: float | None) -> Block | None:
        held = self._held
        while not held.run and not held.closed:
            if not held.pull(timeout):
                return None
        block = held.peek(held.run)
        times = block.times
        if block.count:
            assert times is not None
            if self._last is not None and abs(times[0] - self._last) > self._most:
                # Noticed after its row was passed on: in a block without rows.
                self._last = None
                return Block(None, 0, Boundary("gap"))
            wide = np.flatnonzero(np.abs(np.diff(times)) > self._most)
            if len(wide):
                block = replace(block.part(0, int(wide[0]) + 1), boundary=Boundary("gap"))
                held.drop(block.count)
                held.keep(held.head)
                self._last = None
                return block
            self._last = float(times[-1])
        if block.boundary:
            self._last = None
        held.drop(block.count)
        held.keep(held.head)
        return block

    def own(self) -> Mapping[str, Any]:
        return {"last": self._last}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["last"])
