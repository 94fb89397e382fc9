"""OpenedFiles: the files of a pass, each compared with what was noted of it, and the few of them that are open."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from unbounded.core.node import StreamError
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FilePaths, FoundFile
from unbounded.sources.files.file_pieces import FileFormat, PieceAt, PiecesFile, ends_checksum
from unbounded.sources.files.stored_indexes import StoredIndexes
from unbounded.sources.reader import JSON

_MOST_OPEN = 8
_REMEDY = (
    "Rows of another content can't take the place of those that the run began with: restore the file, or begin a new "
    "run, which reads the files as they are now."
)


class PassFiles:
    """The files of one pass, in order, with the checksums of those that were opened.

    Args:
        plain: for each file its name, its size in bytes, and the checksum of its ends, or None if it was not opened
            yet. It is a part of positions, so it is replaced and never changed.
    """

    def __init__(self, plain: list[list[Any]]) -> None:
        self.plain = plain

    @classmethod
    def of(cls, found: list[FoundFile]) -> PassFiles:
        """Files that were found just now."""
        return cls([[file.name, file.size, None] for file in found])

    def same_files(self, other: PassFiles) -> bool:
        """True if both have the same names and sizes."""
        return [entry[:2] for entry in self.plain] == [entry[:2] for entry in other.plain]

    def note(self, number: int, check: str) -> None:
        """Note a file's checksum."""
        if self.plain[number][2] != check:
            self.plain = [*self.plain]
            self.plain[number] = [*self.plain[number][:2], check]


class OpenedFiles:
    """Opens the files of the current pass.

    Args:
        paths: where they are.
        format: how they are read.
        bad: receives broken lines.
    """

    def __init__(self, paths: FilePaths, format: FileFormat, bad: BadRows) -> None:
        self._paths, self._format, self._bad = paths, format, bad
        self._found: dict[str, FoundFile] = {}
        self._open: OrderedDict[tuple[str, int], tuple[PiecesFile, str]] = OrderedDict()  # each with its checksum
        self._indexes: dict[tuple[str, int, str], list[PieceAt]] = {}
        self.files = PassFiles([])
        """The files of the current pass."""
        self._checks: dict[tuple[str, int], str] = {}  # of the files that were opened, by name and size
        self.stored: StoredIndexes | None = None
        """Where indexes are stored; None if nowhere."""

    def list_files(self) -> PassFiles:
        """The files that exist now.

        Raises:
            StreamError: a path or glob names no file any more. As an OSError it would be retried for ever.
        """
        try:
            found = self._paths.found()
        except FileNotFoundError as error:
            raise StreamError(str(error)) from None
        self._found = {file.name: file for file in found}
        return PassFiles.of(found)

    def begin(self, files: PassFiles) -> None:
        """Continue with a pass over `files`."""
        if not files.same_files(self.files):
            self.close()
        self.files = files

    def check(self, files: PassFiles, first: int) -> None:
        """Raise StreamError if one of the files from number `first` on is gone, or has another size than noted."""
        if not files.same_files(self.files):
            self.list_files()
        for number in range(first, len(files.plain)):
            self._as_noted(files, number)

    def _as_noted(self, files: PassFiles, number: int) -> FoundFile:
        """The file, which has the noted size; more only if its format reads what was there before."""
        name, size, _ = files.plain[number]
        now = self._found.get(name)
        if now is None:
            raise StreamError(f"{name!r} is not there any more, and the position needs it. {_REMEDY}")
        if now.size != size and not (now.size > size and self._format.may_grow(now)):
            raise StreamError(f"{name!r} has {now.size:,} bytes now, and had {size:,}. {_REMEDY}")
        return FoundFile(name, now.path, size)

    def get(self, number: int) -> PiecesFile:
        """Open file `number`, or return it if it is open.

        Raises:
            StreamError: it is not the file that was noted.
        """
        name, size, noted = self.files.plain[number]
        if (name, size) in self._open:
            self._open.move_to_end((name, size))
            opened, check = self._open[name, size]
            if noted is None:
                self.files.note(number, check)  # the position is from before it was opened
                noted = check
            if noted == check:
                return opened
            self._open.pop((name, size))[0].close()  # the file may have been restored since
        file = self._as_noted(self.files, number)
        try:
            source = self._paths.open(file)
        except FileNotFoundError:
            raise StreamError(f"{name!r} is not there any more, and the pass needs it. {_REMEDY}") from None
        try:
            now = source.size()
            if now < size or (now > size and not self._format.may_grow(file)):
                raise StreamError(f"{name!r} has {now:,} bytes now, and had {size:,}. {_REMEDY}")
            check = ends_checksum(source, size)
            if noted is not None and check != noted:
                raise StreamError(
                    f"{name!r} has other bytes at its beginning or end than when it was read before. {_REMEDY}"
                )
            source.seek(0)
            opened = self._format.open(file, source, self._bad)
        except BaseException:
            source.close()
            raise
        self._checks[name, size] = check
        self.files.note(number, check)
        self._open[name, size] = opened, check
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1][0].close()
        return opened

    def index(self, number: int) -> list[PieceAt]:
        """The pieces of file `number`; known from an earlier pass, or from the store, if the file is the same."""
        if self.files.plain[number][2] is None:
            self.get(number)
        name, size, check = self.files.plain[number]
        file = (name, size, check)
        if file not in self._indexes:
            found = None if self.stored is None else self.stored.read(file)
            if found is None:
                found = self.get(number).index()
                if self.stored is not None:
                    self.stored.write(file, found)
            self._indexes[file] = found
        return self._indexes[file]

    def with_checks(self, plain: list[list[Any]]) -> list[list[Any]]:
        """The files of a position, with the checksums of those that were opened since; may be called by any thread."""
        checks = self._checks
        if not any(check is None and (name, size) in checks for name, size, check in plain):
            return plain
        return [[name, size, checks.get((name, size)) if check is None else check] for name, size, check in plain]

    def keep_in(self, stored: StoredIndexes) -> None:
        """Store indexes from now on, those that are known as well."""
        if self.stored is None:
            self.stored = stored
            for file, pieces in self._indexes.items():
                stored.write(file, pieces)

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1][0].close()


def changed_piece(name: str, place: JSON) -> StreamError:
    """The error for a piece whose content is not as it was when a position in it was saved."""
    return StreamError(f"{name!r} has other content at {place!r} than when the position was saved. {_REMEDY}")
