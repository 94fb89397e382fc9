"""Lock: ensures that one process at a time writes to a directory; the kernel releases it when the process ends."""

from __future__ import annotations

import errno
import weakref
from pathlib import Path
from typing import Any, ClassVar

from unbounded.core.runtime import Runtime


class Lock:
    """The lock of one directory.

    All writers to a directory within a process share one `Lock`, and take turns by `turn`. `fresh` holds the names of
    files that this process has written for checkpoints that are not written yet.

    Args:
        file: the lock file; created if it does not exist, never removed.
        runtime: for locking.

    Raises:
        BlockingIOError: another process holds the lock.
    """

    # The key contains the process id: a forked child inherits this dictionary, but not the lock.
    _held: ClassVar[weakref.WeakValueDictionary[tuple[int, str], Lock]] = weakref.WeakValueDictionary()

    def __init__(self, file: Path, runtime: Runtime) -> None:
        files = runtime.files
        self.file = file
        self._runtime = runtime
        self._process = runtime.process()
        self.turn: Any = runtime.rlock()
        self.fresh: set[str] = set()
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        fd = files.open_write(file)
        # Closing the file releases the lock; at the latest when this object is garbage collected.
        self._closed = weakref.finalize(self, files.close, fd)
        self._inode = files.inode(fd)
        if not files.lock(fd):
            writer = files.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self._closed()
            raise BlockingIOError(
                errno.EAGAIN, f"the process {writer} writes to it; stop that one, or use another directory"
            )
        files.truncate(fd, 0)
        files.pwrite(fd, f"{self._process}\n".encode(), 0)

    @classmethod
    def of(cls, directory: Path, user: object, runtime: Runtime) -> Lock:
        """The lock of a directory, taken now unless this process holds it already; `user` holds it until `let_go`.

        Raises:
            BlockingIOError: another process holds the lock.
        """
        key = (runtime.process(), str(runtime.files.resolve(directory)))
        with runtime.process_lock:  # closing any second descriptor of the file would release this process's lock
            lock = cls._held.get(key)
            if lock is None or not lock.holds():
                lock = cls._held[key] = cls(directory / ".lock", runtime)
            lock._users.add(user)
        return lock

    def let_go(self, user: object) -> None:
        """Release `user`'s hold; the lock is released with the last one."""
        if self._process != self._runtime.process():  # a forked child does not hold the lock
            return
        with self.turn, self._runtime.process_lock:
            self._users.discard(user)
            if not self._users:
                self._closed()

    def holds(self) -> bool:
        """True if this process still holds the lock: not in a forked child, nor after the directory was removed.

        Raises:
            OSError: the disk does not say whether the file is there, which is no sign that it was removed.
        """
        try:
            return (
                self._closed.alive
                and self._process == self._runtime.process()
                and self._runtime.files.stat(self.file).st_ino == self._inode
            )
        except (FileNotFoundError, NotADirectoryError):
            return False
