"""StoredIndexes: the indexes of files, kept in a run's directory so that a resume does not scan the files again.

It is a copy of what the files say, under the name, size and checksum of each: one that is missing, damaged or of other
files is made again.
"""

from __future__ import annotations

import json
import logging
import zlib
from contextlib import suppress
from pathlib import Path

from unbounded.core.runtime import Runtime
from unbounded.sources.files.file_pieces import PieceAt
from unbounded.sources.reader import JSON

_log = logging.getLogger("unbounded")


class StoredIndexes:
    """The indexes in one directory, one JSON file for each file that was indexed.

    Args:
        directory: where they are; it is created with the first one.
        identity: that of the source: the sizes in an index depend on its columns.
        runtime: for files.
    """

    def __init__(self, directory: Path, identity: JSON, runtime: Runtime) -> None:
        self._directory, self._identity, self._runtime = directory, identity, runtime
        self._refused = False

    def read(self, file: tuple[str, int, str]) -> list[PieceAt] | None:
        """The index of a file of this name, size and checksum; None if there is none."""
        try:
            with self._runtime.files.open_read(self._path(file)) as stored:
                data = json.loads(stored.read())
            if data["file"] == list(file) and data["source"] == self._identity:
                return [PieceAt(*entry) for entry in data["pieces"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def write(self, file: tuple[str, int, str], pieces: list[PieceAt]) -> None:
        """Store an index, in place of an older one of the same name. If that fails, it is said once."""
        data = {
            "file": list(file),
            "source": self._identity,
            "pieces": [[piece.place, piece.count, piece.nbytes] for piece in pieces],
        }
        files, path = self._runtime.files, self._path(file)
        unfinished = path.with_name(f".tmp-{self._runtime.unique()}")
        try:
            files.make_directory(self._directory)
            fd = files.create(unfinished)
            try:
                text = memoryview(json.dumps(data).encode())
                while text:
                    text = text[files.write(fd, text) :]
            finally:
                files.close(fd)
            # Without fsync: after a loss of power it may be damaged, and is made again.
            files.rename(unfinished, path)
        except OSError as error:
            with suppress(OSError):
                files.remove(unfinished)
            if not self._refused:
                self._refused = True
                _log.warning("The index of %r was not stored in %s: %s. A resume scans it again.", file[0], path, error)

    def _path(self, file: tuple[str, int, str]) -> Path:
        return self._directory / f"{zlib.crc32(file[0].encode()):08x}.json"
