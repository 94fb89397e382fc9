"""Pieces: the parts of a file that can each be read alone, and the protocol of the formats that read them.

A piece is a Parquet row group, an Arrow record batch, a block of lines, or some records or archive members in a row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from unbounded.core.node import StreamError
from unbounded.core.trees import Array, RowsError
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.reader import JSON

ENDS = 1 << 12
"""The bytes at each end of a file that its checksum is of."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of a piece.

    Args:
        rows: an array of shape (count,) or (count, …) for each column.
        count: the number of rows.
        after: the place of the next piece in the file; None after the last.
        check: a checksum of the piece.
    """

    rows: dict[str, Array]
    count: int
    after: JSON | None
    check: str


@dataclass(frozen=True, slots=True)
class PieceAt:
    """An entry of a file's index.

    Args:
        place: where the piece is, as the format takes it: its number, or the offset of its first byte.
        count: the most rows that it has; lines that are blank or broken are not rows.
        nbytes: about the bytes of its rows in memory.
    """

    place: JSON
    count: int
    nbytes: int


class PiecesFile(Protocol):
    """An open file."""

    def first(self) -> JSON | None:
        """The place of the first piece; None if the file has no rows."""

    def read(self, place: JSON) -> Piece:
        """The piece at a place."""

    def index(self) -> list[PieceAt]:
        """All pieces, in the order of the file. Formats without a footer are scanned for it."""

    def close(self) -> None:
        """Close the file."""


class NoRows(RowsError):
    """A file has no row that would tell the types of columns."""


class FileFormat(Protocol):
    """A kind of file."""

    def may_grow(self, file: FoundFile) -> bool:
        """True if the file may be appended to during a pass, which reads what was there when the pass began."""

    def columns(self) -> Mapping[str, str]:
        """The columns that are read and their types in words, as the first file has them."""

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> PiecesFile:
        """Open a file.

        Args:
            file: its name and size.
            source: a `pyarrow.NativeFile`, which `PiecesFile.close` closes.
            bad: receives broken lines.

        Raises:
            RowsError: its columns differ from the first file's.
        """


def ends_checksum(source: Any, size: int) -> str:
    """The checksum of the first and last bytes of the first `size` bytes of a file."""
    source.seek(0)
    crc = zlib.crc32(source.read(min(ENDS, size)))
    if size > ENDS:
        source.seek(max(ENDS, size - ENDS))
        crc = zlib.crc32(source.read(min(ENDS, size - ENDS)), crc)
    return f"{crc:08x}"


@contextmanager
def reading(file: FoundFile, what: str) -> Iterator[None]:
    """While `what` is read of a file: errors of pyarrow about its content become the error of `broken`.

    Errors of the operating system, which may pass, have a number; pyarrow raises OSError without one for damaged data.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise broken(file, what, error) from error


def broken(file: FoundFile, what: str, error: BaseException) -> StreamError:
    """The error for a file that can't be read as its format."""
    reason = " ".join(str(error).split()).rstrip(".")
    return StreamError(
        f"from_files() can't read {what} of {file.name!r}: {reason}. Expected a whole file. Write it again, or leave "
        "it out of the paths."
    )


def check_wanted(wanted: Any, names: list[str], file: FoundFile) -> None:
    """Raise RowsError if a column that was asked for is not in a file."""
    for name in wanted:
        if name not in names:
            raise RowsError(
                f"from_files(columns=…) asks for {name!r}, and {file.name!r} has the columns "
                f"{', '.join(map(repr, names))}. Name columns that every file has."
            )
