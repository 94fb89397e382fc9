"""PartitionedReader: reading from partitions in an order that a resume repeats.

Which partition has the next rows depends on what has arrived, so the order does not follow from a position. The order
is a sequence of items: a row is one, and so is a boundary, which may come after rows of other partitions. The partition
of each item is in the arrival log. After a seek to an older position the log is followed, one partition at a time;
after its last entry, rows are read as they arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from unbounded.core import trees
from unbounded.core.decisions import DecidedRange, Decision, Decisions
from unbounded.core.node import StreamError
from unbounded.sources.reader import JSON, Partition, Reader, Rows

_BOUNDARY = "boundary"  # with it begins the decision for a boundary; that for rows is the partition itself


class PartitionedReader:
    """Reads a source's partitions in the logged order, and has one position for all of them.

    Rows that a partition returns beyond its entry in the log are held back until the log comes to them. A position is
    that of the source's reader at the last moment at which nothing was held back, and the number of items since.

    Args:
        reader: the source's reader.
        order: returns the decisions of the arrival log; called again at each `seek`.
    """

    def __init__(self, reader: Reader, order: Callable[[], Decisions]) -> None:
        self._reader = reader
        self._current_order = order
        self._order = order()
        self._item = 0  # the number of the next item
        self._base: JSON = reader.position()
        self._base_item = 0
        self._to_skip = 0
        self._held: dict[Partition, deque[Rows]] = {}
        # The optional methods, if the source's reader has them.
        if hasattr(reader, "wake"):
            self.wake = reader.wake
        if hasattr(reader, "keep_in"):
            self.keep_in = reader.keep_in
        if hasattr(reader, "commit"):
            self.commit = lambda trained, needed: reader.commit(trained["at"], needed["at"])

    def position(self) -> JSON:
        """The position of the next item."""
        if not self._to_skip and not any(self._held.values()):
            self._base, self._base_item = self._reader.position(), self._item
        return {"at": self._base, "item": self._base_item, "skip": self._item - self._base_item + self._to_skip}

    def seek(self, position: JSON) -> None:
        """Continue at a position that `position` returned."""
        self._order = self._current_order()
        self._reader.seek(position["at"])
        self._base, self._base_item = position["at"], position["item"]
        self._item, self._to_skip = position["item"], position["skip"]
        self._held = {}

    def read(self, timeout: float) -> Rows | None:
        """The next rows in the order of the arrival log; after its end, those that arrive."""
        turn = self._order.at(self._item)
        found = self._arriving(timeout) if turn is None else self._logged(timeout, turn)
        if found is None:
            return None
        items = _items(found)
        if turn is None:
            self._note(found)
        skipped = min(self._to_skip, items)
        self._item += items
        self._to_skip -= skipped
        return _part(found, skipped, items) if skipped else found

    def _note(self, found: Rows) -> None:
        rows = self._item + _count(found)
        self._order.note(self._item, rows, found.partition)
        if found.boundary is not None:
            self._order.note(rows, rows + 1, (_BOUNDARY, found.partition))

    def _logged(self, timeout: float, turn: DecidedRange) -> Rows | None:
        """The next items of the partition whose turn it is, at most up to the end of its turn."""
        boundary, partition = _read_decision(turn.decision)
        held = self._held.get(partition)
        found = held.popleft() if held else _as_rows(self._reader.read(timeout, only=partition), partition)  # type: ignore[call-arg]
        if found is None or not _items(found):
            return None
        if (_count(found) == 0) is not boundary:
            self._hold(partition, found)
            before, now = ("a boundary", "rows") if boundary else ("rows", "a boundary")
            raise StreamError(
                f"The partition {partition!r} of the source returned {now} where it had returned {before} when it was "
                f"read first (item {self._item:,} of the arrival log). Expected the same rows and boundaries again: "
                "the source has replayable = True."
            )
        most = turn.stop - self._item if boundary else min(turn.stop - self._item, _count(found))
        if _items(found) > most:
            self._hold(partition, _part(found, most, _items(found)))
            return _part(found, 0, most)
        return found

    def _hold(self, partition: Partition, found: Rows) -> None:
        self._held.setdefault(partition, deque()).appendleft(found)

    def _arriving(self, timeout: float) -> Rows | None:
        for held in self._held.values():
            if held:
                return held.popleft()
        return _as_rows(self._reader.read(timeout), None)

    def close(self) -> None:
        """Close the source's reader."""
        self._reader.close()


def _read_decision(decision: Decision) -> tuple[bool, Partition]:
    """True for a boundary, and the partition."""
    if isinstance(decision, tuple) and len(decision) == 2 and decision[0] == _BOUNDARY:
        return True, decision[1]
    return False, decision


def _as_rows(found: Any, partition: Partition | None) -> Rows | None:
    if found is None or isinstance(found, Rows):
        return found
    return Rows(trees.map_leaves(trees.copied, found), None, None, partition)


def _count(found: Rows) -> int:
    return 0 if found.rows is None else trees.count(found.rows)


def _items(found: Rows) -> int:
    return _count(found) + (found.boundary is not None)


def _part(found: Rows, start: int, stop: int) -> Rows:
    """The items from `start` up to `stop`; the boundary is the last item."""
    count = _count(found)
    boundary = found.boundary if start <= count < stop else None
    if start >= min(stop, count):
        return Rows(None, boundary, None, found.partition)
    times = None if found.times is None else found.times[start:stop]
    return Rows(trees.cut(found.rows, start, min(stop, count)), boundary, times, found.partition)
