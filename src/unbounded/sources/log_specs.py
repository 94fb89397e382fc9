"""LogSpecs: the structures, dtypes and shapes of the rows in a row log, each a line of `specs.jsonl`."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.core import row_spec
from unbounded.core.node import DataLoss
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree


class LogSpecs:
    """The specs of rows in a log, each a line of a file; records refer to them by number, from 1 on.

    Args:
        path: the file.
        runtime: files and locks.
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._path = path
        self._files = runtime.files
        self._lock = runtime.lock()  # held while the file is written
        self._specs: list[tuple[Tree, bool] | None] = []  # None: its line is damaged
        self._lines: list[bytes] = []  # the lines of the file
        self._numbers: dict[bytes, int] = {}  # by their lines
        self._last: tuple[Tree, bool, int] | None = None
        self._is_on_disk = True
        self._is_partial = False  # the file was made anew, and not all lines could be written
        try:
            with self._files.open_read(path) as file:
                text = file.read()
        except FileNotFoundError:
            return
        for line in text.splitlines(keepends=True):
            if line.endswith(b"\n"):  # an incomplete line is from a process that was killed
                self._add(line)
        self._is_on_disk = not self._lines  # the process that wrote them may have been killed before the sync

    def number(self, rows: Tree, has_times: bool) -> int:
        """The number of the spec of rows; a new one is written and synced."""
        last = self._last
        # The order of keys counts: leaves are written in it.
        if last is not None and last[1] == has_times and row_spec.fits(last[0], rows):
            return last[2]
        spec = row_spec.spec(rows)
        text = json.dumps([_to_json(spec), has_times]).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        number = self._numbers.get(line)
        if not self._is_on_disk:
            with self._lock:
                self._sync()
        if number is None:
            with self._lock:
                self._write([line])
            number = self._add(line)
        self._last = (spec, has_times, number)
        return number

    def spec(self, number: int, where: str) -> tuple[Tree, bool]:
        """A spec, and True if rows have times.

        Raises:
            DataLoss: it is missing.
        """
        found = self._specs[number - 1] if 0 < number <= len(self._specs) else None
        if found is None:
            raise DataLoss(
                f"{self._path} is damaged: it lacks what rows in {where} are made of. Put back a copy of the run's "
                "directory, or begin a new run in another."
            )
        return found

    @property
    def newest(self) -> Tree:
        """The newest spec; None if there is none."""
        return next((spec[0] for spec in reversed(self._specs) if spec is not None), None)

    def _add(self, line: bytes) -> int:
        self._lines.append(line)
        self._specs.append(_parsed(line))
        self._numbers[line] = len(self._lines)
        return len(self._lines)

    def sync(self) -> None:
        """Write the file again if it was removed."""
        with self._lock:
            if self._lines and (self._is_partial or not self._files.exists(self._path)):
                self._write([])

    def _sync(self) -> None:
        """Sync the lines that were read, once, before rows that need them are written."""
        if self._files.exists(self._path):
            fd = self._files.open_write(self._path)
            try:
                # Written again, the same bytes in their places: after a sync that failed, the kernel may have dropped
                # them, and the next sync would say nothing.
                self._write_at(fd, b"".join(self._lines), 0)
                self._files.fsync(fd)
            finally:
                self._files.close(fd)
            self._files.sync_directory(self._path.parent)
        else:  # the directory was removed since the file was read
            self._write([])
        self._is_on_disk = True

    def _write(self, more: list[bytes]) -> None:
        """Append lines; write all lines if the file was removed."""
        made = self._is_partial or not self._files.exists(self._path)
        if made:
            self._is_partial = True
            self._files.make_directory(self._path.parent)
        at = 0 if made else sum(map(len, self._lines))
        text = b"".join([*self._lines, *more] if made else more)
        fd = self._files.open_write(self._path)
        try:
            self._files.truncate(fd, at)  # remove an incomplete line
            self._write_at(fd, text, at)
            self._files.fsync(fd)  # before the rows that need it; specs are rare
        finally:
            self._files.close(fd)
        if made:
            self._files.sync_directory(self._path.parent)
        self._is_partial = False

    def _write_at(self, fd: int, text: bytes, at: int) -> None:
        done = 0
        while done < len(text):  # a disk that is almost full writes a part, and then raises
            done += self._files.pwrite(fd, text[done:], at + done)


def _parsed(line: bytes) -> tuple[Tree, bool] | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    spec, has_times = json.loads(text)
    return _from_json(spec), has_times


def _to_json(spec: Tree) -> Any:
    if isinstance(spec, dict):
        return {"d": [[key, _to_json(value)] for key, value in spec.items()]}
    if isinstance(spec, list):
        return {"l": [_to_json(value) for value in spec]}
    if spec is None:
        return None
    if isinstance(spec[0], np.dtype) if spec else False:
        return [np.lib.format.dtype_to_descr(spec[0]), list(spec[1])]
    return {"t": [_to_json(value) for value in spec]}


def _from_json(data: Any) -> Tree:
    if data is None:
        return None
    if isinstance(data, list):
        return _dtype(data[0]), tuple(data[1])
    if "d" in data:
        return {key: _from_json(value) for key, value in data["d"]}
    values = [_from_json(value) for value in (data.get("l") or data.get("t") or [])]
    return values if "l" in data else tuple(values)


def _dtype(description: Any) -> np.dtype[Any]:
    if isinstance(description, str):
        return np.dtype(description)
    # JSON has lists in place of the tuples in a structured dtype's description.
    return np.lib.format.descr_to_dtype([_field(field) for field in description])


def _field(field: Any) -> Any:
    name, kind, *shape = field
    inner = [_field(each) for each in kind] if isinstance(kind, list) else kind
    return (name, inner, *(tuple(s) for s in shape))
