"""A file of lines that a run writes beside its checkpoints: scores, rows that could not be used, stats.

A checkpoint notes how long it is; on resume it is cut back to that, so that no line comes twice and none is
missing. What a kill or a loss of power left of a last line is cut off before the next line is written.
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
        path: made where there is none, with the directories above it; one that is there is continued. To read it
            changes nothing: several processes may, while one of them writes.
        runtime: what it is written with.

    Raises:
        CheckpointError: it can't be opened or written: a full disk, no permission, a file of another kind.
        ValueError: the path is a URL.

    Example:
        >>> import tempfile
        >>> with Log(tempfile.mkdtemp() + "/scores.jsonl") as log:
        ...     log.append({"row": 1, "score": 0.5})
        ...     length = log.tell()                      # goes into the checkpoint
        ...     log.append({"row": 2, "score": 0.7})     # made after it
        ...     log.cut(length)                          # a resume makes it again
        ...     list(log.read())
        [{'row': 1, 'score': 0.5}]
    """

    def __init__(self, path: str | os.PathLike[str], *, runtime: Runtime = SYSTEM) -> None:
        self.path = local_path(path)
        self._runtime = runtime
        self._fd: int | None = None
        self._whole = False  # it was looked at, and ends with a whole record
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
        """Add records: plain data, as `to_json` takes it. Other processes see them at once.

        Raises:
            CheckpointError: they can't be written. None of them is in the file then; those before are.
        """
        lines = [json.dumps(to_json(record, name="record"), allow_nan=False) + "\n" for record in records]
        fd = self._writable()
        end = self._files.size(fd)
        left = memoryview("".join(lines).encode("ascii"))
        try:
            while left:
                left = left[self._files.write(fd, left) :]
        except BaseException as error:
            # Half a line must not stay: the next record would be glued to it. To cut needs no room on the disk.
            self._whole = False  # should the cut fail as well, it is made before the next record
            with contextlib.suppress(OSError):
                self._files.truncate(fd, end)
            if isinstance(error, OSError):
                raise self._problem("The record was not written", error) from error
            raise

    def tell(self) -> int:
        """Its length in bytes, all of it on the disk: what a checkpoint notes.

        Warns:
            UserWarning: the file was removed or replaced while it was written to; a new one is begun.
        """
        fd = self._writable()
        try:
            self._files.fsync(fd)
        except OSError as error:
            raise self._problem("It could not be put on the disk", error) from error
        return self._files.size(fd)

    def cut(self, length: int) -> None:
        """Cut it back to a length that `tell` gave; a run without a checkpoint cuts it to 0.

        Warns:
            UserWarning: it is shorter than that, so someone else has changed it; it goes on from its end.
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
        """Its records; a last line that was cut short is left out.

        Warns:
            UserWarning: lines in its middle are no records, and were passed over.
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
        """The file, which ends with a whole record, and still is the one at the path."""
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
        """Cut off what is no whole record at the end, and say how long the file is then."""
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
    """The records of a log, whether or not somebody is writing to it; its file is not changed.

    Args:
        path: the log's; where there is none, there are no records.
        runtime: what it is read with.

    Warns:
        UserWarning: lines in its middle are no records, and were passed over.
    """
    damaged = 0
    try:
        file = runtime.files.open_read(path)
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                break  # it is being written, or a kill cut it short
            try:
                record = _record(line)
            except ValueError:
                damaged += 1
                continue
            yield record
    if damaged:
        warn(f"{damaged:,} of the lines in {path} are no records, as a crash may leave them: they were passed over.")


def _record(line: bytes) -> Any:
    # Decoded here: given bytes, json would take those that begin with NULs for UTF-16.
    return from_json(json.loads(line.decode("utf-8")))


def _end_of_records(files: Files, fd: int, size: int) -> int:
    """Where the last whole record ends.

    A kill leaves the beginning of a line. A loss of power can leave NULs where content was not written yet, with
    line ends after them; lines that hold a NUL at the end of the file are cut off, too. A whole line without a NUL
    that is no record is nothing that a crash leaves at the end: it stays, and reading passes over it.
    """
    end = _last_line_end(files, fd, size)
    while end:
        start = _last_line_end(files, fd, end - 1)
        if b"\0" not in files.pread(fd, end - start, start):
            return end
        end = start
    return 0


def _last_line_end(files: Files, fd: int, end: int) -> int:
    """One past the last line end before `end`; 0 where there is none."""
    while end > 0:
        start = max(0, end - _PIECE)
        found = files.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _is_log(files: Files, fd: int) -> bool:
    """Whether a file begins as a log does. Of what a loss of power has emptied that can't be said."""
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
