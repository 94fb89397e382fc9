"""Machine: this computer's own vitals, live, at a fixed rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from unbounded.core.block import Block, Boundary
from unbounded.core.runtime import Runtime
from unbounded.sources.reader import JSON, Opening, Reader
from unbounded.sources.vitals import read_vitals


@dataclass(frozen=True)
class Machine:
    """See `unbounded.from_machine`."""

    rate: float = 10.0
    word = "from_machine"
    replayable = False

    def __post_init__(self) -> None:
        if not (isinstance(self.rate, (int, float)) and math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(
                f"from_machine(rate={self.rate!r}): expected readings a second, a number above 0, such as 10."
            )

    def identity(self) -> JSON:
        return {"rate": self.rate}

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        return {} if self.rate == 10.0 else {"rate": self.rate}

    def open(self, opening: Opening) -> Reader:
        return _Vitals(self.rate, opening)


class _Vitals:
    """A reader whose readings are due `rate` times a second; those that nobody reads in time are a gap."""

    def __init__(self, rate: float, opening: Opening) -> None:
        self._rate = rate
        self._runtime: Runtime = opening.runtime
        self._woken = opening.runtime.event()
        self._last = opening.last
        self._counters: Any = None
        self._start = 0.0
        self._tick = 0  # the number of the next reading

    def position(self) -> JSON:
        return None

    def seek(self, position: JSON) -> None:
        """No-op: a live source can't seek."""

    def read(self, timeout: float) -> Block | None:
        runtime = self._runtime
        if not self._tick:
            return self._begin()
        late = int((runtime.monotonic() - self._start) * self._rate) - self._tick
        if late > 0:
            self._tick += late
            return Block(None, 0, Boundary("gap", late))
        due = self._start + self._tick / self._rate - runtime.monotonic()
        if runtime.wait(self._woken, due):
            return None  # woken: the node is about to stop
        rows, self._counters = read_vitals(self._counters, runtime.time)
        self._tick += 1
        return Block(rows, 1, None, rows["time"]) if len(rows["time"]) else None

    def _begin(self) -> Block | None:
        _, self._counters = read_vitals(None, self._runtime.time)
        self._start, self._tick = self._runtime.monotonic(), 1
        if self._last is None:
            return None
        missed = round((self._runtime.time() - self._last) * self._rate)
        return Block(None, 0, Boundary("gap", max(0, missed)))

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """No-op."""
