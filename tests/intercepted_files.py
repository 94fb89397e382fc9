"""A file system whose changes go through a function of the test, which counts them, kills between two, or fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unbounded.core.files import Files
from unbounded.core.runtime import SYSTEM

# Receives a function of `os` and its arguments: calls it, or does something else.
Call = Callable[..., Any]


class InterceptedFiles(Files):
    """The machine's files, with all changes through `call`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def create(self, path: Path) -> int:
        return int(self._call(os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666))

    def open_write(self, path: Path) -> int:
        return int(self._call(os.open, path, os.O_RDWR | os.O_CREAT, 0o666))

    def open_log(self, path: Path) -> int:
        return int(self._call(os.open, path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return int(self._call(os.write, fd, data))

    def writev(self, fd: int, parts: Sequence[bytes | memoryview]) -> int:
        return int(self._call(os.write, fd, b"".join(parts)))

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        return int(self._call(os.pwrite, fd, data, at))

    def fsync(self, fd: int) -> None:
        self._call(os.fsync, fd)

    def truncate(self, fd: int, size: int) -> None:
        self._call(os.ftruncate, fd, size)

    def rename(self, old: Path, new: Path) -> None:
        self._call(os.replace, old, new)

    def unlink(self, path: Path) -> None:
        self._call(os.unlink, path)

    def mkdir(self, path: Path) -> None:
        self._call(os.mkdir, path)

    def rmdir(self, path: Path) -> None:
        self._call(os.rmdir, path)


def intercept(call: Call) -> None:
    """All changes of files of this process go through `call` from now on."""
    SYSTEM.files = InterceptedFiles(call)


@contextmanager
def all_changes(call: Call) -> Iterator[None]:
    """All changes of files go through `call` in here."""
    before = SYSTEM.files
    intercept(call)
    try:
        yield
    finally:
        SYSTEM.files = before
