"""machine: this computer's own vitals, live, some readings a second."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unbounded.core.block import Block, Boundary
from unbounded.core.node import Context, Node
from unbounded.core.runtime import Runtime
from unbounded.sources.live import Live, Past
from unbounded.sources.source import Source
from unbounded.sources.vitals import read_vitals


@dataclass(frozen=True)
class Machine(Source):
    """See `unbounded.machine`."""

    rate: float = 10.0
    word = "machine"

    def __post_init__(self) -> None:
        if not (isinstance(self.rate, (int, float)) and math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"machine(rate={self.rate!r}): expected readings a second, a number above 0, such as 10.")

    @property
    def guarantee(self) -> Any:
        return "at_most_once"

    def identity(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def open(self, context: Context) -> Node:
        return Live(lambda past, stop: self._readings(context.runtime, past, stop))

    def _readings(self, runtime: Runtime, past: Past, stop: threading.Event) -> Iterator[Block]:
        _, counters = read_vitals(None, runtime.time)
        if past.last is not None:
            # Readings fall due whether or not anybody takes them: those of the time between were missed.
            due = round((runtime.time() - past.last) * self.rate)
            yield Block(None, 0, Boundary("gap", max(0, due - past.lost)))
        start, tick = runtime.monotonic(), 1
        while not runtime.wait(stop, start + tick / self.rate - runtime.monotonic()):
            rows, counters = read_vitals(counters, runtime.time)
            if len(rows["time"]):
                yield Block(rows, 1, None, rows["time"])
            tick += 1
            late = int((runtime.monotonic() - start) * self.rate) - tick
            if late > 0:
                yield Block(None, 0, Boundary("gap", late))
                tick += late
