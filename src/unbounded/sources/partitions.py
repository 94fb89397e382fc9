"""ReadOrder and PartitionedReader: reading from partitions in an order that a resume repeats.

The next partition depends on what has arrived, so the order does not follow from a position. Each read is an entry
(partition, rows) in the arrival log. After a seek to an older position the log is followed, one partition at a time;
after its last entry, rows are read as they arrive.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.locked import locked
from unbounded.core.runtime import Runtime
from unbounded.sources.reader import JSON, Partition, Reader, Rows


class ReadOrder:
    """The arrival log of one source: which partition each row was of, from the oldest row that may be read again.

    The reader's thread appends; others look at it, or drop what nobody needs. Entries of one partition that follow each
    other are one.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._lock = runtime.lock()
        self._entries: list[tuple[int, int, Partition]] = []  # first row, one past the last, partition

    @locked
    def note(self, row: int, rows: int, partition: Partition) -> None:
        """The `rows` rows from number `row` on are of a partition."""
        if self._entries:
            first, stop, before = self._entries[-1]
            if before == partition and stop == row:
                self._entries[-1] = (first, row + rows, partition)
                return
        self._entries.append((row, row + rows, partition))

    @locked
    def at(self, row: int) -> tuple[Partition, int] | None:
        """The partition of a row, and how many rows of it follow; None where that was never read."""
        i = bisect_right(self._entries, row, key=lambda entry: entry[0]) - 1
        if i < 0 or self._entries[i][1] <= row:
            return None
        _, stop, partition = self._entries[i]
        return partition, stop - row

    @locked
    def drop_before(self, row: int) -> None:
        """Nothing before a row will be read again."""
        self._entries = [entry for entry in self._entries if entry[1] > row]

    @locked
    def state(self) -> dict[str, Any]:
        """As plain data and arrays."""
        entries = self._entries
        names = sorted({partition for _, _, partition in entries}, key=repr)
        number = {name: i for i, name in enumerate(names)}
        return {
            "first": entries[0][0] if entries else 0,
            "names": names,
            "partitions": np.array([number[partition] for _, _, partition in entries], np.uint16),
            "rows": np.array([stop - first for first, stop, _ in entries], np.uint32),
        }

    @locked
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        row, entries = state["first"], []
        for which, rows in zip(state["partitions"].tolist(), state["rows"].tolist(), strict=True):
            entries.append((row, row + rows, state["names"][which]))
            row += rows
        self._entries = entries


class PartitionedReader:
    """A reader over one of a source with partitions, with one position for all of them.

    Its position is the other's where nothing is held back, and how many rows were given since. What a partition gave
    beyond its turn is held back until its turn comes.
    """

    def __init__(self, reader: Reader, order: ReadOrder) -> None:
        self._reader = reader
        self._order = order
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
        self._reader.seek(position["at"])
        self._base, self._base_row = position["at"], position["row"]
        self._row, self._to_skip = position["row"], position["skip"]
        self._held = {}

    def read(self, timeout: float) -> Rows | None:
        """The next rows in the order of the arrival log, and after its end those that arrive."""
        turn = self._order.at(self._row)
        given = self._live(timeout) if turn is None else self._turn(timeout, *turn)
        if given is None:
            return None
        count = 0 if given.rows is None else trees.count(given.rows)
        if turn is None and count:
            self._order.note(self._row, count, given.partition)
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
