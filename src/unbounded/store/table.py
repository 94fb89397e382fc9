"""Table: rows of fixed columns in one growing `.npy` file, which `numpy.load` opens at any time.

A checkpoint contains the number of rows; a resume truncates the table to it. The header has room for any number of rows
and is updated after the rows are written: rows beyond its count, which a kill may leave, are overwritten by the next.
"""

from __future__ import annotations

import ast
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.warn import warn
from unbounded.store.manifest import CheckpointError
from unbounded.store.origin import set_aside
from unbounded.store.paths import local_path

_MAGIC = b"\x93NUMPY\x02\x00"  # format version 2.0, which allows long headers: see numpy.lib.format
_FIXED = len(_MAGIC) + 4  # bytes before the header's text: the magic, and the text's length
_ALIGNED = 64


class Table:
    """An append-only table.

    Args:
        path: created by the first rows, with its parent directories; an existing table is continued.
        runtime: for file calls.

    Raises:
        CheckpointError: it can't be opened or written, or has other columns.
        ValueError: the path is a URL.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/scores.npy"
        >>> rows = np.array([(1, 0.5), (2, 0.7)], [("row", "<i8"), ("score", "<f4")])
        >>> table = Table(path)
        >>> table.append(rows)
        >>> table.cut(1)
        >>> table.close()
        >>> np.load(path)["score"]
        array([0.5], dtype=float32)
    """

    def __init__(self, path: str | os.PathLike[str], *, runtime: Runtime = SYSTEM) -> None:
        self.path: Path = local_path(path)
        self._runtime = runtime
        self._files = runtime.files
        self._fd: int | None = None
        self._dtype: Any = None  # set when the file is open
        self._room = 0  # bytes of the header
        self._rows = 0

    def __len__(self) -> int:
        """The number of rows."""
        return self._rows

    def append(self, rows: np.ndarray[Any, Any]) -> None:
        """Append rows: a structured array of one dimension, with the same columns each time. Other processes see them
        at once.

        Raises:
            CheckpointError: they can't be written. None of them is counted; earlier ones are.
        """
        rows = np.ascontiguousarray(rows)
        try:
            self._open(rows.dtype)
            assert self._fd is not None
            if rows.dtype != self._dtype and not self._rows:
                self._begin(rows.dtype)
            if rows.dtype != self._dtype:
                raise CheckpointError(
                    f"{self.path} has the columns {self._dtype}, and rows of {rows.dtype} came. Give another path, or "
                    "move it away."
                )
            at, data = self._room + self._rows * self._dtype.itemsize, rows.tobytes()
            while data:
                written = self._files.pwrite(self._fd, data, at)
                data, at = data[written:], at + written
            self._count(self._rows + len(rows))
        except OSError as error:
            raise self._problem("Rows were not written", error) from error

    def sync(self) -> None:
        """fsync the file."""
        if self._fd is not None:
            try:
                self._files.fsync(self._fd)
            except OSError as error:
                raise self._problem("It could not be put on the disk", error) from error

    def cut(self, rows: int) -> None:
        """Truncate the table to its first `rows` rows.

        Warns:
            UserWarning: it has fewer, so another process has changed it; it continues from its end.
        """
        try:
            if not self._files.exists(self.path):
                self.close()
            if self._fd is None and self._files.exists(self.path):
                self._open(None)
            if self._fd is not None and self._rows > rows:
                self._count(rows)
                self._files.truncate(self._fd, self._room + rows * self._dtype.itemsize)
        except OSError as error:
            raise self._problem("It could not be cut back", error) from error
        if self._rows < rows:
            warn(
                f"{self.path} has {self._rows:,} rows, and had {rows:,} when the checkpoint was written: the others "
                "are lost."
            )

    def set_aside(self) -> Path | None:
        """Rename a file that has rows, so that this table begins without; return its new path. None: it has no rows."""
        try:
            if self._fd is None and self._files.exists(self.path):
                self._open(None)
            if not self._rows:
                return None
            self.close()
            return set_aside(self.path, self._runtime)
        except OSError as error:
            raise self._problem("It could not be renamed", error) from error

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._fd is not None:
            self._files.close(self._fd)
        self._fd, self._dtype, self._room, self._rows = None, None, 0, 0

    # -- the file ----------------------------------------------------------------------------------------------------

    def _open(self, dtype: Any) -> None:
        if self._fd is not None:
            return
        self._files.make_directory(self.path.parent)
        is_new = not self._files.exists(self.path)
        self._fd = self._files.open_write(self.path)
        if is_new:
            self._files.sync_directory(self.path.parent)
        size = self._files.size(self._fd)
        found = self._read_header(size)
        if found is not None:
            self._dtype, self._room, rows = found
            # At most the rows that exist: a power cut may keep the header and lose rows.
            self._rows = min(rows, (size - self._room) // self._dtype.itemsize)
        elif dtype is None:
            self.close()
        else:
            self._begin(dtype)

    def _begin(self, dtype: Any) -> None:
        assert self._fd is not None
        self._dtype, self._room = dtype, len(_header(dtype, 0))
        self._files.truncate(self._fd, 0)
        self._count(0)

    def _read_header(self, size: int) -> tuple[Any, int, int] | None:
        """The columns, the bytes of the header, and its number of rows; None if the file is empty or has only a part of
        its first header, after a kill or a power cut."""
        assert self._fd is not None
        head = self._files.pread(self._fd, _FIXED, 0)
        if not head.strip(b"\0") or (size < _FIXED and _MAGIC.startswith(head[: len(_MAGIC)])):
            return None
        try:
            if not head.startswith(_MAGIC):
                raise ValueError
            (length,) = struct.unpack("<I", head[len(_MAGIC) :])
            if size < _FIXED + length:
                return None
            header = ast.literal_eval(self._files.pread(self._fd, length, _FIXED).decode("latin-1"))
            (rows,) = header["shape"]
            return np.dtype(header["descr"]), _FIXED + length, rows
        except (struct.error, ValueError, SyntaxError, KeyError, TypeError):
            self.close()
            raise CheckpointError(
                f"{self.path} is no table of this library. Nothing was changed; give another path, or move it away."
            ) from None

    def _count(self, rows: int) -> None:
        """Update the number of rows in the header, after the rows are written: it never counts too many."""
        assert self._fd is not None
        self._files.pwrite(self._fd, _header(self._dtype, rows), 0)
        self._rows = rows

    def _problem(self, what: str, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{what} in {self.path}: {error.strerror or error}. The rows before are whole; make room or give access, "
            "and run it again."
        )


def _header(dtype: Any, rows: int) -> bytes:
    """The header's text, of the same length for any number of rows."""
    text = f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': False, 'shape': ({rows},), }}"
    longest = len(text) - len(str(rows)) + 20
    length = -(-(_FIXED + longest + 1) // _ALIGNED) * _ALIGNED - _FIXED
    return _MAGIC + struct.pack("<I", length) + text.ljust(length - 1).encode("latin-1") + b"\n"
