"""Log: a file of JSON lines that a run writes beside its checkpoints: scores, unusable rows, stats.

A checkpoint contains the log's length; a resume truncates the log to it, so that no line is missing or repeated. A last
line that a kill or a power cut left incomplete is removed before the next line is written.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unbounded.core.files import Files
from unbounded.core.packing import JSON, from_json, to_json
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.warn import warn
from unbounded.store.manifest import CheckpointError
from unbounded.store.paths import local_path

_PIECE = 1 << 16  # bytes read at a time


class Log:
    """An append-only file, one line of JSON for each record.

    Args:
        path: created if it does not exist, with its parent directories; an existing log is continued. Reading changes
            nothing: several processes may read while one writes.
        runtime: for reading and writing.

    Raises:
        CheckpointError: it can't be opened or written: a full disk, no permission, or a file that is not a log.
        ValueError: the path is a URL.

    Example:
        >>> import tempfile
        >>> with Log(tempfile.mkdtemp() + "/scores.jsonl") as log:
        ...     log.append({"row": 1, "score": 0.5})
        ...     length = log.tell()                      # stored in the checkpoint
        ...     log.append({"row": 2, "score": 0.7})     # after the checkpoint
        ...     log.cut(length)                          # a resume will append it again
        ...     list(log.read())
        [{'row': 1, 'score': 0.5}]
    """

    def __init__(self, path: str | os.PathLike[str], *, runtime: Runtime = SYSTEM) -> None:
        self.path = local_path(path)
        self._runtime = runtime
        self._fd: int | None = None
        self._whole = False  # True once the file was checked to end with a whole record
        self._closed = False
        self._open()

    @property
    def _files(self) -> Files:
        return self._runtime.files

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing it twice is no error."""
        self._closed = True
        if self._fd is not None:
            self._files.close(self._fd)
            self._fd = None

    def append(self, *records: JSON) -> None:
        """Append records: plain data, as for `to_json`. Other processes see them at once.

        Raises:
            CheckpointError: they can't be written. None of them is in the file; earlier ones are.
        """
        lines = [json.dumps(to_json(record, name="record"), allow_nan=False) + "\n" for record in records]
        fd = self._writable()
        end = self._files.size(fd)
        left = memoryview("".join(lines).encode("ascii"))
        try:
            while left:
                left = left[self._files.write(fd, left) :]
        except BaseException as error:
            # Remove half a line: the next record would be appended to it. Truncating needs no disk space.
            self._whole = False  # if truncating fails too, it is retried before the next record
            with contextlib.suppress(OSError):
                self._files.truncate(fd, end)
            if isinstance(error, OSError):
                raise self._problem("The record was not written", error) from error
            raise

    def tell(self) -> int:
        """The length in bytes, after an fsync: the number that a checkpoint contains.

        Warns:
            UserWarning: the file was removed or replaced by another process; a new one is begun.
        """
        fd = self._writable()
        try:
            self._files.fsync(fd)
        except OSError as error:
            raise self._problem("It could not be put on the disk", error) from error
        return self._files.size(fd)

    def cut(self, length: int) -> None:
        """Truncate the log to a length from `tell`; a run without a checkpoint truncates it to 0.

        Warns:
            UserWarning: it is shorter, so another process has changed it; it continues from its end.
        """
        fd = self._open()
        size = self._files.size(fd)
        if size > length:
            self._files.truncate(fd, length)
        end = self._repair(fd)
        if end < length:
            text = f"{self.path} has {end:,} bytes, and had {length:,} when the checkpoint was written:"
            warn(f"{text} lines are lost.")

    def read(self) -> Iterator[Any]:
        """The records; an incomplete last line is left out.

        Warns:
            UserWarning: some lines are not records, and were skipped.
        """
        return read_records(self.path, runtime=self._runtime)

    def _open(self) -> int:
        if self._closed:
            raise ValueError(f"{self.path} was closed; open it again with Log(path).")
        if self._fd is None:
            try:
                self._files.make_directory(self.path.parent)
                is_new = not self._files.exists(self.path)
                self._fd = self._files.open_log(self.path)
                if is_new:
                    self._files.sync_directory(self.path.parent)
            except OSError as error:
                raise self._problem("It could not be opened", error) from error
        return self._fd

    def _writable(self) -> int:
        """The open file, checked to end with a whole record and to be the one at the path."""
        fd = self._open()
        try:
            there = self._files.stat(self.path).st_ino == self._files.inode(fd)
        except OSError:
            there = False
        if not there:
            self._files.close(fd)
            self._fd, self._whole = None, False
            fd = self._open()
            text = f"{self.path} was removed or replaced while it was written to: its lines so far are lost."
            warn(f"{text} A new file is begun.")
        if not self._whole:
            self._repair(fd)
        return fd

    def _repair(self, fd: int) -> int:
        """Remove an incomplete record at the end; return the file's length."""
        size = self._files.size(fd)
        end = _end_of_records(self._files, fd, size)
        if end < size:
            if not _is_log(self._files, fd):
                raise CheckpointError(
                    f"{self.path} is no log of records: it begins with {self._files.pread(fd, 24, 0)!r}. Nothing was "
                    "changed; give another path, or move it away."
                )
            self._files.truncate(fd, end)
        self._whole = True
        return end

    def _problem(self, what: str, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{what} in {self.path}: {error.strerror or error}. The records before it are whole; make room or give "
            "access, and run it again."
        )


def read_records(path: Path, *, runtime: Runtime = SYSTEM) -> Iterator[Any]:
    """The records of a log, also while another process writes it; the file is not changed.

    Args:
        path: of the log; if it does not exist, there are no records.
        runtime: for reading.

    Warns:
        UserWarning: some lines are not records, and were skipped.
    """
    damaged = 0
    try:
        file = runtime.files.open_read(path)
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                break  # incomplete: being written, or left by a kill
            try:
                record = _record(line)
            except ValueError:
                damaged += 1
                continue
            yield record
    if damaged:
        warn(f"{damaged:,} of the lines in {path} are no records, as a crash may leave them: they were passed over.")


def _record(line: bytes) -> Any:
    # Decoded here: given bytes, json would take a leading NUL for UTF-16.
    return from_json(json.loads(line.decode("utf-8")))


def _end_of_records(files: Files, fd: int, size: int) -> int:
    """The offset of the end of the last whole record.

    A kill leaves the beginning of a line. A power cut can leave NULs in place of content, with line ends after them: so
    lines with a NUL at the end of the file are removed, too. A complete line without a NUL that is not a record can't
    come from a crash: it is kept, and skipped by readers.
    """
    end = _last_line_end(files, fd, size)
    while end:
        start = _last_line_end(files, fd, end - 1)
        if b"\0" not in files.pread(fd, end - start, start):
            return end
        end = start
    return 0


def _last_line_end(files: Files, fd: int, end: int) -> int:
    """The offset after the last line end before `end`; 0 if there is none."""
    while end > 0:
        start = max(0, end - _PIECE)
        found = files.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _is_log(files: Files, fd: int) -> bool:
    """True if a file begins as a log does. A file that a power cut has emptied passes, too."""
    head = files.pread(fd, _PIECE, 0)
    line, ended, _ = head.partition(b"\n")
    if b"\0" in line or not line:
        return True
    if ended:
        try:
            _record(line)
        except ValueError:
            return False
        return True
    return line[:1] in b'{["-0123456789tfnNI'
