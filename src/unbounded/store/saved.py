"""Saved: one checkpoint for reading, verified against its manifest.

Each file is read and hashed once, and nothing of it is used before its checksum was compared. Writing checkpoints, and
choosing among them, is left to `checkpoints` and `choosing`.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbounded.core.npz import Malformed, NpzReader
from unbounded.core.packing import NoSuchPart, Tree, Unread
from unbounded.store import manifest
from unbounded.store.directory import Directory
from unbounded.store.manifest import CheckpointError, DamagedError, LogCopy, Manifest, Segment

STATE = "state.npz"


@dataclass(frozen=True)
class Saved:
    """One checkpoint.

    Args:
        number: the step.
        name: of its directory.
        path: of its directory; a string if it is a URL.
        info: the plain data given to `write`.
        segments: the segments that it refers to, in the order given.
        logs: the copies of the run's logs, if the directory is at a URL.
        run: the id of the run; processes that resume the run keep it.
        wrote: names and versions of the libraries that wrote it.
        files: size and SHA-256 of each file.
    """

    number: int
    name: str
    path: Path | str
    info: dict[str, Any]
    segments: tuple[Segment, ...]
    logs: tuple[LogCopy, ...]
    run: str
    wrote: dict[str, str]
    files: dict[str, tuple[int, str]]
    directory: Directory = field(repr=False, compare=False)
    # Trees that `fetch` has read, until the caller takes them.
    _fetched: dict[str, Unread] = field(default_factory=dict, repr=False, compare=False)

    def read_state(self, *, only: Sequence[str | tuple[str, ...]] | None = None) -> Tree:
        """The tree given to `write`, in new arrays.

        Args:
            only: the parts to read; None for all. Each is a key of the tree, or a tuple of keys that leads into it:
                `("model", ("callbacks", "lr"))`. The result has these parts at their paths, in dicts with nothing
                else; the arrays of other parts are not read into memory.

        Raises:
            CheckpointError: a part is missing.
            DamagedError: the file differs from what was written.
        """
        paths = None if only is None else [(part,) if isinstance(part, str) else tuple(part) for part in only]
        try:
            return self._take(f"{self.name}/{STATE}", *self.files[STATE], only=paths).tree()
        except NoSuchPart as error:
            raise CheckpointError(f"The state in {self.path} has {error}.") from None

    def read_segment(self, name: str) -> Tree:
        """The content of a segment, in new arrays.

        Raises:
            CheckpointError: the checkpoint lists no segment of this name.
            DamagedError: the file differs from what was written.
        """
        for segment in self.segments:
            if segment.name == name:
                return self._take(f"segments/{segment.file}", segment.size, segment.sha256).tree()
        listed = ", ".join(segment.name for segment in self.segments) or "none"
        raise CheckpointError(f"{self.path} lists no segment {name!r}; it lists {listed}.")

    def fetch(self) -> None:
        """Read and verify every file now; `read_state` and `read_segment` then return what was read, each once.

        Raises:
            DamagedError: a file differs from what was written.
        """
        for name, size, sha256 in self._all():
            self._fetched[name] = self._read(name, size, sha256)

    def check(self) -> None:
        """Read and verify every file, and keep nothing.

        Raises:
            DamagedError: a file differs from what was written.
        """
        for name, size, sha256 in self._all():
            try:
                with self.directory.open(name) as file:
                    reader = NpzReader(file)
                    self._compare(name, reader, size, sha256)
            except OSError as error:
                raise unreadable(self.directory.at(name), error) from error

    def _all(self) -> list[tuple[str, int, str]]:
        own = [(f"{self.name}/{name}", size, sha256) for name, (size, sha256) in self.files.items()]
        return own + [(f"segments/{one.file}", one.size, one.sha256) for one in self.segments]

    def _take(self, name: str, size: int, sha256: str, only: Sequence[tuple[str, ...]] | None = None) -> Unread:
        fetched = self._fetched.pop(name, None) if only is None else None
        return self._read(name, size, sha256, only) if fetched is None else fetched

    def _read(self, name: str, size: int, sha256: str, only: Sequence[tuple[str, ...]] | None = None) -> Unread:
        found: Unread | None = None
        problem: Exception | None = None
        try:
            with self.directory.open(name) as file:
                reader = NpzReader(file)
                try:
                    found = Unread(reader, only=only)
                except OSError:
                    raise
                except Exception as error:  # damaged bytes may raise anything; the checksum at the end decides
                    problem = error
                self._compare(name, reader, size, sha256)
        except OSError as error:
            raise unreadable(self.directory.at(name), error) from error
        if isinstance(problem, Malformed):
            raise CheckpointError(
                f"{self.directory.at(name)} has the checksum that was written, but this version of unbounded can't "
                f"read it: {problem}."
            ) from problem
        if problem is not None:
            raise problem
        assert found is not None
        return found

    def _compare(self, name: str, reader: NpzReader, size: int, sha256: str) -> None:
        found = reader.to_the_end()
        if reader.size != size:
            raise DamagedError(
                f"{self.directory.at(name)} is damaged: it has {reader.size:,} bytes, and {size:,} were written."
            )
        if found != sha256:
            raise DamagedError(f"{self.directory.at(name)} is damaged: its checksum differs from what was written.")


def open_saved(directory: Directory, name: str) -> Saved:
    """Open a checkpoint by its manifest; its other files are not read.

    Raises:
        DamagedError: the manifest differs from what was written.
        CheckpointError: it has a newer format.
    """
    file = f"{name}/{manifest.NAME}"
    try:
        with directory.open(file) as opened:
            text = opened.read()
    except OSError as error:
        raise unreadable(directory.at(file), error) from error
    path = directory.at(name)
    found: Manifest = manifest.parse(text, path)
    return Saved(
        number=found.number,
        name=name,
        path=path,
        info=found.info,
        segments=found.segments,
        logs=found.logs,
        run=found.run,
        wrote=found.wrote,
        files=found.files,
        directory=directory,
    )


def unreadable(path: Path | str, error: OSError) -> Exception:
    """A DamagedError for data that the disk lost; other errors, such as no permission, say nothing about the file."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):  # clients of stores raise them without an errno
        return DamagedError(f"{path} is missing.")
    if error.errno == errno.EIO:
        return DamagedError(f"{path} is damaged: the disk can't read it ({error.strerror}).")
    return error
