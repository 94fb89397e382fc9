"""What a directory of checkpoints holds: their names in order, the run and the segments of each, and the removal of
what is no longer kept. Writing and reading them is left to others.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import NamedTuple

from unbounded.store.directory import SEGMENTS, Directory
from unbounded.store.manifest import DamagedError, LogCopy
from unbounded.store.saved import open_saved

_NAME = re.compile(r"step-(\d{12,})(?:\.(\d+))?")


class Entry(NamedTuple):
    """A checkpoint's name, taken apart; they sort by age."""

    line: int
    number: int
    name: str


class Listed(NamedTuple):
    """What must be known of a checkpoint before another can be removed."""

    run: str
    segments: frozenset[str]
    """Names of files."""
    logs: tuple[LogCopy, ...]


class Listing:
    """The checkpoints in a directory. Manifests are read once, until `forget`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.damaged: set[str] = set()
        """Names of checkpoints that are not what was written."""
        self._listed: dict[str, Listed | None] = {}  # None where it is damaged

    def scan(self) -> list[Entry]:
        """The checkpoints here, oldest first."""
        return _entries(self._directory.checkpoints())

    def forget(self) -> None:
        """Others may have written here since."""
        self._listed.clear()

    def listed(self, entry: Entry) -> Listed | None:
        """What a checkpoint's manifest says; None where it can't be read.

        Raises:
            CheckpointError: it is of a newer format.
        """
        if entry.name not in self._listed:
            try:
                saved = open_saved(self._directory, entry.name)
            except DamagedError:
                self.damaged.add(entry.name)
                self._listed[entry.name] = None
            else:
                segments = frozenset(segment.file for segment in saved.segments)
                self._listed[entry.name] = Listed(saved.run, segments, saved.logs)
        return self._listed[entry.name]

    def wrote(self, name: str, listed: Listed) -> None:
        """A checkpoint was written, whole."""
        self.damaged.discard(name)
        self._listed[name] = listed

    def next_name(self, number: int) -> str:
        """The name of a checkpoint that is to be the newest.

        A directory can't be replaced at once, so a number that isn't the highest begins a new line.
        """
        line, last, _ = max(self.scan(), default=Entry(0, -1, ""))
        line += number <= last
        return f"step-{number:012}.{line}" if line else f"step-{number:012}"

    def newest(self) -> Listed | None:
        """What the newest checkpoint says whose manifest can be read."""
        for entry in reversed(self.scan()):
            if (listed := self.listed(entry)) is not None:
                return listed
        return None

    def remove_old(self, written: str, number: int, run: str, keep: int) -> None:
        """Remove what of a run is no longer kept, the oldest first: the others stay, whatever there is of them.

        Args:
            written: the name of the newest.
            number: its number; an earlier one of this number is replaced.
            run: whose checkpoints.
            keep: how many stay.
        """
        entries = self.scan()
        runs = {entry: listed.run for entry in entries if (listed := self.listed(entry)) is not None}
        # Whose a damaged manifest is can't be told: it is taken for this run's where there is no other's.
        alone = set(runs.values()) <= {run}
        own = [entry for entry in entries if runs.get(entry, run if alone else None) == run]
        replaced = {entry for entry in own if entry.number == number and entry.name != written}
        whole = [entry for entry in own if entry not in replaced and entry.name not in self.damaged]
        oldest = whole[-keep:][0]
        for entry in own:
            if entry < oldest or entry in replaced:
                self._directory.remove(entry.name)
        for entry in _entries(self._directory.leftovers()):
            if entry < oldest:
                self._directory.remove(entry.name)

    def remove_orphans(self, fresh: Set[str]) -> None:
        """Remove the segments and copies of logs that no checkpoint lists, but not those that this process is yet to
        list."""
        entries = self.scan()
        needed = set(fresh)
        pieces: set[str] = set()
        for entry in entries:
            listed = self.listed(entry)
            if listed is None:
                return  # which segments it lists is unknown: none is removed as long as it is there
            needed |= listed.segments
            pieces.update(name for copy in listed.logs for name, _, _ in copy.pieces)
        names = {entry.name for entry in entries}
        self._listed = {name: found for name, found in self._listed.items() if name in names}
        for file in self._directory.segments():
            if file not in needed:
                self._directory.remove(f"{SEGMENTS}/{file}")
        self._directory.forget_logs(pieces)


def _entries(names: list[str]) -> list[Entry]:
    found = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
    return sorted(Entry(int(match[2] or 0), int(match[1]), name) for name, match in found)
