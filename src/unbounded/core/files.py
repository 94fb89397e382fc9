"""Files: every call of the core that reads or changes the file system, so that a test can make any of them fail.

What the files mean is left to others. Paths are used as names alone: nothing else asks the file system about them.
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
except ImportError:  # Windows has no such locks: there, nothing stops two writers
    fcntl = None  # type: ignore[assignment]


class Files:
    """The machine's own file system."""

    def __new__(cls, *args: object, **given: object) -> Self:
        files = super().__new__(cls)  # whatever a test's own file system begins with
        files._on_disk = set()  # directories of which this process knows that a loss of power leaves them
        return files

    _on_disk: set[Path]

    def open_read(self, path: Path) -> BinaryIO:
        """A file for reading."""
        return io.open(path, "rb")  # noqa: UP020 - whoever asked closes it

    def create(self, path: Path) -> int:
        """A new file for writing at its end, also after it was cut off; FileExistsError where there is one."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)

    def open_write(self, path: Path) -> int:
        """A file for reading and writing at any place, made where there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def open_append(self, path: Path) -> int:
        """A file that is there, for reading, and for writing at its end."""
        return os.open(path, os.O_RDWR | os.O_APPEND)

    def open_log(self, path: Path) -> int:
        """As `open_append`; made where there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def close(self, fd: int) -> None:
        """Close a file."""
        os.close(fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write; gives how many bytes, perhaps fewer than there are."""
        return os.write(fd, data)

    def writev(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        """Write parts one after the other in one call; gives how many bytes, perhaps fewer than there are."""
        if hasattr(os, "writev"):
            return os.writev(fd, parts)
        return os.write(fd, b"".join(parts))  # Windows

    def pread(self, fd: int, n: int, at: int) -> bytes:
        """Up to n bytes from a place in a file."""
        return os.pread(fd, n, at)

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        """Write at a place in a file that `open_write` has opened; gives how many bytes."""
        return os.pwrite(fd, data, at)

    def fsync(self, fd: int) -> None:
        """What was written is on the disk when this returns."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file off."""
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        """The size of an open file in bytes."""
        return os.fstat(fd).st_size

    def inode(self, fd: int) -> int:
        """What tells an open file from one that took its name."""
        return os.fstat(fd).st_ino

    def lock(self, fd: int) -> bool:
        """Lock an open file for this process, without waiting; False where another process has it.

        The kernel lets go when the process closes the file, this one or any other that it has opened of it, or ends.
        """
        if fcntl is None:
            return True
        try:
            # A record lock, not flock: a child that outlives a killed trainer must not keep the next one out.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # a file system without locks
        return True

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or a directory another name, at once. A file of that name is replaced."""
        os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Make a directory; FileExistsError where there is one."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def list(self, path: Path) -> list[str]:
        """The names in a directory, in no order."""
        return os.listdir(path)

    def stat(self, path: Path) -> os.stat_result:
        """What the file system knows of a file: its size, times, device and inode."""
        return os.stat(path)

    def exists(self, path: Path) -> bool:
        """Whether there is something of this name."""
        return os.path.lexists(path)

    def resolve(self, path: Path) -> Path:
        """The one name among all that a file or directory has: absolute, without links."""
        return path.resolve()

    def is_link(self, path: Path) -> bool:
        """Whether there is a symbolic link of this name."""
        return os.path.islink(path)

    def is_directory(self, path: Path) -> bool:
        """Whether there is a directory of this name."""
        return os.path.isdir(path)

    # -- of several calls ----------------------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Make a directory where there is none, and those above it, all of them on the disk when this returns."""
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
        # One that is there, too: whoever made it may have been killed before this line.
        try:
            self.sync_directory(path.parent)
        except PermissionError:
            if not there:
                raise
        self._on_disk.add(path)

    def sync_directory(self, path: Path) -> None:
        """Put the names in a directory on the disk: without that, a file that is there can still be lost."""
        if not hasattr(os, "O_DIRECTORY"):  # Windows can't open a directory, and needs no such call
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do it by themselves
                raise
        finally:
            os.close(fd)

    def remove(self, path: Path) -> None:
        """Remove a file, or a directory with all that is in it; one that isn't there is no error."""
        try:
            if self.is_directory(path) and not self.is_link(path):
                for name in self.list(path):
                    self.remove(path / name)
                self.rmdir(path)
            else:
                self.unlink(path)
        except FileNotFoundError:
            pass
