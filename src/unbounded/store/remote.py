"""Checkpoints at a URL ("s3://bucket/run"), by way of fsspec.

Object stores can't rename an object, and show it only when it is whole. So a checkpoint is written under its final name
with its manifest last, and removed with its manifest first: it exists exactly as long as its manifest does. Stores have
no locks: a second process that writes to the same URL is not stopped, but the one that saves later is told. Two
processes on one machine are kept apart by the lock of the local directory.

A run's logs grow with each row, which objects can't. They are on this machine, and are copied with each checkpoint
(`log_copies.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from unbounded.core.runtime import Runtime
from unbounded.store import manifest
from unbounded.store.directory import SEGMENTS, Fill, Hashing
from unbounded.store.lock import Lock
from unbounded.store.log_copies import LogCopies, is_piece
from unbounded.store.manifest import LogCopy
from unbounded.store.paths import as_url

LOGS = "logs"

# The names of segment files. Other files in the same place are not ours, and are left alone.
_SEGMENT = re.compile(r".+-[0-9a-f]{16}\.npz")

# Systems that need a file's directory to exist. Object stores have no directories: mkdir would make a bucket.
_HAVE_DIRECTORIES = {"file", "local", "sftp", "ssh", "smb", "hdfs", "webhdfs", "ftp", "arrow_hdfs", "dbfs"}


def open_remote(url: str, runtime: Runtime, local: Path | None) -> RemoteDirectory:
    """The directory at a URL.

    Args:
        url: of a scheme that fsspec knows.
        runtime: for files on this machine.
        local: the directory on this machine for the run's logs; None for one in the user's cache.

    Raises:
        ValueError: fsspec is not installed, does not know the scheme, or lacks the package for it.
    """
    scheme, rest = as_url(url)
    try:
        import fsspec
    except ImportError:
        raise ValueError(
            f"{url!r} is a URL, and without fsspec runs are written to local or mounted file systems alone. Install it "
            "(pip install 'unbounded[remote]'), or give a path such as 'runs/first': the mount point of the bucket, or "
            "a directory that you copy there afterwards."
        ) from None
    whole = f"{scheme}://{rest}"
    try:
        system, root = fsspec.core.url_to_fs(whole)
    except ImportError as error:
        raise ValueError(f"{url!r} is a URL that needs another package: {error}") from error
    except ValueError as error:
        raise ValueError(
            f"{url!r} is a URL of a scheme that fsspec does not know ({error}). Expected one such as "
            "'s3://bucket/run', or a path."
        ) from error
    return RemoteDirectory(system, root.rstrip("/"), whole.rstrip("/"), runtime, local or default_local(whole))


def default_local(url: str) -> Path:
    """The default directory on this machine for the logs of the run at a URL."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(cache) / "unbounded" / "runs" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


class RemoteDirectory:
    """A directory of checkpoints at a URL.

    Args:
        system: the fsspec file system.
        root: the directory's path in it.
        url: in the user's notation.
        runtime: for files on this machine.
        local: the directory on this machine that has the run's logs.
    """

    def __init__(self, system: Any, root: str, url: str, runtime: Runtime, local: Path) -> None:
        self._system = system
        self._root = root
        self._url = url
        self._runtime = runtime
        self.local = local
        self._copies = LogCopies(local, runtime, self._put_piece, self.open_piece)
        protocol = system.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._has_directories = bool(protocols & _HAVE_DIRECTORIES)
        self._finds = _has_own_find(system)

    @property
    def path(self) -> str:
        """The URL."""
        return self._url

    def at(self, name: str) -> str:
        """The URL of a file in it."""
        return f"{self._url}/{name}"

    def checkpoints(self) -> list[str]:
        """The names of the checkpoints that have a manifest."""
        end = f"/{manifest.NAME}"
        return [name.removesuffix(end) for name in self._names() if name.endswith(end) and name.count("/") == 1]

    def leftovers(self) -> list[str]:
        """The names of directories without a manifest.

        Another writer may be filling one of them, so callers remove only those older than the checkpoints they keep.
        """
        names = self._names()
        whole = {name.partition("/")[0] for name in names if name.endswith(f"/{manifest.NAME}")}
        return sorted({name.partition("/")[0] for name in names} - whole)

    def segments(self) -> list[str]:
        """The names of the segments' files."""
        return [name for name in self._in(SEGMENTS) if _SEGMENT.fullmatch(name)]

    def _in(self, folder: str) -> list[str]:
        return [name.partition("/")[2] for name in self._names() if name.startswith(f"{folder}/")]

    def _names(self) -> list[str]:
        """The names of all files."""
        with _as_os_errors():
            self._system.invalidate_cache()  # other processes write there, too
            try:
                found = self._system.find(self._root) if self._finds else list(self._below(self._root))
            except FileNotFoundError:
                return []
        skipped = len(self._root) + 1
        return [str(path)[skipped:] for path in found]

    def _below(self, folder: str) -> Iterator[str]:
        """All files below a directory. fsspec's own way to find them takes what it can't list for empty."""
        try:
            listed = self._system.ls(folder, detail=True)
        except FileNotFoundError:  # none is there, or it has just been removed
            return
        for each in listed:
            path = str(each["name"]).rstrip("/")
            if each["type"] != "directory":
                yield path
            elif path != folder.rstrip("/"):
                yield from self._below(path)

    def open(self, name: str) -> BinaryIO:
        """Open a file for sequential reading."""
        with _as_os_errors():
            return cast(BinaryIO, _RemoteReadFile(self._system.open(f"{self._root}/{name}", "rb")))

    def size(self, name: str) -> int | None:
        """A file's size in bytes; None if it does not exist or can't be known."""
        try:
            with _as_os_errors():
                return int(self._system.size(f"{self._root}/{name}"))
        except OSError:
            return None

    def begin(self, user: object) -> Lock:
        """Take the lock of the local directory."""
        self._runtime.files.make_directory(self.local)
        return Lock.of(self.local, user, self._runtime)

    def write(
        self, name: str, parts: Mapping[str, Fill], written: dict[str, tuple[int, str]], *, sync_segments: bool
    ) -> None:
        """Write a checkpoint, its manifest last."""
        *others, last = parts
        try:
            for file in others:
                written[file] = self._put(f"{name}/{file}", parts[file])
            # The manifest in one call, so that half of it never exists.
            content = io.BytesIO()
            parts[last](content)
            self._put_whole(f"{name}/{last}", content.getvalue())
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to raise
                self.remove(name)
            raise

    def add_segment(self, name: str, fill: Fill, listed: set[str]) -> tuple[str, int, str]:
        """Write a segment, unless it exists: its name contains its checksum."""
        looked = Hashing(lambda data: len(data))
        looked.fill(fill)
        file = f"{name}-{looked.sha256[:16]}.npz"
        listed.add(file)
        if self.size(f"{SEGMENTS}/{file}") != looked.size:
            self._put(f"{SEGMENTS}/{file}", fill)
        return file, looked.size, looked.sha256

    def remove(self, name: str) -> None:
        """Remove a checkpoint, its manifest first, or a segment."""
        path = f"{self._root}/{name}"
        with _as_os_errors(), contextlib.suppress(FileNotFoundError):
            if "/" in name:
                self._remove_file(path)
                return
            self._remove_file(f"{path}/{manifest.NAME}")
            self._system.invalidate_cache()
            for file in self._system.find(path):
                self._remove_file(file)
            if self._has_directories:
                self._system.rmdir(path)

    def _remove_file(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(path)

    # -- logs ----------------------------------------------------------------------------------------------------------

    def copy_logs(self, before: Sequence[LogCopy]) -> tuple[LogCopy, ...]:
        """Copy what was appended to the logs."""
        return self._copies.bring(before, set(self._in(LOGS)))

    def fetch_logs(self, copies: Sequence[LogCopy]) -> None:
        """Restore the logs on this machine from their copies."""
        self._copies.fetch(copies, self)

    def forget_logs(self, needed: set[str]) -> None:
        """Remove the copies that no checkpoint refers to."""
        for piece in self._in(LOGS):
            if piece not in needed and is_piece(piece):
                with _as_os_errors():
                    self._remove_file(f"{self._root}/{LOGS}/{piece}")

    def open_piece(self, piece: str) -> BinaryIO:
        """Open a piece of a log's copy."""
        return self.open(f"{LOGS}/{piece}")

    def _put_piece(self, piece: str, content: bytes) -> None:
        self._put_whole(f"{LOGS}/{piece}", content)

    # -- writing -------------------------------------------------------------------------------------------------------

    def _put(self, name: str, fill: Fill) -> tuple[int, str]:
        """Write a file with what `fill` writes, in pieces; return its size in bytes and its SHA-256."""
        path = self._made(name)
        with _as_os_errors(), self._system.open(path, "wb") as file:
            raw = Hashing(file.write)
            try:
                raw.fill(fill)
            finally:
                raw.stop()
        return raw.size, raw.sha256

    def _put_whole(self, name: str, content: bytes) -> None:
        path = self._made(name)
        with _as_os_errors():
            self._system.pipe_file(path, content)

    def _made(self, name: str) -> str:
        path = f"{self._root}/{name}"
        if self._has_directories:
            with _as_os_errors():
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path


class _RemoteReadFile:
    """A remote file for reading, whose errors are OSErrors."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, n: int = -1) -> bytes:
        """The next n bytes; fewer at the end."""
        with _as_os_errors():
            return bytes(self._file.read(n))

    def __enter__(self) -> _RemoteReadFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def _has_own_find(system: Any) -> bool:
    """Whether a file system of fsspec lists all that is below a directory in a way of its own, in one call."""
    from fsspec import AbstractFileSystem

    return getattr(type(system), "find", None) is not AbstractFileSystem.find


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Convert the exceptions of store clients to OSError."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
