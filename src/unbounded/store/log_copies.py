"""Copies of a run's logs beside its checkpoints, if those are at a URL and the logs on this machine.

A log's files grow, but an object in a store can't. So the copy of a file is a list of pieces, each written once. Each
checkpoint writes what was appended since the last one as a new piece; a small last piece is written again together with
what follows it, which keeps their number low.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from unbounded.core.runtime import Runtime
from unbounded.store.lock import Lock
from unbounded.store.manifest import DamagedError, LogCopy

_SMALL = 1 << 18  # bytes: a last piece smaller than this is written again, with what follows
_LARGE = 1 << 26  # bytes: the largest piece

_Piece = tuple[str, int, str]  # name, bytes, SHA-256

_NAME = re.compile(r".+\.\d+-\d+\.[0-9a-f]{16}")


def is_piece(name: str) -> bool:
    """Whether a file's name is one that pieces have."""
    return _NAME.fullmatch(name) is not None


class LogCopies:
    """Copies of all files below a local directory, except those whose names begin with a dot.

    Args:
        local: the directory.
        runtime: for reading and writing local files.
        put: writes a piece, given its name and content.
        open_piece: opens a piece for reading.
    """

    def __init__(
        self,
        local: Path,
        runtime: Runtime,
        put: Callable[[str, bytes], None],
        open_piece: Callable[[str], BinaryIO],
    ) -> None:
        self._local = local
        self._runtime = runtime
        self._put = put
        self._open_piece = open_piece
        self._copies: dict[str, list[_Piece]] | None = None  # by file; None before the first `bring`

    def bring(self, before: Sequence[LogCopy], stored: Collection[str]) -> tuple[LogCopy, ...]:
        """Copy what was appended to the files since the last time.

        Args:
            before: the copies that the newest checkpoint refers to; used by the first call only.
            stored: the names of the pieces in the store. A piece of a checkpoint that could not be written may have
                been removed, since no checkpoint refers to it.
        """
        if self._copies is None:
            self._copies = {copy.file: list(copy.pieces) for copy in before if self._is_here(copy)}
        known = {
            file: list(itertools.takewhile(lambda piece: piece[0] in stored, pieces))
            for file, pieces in self._copies.items()
        }
        while (copies := self._brought(known)) is None:
            pass
        self._copies = copies
        return tuple(LogCopy(file, tuple(pieces)) for file, pieces in copies.items())

    def _brought(self, known: dict[str, list[_Piece]]) -> dict[str, list[_Piece]] | None:
        """The copies of all files there are; None where one was removed meanwhile: another may have its place."""
        copies: dict[str, list[_Piece]] = {}
        for file in sorted(self._files()):
            try:
                copies[file] = known[file] = self._bring(file, known.get(file, []))
            except FileNotFoundError:
                return None
        return copies

    def _bring(self, file: str, known: list[_Piece]) -> list[_Piece]:
        size = self._runtime.files.stat(self._local / file).st_size
        if sum(piece[1] for piece in known) > size:
            known = []  # the file was replaced
        kept, last = known, None
        if known and known[-1][1] < _SMALL:
            *kept, last = known
        pieces, start = list(kept), sum(piece[1] for piece in kept)
        with self._runtime.files.open_read(self._local / file) as opened:
            opened.seek(start)
            while start < size:
                content = opened.read(min(size - start, _LARGE))
                if not content:
                    break
                sha256 = hashlib.sha256(content).hexdigest()
                stop = start + len(content)
                name = f"{file.replace('/', '.')}.{start}-{stop}.{sha256[:16]}"
                piece = (name, len(content), sha256)
                if piece != last:
                    self._put(name, content)
                pieces.append(piece)
                start = stop
        return pieces

    def fetch(self, copies: Sequence[LogCopy], user: object) -> None:
        """Restore the local files from the copies.

        Local files that begin with the copy's content are left as they are. If one has other content, the local
        directory belongs to another course of the run: it is renamed aside, and nothing is removed.

        Raises:
            DamagedError: a copy differs from what was written.
            BlockingIOError: files are missing, and another process holds the lock.
        """
        missing = [copy for copy in copies if not self._is_here(copy)]
        if not missing:
            return
        files = self._runtime.files
        files.make_directory(self._local)
        lock = Lock.of(self._local, user, self._runtime)
        try:
            if any(files.exists(self._local / copy.file) for copy in missing):
                self._set_aside()
                missing = list(copies)
            for copy in missing:
                self._fetch(copy)
        finally:
            lock.let_go(user)

    def _fetch(self, copy: LogCopy) -> None:
        files = self._runtime.files
        path = self._local / copy.file
        files.make_directory(path.parent)
        unfinished = path.parent / f".tmp-{self._runtime.unique()}"
        fd = files.create(unfinished)
        try:
            for name, size, sha256 in copy.pieces:
                with self._open(name) as opened:
                    content = opened.read()
                if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
                    raise DamagedError(f"The copy {name} of the log {copy.file} is not what was written.")
                left = memoryview(content)
                while left:
                    left = left[files.write(fd, left) :]
            files.fsync(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                files.unlink(unfinished)
            raise
        finally:
            files.close(fd)
        files.rename(unfinished, path)
        files.sync_directory(path.parent)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._open_piece(name) as opened:
                yield opened
        except FileNotFoundError as error:
            raise DamagedError(f"The copy {name} of a log is missing.") from error

    def _set_aside(self) -> None:
        files = self._runtime.files
        aside = self._local / f".aside-{self._runtime.unique()[:8]}"
        files.mkdir(aside)
        for name in files.list(self._local):
            if not name.startswith("."):
                files.rename(self._local / name, aside / name)
        files.sync_directory(self._local)

    def _is_here(self, copy: LogCopy) -> bool:
        """True if the local file begins with its copy's content."""
        try:
            with self._runtime.files.open_read(self._local / copy.file) as opened:
                return all(hashlib.sha256(opened.read(size)).hexdigest() == sha256 for _, size, sha256 in copy.pieces)
        except OSError:
            return False

    def _files(self, below: str = "") -> Iterator[str]:
        files = self._runtime.files
        try:
            names = files.list(self._local / below)
        except FileNotFoundError:
            return
        for name in names:
            if name.startswith("."):
                continue
            file = f"{below}/{name}" if below else name
            if files.is_directory(self._local / file):
                yield from self._files(file)
            else:
                yield file
