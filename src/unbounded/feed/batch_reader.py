"""BatchReader: reads the runs of batches of a stream, and keeps those that were not trained on.

A run is taken whole or not at all, wherever an exception interrupts the read. Which batches were handed out, and which
were trained on, is left to `Delivery`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from unbounded.core.block import Offset, Run
from unbounded.core.input_buffer import InputBuffer, addresses, compose_held
from unbounded.core.node import Cursor, Node
from unbounded.core.trees import Tree
from unbounded.feed.excluded import Weights
from unbounded.feed.in_flight import Count, InFlight

_SLICE = 0.05  # seconds: how long a read waits for data, before the feed checks whether it is to stop


class BatchReader:
    """The runs of batches that were read and not trained on.

    Args:
        top: the last node of the stream, which returns runs.
        beginning: the count before the first batch.
        weights: sets the weights of excluded rows; None if no rows are excluded.
    """

    def __init__(self, top: Node, beginning: Count, weights: Weights | None) -> None:
        self._top = top
        self._weights = weights
        self._beginning = beginning
        self.begin()

    def begin(self) -> None:
        """Begin with nothing read."""
        self._held: InputBuffer[Run] = InputBuffer(self._top)
        self.flights: deque[InFlight] = deque()
        self.tail = self._beginning
        """The count after the last batch read."""
        self._reading: tuple[Offset, Count] | None = None  # (offset, tail) at which the read in progress began

    def read(self) -> InFlight | None:
        """Read the next run, whole or not at all; None if there is none yet.

        An exception that may come at any line, such as KeyboardInterrupt, can leave the nodes at any point: the next
        call restores them. An exception of the stream does not: by the second law the nodes then are where they were.
        A restore would read rows again, and if functions fail often, there would be no progress.
        """
        if self._is_interrupted:
            self._undo()
        at, before = self._held.tail, self.tail
        self._reading = (at, before)
        try:
            run = self._held.read(_SLICE)
            if run is not None and run.count and self._weights is not None:
                run = self._weights.weigh(run, before.steps)
        except Exception:
            self._reading = None
            raise
        if run is None:
            self._reading = None
            return None
        flight = InFlight(run, at, before)
        if run.count:
            self.flights.append(flight)
        self.tail = flight.count_at(flight.end)  # from this line on the run counts as read
        self._reading = None
        return flight

    @property
    def _is_interrupted(self) -> bool:
        """True if an exception has interrupted a read before its run counted as read."""
        return self._reading is not None and self.tail is self._reading[1]

    def _undo(self) -> None:
        """Restore the nodes to where the interrupted read began."""
        assert self._reading is not None
        at, before = self._reading
        while self.flights and self.flights[-1].end > before.steps:
            self.flights.pop()
        self._held.back_to(at)
        self._reading = None

    @property
    def has_read(self) -> bool:
        """True if anything was read since `begin`, or a position was restored."""
        return bool(self.flights or self.tail.steps or self._held.tail != Offset(0))

    def flight_of(self, step: int) -> InFlight | None:
        """The run that has batch number `step`; None if it is not among those kept."""
        for flight in self.flights:
            if flight.before.steps <= step < flight.end:
                return flight
        return None

    def count_at(self, step: int) -> Count:
        """The count before batch number `step`, which is kept or the next to be read."""
        flight = self.flight_of(step)
        return self.tail if flight is None else flight.count_at(step)

    def items(self, start: int, stop: int) -> Iterator[Tree]:
        """The batches from number `start` up to `stop` that are kept."""
        for flight in self.flights:
            first = flight.before.steps
            yield from flight.run.items[max(0, start - first) : max(0, stop - first)]

    def drop(self, step: int) -> Iterator[Run]:
        """Remove the runs whose batches all come before number `step`, and return them one by one."""
        while self.flights and self.flights[0].end <= step:
            yield self.flights.popleft().run

    def forget(self, step: int) -> None:
        """Forget all batches from number `step` on: the next read begins there, as after an interrupted one."""
        before = self.count_at(step)
        self._reading = (self._offset(step), before)
        self.tail = before

    # -- cursors -----------------------------------------------------------------------------------------------------

    def _offset(self, step: int) -> Offset:
        flight = self.flight_of(step)
        if flight is not None:
            return flight.at_step(step)
        return self._reading[0] if self._is_interrupted and self._reading else self._held.tail

    def cursor(self, step: int) -> Cursor:
        """The cursor before batch number `step`; earlier batches can't be restored any more."""
        at = self._offset(step)
        # During an interrupted read the nodes may be at any point: then by the cursors that were noted before pulls.
        address = self._held.noted(at) if self._is_interrupted else self._held.address(at)
        self._held.keep(at)
        return compose_held([address], {})

    def restore(self, cursor: Cursor, count: Count) -> None:
        """Continue at a cursor, before which `count` was trained on."""
        self.begin()
        self._held.restore(*addresses(cursor))
        self.tail = count
