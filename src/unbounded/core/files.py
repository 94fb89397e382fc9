"""Every file system call of the core, so that a test can make any of them fail.

The layout and meaning of files is left to the callers. No other module asks the file system about a path.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Self

try:
    import fcntl
except ImportError:  # Windows has no record locks: two processes that write one directory are not detected there
    fcntl = None  # type: ignore[assignment]


class Files:
    """The operating system's file system."""

    def __new__(cls, *args: object, **given: object) -> Self:
        files = super().__new__(cls)  # in __new__: a test's subclass need not call __init__
        files._on_disk = set()  # directories whose entry this process has fsynced in their parent
        return files

    _on_disk: set[Path]

    def open_read(self, path: Path) -> BinaryIO:
        """Open a file for reading."""
        return io.open(path, "rb")  # noqa: UP020 - whoever asked closes it

    def create(self, path: Path) -> int:
        """Create a file for appending; raise FileExistsError if it exists. Appends stay correct after a truncation."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)

    def open_write(self, path: Path) -> int:
        """Open a file for reading and writing at any offset; create it if it does not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def open_append(self, path: Path) -> int:
        """Open an existing file for reading and appending."""
        return os.open(path, os.O_RDWR | os.O_APPEND)

    def open_log(self, path: Path) -> int:
        """Open a file for reading and appending; create it if it does not exist."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def close(self, fd: int) -> None:
        """Close a file."""
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write; return the number of bytes written, which may be fewer than given."""
        return os.write(fd, data)

    def writev(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        """Write all parts in one call; return the number of bytes written, which may be fewer than given."""
        if hasattr(os, "writev"):
            return os.writev(fd, parts)
        return os.write(fd, b"".join(parts))  # Windows

    def pread(self, fd: int, n: int, at: int) -> bytes:
        """Read up to n bytes at an offset."""
        return os.pread(fd, n, at)

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        """Write at an offset of a file from `open_write`; return the number of bytes written."""
        return os.pwrite(fd, data, at)

    def fsync(self, fd: int) -> None:
        """Return once all that was written to the file is on the disk."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Shorten a file to `size` bytes."""
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        """The size of an open file in bytes."""
        return os.fstat(fd).st_size

    def inode(self, fd: int) -> int:
        """The number of the open file itself, which differs from that of a file that replaced it at its path."""
        return os.fstat(fd).st_ino

    def lock(self, fd: int) -> bool:
        """Lock an open file for this process, without waiting; return False if another process holds the lock.

        The kernel releases the lock when the process ends, or closes any descriptor of this file.
        """
        if fcntl is None:
            return True
        try:
            # A record lock, not flock: a child process that survives a killed trainer must not keep the lock.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # a file system without locks
        return True

    def rename(self, old: Path, new: Path) -> None:
        """Rename a file or a directory atomically. An existing file of the new name is replaced."""
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Create a directory; raise FileExistsError if it exists."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def list(self, path: Path) -> list[str]:
        """The names in a directory, in arbitrary order."""
        return os.listdir(path)

    def stat(self, path: Path) -> os.stat_result:
        """The size, times, device and inode of a file."""
        return os.stat(path)

    def exists(self, path: Path) -> bool:
        """True if the path exists."""
        return os.path.lexists(path)

    def resolve(self, path: Path) -> Path:
        """The canonical path of a file or directory: absolute, without symbolic links."""
        return path.resolve()

    def is_link(self, path: Path) -> bool:
        """True if the path is a symbolic link."""
        return os.path.islink(path)

    def is_directory(self, path: Path) -> bool:
        """True if the path is a directory."""
        return os.path.isdir(path)

    # -- operations of several calls -----------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents if they do not exist; all of them are on the disk when this returns."""
        there = self.is_directory(path)
        if there and path in self._on_disk:
            return
        if path.parent != path:
            self.make_directory(path.parent)
        if not there:
            try:
                self.mkdir(path)
            except FileExistsError:
                if not self.is_directory(path):
                    raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a directory", str(path)) from None
        # fsync an existing directory's parent too: the process that created it may have been killed before its fsync.
        try:
            self.sync_directory(path.parent)
        except PermissionError:
            if not there:
                raise
        self._on_disk.add(path)

    def sync_directory(self, path: Path) -> None:
        """fsync a directory. Without it, a power cut may remove the entry of a file whose content is on the disk."""
        if not hasattr(os, "O_DIRECTORY"):  # Windows can't open a directory, and needs no such call
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that sync themselves
                raise
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        """Remove a file, or a directory with its content; do nothing if it does not exist."""
        try:
            if self.is_directory(path) and not self.is_link(path):
                for name in self.list(path):
                    self.remove(path / name)
                self.rmdir(path)
            else:
                self.unlink(path)
        except FileNotFoundError:
            pass
