"""Absences: a mix's part of the arrival log: the inputs left out, and the group of output rows from which on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Absences:
    """The inputs left out of each group of output rows."""

    def __init__(self) -> None:
        self.settled = 0
        """The inputs left out are decided for all groups before this one."""
        self._entries: list[tuple[int, tuple[int, ...]]] = []

    def add(self, group: int, out: tuple[int, ...] | None, settled: int) -> None:
        """From `group` on, the inputs `out` are left out; None: the same as for the group before."""
        if out is not None:
            self._entries.append((group, out))
        self.settled = settled

    def at(self, group: int) -> tuple[int, ...] | None:
        """The entry that begins with a group, or None."""
        return next((out for at, out in self._entries if at == group), None)

    def until(self, group: int) -> int:
        """The first group after `group` that has an entry, or that is not decided yet."""
        return min([self.settled, *(at for at, _ in self._entries if at > group)])

    def forget(self, group: int) -> None:
        """Forget the entries of groups before this one."""
        self._entries = [entry for entry in self._entries if entry[0] >= group]

    def plain(self) -> dict[str, Any]:
        """The entries as plain data."""
        return {"settled": self.settled, "out": [[group, list(out)] for group, out in self._entries]}

    def load(self, plain: Mapping[str, Any]) -> None:
        """Restore the entries from `plain`."""
        self.settled = plain["settled"]
        self._entries = [(group, tuple(out)) for group, out in plain["out"]]
