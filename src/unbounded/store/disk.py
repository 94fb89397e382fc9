"""The file system, as checkpoints need it: files that are whole and on the disk, or not there at all.

Every call that changes something on the disk goes through `call`, the one place where a test can count such
calls, stop between any two of them, or make one fail. What the files mean is left to others.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, TypeVar

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, nothing stops two writers
    fcntl = None  # type: ignore[assignment]

_T = TypeVar("_T")

# "gs://bucket/run", and what `Path` makes of it, "gs:/bucket/run". One letter is a Windows drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


def local_path(given: str | os.PathLike[str]) -> Path:
    """A directory or file that a user gave, as a path; a URL is refused.

    Raises:
        ValueError: it is a URL, which would become a directory named after its scheme, or it is empty.

    >>> local_path("runs/first").parts
    ('runs', 'first')
    >>> local_path("file:///data/run")
    Traceback (most recent call last):
    ValueError: 'file:///data/run' is a URL, and a path is expected: give '/data/run'.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"{given!r} was given as a path, and a directory or file is expected, such as 'runs/first'.")
    text = str(given)
    if not text:
        raise ValueError("An empty path was given, and a directory or file is expected, such as 'runs/first'.")
    url = _URL.fullmatch(text)
    if url is None:
        return Path(given)
    if url[1].lower() == "file":
        path = "/" + url[2].removeprefix("localhost/")
        raise ValueError(f"{text!r} is a URL, and a path is expected: give {path!r}.")
    raise ValueError(
        f"{text!r} is a URL, and runs are written to local or mounted file systems alone. Give a path such as "
        "'runs/first': the mount point of the bucket, or a directory that you copy there afterwards."
    )


def call(function: Callable[..., _T], *args: Any) -> _T:
    """Run one call that changes the disk."""
    return function(*args)


class _Hashing(io.RawIOBase):
    """What is written to an open file, counted and hashed on its way."""

    def __init__(self, fd: int) -> None:
        self.fd: int | None = fd
        self.size = 0
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        if self.fd is None:
            return len(view)
        done = call(os.write, self.fd, view)  # perhaps not all of it; then the buffer comes again with the rest
        self.hash.update(view[:done])
        self.size += done
        return done


def write_file(path: Path, fill: Callable[[BinaryIO], None]) -> tuple[int, str]:
    """Make a new file of what `fill` writes, on the disk at once; returns its size in bytes and SHA-256."""
    fd = call(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    raw = _Hashing(fd)
    try:
        buffered = io.BufferedWriter(raw, 1 << 20)
        fill(buffered)
        buffered.flush()
        call(os.fsync, fd)
    finally:
        os.close(fd)
        # After a failure the buffer still holds bytes, and writes them when it is collected: by then the
        # number of this file may be another file's.
        raw.fd = None
    return raw.size, raw.hash.hexdigest()


def measure_file(path: Path) -> tuple[int, str]:
    """The size in bytes and the SHA-256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


class Stamp(NamedTuple):
    """What changes with a file's content, without a look at it."""

    device: int
    inode: int
    size: int
    modified: float
    changed: float
    """Seconds since 1970."""


def stamp(path: Path) -> Stamp:
    """A file's stamp as it is now."""
    found = os.stat(path)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime, found.st_ctime)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on the disk: without that, a file that is there can still be lost."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows can't open a directory, and needs no such call
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        call(os.fsync, fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do it by themselves
            raise
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory where there is none, and those above it, all of them on the disk when this returns."""
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    try:
        call(os.mkdir, path)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a directory", str(path)) from None
    sync_directory(path.parent)


def rename(old: Path, new: Path) -> None:
    """Give a file or a directory another name, at once. A file of that name is replaced."""
    call(os.replace, old, new)


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it; one that isn't there is no error."""
    try:
        if path.is_dir() and not path.is_symlink():
            for inside in path.iterdir():
                remove(inside)
            call(os.rmdir, path)
        else:
            call(os.unlink, path)
    except FileNotFoundError:
        pass


class Lock:
    """One process at a time writes to a directory; the kernel lets go when it ends, however it ends.

    All who write to one directory in one process share one `Lock`, and take turns in `turn`. `fresh` holds
    the names of files that this process has made for checkpoints yet to be written.
    """

    # Keyed by the process too: a forked child inherits this dictionary, but not the lock.
    _held: ClassVar[weakref.WeakValueDictionary[tuple[int, str], Lock]] = weakref.WeakValueDictionary()
    _taking: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, file: Path) -> None:
        self.file = file
        self.pid = os.getpid()
        self.turn = threading.RLock()
        self.fresh: set[str] = set()
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        fd = call(os.open, file, os.O_RDWR | os.O_CREAT, 0o666)
        # When it is collected, at the latest: the lock goes with the open file.
        self._closed = weakref.finalize(self, os.close, fd)
        self.inode = os.fstat(fd).st_ino
        if fcntl is None:
            return
        try:
            # A record lock, not flock: a child that outlives a killed trainer must not keep the next one out.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):  # a file system without locks
                return
            writer = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self._closed()
            raise BlockingIOError(
                errno.EAGAIN, f"the process {writer} writes to it; stop that one, or use another directory"
            ) from error
        call(os.ftruncate, fd, 0)
        call(os.pwrite, fd, f"{self.pid}\n".encode(), 0)

    @classmethod
    def of(cls, directory: Path, user: object) -> Lock:
        """The lock of a directory, taken now unless this process has it already; `user` holds it until `let_go`.

        Raises:
            BlockingIOError: another process has it.
        """
        key = (os.getpid(), os.path.realpath(directory))
        with cls._taking:  # a second one, closed again, would take the first one's lock with it
            lock = cls._held.get(key)
            if lock is None or not lock.holds():
                lock = cls._held[key] = cls(directory / ".lock")
            lock._users.add(user)
        return lock

    def let_go(self, user: object) -> None:
        """Say that `user` writes no more; others may when all users have said so."""
        if self.pid != os.getpid():  # a forked child has nothing to let go of
            return
        with self.turn, self._taking:
            self._users.discard(user)
            if not self._users:
                self._closed()

    def holds(self) -> bool:
        """Whether this process still has it: not in a forked child, nor when the directory was removed."""
        try:
            return self._closed.alive and self.pid == os.getpid() and os.stat(self.file).st_ino == self.inode
        except OSError:
            return False
