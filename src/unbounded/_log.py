"""A file of lines that a run writes beside its checkpoints: scores, rows that could not be used, stats.

A checkpoint notes how long it is; on resume it is cut back to that, so that no line comes twice and none is
missing.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unbounded import _disk
from unbounded._state import JSON, from_json, to_json


class Log:
    """An append-only file, one line of JSON for each record.

    Args:
        path: made where there is none, with the directories above it; one that is there is continued.

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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        _disk.make_directory(self.path.parent)
        is_new = not self.path.exists()
        self._fd: int | None = _disk.call(os.open, self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        if is_new:
            _disk.sync_directory(self.path.parent)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing it twice is no error."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def append(self, *records: JSON) -> None:
        """Add records: plain data, as `to_json` takes it. Other processes see them at once."""
        lines = [json.dumps(to_json(record, name="record"), allow_nan=False) + "\n" for record in records]
        left = memoryview("".join(lines).encode("ascii"))
        while left:
            left = left[_disk.call(os.write, self._open(), left) :]

    def tell(self) -> int:
        """Its length in bytes, all of it on the disk: what a checkpoint notes."""
        _disk.call(os.fsync, self._open())
        return os.fstat(self._open()).st_size

    def cut(self, length: int) -> None:
        """Cut it back to a length that `tell` gave; a run without a checkpoint cuts it to 0.

        Warns:
            UserWarning: it is shorter than that, so someone else has changed it; it goes on from its end.
        """
        size = os.fstat(self._open()).st_size
        if size < length:
            text = f"{self.path} has {size:,} bytes, and had {length:,} when the checkpoint was written:"
            warnings.warn(f"{text} lines are lost.", stacklevel=2)
        else:
            _disk.call(os.ftruncate, self._open(), length)

    def read(self) -> Iterator[Any]:
        """Its records; a last line that was cut short is left out."""
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield from_json(json.loads(line))

    def _open(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path} was closed; open it again with Log(path).")
        return self._fd
