"""Disk: simulated files and directories, with their content in memory and on the disk.

A file's content is on the disk after its fsync, a name after the fsync of its directory. A power cut keeps any part of
what was not synced: some sectors of a file and not others, a later rename and not an earlier one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

SECTOR: Final = 512  # bytes that a disk writes all or none


class File:
    """A file's content.

    Args:
        number: the inode's.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.content = bytearray()
        self._durable = bytearray()
        self._lost: set[int] = set()  # sectors that the disk has refused, and the kernel takes for written

    def write(self, data: bytes | memoryview, at: int) -> None:
        """Write at an offset."""
        if at > len(self.content):
            self.content.extend(bytes(at - len(self.content)))
        self.content[at : at + len(data)] = data
        self._lost.difference_update(range(at // SECTOR, (at + len(data)) // SECTOR + 1))

    def truncate(self, size: int) -> None:
        """Shorten it, or fill it up with zeros."""
        if size > len(self.content):
            self.write(b"", size)
        else:
            del self.content[size:]

    def sync(self) -> None:
        """Put its content on the disk."""
        before, self._durable = self._durable, bytearray(self.content)
        for sector in self._lost:
            self._put(sector, before)

    def lose(self, rng: random.Random) -> None:
        """The disk refuses what was not synced: the kernel reports it once, and then takes it for written."""
        self._lost |= {sector for sector in self._changed() if rng.random() < 0.7}

    def crash(self, rng: random.Random) -> None:
        """A power cut."""
        sizes = (len(self._durable), len(self.content))
        size = rng.choice((*sizes, rng.randint(min(sizes), max(sizes))))
        left = self._durable[:size] + bytes(max(0, size - len(self._durable)))
        share = rng.choice((0.0, 0.5, 1.0))
        now, self._durable = self.content, left
        for sector in self._changed():
            if sector not in self._lost and rng.random() < share:
                self._put(sector, now)
        self.content, self._lost = bytearray(self._durable), set()

    def copied(self, number: int) -> File:
        """A copy of the file, with its content on the disk."""
        copy = File(number)
        copy.content[:] = copy._durable[:] = self.content
        return copy

    def _changed(self) -> Iterator[int]:
        for start in range(0, max(len(self.content), len(self._durable)), SECTOR):
            if self.content[start : start + SECTOR] != self._durable[start : start + SECTOR]:
                yield start // SECTOR

    def _put(self, sector: int, source: bytearray) -> None:
        """Make a sector durable with the content of `source`; the size stays."""
        start, stop = sector * SECTOR, min((sector + 1) * SECTOR, len(self._durable))
        if start < stop:
            self._durable[start:stop] = source[start:stop].ljust(stop - start, b"\0")


class Folder:
    """A directory: names of files and directories.

    Args:
        number: the inode's.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.names: dict[str, File | Folder] = {}
        self._durable: dict[str, File | Folder] = {}
        self._changes: list[dict[str, File | Folder | None]] = []  # since the last sync, each atomic

    def put(self, changes: dict[str, File | Folder | None]) -> None:
        """Set names, and remove those with None, atomically."""
        self._changes.append(changes)
        _apply(self.names, changes)

    def sync(self) -> None:
        """Put its names on the disk."""
        self._durable, self._changes = dict(self.names), []

    def set(self, name: str, target: File | Folder | None) -> None:
        """Set or remove a name, at once on the disk."""
        for change in self._changes:
            change.pop(name, None)
        for names in (self.names, self._durable):
            _apply(names, {name: target})

    def crash(self, rng: random.Random) -> None:
        """A power cut."""
        if rng.random() < 0.5:
            kept = self._changes[: rng.randint(0, len(self._changes))]
        else:
            kept = [change for change in self._changes if rng.random() < 0.5]
        for change in kept:
            _apply(self._durable, change)
        self.names, self._changes = dict(self._durable), []


def _apply(names: dict[str, File | Folder], changes: dict[str, File | Folder | None]) -> None:
    for name, target in changes.items():
        if target is None:
            names.pop(name, None)
        else:
            names[name] = target


class Disk:
    """All files and directories of a machine; it outlives the processes that use it."""

    def __init__(self) -> None:
        self._numbers = 1
        self.root = Folder(1)

    def new_file(self) -> File:
        """A file without a name."""
        self._numbers += 1
        return File(self._numbers)

    def new_folder(self) -> Folder:
        """A directory without a name."""
        self._numbers += 1
        return Folder(self._numbers)

    def find(self, path: PurePath) -> File | Folder | None:
        """What has a name; None where nothing has it.

        Raises:
            NotADirectoryError: part of the path is a file.
        """
        found: File | Folder = self.root
        for part in path.parts[1:]:
            if isinstance(found, File):
                raise NotADirectoryError(20, "Not a directory", str(path))
            if part not in found.names:
                return None
            found = found.names[part]
        return found

    def remove(self, path: PurePath) -> None:
        """Remove a file, or a directory with all that it holds, as another program does: it is gone from the disk, too.
        Nothing where there is none."""
        folder = self.find(path.parent)
        if isinstance(folder, Folder):
            folder.set(path.name, None)

    def copy(self, old: PurePath, new: PurePath) -> None:
        """Copy a directory with all that it holds, as another program does: the copy is on the disk, too."""
        found, folder = self.find(old), self.find(new.parent)
        if not isinstance(found, Folder) or not isinstance(folder, Folder):
            raise FileNotFoundError(2, "No such directory", str(old))
        folder.set(new.name, self._copied(found))

    def _copied(self, folder: Folder) -> Folder:
        copy = self.new_folder()
        for name, inner in folder.names.items():
            if isinstance(inner, File):
                self._numbers += 1
                copy.set(name, inner.copied(self._numbers))
            else:
                copy.set(name, self._copied(inner))
        return copy

    def crash(self, rng: random.Random) -> None:
        """The power is cut: what was not synced is there in part."""
        self._crash(self.root, rng, set())

    def _crash(self, what: File | Folder, rng: random.Random, seen: set[int]) -> None:
        if what.number in seen:
            return
        seen.add(what.number)
        what.crash(rng)
        if isinstance(what, Folder):
            for inner in what.names.values():
                self._crash(inner, rng, seen)
