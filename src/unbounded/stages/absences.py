"""Absences: which inputs a mix left out from which group on, its part of the arrival log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Absences:
    """Who was left out from which group of output rows on."""

    def __init__(self) -> None:
        self.settled = 0
        """It is decided who is left out of the groups before this one."""
        self._entries: list[tuple[int, tuple[int, ...]]] = []

    def add(self, group: int, out: tuple[int, ...] | None, settled: int) -> None:
        """From `group` on these are left out; None: those of the group before."""
        if out is not None:
            self._entries.append((group, out))
        self.settled = settled

    def at(self, group: int) -> tuple[int, ...] | None:
        """The entry for a group."""
        return next((out for at, out in self._entries if at == group), None)

    def until(self, group: int) -> int:
        """The next group after `group` for which there is an entry, or nothing is decided."""
        return min([self.settled, *(at for at, _ in self._entries if at > group)])

    def forget(self, group: int) -> None:
        """No group before this one comes again."""
        self._entries = [entry for entry in self._entries if entry[0] >= group]

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"settled": self.settled, "out": [[group, list(out)] for group, out in self._entries]}

    def load(self, plain: Mapping[str, Any]) -> None:
        """Take up what `plain` gave."""
        self.settled = plain["settled"]
        self._entries = [(group, tuple(out)) for group, out in plain["out"]]
