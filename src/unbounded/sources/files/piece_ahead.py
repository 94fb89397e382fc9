"""PieceAhead: a piece that is read in a thread of its own, while the rows before it are permuted and handed on."""

from __future__ import annotations

from collections.abc import Callable

from unbounded.core.runtime import Runtime
from unbounded.sources.files.file_pieces import Piece


class PieceAhead:
    """Begins to read at once. Until `result` has returned, nothing else may use the file.

    Args:
        read: returns the piece.
        runtime: for the thread.
    """

    def __init__(self, read: Callable[[], Piece], runtime: Runtime) -> None:
        self._read = read
        self._piece: Piece | None = None
        self._error: BaseException | None = None
        self._thread = runtime.thread(self._run, "unbounded-piece")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._piece = self._read()
        except BaseException as error:  # raised where the piece is asked for
            self._error = error

    def await_end(self) -> None:
        """Wait until the file is not used any more."""
        self._thread.join()

    def result(self) -> Piece:
        """The piece; raises what reading it has raised."""
        self.await_end()
        if self._error is not None:
            raise self._error
        assert self._piece is not None
        return self._piece
