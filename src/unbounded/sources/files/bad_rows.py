"""BadRows: what becomes of lines that are no rows: an error, or they are counted and kept apart."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from unbounded.core.runtime import Runtime
from unbounded.core.trees import RowsError
from unbounded.sources.files.file_paths import FoundFile

_log = logging.getLogger("unbounded")

_SHOWN = 200  # characters of a line in a message


class BadRows:
    """Receives each broken line, on each pass; one that it knows is not written or counted again.

    Args:
        policy: "raise", "skip", or the path of a file to which they are written.
        runtime: for that file.
    """

    def __init__(self, policy: str, runtime: Runtime) -> None:
        self._policy = policy
        self._files = runtime.files
        self._known: set[tuple[str, int]] | None = None
        self._warned: set[str] = set()
        self.count = 0
        """The number of broken lines so far."""

    @property
    def is_error(self) -> bool:
        """True if the first broken line ends the reading."""
        return self._policy == "raise"

    def add(self, file: FoundFile, line: int, text: str, why: str) -> None:
        """Report a line.

        Args:
            file: where it is.
            line: its number in the file, from 1.
            text: the line.
            why: what is wrong with it.

        Raises:
            RowsError: broken lines are errors.
        """
        reason = " ".join(why.split()).rstrip(".")
        if self._policy == "raise":
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
            raise RowsError(
                f"Line {line:,} of {file.name!r} is no row: {reason}. The line is {shown!r}. Mend it; or leave such "
                "lines out by on_bad='skip', or keep them apart by on_bad='bad.jsonl'."
            )
        known = self._load()
        if (file.name, line) in known:
            return
        known.add((file.name, line))
        self.count += 1
        if self._policy != "skip":
            self._write({"file": file.name, "line": line, "text": text})
        if file.name not in self._warned:
            self._warned.add(file.name)
            _log.warning("Line %d of %r is no row, and is left out, as any other: %s.", line, file.name, reason)

    def _load(self) -> set[tuple[str, int]]:
        """The lines that are known, from the file as well: an earlier process may have read the same rows."""
        if self._known is None:
            self._known = set()
            if self._policy != "skip" and self._files.exists(Path(self._policy)):
                with self._files.open_read(Path(self._policy)) as file:
                    for line in file:
                        try:
                            entry = json.loads(line)
                            self._known.add((entry["file"], entry["line"]))
                        except (ValueError, KeyError, TypeError):
                            continue  # the last line of a process that was killed
        return self._known

    def _write(self, entry: dict[str, object]) -> None:
        fd = self._files.open_log(Path(self._policy))
        try:
            data = memoryview((json.dumps(entry, ensure_ascii=False) + "\n").encode())
            while data:
                data = data[self._files.write(fd, data) :]
        finally:
            self._files.close(fd)
