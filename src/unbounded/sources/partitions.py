"""ReadOrder and PartitionedReader: reading from partitions in an order that a resume repeats.

The next partition depends on what has arrived, so the order does not follow from a position. Each read is an entry
(partition, rows) in the arrival log. After a seek to an older position the log is followed, one partition at a time;
after its last entry, rows are read as they arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from unbounded.core import trees
from unbounded.core.decisions import Decisions
from unbounded.sources.reader import JSON, Partition, Reader, Rows


class PartitionedReader:
    """A reader over one of a source with partitions, with one position for all of them.

    Its position is the other's where nothing is held back, and how many rows were given since. What a partition gave
    beyond its turn is held back until its turn comes.

    Args:
        reader: the other one.
        order: gives what the arrival log has of which partition each row is. Asked for anew at each `seek`.
    """

    def __init__(self, reader: Reader, order: Callable[[], Decisions]) -> None:
        self._reader = reader
        self._asked = order
        self._order = order()
        self._row = 0  # the number of the next row
        self._base: JSON = reader.position()
        self._base_row = 0
        self._to_skip = 0
        self._held: dict[Partition, deque[Rows]] = {}  # what came beyond a partition's turn
        # What a reader may have, this one has where that one does.
        if hasattr(reader, "wake"):
            self.wake = reader.wake
        if hasattr(reader, "commit"):
            self.commit = lambda trained, needed: reader.commit(trained["at"], needed["at"])

    def position(self) -> JSON:
        """Where the other reader stood last with nothing held back, and the rows since."""
        if not self._to_skip and not any(self._held.values()):
            self._base, self._base_row = self._reader.position(), self._row
        return {"at": self._base, "row": self._base_row, "skip": self._row - self._base_row + self._to_skip}

    def seek(self, position: JSON) -> None:
        """Go to where `position` was given."""
        self._order = self._asked()
        self._reader.seek(position["at"])
        self._base, self._base_row = position["at"], position["row"]
        self._row, self._to_skip = position["row"], position["skip"]
        self._held = {}

    def read(self, timeout: float) -> Rows | None:
        """The next rows in the order of the arrival log, and after its end those that arrive."""
        turn = self._order.at(self._row)
        given = self._live(timeout) if turn is None else self._turn(timeout, turn.decision, turn.stop - self._row)
        if given is None:
            return None
        count = 0 if given.rows is None else trees.count(given.rows)
        if turn is None and count:
            self._order.note(self._row, self._row + count, given.partition)
        over = min(self._to_skip, count)
        self._row += count
        self._to_skip -= over
        if over == count and count:
            # Read over. A boundary after the last of them went with them.
            return Rows(None, None, None, given.partition)
        return _part(given, over, count) if over else given

    def _turn(self, timeout: float, partition: Partition, most: int) -> Rows | None:
        held = self._held.get(partition)
        given = held.popleft() if held else _as_rows(self._reader.read(timeout, only=partition), partition)  # type: ignore[call-arg]
        if given is None or given.rows is None:
            return given
        count = trees.count(given.rows)
        if count > most:
            self._held.setdefault(partition, deque()).appendleft(_part(given, most, count))
            return _part(given, 0, most)
        return given

    def _live(self, timeout: float) -> Rows | None:
        for held in self._held.values():
            if held:
                return held.popleft()
        return _as_rows(self._reader.read(timeout), None)

    def close(self) -> None:
        """Close the other reader."""
        self._reader.close()


def _as_rows(given: Any, partition: Partition | None) -> Rows | None:
    if given is None or isinstance(given, Rows):
        return given
    return Rows(trees.map_leaves(trees.copied, given), None, None, partition)


def _part(given: Rows, start: int, stop: int) -> Rows:
    whole = trees.count(given.rows)
    times = None if given.times is None else given.times[start:stop]
    boundary = given.boundary if stop >= whole else None
    return Rows(trees.cut(given.rows, start, stop), boundary, times, given.partition)
