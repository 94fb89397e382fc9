"""Lock: one process at a time writes to a directory; the kernel lets go when it ends, however it ends."""

from __future__ import annotations

import errno
import weakref
from pathlib import Path
from typing import Any, ClassVar

from unbounded.core.runtime import Runtime


class Lock:
    """The lock of one directory.

    All who write to one directory in one process share one `Lock`, and take turns in `turn`. `fresh` holds
    the names of files that this process has made for checkpoints yet to be written.

    Args:
        file: made where there is none; it stays.
        runtime: what it is locked with.

    Raises:
        BlockingIOError: another process has it.
    """

    # Keyed by the process too: a forked child inherits this dictionary, but not the lock.
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
        # When it is collected, at the latest: the lock goes with the open file.
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
        """The lock of a directory, taken now unless this process has it already; `user` holds it until `let_go`.

        Raises:
            BlockingIOError: another process has it.
        """
        key = (runtime.process(), str(runtime.files.resolve(directory)))
        with runtime.process_lock:  # a second one, closed again, would take the first one's lock with it
            lock = cls._held.get(key)
            if lock is None or not lock.holds():
                lock = cls._held[key] = cls(directory / ".lock", runtime)
            lock._users.add(user)
        return lock

    def let_go(self, user: object) -> None:
        """Say that `user` writes no more; others may when all users have said so."""
        if self._process != self._runtime.process():  # a forked child has nothing to let go of
            return
        with self.turn, self._runtime.process_lock:
            self._users.discard(user)
            if not self._users:
                self._closed()

    def holds(self) -> bool:
        """Whether this process still has it: not in a forked child, nor when the directory was removed."""
        try:
            return (
                self._closed.alive
                and self._process == self._runtime.process()
                and self._runtime.files.stat(self.file).st_ino == self._inode
            )
        except OSError:
            return False
