"""FilesReader: the passes over files, and what both orders of their pieces share."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from unbounded.core import trees
from unbounded.core.block import Block, Boundary
from unbounded.core.node import EndOfStream
from unbounded.core.trees import Array, RowsError
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FilePaths
from unbounded.sources.files.file_pieces import FileFormat
from unbounded.sources.files.opened_files import OpenedFiles, PassFiles
from unbounded.sources.reader import JSON, Opening

_log = logging.getLogger("unbounded")


class Held(Protocol):
    """Rows in memory: of a piece, or of a window."""

    @property
    def rows(self) -> dict[str, Array]:
        """The columns."""

    @property
    def count(self) -> int:
        """The number of rows."""


class FilesReader:
    """Base class of the readers.

    A pass reads the files that there are at its beginning. The next pass begins, and lists the files anew, when the
    last row of the one before is returned: so a position names the files that are read from it on.

    Args:
        paths: the paths.
        format: the files' format.
        passes: the number of passes; None for no end.
        on_bad: what becomes of broken lines; see `BadRows`.
        opening: how many rows to return at once, and the runtime.
    """

    def __init__(self, paths: FilePaths, format: FileFormat, passes: int | None, on_bad: str, opening: Opening) -> None:
        self._passes, self._opening = passes, opening
        self._bad = BadRows(on_bad, opening.runtime)
        self._opened = OpenedFiles(paths, format, self._bad)
        self._opened.begin(self._opened.list_files())
        self._pass = 0
        self._row = 0
        self._returned: int | None = 0  # rows of this pass; None if it was not read from its beginning
        self.pieces_read = 0
        """The number of pieces that were read."""

    @property
    def _files(self) -> PassFiles:
        return self._opened.files

    def _name(self, number: int) -> str:
        """The name of file `number`."""
        name: str = self._files.plain[number][0]
        return name

    def settled(self, position: JSON) -> JSON:
        """The position with the checksums of files that were opened since it was taken: rows of a file that is replaced
        later must not be taken for those that were read."""
        files = self._opened.with_checks(position["files"])
        return position if files is position["files"] else {**position, "files": files}

    def _next_pass(self) -> None:
        """Begin the next pass, with the files that there are now. If it raises, nothing has changed."""
        if self._returned == 0:
            raise RowsError(
                f"from_files(): {len(self._files.plain):,} files have no row that can be read, from "
                f"{self._name(0)!r} on. Expected at least one row: there is nothing to repeat."
            )
        if self._pass + 1 != self._passes:
            files = self._opened.list_files()
            self._say_changes(files)
            self._opened.begin(files)
        self._pass += 1
        self._returned = 0

    def _say_changes(self, files: PassFiles) -> None:
        before = {entry[0]: entry[1] for entry in self._files.plain}
        now = {entry[0]: entry[1] for entry in files.plain}
        for what, names in (
            ("new", now.keys() - before.keys()),
            ("gone", before.keys() - now.keys()),
            ("of another size", {name for name in now.keys() & before.keys() if now[name] != before[name]}),
        ):
            if names:
                shown = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
                _log.warning("Pass %d of from_files(): %d files are %s: %s.", self._pass + 1, len(names), what, shown)

    def _go_to_pass(self, position: JSON, first: int) -> bool:
        """Continue in the pass of a position, whose files from number `first` on are needed; return True if it is the
        current pass over the same files."""
        files = PassFiles(position["files"])
        is_same = position["pass"] == self._pass and files.same_files(self._files)
        if position["pass"] != self._passes:
            self._opened.check(files, first)
        self._opened.begin(files)
        self._pass = position["pass"]
        self._returned = None
        return is_same

    def read(self, timeout: float) -> Block:
        if self._pass == self._passes:
            raise EndOfStream
        opening = self._opening
        while True:
            held = self._load()
            piece = opening.block_rows or trees.block_rows(trees.row_bytes(held.rows), opening.batch_rows)
            stop = min(self._row + piece, held.count)
            count = stop - self._row
            rows = trees.cut(held.rows, self._row, stop) if count else None
            if stop < held.count:
                self._before_rest(stop / held.count)
                self._row = stop
                self._count_returned(count)
                return Block(rows, count)
            boundary = self._after(count)
            if count or boundary:
                return Block(rows, count, boundary)

    # -- overridden by subclasses --------------------------------------------------------------------------------------

    def _load(self) -> Held:
        """The rows at hand, of which row number `_row` is the next; if it raises, the position is unchanged."""
        raise NotImplementedError

    def _after(self, count: int) -> Boundary | None:
        """Go on after the rows at hand, the last `count` of which are returned; return the boundary after them."""
        raise NotImplementedError

    def _before_rest(self, share: float) -> None:
        """Called when a share of the rows at hand is about to be returned, and more of them are left."""

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def _count_returned(self, rows: int) -> None:
        if self._returned is not None:
            self._returned += rows

    def close(self) -> None:
        """Close all files."""
        self._opened.close()

    def counts(self) -> dict[str, Any]:
        """Counters, for tests and messages."""
        return {"pieces": self.pieces_read, "bad": self._bad.count}
