"""OrderedPieces: the reader that takes files by name, and the pieces of each in their order."""

from __future__ import annotations

from dataclasses import replace

from unbounded.core import trees
from unbounded.core.block import Boundary
from unbounded.core.trees import Array
from unbounded.sources.files.file_paths import FilePaths
from unbounded.sources.files.file_pieces import FileFormat, Piece
from unbounded.sources.files.files_reader import FilesReader
from unbounded.sources.files.opened_files import changed_piece
from unbounded.sources.reader import JSON, Opening


class OrderedPieces(FilesReader):
    """Arguments as for `FilesReader`.

    A position is the number of the pass and of the file in it, the place of the piece in the file (None: its first),
    and the row in the piece. Within a piece it has the piece's checksum.
    """

    def __init__(self, paths: FilePaths, format: FileFormat, passes: int | None, on_bad: str, opening: Opening) -> None:
        super().__init__(paths, format, passes, on_bad, opening)
        self._file = 0
        self._place: JSON | None = None
        self._check: str | None = None  # of the piece, if rows of it were returned before
        self._piece: Piece | None = None

    def position(self) -> JSON:
        return {
            "pass": self._pass,
            "file": self._file,
            "place": self._place,
            "row": self._row,
            "check": self._check if self._row else None,
            "files": self._files.plain,
        }

    def seek(self, position: JSON) -> None:
        is_same = self._go_to_pass(position, position["file"])
        there = position["file"], position["place"]
        if not (is_same and there == (self._file, self._place)):
            self._piece = None
        self._file, self._place = there
        self._row, self._check = position["row"], position["check"]

    def _load(self) -> Piece:
        if self._piece is None:
            file = self._opened.get(self._file)
            place = file.first() if self._place is None else self._place
            piece = Piece({}, 0, None, "") if place is None else file.read(place)
            if self._check is not None and piece.check != self._check:
                raise changed_piece(self._name(self._file), place)
            self._piece = replace(piece, rows=_read_only(piece.rows))
            self._check = piece.check
            self.pieces_read += 1
        return self._piece

    def _after(self, count: int) -> Boundary | None:
        """Go to the next piece, of this file or the next one; return the boundary between them."""
        assert self._piece is not None
        self._count_returned(count)
        boundary = None
        file, place = self._file, self._piece.after
        if place is None:
            file += 1
            boundary = Boundary("file")
            if file == len(self._files.plain):
                try:
                    self._next_pass()
                except Exception:
                    self._count_returned(-count)
                    raise
                file, boundary = 0, Boundary("pass")
        self._file, self._place, self._row, self._check, self._piece = file, place, 0, None, None
        return boundary


def _read_only(rows: dict[str, Array]) -> dict[str, Array]:
    """Views: blocks of one piece share its memory."""
    views: dict[str, Array] = trees.read_only(rows)
    return views
