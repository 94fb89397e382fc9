"""Directory: the storage of checkpoints, a directory of a local or mounted file system, or one at a URL.

Checkpoints, and the files that they share, are written whole or not at all, and read sequentially. Their content is
defined by the callers. URLs are in `remote.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from unbounded.core.files import Files
from unbounded.core.runtime import Runtime
from unbounded.store.lock import Lock
from unbounded.store.manifest import LogCopy
from unbounded.store.paths import is_url, local_path

SEGMENTS = "segments"

# Writes the content of a file.
Fill: TypeAlias = Callable[[BinaryIO], None]

_unique = itertools.count()


class Directory(Protocol):
    """A directory of checkpoints. Names are relative, with `/`: "step-000000000412/manifest.json"."""

    local: Path
    """The directory on this machine that has the run's logs, which grow with each row."""

    @property
    def path(self) -> Path | str:
        """The directory, in the user's notation."""

    def at(self, name: str) -> Path | str:
        """The path of a file in it, in the user's notation."""

    def checkpoints(self) -> list[str]:
        """The names of possible checkpoints, in arbitrary order."""

    def leftovers(self) -> list[str]:
        """The names of directories that may hold files of unfinished or removed checkpoints."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for sequential reading; raise FileNotFoundError if it does not exist."""

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None if it does not exist."""

    def begin(self, user: object) -> Lock:
        """Prepare for writing: take the lock, and remove what a killed writer left.

        Raises:
            BlockingIOError: another process writes to it.
        """

    def write(
        self, name: str, parts: Mapping[str, Fill], written: dict[str, tuple[int, str]], *, sync_segments: bool
    ) -> None:
        """Write a checkpoint: it exists with all its files when this returns, and does not exist before.

        Args:
            name: an unused name.
            parts: its files, in order, the manifest last.
            written: receives the size and SHA-256 of each file before the next one is filled.
            sync_segments: True if it refers to segments that were added since the last checkpoint.
        """

    def add_segment(self, name: str, fill: Fill, listed: set[str]) -> tuple[str, int, str]:
        """Write a segment; return its file's name, size and SHA-256. `listed` has the name before the file exists, so
        that nobody removes it as an orphan."""

    def segments(self) -> list[str]:
        """The names of the segments' files."""

    def remove(self, name: str) -> None:
        """Remove a checkpoint, which disappears atomically, or a segment."""

    def copy_logs(self, before: Sequence[LogCopy]) -> tuple[LogCopy, ...]:
        """Copy the local logs to the directory, if they are not in it.

        Args:
            before: the copies that the newest checkpoint refers to.
        """

    def fetch_logs(self, copies: Sequence[LogCopy]) -> None:
        """Copy the logs that a checkpoint refers to back to this machine."""

    def forget_logs(self, needed: set[str]) -> None:
        """Remove the copies of logs that no checkpoint refers to."""


def open_directory(given: object, runtime: Runtime, *, local: object = None) -> Directory:
    """The storage for a directory that a user gave.

    Args:
        given: a path, or the URL of a directory that fsspec can write to ("s3://bucket/run").
        runtime: for reading and writing.
        local: for a URL, the directory on this machine for the run's logs; None for one in the user's cache.

    Raises:
        ValueError: it is empty, or it is a URL, and fsspec is not installed or does not know its scheme.
    """
    if is_url(given):
        from unbounded.store import remote

        return remote.open_remote(str(given), runtime, None if local is None else local_path(local))
    return LocalDirectory(local_path(given), runtime)


class Hashing(io.RawIOBase):
    """A writer that counts and hashes the bytes that it passes on.

    Args:
        write: writes bytes, perhaps not all of them, and returns their number.
    """

    def __init__(self, write: Callable[[memoryview], int]) -> None:
        self._write: Callable[[memoryview], int] | None = write
        self.size = 0
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        if self._write is None:
            return len(view)
        done = self._write(view)  # perhaps not all of it: the buffered writer calls again with the rest
        self._hash.update(view[:done])
        self.size += done
        return done

    def fill(self, fill: Fill) -> None:
        """Write all that `fill` writes."""
        buffered = io.BufferedWriter(self, 1 << 20)
        fill(buffered)
        buffered.flush()

    def stop(self) -> None:
        """Stop writing. After a failure the buffered writer still holds bytes, and flushes them when it is garbage
        collected: by then this file descriptor may belong to another file."""
        self._write = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of all that was written."""
        return self._hash.hexdigest()


class LocalDirectory:
    """A directory of a local or mounted file system."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._path = path
        self._runtime = runtime
        self.local = path

    @property
    def _files(self) -> Files:
        return self._runtime.files

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    def at(self, name: str) -> Path:
        """The path of a file in it."""
        return self._path / name

    def checkpoints(self) -> list[str]:
        """The names in it."""
        return self._names(self._path)

    def leftovers(self) -> list[str]:
        """Empty: unfinished checkpoints have names that begin with a dot, and `begin` removes them."""
        return []

    def segments(self) -> list[str]:
        """The names of the segments' files."""
        return [name for name in self._names(self._path / SEGMENTS) if name.endswith(".npz") and name[0] != "."]

    def _names(self, folder: Path) -> list[str]:
        try:
            return self._files.list(folder)
        except FileNotFoundError:
            return []

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading."""
        return self._files.open_read(self._path / name)

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None if it does not exist or can't be known."""
        try:
            return self._files.stat(self._path / name).st_size
        except OSError:
            return None

    def begin(self, user: object) -> Lock:
        """Create the directory, take its lock, and remove unfinished files."""
        self._files.make_directory(self._path)
        lock = Lock.of(self._path, user, self._runtime)
        with lock.turn:
            for folder in (self._path, self._path / SEGMENTS):
                for name in self._names(folder):
                    if name.startswith(".tmp-"):
                        self._files.remove(folder / name)
        return lock

    def write(
        self, name: str, parts: Mapping[str, Fill], written: dict[str, tuple[int, str]], *, sync_segments: bool
    ) -> None:
        """Write a checkpoint under a temporary name, and rename it when all of it is on the disk."""
        files = self._files
        unfinished = self._path / f".tmp-{name}-{self._runtime.process()}-{next(_unique)}"
        with self._removed_on_failure(unfinished):
            files.mkdir(unfinished)
            for file, fill in parts.items():
                written[file] = write_file(files, unfinished / file, fill)
            files.sync_directory(unfinished)
            if sync_segments:
                files.sync_directory(self._path / SEGMENTS)
            files.rename(unfinished, self._path / name)
            files.sync_directory(self._path)

    def add_segment(self, name: str, fill: Fill, listed: set[str]) -> tuple[str, int, str]:
        """Write a segment. `write` fsyncs the directory entry."""
        folder = self._path / SEGMENTS
        self._files.make_directory(folder)
        unfinished = folder / f".tmp-{self._runtime.process()}-{next(_unique)}"
        with self._removed_on_failure(unfinished):
            size, sha256 = write_file(self._files, unfinished, fill)
            # Named by its content: a file that a checkpoint refers to is never replaced by other content.
            file = f"{name}-{sha256[:16]}.npz"
            listed.add(file)
            self._files.rename(unfinished, folder / file)
        return file, size, sha256

    def remove(self, name: str) -> None:
        """Remove a checkpoint or a segment."""
        if "/" not in name:
            # Renamed first: a partly removed checkpoint must never look like one.
            gone = self._path / f".tmp-gone-{name}-{self._runtime.process()}-{next(_unique)}"
            self._files.rename(self._path / name, gone)
            self._files.remove(gone)
        else:
            self._files.remove(self._path / name)

    def copy_logs(self, before: Sequence[LogCopy]) -> tuple[LogCopy, ...]:
        """No-op: the logs are in the directory."""
        return ()

    def fetch_logs(self, copies: Sequence[LogCopy]) -> None:
        """No-op: the logs are in the directory."""

    def forget_logs(self, needed: set[str]) -> None:
        """No-op: a log in the directory removes its own segments."""

    @contextlib.contextmanager
    def _removed_on_failure(self, path: Path) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to raise
                self._files.remove(path)
            raise


def write_file(files: Files, path: Path, fill: Fill) -> tuple[int, str]:
    """Create a file with what `fill` writes, and fsync it; return its size in bytes and its SHA-256."""
    fd = files.create(path)
    raw = Hashing(lambda data: files.write(fd, data))
    try:
        raw.fill(fill)
        files.fsync(fd)
    finally:
        raw.stop()
        files.close(fd)
    return raw.size, raw.sha256
