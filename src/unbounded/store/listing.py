"""What a directory of checkpoints holds: their names in order, the run and the segments of each, and the removal of
what is no longer kept. Writing and reading them is left to `_checkpoint`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

from unbounded.store import disk
from unbounded.store.saved import DamagedError, open_saved

_NAME = re.compile(r"step-(\d{12,})(?:\.(\d+))?")
_unique = itertools.count()


class Entry(NamedTuple):
    """A checkpoint's name, taken apart; they sort by age."""

    line: int
    number: int
    name: str


class Manifest(NamedTuple):
    """What must be known of a checkpoint before another can be removed."""

    run: str
    segments: frozenset[str]
    """Names of files."""


class Listing:
    """The checkpoints in a directory. Manifests are read once, until `forget`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.damaged: set[str] = set()
        """Names of checkpoints that are not what was written."""
        self._manifests: dict[str, Manifest | None] = {}  # None where it is damaged

    def scan(self) -> list[Entry]:
        """The checkpoints here, oldest first."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        found = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
        return sorted(Entry(int(match[2] or 0), int(match[1]), name) for name, match in found)

    def forget(self) -> None:
        """Others may have written here since."""
        self._manifests.clear()

    def manifest(self, entry: Entry) -> Manifest | None:
        """What a checkpoint's manifest says; None where it can't be read.

        Raises:
            CheckpointError: it is of a newer format.
        """
        if entry.name not in self._manifests:
            try:
                saved = open_saved(self._directory / entry.name)
            except DamagedError:
                self.damaged.add(entry.name)
                self._manifests[entry.name] = None
            else:
                listed = frozenset(segment.file for segment in saved.segments)
                self._manifests[entry.name] = Manifest(saved.run, listed)
        return self._manifests[entry.name]

    def wrote(self, name: str, manifest: Manifest) -> None:
        """A checkpoint was written, whole."""
        self.damaged.discard(name)
        self._manifests[name] = manifest

    def next_name(self, number: int) -> str:
        """The name of a checkpoint that is to be the newest.

        A directory can't be replaced at once, so a number that isn't the highest begins a new line.
        """
        line, last, _ = max(self.scan(), default=Entry(0, -1, ""))
        line += number <= last
        return f"step-{number:012}.{line}" if line else f"step-{number:012}"

    def newest_run(self) -> str | None:
        """The run of the newest checkpoint whose manifest can be read."""
        for entry in reversed(self.scan()):
            if (manifest := self.manifest(entry)) is not None:
                return manifest.run
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
        runs = {entry: manifest.run for entry in entries if (manifest := self.manifest(entry)) is not None}
        # Whose a damaged manifest is can't be told: it is taken for this run's where there is no other's.
        alone = set(runs.values()) <= {run}
        own = [entry for entry in entries if runs.get(entry, run if alone else None) == run]
        replaced = {entry for entry in own if entry.number == number and entry.name != written}
        whole = [entry for entry in own if entry not in replaced and entry.name not in self.damaged]
        oldest = whole[-keep:][0]
        for entry in own:
            if entry < oldest or entry in replaced:
                # Out of sight at once: half a checkpoint must never look like one.
                gone = self._directory / f".tmp-gone-{entry.name}-{os.getpid()}-{next(_unique)}"
                disk.rename(self._directory / entry.name, gone)
                disk.remove(gone)

    def remove_orphans(self, fresh: Set[str]) -> None:
        """Remove the segments that no checkpoint lists, but not those that this process is yet to list."""
        entries = self.scan()
        needed = set(fresh)
        for entry in entries:
            manifest = self.manifest(entry)
            if manifest is None:
                return  # which segments it lists is unknown: none is removed as long as it is there
            needed |= manifest.segments
        names = {entry.name for entry in entries}
        self._manifests = {name: found for name, found in self._manifests.items() if name in names}
        for path in (self._directory / "segments").glob("*.npz"):
            if path.name not in needed:
                disk.remove(path)
