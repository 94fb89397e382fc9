"""ShuffledPieces: the reader that takes pieces in a new order in each pass, and permutes the rows of a few at a time.

The order of a pass is a permutation of the pieces of all files. Consecutive pieces of it are a window, whose rows are
permuted. Both permutations are functions of the seed, the pass and the window, so a position is a window and a row in
it.
"""

from __future__ import annotations

from pathlib import Path

from unbounded.core.block import Boundary
from unbounded.core.permutation import Permutation
from unbounded.core.trees import Array, RowsError
from unbounded.sources.files.file_paths import FilePaths
from unbounded.sources.files.file_pieces import FileFormat, Piece, PieceAt
from unbounded.sources.files.files_reader import FilesReader
from unbounded.sources.files.gathered import gathered
from unbounded.sources.files.opened_files import changed_piece
from unbounded.sources.files.piece_ahead import PieceAhead
from unbounded.sources.files.stored_indexes import StoredIndexes
from unbounded.sources.reader import JSON, Opening

WINDOW_BYTES = 1 << 25
"""A window has at least so many bytes of rows, in two pieces or more, and at most `WINDOW_PIECES` pieces."""
WINDOW_PIECES = 256
LARGE = 1 << 18
"""Pieces of at least so many bytes are read in a thread of their own, one at a time."""


class _Window:
    """The rows of some pieces, and their permutation.

    Args:
        entries: the number of the file of each piece, and its index entry.
        first: the number of the first piece in the pass's order.
        key: the permutation's key.
    """

    def __init__(self, entries: list[tuple[int, PieceAt]], first: int, key: tuple[int, ...]) -> None:
        self.first = first
        self._entries, self._key = entries, key
        self._pieces: list[tuple[dict[str, Array], str]] = []  # the rows that were added, and the names of their files
        self.checks: list[str] = []
        """The checksums of the pieces that were added."""
        self.count = 0
        """The number of rows that were added."""
        self.rows: dict[str, Array] = {}
        """The permuted rows, once `finish` was called."""

    @property
    def next(self) -> tuple[int, PieceAt] | None:
        """The next piece to add; None if all were added."""
        return self._entries[len(self.checks)] if len(self.checks) < len(self._entries) else None

    @property
    def added(self) -> float:
        """The share of the pieces that were added."""
        return len(self.checks) / len(self._entries)

    def add(self, piece: Piece, name: str) -> None:
        """Add the next piece; `name` is its file, for messages."""
        if piece.count:
            self._pieces.append((piece.rows, name))
        self.count += piece.count
        self.checks.append(piece.check)

    def finish(self) -> None:
        """Permute the rows, once all pieces were added.

        Raises:
            RowsError: rows of two pieces differ in shape.
        """
        if not self.count or self.rows:
            return
        first, _ = self._pieces[0]
        for each, file in self._pieces:
            for name, values in each.items():
                if values.shape[1:] != first[name].shape[1:]:
                    raise RowsError(
                        f"Column {name!r} has rows of shape {values.shape[1:]} in {file!r}, and of "
                        f"{first[name].shape[1:]} before. Rows have one shape: pad the lists where files are written."
                    )
        order = Permutation(self.count, self._key).span(0, self.count)
        parts = {name: [each[name] for each, _ in self._pieces] for name in first}
        self.rows, self._pieces = gathered(parts, order), []


class ShuffledPieces(FilesReader):
    """Arguments as for `FilesReader`, the seed, and the source's identity, on which the indexes of files depend.

    A position is the number of the pass, that of the window's first piece in the pass's order, and the row in the
    window. Within a window it has the checksums of the window's pieces.
    """

    def __init__(
        self,
        paths: FilePaths,
        format: FileFormat,
        passes: int | None,
        on_bad: str,
        opening: Opening,
        seed: int,
        identity: JSON,
    ) -> None:
        super().__init__(paths, format, passes, on_bad, opening)
        self._seed, self._identity = seed, identity
        self._first = 0
        self._checks: list[str] | None = None  # of the window's pieces, if rows of it were returned before
        self._entries: list[tuple[int, PieceAt]] | None = None  # all pieces of the pass, in its order
        self._window: _Window | None = None
        self._ahead: _Window | None = None  # the next window, while it is read
        self._begun: tuple[int, PieceAhead] | None = None  # a piece's number in the order, and its reading

    def position(self) -> JSON:
        return {
            "pass": self._pass,
            "piece": self._first,
            "row": self._row,
            "checks": self._checks if self._row else None,
            "files": self._files.plain,
        }

    def seek(self, position: JSON) -> None:
        self._await_begun()
        is_same = self._go_to_pass(position, 0)
        if not is_same:
            self._entries = None
        if not (is_same and position["piece"] == self._first):
            self._window = self._ahead = None
        self._first, self._row, self._checks = position["piece"], position["row"], position["checks"]

    def _load(self) -> _Window:
        """The window at hand, with all its pieces."""
        window = self._window
        if window is None:
            window = self._window = self._window_at(self._first)
        while window.next is not None:
            self._add(window)
        window.finish()
        if self._checks is not None and window.checks != self._checks:
            self._refuse_change(window.checks, self._checks)
        self._checks = window.checks
        return window

    def _refuse_change(self, now: list[str], before: list[str]) -> None:
        for (file, entry), one, other in zip(self._pieces()[self._first :], now, before, strict=False):
            if one != other:
                raise changed_piece(self._name(file), entry.place)

    def _pieces(self) -> list[tuple[int, PieceAt]]:
        """All pieces of the pass, in its order."""
        if self._entries is None:
            files = range(len(self._files.plain))
            entries = [(file, entry) for file in files for entry in self._opened.index(file) if entry.count]
            if entries:
                order = Permutation(len(entries), (self._seed, 0, self._pass)).span(0, len(entries))
                entries = [entries[place] for place in order]
            self._entries = entries
        return self._entries

    def _window_at(self, first: int) -> _Window:
        """The window that begins with piece `first` of the pass's order."""
        entries, stop, size = self._pieces(), first, 0
        while stop < len(entries) and (stop < first + 2 or (size < WINDOW_BYTES and stop < first + WINDOW_PIECES)):
            size += entries[stop][1].nbytes
            stop += 1
        return _Window(entries[first:stop], first, (self._seed, 1, self._pass, first))

    def _add(self, window: _Window) -> None:
        """Add the next piece to a window, and begin to read the one after it."""
        assert window.next is not None
        at = window.first + len(window.checks)
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == at:
            piece = begun[1].result()
        else:
            if begun is not None:
                begun[1].await_end()
            file, entry = window.next
            piece = self._opened.get(file).read(entry.place)
        window.add(piece, self._name(window.next[0]))
        self.pieces_read += 1
        self._begin(at + 1)

    def _begin(self, at: int) -> None:
        """Begin to read piece `at` of the pass's order."""
        entries = self._pieces()
        if at >= len(entries) or entries[at][1].nbytes < LARGE:
            return
        file, entry = entries[at]
        try:
            # Files are opened and closed by this thread alone; this one stays open until the next piece is asked for.
            opened = self._opened.get(file)
        except Exception:
            return  # it is raised when the piece is asked for: the rows before it are whole
        self._begun = at, PieceAhead(lambda: opened.read(entry.place), self._opening.runtime)

    def _await_begun(self) -> None:
        """Wait until no file is used."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun[1].await_end()

    def keep_in(self, directory: Path) -> None:
        """Store the indexes of the files in a directory of the run."""
        self._opened.keep_in(StoredIndexes(directory / "indexes", self._identity, self._opening.runtime))

    def close(self) -> None:
        self._await_begun()
        super().close()

    def _before_rest(self, share: float) -> None:
        """Read this share of the next window: reading is spread over the time in which a window is used, so that
        training and reading overlap."""
        window = self._window
        assert window is not None
        first = self._first + len(window.checks)
        if first >= len(self._pieces()):
            return
        if self._ahead is None:
            self._ahead = self._window_at(first)
        try:
            while self._ahead.next is not None and self._ahead.added < share:
                self._add(self._ahead)
        except Exception:
            # It is raised when the window is at hand: the rows before it are whole.
            self._ahead = None

    def _after(self, count: int) -> Boundary | None:
        """Go to the next window, of this pass or the next one; return the boundary between them."""
        window = self._window
        assert window is not None
        first = self._first + len(window.checks)
        self._count_returned(count)
        boundary = None
        if first >= len(self._pieces()):
            self._await_begun()
            try:
                self._next_pass()
            except Exception:
                self._count_returned(-count)
                raise
            first, boundary = 0, Boundary("pass")
            self._entries = None
            self._ahead = None
        self._first, self._row, self._checks = first, 0, None
        self._window, self._ahead = self._ahead, None
        return boundary
