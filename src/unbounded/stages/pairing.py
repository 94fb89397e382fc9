"""Pairing: matches rows and labels of one key in order: the first with the first, the second with the second.

The matches depend only on the order in which rows and labels are given. Both are known by number; their content is left
to the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

ROW, LABEL = 0, 1


class Pairing:
    """Rows that wait for a label, and labels that wait for a row.

    Args:
        within: how long a row or label waits, in the unit of the given times.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self.begin(((), (), ()), ((), (), ()))

    def begin(self, *sides: tuple[Iterable[float], Iterable[int], Iterable[Any]]) -> None:
        """Begin with what waits: times, numbers and keys of the rows, and those of the labels."""
        queues = [deque(zip(*side, strict=True)) for side in sides]
        by_key: list[dict[Any, deque[int]]] = [{}, {}]
        for queue, waiting in zip(queues, by_key, strict=True):
            for _, number, key in queue:
                waiting.setdefault(key, deque()).append(number)
        here = [{number for _, number, _ in queue} for queue in queues]
        # All that can fail is done.
        self._queues: list[deque[tuple[float, int, Any]]] = queues
        self._waiting = by_key
        self._here: list[set[int]] = here

    def count(self, side: int) -> int:
        """The number of rows (side 0) or labels (side 1) that wait."""
        return len(self._here[side])

    def waiting(self, side: int) -> list[tuple[float, int, Any]]:
        """Their times, numbers and keys, in order of arrival."""
        here = self._here[side]
        return [entry for entry in self._queues[side] if entry[1] in here]

    def advance(
        self, times: Sequence[float], sides: Sequence[int], keys: Sequence[Any], numbers: Sequence[int]
    ) -> tuple[list[int], list[int], list[int], int]:
        """Process more rows and labels, given in the order of their times.

        Returns:
            The numbers of the rows that were matched or timed out, in order; for each, the number of its label, or -1
            without one; for each, the index of the given row or label at which it was; and the number of labels that
            timed out.
        """
        rows: list[int] = []
        labels: list[int] = []
        when: list[int] = []
        strays, within = 0, self._within
        queues, here, waiting = self._queues, self._here, self._waiting
        for at, (time, side, key, number) in enumerate(zip(times, sides, keys, numbers, strict=True)):
            for other in (ROW, LABEL):
                queue = queues[other]
                while queue and queue[0][0] < time - within:
                    gone = self._drop_first(other)
                    if gone is not None and other == ROW:
                        rows.append(gone)
                        labels.append(-1)
                        when.append(at)
                    strays += gone is not None and other == LABEL
            partners = waiting[1 - side].get(key)
            if partners:
                partner = partners.popleft()
                if not partners:
                    del waiting[1 - side][key]
                here[1 - side].discard(partner)
                rows.append(partner if side == LABEL else number)
                labels.append(number if side == LABEL else partner)
                when.append(at)
            else:
                waiting[side].setdefault(key, deque()).append(number)
                here[side].add(number)
                queues[side].append((time, number, key))
        return rows, labels, when, strays

    def end(self) -> tuple[list[int], int]:
        """No more will come: the numbers of the rows without a label, and the number of labels without a row."""
        found = [number for _, number, _ in self.waiting(ROW)], self.count(LABEL)
        self.begin(((), (), ()), ((), (), ()))
        return found

    def _drop_first(self, side: int) -> int | None:
        """Remove the oldest of one side; return its number, or None if it was matched before."""
        _, number, key = self._queues[side].popleft()
        if number not in self._here[side]:
            return None
        self._here[side].discard(number)
        others = self._waiting[side][key]
        others.popleft()  # the oldest of its side is the oldest of its key
        if not others:
            del self._waiting[side][key]
        return number
