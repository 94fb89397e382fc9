"""SimulatedFiles: the file calls of a simulated process, on the simulated disk; each is a switch, and may fail."""

from __future__ import annotations

import errno
import io
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from unbounded.core.files import Files
from unbounded.simulation.disk import Disk, File, Folder
from unbounded.simulation.scheduler import Killed, Scheduler


@dataclass(frozen=True)
class Faults:
    """The probabilities of faults.

    Args:
        kills: the mean number of switches until a process is killed; 0: it is not killed.
        power_cuts: the share of kills that are power cuts: a part of what was not synced is lost.
        errors: the share of file calls that fail, with EIO or ENOSPC.
        lost_syncs: the share of fsyncs that fail, after which the disk has lost the data.
        short_writes: the share of writes that write a part of their data.
        delays: the share of file calls that take up to two seconds.

    >>> Faults(errors=0.01, lost_syncs=0.1).errors
    0.01
    """

    kills: float = 0.0
    power_cuts: float = 0.5
    errors: float = 0.0
    lost_syncs: float = 0.0
    short_writes: float = 0.0
    delays: float = 0.0


@dataclass
class _Open:
    """An open file."""

    file: File
    append: bool
    at: int = 0


class SimulatedFiles(Files):
    """The files of one simulated process.

    Args:
        disk: it outlives the process.
        scheduler: of the process.
        rng: decides what fails.
        faults: the probabilities.
        locks: the process that holds each file's lock, by inode number; of the machine.
        numbers: gives each open file a new number.
    """

    def __init__(
        self,
        disk: Disk,
        scheduler: Scheduler,
        rng: random.Random,
        faults: Faults,
        locks: dict[int, SimulatedFiles],
        numbers: Callable[[], int],
    ) -> None:
        self._disk = disk
        self._scheduler = scheduler
        self._rng = rng
        self._faults = faults
        self._locks = locks
        self._numbers = numbers
        self._open: dict[int, _Open] = {}
        self._full = 0  # the number of further writes that fail, since the disk is full
        self.quiet = False
        """True while nothing may fail."""

    # -- faults --------------------------------------------------------------------------------------------------------

    def _begin_call(self, what: str, path: Path | None = None, *, kind: str = "read") -> None:
        """Begin a file call, which may fail.

        Raises:
            OSError: it fails.
            Killed: the process was killed.
        """
        self._scheduler.switch(f"{what} {path or ''}")
        if self._scheduler.task() is None or self.quiet:
            return
        if self._rng.random() < self._faults.delays:
            self._scheduler.sleep(self._rng.random() * 2)
        if kind != "none" and self._rng.random() < self._faults.errors:
            code = errno.EIO if kind == "read" else self._rng.choice((errno.EIO, errno.ENOSPC))
            raise OSError(code, os.strerror(code), None if path is None else str(path))

    def _find(self, path: Path) -> File | Folder:
        found = self._disk.find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return found

    def _folder(self, path: Path) -> Folder:
        found = self._find(path)
        if not isinstance(found, Folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return found

    def _opened(self, path: Path, *, create: bool, new: bool = False, append: bool = False) -> int:
        self._begin_call("open", path, kind="write" if create else "read")
        folder = self._folder(path.parent)
        found = folder.names.get(path.name)
        if isinstance(found, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if found is not None and new:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if found is None:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            found = self._disk.new_file()
            folder.put({path.name: found})
        fd = self._numbers()
        self._open[fd] = _Open(found, append)
        return fd

    def _of(self, fd: int) -> _Open:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[fd]

    # -- files ---------------------------------------------------------------------------------------------------------

    def open_read(self, path: Path) -> BinaryIO:
        fd = self._opened(path, create=False)
        return io.BufferedReader(_SimulatedReadFile(self, fd))

    def create(self, path: Path) -> int:
        return self._opened(path, create=True, new=True, append=True)

    def open_write(self, path: Path) -> int:
        return self._opened(path, create=True)

    def open_append(self, path: Path) -> int:
        return self._opened(path, create=False, append=True)

    def open_log(self, path: Path) -> int:
        return self._opened(path, create=True, append=True)

    def close(self, fd: int) -> None:
        opened = self._open.pop(fd, None)
        if opened is not None and self._locks.get(opened.file.number) is self:
            del self._locks[opened.file.number]  # like the kernel: closing any descriptor of a file releases its lock

    def write(self, fd: int, data: bytes | memoryview) -> int:
        opened = self._of(fd)
        at = len(opened.file.content) if opened.append else opened.at
        done = self._write(opened, data, at)
        opened.at = at + done
        return done

    def writev(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        return self.write(fd, b"".join(parts))

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        return self._write(self._of(fd), data, at)

    def _write(self, opened: _Open, data: bytes | memoryview, at: int) -> int:
        data = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        try:
            self._begin_call("write", kind="none")
        except Killed:
            # A switch in the middle of the write.
            if self._scheduler.task() is not None and self._rng.random() < 0.5:
                opened.file.write(data[: self._rng.randint(0, len(data))], at)
            raise
        if opened.append:
            at = len(opened.file.content)
        if self._scheduler.task() is not None and not self.quiet and len(data):
            if self._full or self._rng.random() < self._faults.errors:
                self._full = self._full - 1 if self._full else self._rng.choice((0, 0, 1, 5, 20))
                part = self._rng.choice((0, self._rng.randint(0, len(data) - 1)))
                if part:
                    opened.file.write(data[:part], at)
                    return part  # the next write may fail
                code = self._rng.choice((errno.EIO, errno.ENOSPC))
                raise OSError(code, os.strerror(code))
            if len(data) > 1 and self._rng.random() < self._faults.short_writes:
                data = data[: self._rng.randint(1, len(data) - 1)]
        opened.file.write(data, at)
        return len(data)

    def pread(self, fd: int, n: int, at: int) -> bytes:
        self._begin_call("pread")
        return bytes(self._of(fd).file.content[at : at + n])

    def fsync(self, fd: int) -> None:
        file = self._of(fd).file
        self._begin_call("fsync", kind="none")
        if self._scheduler.task() is not None and not self.quiet and self._rng.random() < self._faults.lost_syncs:
            file.lose(self._rng)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        file.sync()

    def truncate(self, fd: int, size: int) -> None:
        self._begin_call("truncate")
        self._of(fd).file.truncate(size)

    def size(self, fd: int) -> int:
        return len(self._of(fd).file.content)

    def inode(self, fd: int) -> int:
        return self._of(fd).file.number

    def lock(self, fd: int) -> bool:
        self._begin_call("lock", kind="none")
        return self._locks.setdefault(self._of(fd).file.number, self) is self

    # -- names ---------------------------------------------------------------------------------------------------------

    def rename(self, old: Path, new: Path) -> None:
        self._begin_call("rename", old, kind="write")
        source, target = self._folder(old.parent), self._folder(new.parent)
        found = source.names.get(old.name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(old))
        there = target.names.get(new.name)
        if isinstance(there, Folder) and (isinstance(found, File) or there.names):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(new))
        if source is target:
            source.put({old.name: None, new.name: found})
        else:
            target.put({new.name: found})
            source.put({old.name: None})

    def unlink(self, path: Path) -> None:
        self._begin_call("unlink", path)
        folder = self._folder(path.parent)
        if isinstance(folder.names.get(path.name), Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self._find(path)
        folder.put({path.name: None})

    def mkdir(self, path: Path) -> None:
        self._begin_call("mkdir", path, kind="write")
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        folder.put({path.name: self._disk.new_folder()})

    def rmdir(self, path: Path) -> None:
        self._begin_call("rmdir", path)
        if self._folder(path).names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        self._folder(path.parent).put({path.name: None})

    def list(self, path: Path) -> list[str]:
        self._begin_call("list", path)
        return list(self._folder(path).names)

    def stat(self, path: Path) -> os.stat_result:
        self._begin_call("stat", path)
        found = self._find(path)
        size = len(found.content) if isinstance(found, File) else 0
        mode = 0o100644 if isinstance(found, File) else 0o040755
        return os.stat_result((mode, found.number, 1, 1, 0, 0, size, 0, 0, 0))

    def exists(self, path: Path) -> bool:
        self._begin_call("look for", path, kind="none")
        return self._there(path) is not None

    def resolve(self, path: Path) -> Path:
        return path

    def is_link(self, path: Path) -> bool:
        return False

    def is_directory(self, path: Path) -> bool:
        self._begin_call("look for", path, kind="none")
        return isinstance(self._there(path), Folder)

    def _there(self, path: Path) -> File | Folder | None:
        try:
            return self._disk.find(path)
        except NotADirectoryError:
            return None

    def sync_directory(self, path: Path) -> None:
        self._begin_call("fsync", path)
        self._folder(path).sync()


class _SimulatedReadFile(io.RawIOBase):
    """A file for reading."""

    def __init__(self, files: SimulatedFiles, fd: int) -> None:
        self._files = files
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._files.pread(self._fd, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = {0: 0, 1: self._at, 2: self._files.size(self._fd)}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._files.close(self._fd)
        super().close()
