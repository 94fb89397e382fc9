"""Where checkpoints lie: a directory of a local or mounted file system, or one at a URL.

A checkpoint's files, and files that several checkpoints share, are written whole or not at all, and are read from front
to back. What they mean is left to others; URLs are in `remote.py`.
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

# Fills a file with content.
Fill: TypeAlias = Callable[[BinaryIO], None]

_unique = itertools.count()


class Directory(Protocol):
    """A directory of checkpoints. Names are relative, with `/`: "step-000000000412/manifest.json"."""

    local: Path
    """Where the logs of the run lie: they grow with each row, and are on this machine."""

    @property
    def path(self) -> Path | str:
        """The directory, as the user knows it."""

    def at(self, name: str) -> Path | str:
        """Something in it, as the user knows it."""

    def checkpoints(self) -> list[str]:
        """Names of what may be checkpoints, in no order."""

    def leftovers(self) -> list[str]:
        """Names under which files of what is no checkpoint any more, or not yet, may be."""

    def open(self, name: str) -> BinaryIO:
        """A file, for reading from front to back; FileNotFoundError where there is none."""

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None where there is none."""

    def begin(self, user: object) -> Lock:
        """Take it for writing: its lock, and what a killed writer left is removed.

        Raises:
            BlockingIOError: another process writes to it.
        """

    def write(
        self, name: str, parts: Mapping[str, Fill], written: dict[str, tuple[int, str]], *, sync_segments: bool
    ) -> None:
        """Write a checkpoint: it is there with all its files when this returns, and not at all before.

        Args:
            name: its name, which nothing has.
            parts: its files, in order, the manifest last.
            written: the size and SHA-256 of each file, before the next one is filled.
            sync_segments: it refers to segments that were added since.
        """

    def add_segment(self, name: str, fill: Fill, listed: set[str]) -> tuple[str, int, str]:
        """Write a segment; gives its file's name, its size and its SHA-256. The file's name is in `listed` before the
        file is there."""

    def segments(self) -> list[str]:
        """The names of the segments' files."""

    def remove(self, name: str) -> None:
        """Remove a checkpoint, which is out of sight at once, or a segment."""

    def copy_logs(self, before: Sequence[LogCopy]) -> tuple[LogCopy, ...]:
        """Bring copies of the local logs beside the checkpoints, where those lie elsewhere.

        Args:
            before: the copies that the newest checkpoint refers to.
        """

    def fetch_logs(self, copies: Sequence[LogCopy]) -> None:
        """Have the logs that a checkpoint refers to on this machine."""

    def forget_logs(self, needed: set[str]) -> None:
        """Remove the copies of logs that no checkpoint refers to."""


def open_directory(given: object, runtime: Runtime, *, local: object = None) -> Directory:
    """The directory that a user gave.

    Args:
        given: a path, or the URL of a directory that fsspec can write to ("s3://bucket/run").
        runtime: what it is read and written with.
        local: for a URL, where the run's logs lie on this machine; None for a directory under the user's cache.

    Raises:
        ValueError: it is a URL, and fsspec is not installed or does not know its scheme; or it is empty.
    """
    if is_url(given):
        from unbounded.store import remote

        return remote.open_remote(str(given), runtime, None if local is None else local_path(local))
    return LocalDirectory(local_path(given), runtime)


class Hashing(io.RawIOBase):
    """What is written through it, counted and hashed on its way.

    Args:
        write: writes bytes, perhaps not all of them, and says how many.
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
        done = self._write(view)  # perhaps not all of it; then the buffer comes again with the rest
        self._hash.update(view[:done])
        self.size += done
        return done

    def fill(self, fill: Fill) -> None:
        """Write what `fill` writes."""
        buffered = io.BufferedWriter(self, 1 << 20)
        fill(buffered)
        buffered.flush()

    def stop(self) -> None:
        """Write no more. After a failure a buffer still holds bytes, and writes them when it is collected: by then the
        number of this file may be another file's."""
        self._write = None

    @property
    def sha256(self) -> str:
        """Of all that was written."""
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
        """Something in it."""
        return self._path / name

    def checkpoints(self) -> list[str]:
        """The names in it."""
        return self._names(self._path)

    def leftovers(self) -> list[str]:
        """None: what is not finished has another name, and `begin` removes it."""
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
        """A file, for reading."""
        return self._files.open_read(self._path / name)

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None where there is none, or it can't be known."""
        try:
            return self._files.stat(self._path / name).st_size
        except OSError:
            return None

    def begin(self, user: object) -> Lock:
        """Make it, take its lock, and remove what is not finished."""
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
        """Write a checkpoint beside its name, and give it its name when all of it is on the disk."""
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
        """Write a segment. That its name is on the disk is seen to by `write`."""
        folder = self._path / SEGMENTS
        self._files.make_directory(folder)
        unfinished = folder / f".tmp-{self._runtime.process()}-{next(_unique)}"
        with self._removed_on_failure(unfinished):
            size, sha256 = write_file(self._files, unfinished, fill)
            # Named by what is in it: what a checkpoint refers to is never replaced by other content.
            file = f"{name}-{sha256[:16]}.npz"
            listed.add(file)
            self._files.rename(unfinished, folder / file)
        return file, size, sha256

    def remove(self, name: str) -> None:
        """Remove a checkpoint or a segment."""
        if "/" not in name:
            # Out of sight at once: half a checkpoint must never look like one.
            gone = self._path / f".tmp-gone-{name}-{self._runtime.process()}-{next(_unique)}"
            self._files.rename(self._path / name, gone)
            self._files.remove(gone)
        else:
            self._files.remove(self._path / name)

    def copy_logs(self, before: Sequence[LogCopy]) -> tuple[LogCopy, ...]:
        """They lie in it."""
        return ()

    def fetch_logs(self, copies: Sequence[LogCopy]) -> None:
        """They lie in it."""

    def forget_logs(self, needed: set[str]) -> None:
        """They lie in it, and their segments go with the rows that nobody needs."""

    @contextlib.contextmanager
    def _removed_on_failure(self, path: Path) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # the reason for the failure matters more
                self._files.remove(path)
            raise


def write_file(files: Files, path: Path, fill: Fill) -> tuple[int, str]:
    """Make a new file of what `fill` writes, on the disk at once; gives its size in bytes and SHA-256."""
    fd = files.create(path)
    raw = Hashing(lambda data: files.write(fd, data))
    try:
        raw.fill(fill)
        files.fsync(fd)
    finally:
        raw.stop()
        files.close(fd)
    return raw.size, raw.sha256
