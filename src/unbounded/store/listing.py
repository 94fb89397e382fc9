"""Listing: the checkpoints in a directory in their order, the run and segments of each, and the removal of old ones.

Writing and reading checkpoints is left to `checkpoints` and `saved`.
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
    """A checkpoint's name, parsed; entries sort by age."""

    line: int
    number: int
    name: str


class Listed(NamedTuple):
    """The parts of a checkpoint's manifest that removing other checkpoints depends on."""

    run: str
    segments: frozenset[str]
    """File names."""
    logs: tuple[LogCopy, ...]


class Listing:
    """The checkpoints in a directory. Each manifest is read once, until `forget`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.damaged: set[str] = set()
        """Names of checkpoints that were found damaged."""
        self._listed: dict[str, Listed | None] = {}  # None: damaged

    def scan(self) -> list[Entry]:
        """The checkpoints in the directory, oldest first."""
        return _entries(self._directory.checkpoints())

    def forget(self) -> None:
        """Forget manifests: other processes may have written since."""
        self._listed.clear()

    def listed(self, entry: Entry) -> Listed | None:
        """A checkpoint's manifest; None if it can't be read.

        Raises:
            CheckpointError: it has a newer format.
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
        """Note that a checkpoint was written, whole."""
        self.damaged.discard(name)
        self._listed[name] = listed

    def next_name(self, number: int) -> str:
        """The name for the next checkpoint, which sorts after all others.

        A directory can't be replaced atomically, so a number that is not the highest gets a new suffix.
        """
        line, last, _ = max(self.scan(), default=Entry(0, -1, ""))
        line += number <= last
        return f"step-{number:012}.{line}" if line else f"step-{number:012}"

    def newest(self) -> Listed | None:
        """The manifest of the newest checkpoint that has a readable one."""
        for entry in reversed(self.scan()):
            if (listed := self.listed(entry)) is not None:
                return listed
        return None

    def remove_old(self, written: str, number: int, run: str, keep: int) -> None:
        """Remove the checkpoints of a run that are no longer kept, oldest first; those of other runs stay.

        Args:
            written: the name of the newest checkpoint.
            number: its number; an earlier checkpoint of this number is removed.
            run: the run's id.
            keep: how many of its checkpoints stay.
        """
        entries = self.scan()
        runs = {entry: listed.run for entry in entries if (listed := self.listed(entry)) is not None}
        # A damaged manifest names no run: it counts as this run's if there are no other runs here.
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
        """Remove segments and log copies that no checkpoint lists, except `fresh` ones, which this process is about to
        list."""
        entries = self.scan()
        needed = set(fresh)
        pieces: set[str] = set()
        for entry in entries:
            listed = self.listed(entry)
            if listed is None:
                return  # its segments are unknown: nothing is removed while it exists
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
