"""One checkpoint on the disk: its manifest, what it holds, and whether it still is what was written.

Writing checkpoints, and choosing among them, is left to `_checkpoint`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unbounded.core.packing import JSON, NoSuchPart, Tree, from_json, read_tree
from unbounded.store import disk

FORMAT = 1
_SETTLED = 2.0  # seconds after which a file's stamp tells whether it has changed since

# The first line of a manifest of any format, so that an old version can tell a newer one from a damaged one.
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n')


class CheckpointError(RuntimeError):
    """A checkpoint can't be written or read; the sentence says what to do."""


class DamagedError(CheckpointError):
    """A checkpoint isn't what was written: a file is missing, cut short or changed."""


class DamagedCheckpoint(UserWarning):
    """A damaged checkpoint was passed over."""


@dataclass(frozen=True)
class Segment:
    """A file of rows, written once, that checkpoints refer to.

    Args:
        name: what the one who added it called it.
        file: its name in `segments/`.
        size: in bytes.
        sha256: of the file.
    """

    name: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Saved:
    """One checkpoint on the disk.

    Args:
        number: which it was written as: a step.
        path: its directory.
        info: the plain data that it was written with.
        segments: what it refers to, in the order given.
        run: the id of the run that wrote it, carried on by each process that goes on with the run.
        wrote: names and versions of what wrote it.
        files: size and SHA-256 of each of its files.
    """

    number: int
    path: Path
    info: dict[str, Any]
    segments: tuple[Segment, ...]
    run: str
    wrote: dict[str, str]
    files: dict[str, tuple[int, str]]
    # The stamps of files that were found whole: each is hashed once, as long as its stamp stays the same.
    _checked: dict[Path, disk.Stamp] = field(default_factory=dict, repr=False, compare=False)

    def read_state(self, *, only: Sequence[str | tuple[str, ...]] | None = None) -> Tree:
        """The tree that it was written with, in fresh arrays.

        Args:
            only: the parts to read; None reads all. Each is a key of the tree, or a tuple of keys that leads into it:
                `("model", ("callbacks", "lr"))`. The arrays of other parts are not read into memory; the parts come
                back where they stood, in dicts that hold nothing else.

        Raises:
            CheckpointError: there is no such part.
            DamagedError: the file isn't what was written.
        """
        paths = None if only is None else [(part,) if isinstance(part, str) else tuple(part) for part in only]
        try:
            return self._read(self.path / "state.npz", *self.files["state.npz"], only=paths)
        except NoSuchPart as error:
            raise CheckpointError(f"The state in {self.path} has {error}.") from None

    def read_segment(self, name: str) -> Tree:
        """What one of its segments holds, in fresh arrays.

        Raises:
            CheckpointError: it lists no segment of this name.
            DamagedError: the file isn't what was written.
        """
        for segment in self.segments:
            if segment.name == name:
                return self._read(self._segment_path(segment), segment.size, segment.sha256)
        listed = ", ".join(segment.name for segment in self.segments) or "none"
        raise CheckpointError(f"{self.path} lists no segment {name!r}; it lists {listed}.")

    def check(self) -> None:
        """Read every file of it once.

        Raises:
            DamagedError: one of them isn't what was written.
        """
        for name, (size, sha256) in self.files.items():
            self._verify(self.path / name, size, sha256)
        for segment in self.segments:
            self._verify(self._segment_path(segment), segment.size, segment.sha256)

    def _read(self, path: Path, size: int, sha256: str, only: Sequence[tuple[str, ...]] | None = None) -> Tree:
        self._verify(path, size, sha256)
        try:
            return read_tree(path, only=only)
        except (zipfile.BadZipFile, EOFError) as error:  # each array has a checksum of its own, which is looked at here
            raise DamagedError(f"{path} is damaged: it was changed while it was read ({error}).") from error
        except OSError as error:
            raise _unreadable(path, error) from error

    def _verify(self, path: Path, size: int, sha256: str) -> None:
        try:
            stamp = disk.stamp(path)
            if self._checked.get(path) == stamp:
                return
            found_size, found_sha256 = disk.measure_file(path)
        except OSError as error:
            raise _unreadable(path, error) from error
        if found_size != size:
            raise DamagedError(f"{path} is damaged: it has {found_size:,} bytes, and {size:,} were written.")
        if found_sha256 != sha256:
            raise DamagedError(f"{path} is damaged: its checksum differs from what was written.")
        # A file system's clock ticks some hundred times a second: a change right after the last one may not show.
        if time.time() - stamp.changed > _SETTLED:
            self._checked[path] = stamp

    def _segment_path(self, segment: Segment) -> Path:
        return self.path.parent / "segments" / segment.file


def write_manifest(
    file: BinaryIO,
    number: int,
    run: str,
    info: JSON,
    segments: Sequence[Segment],
    files: Mapping[str, tuple[int, str]],
) -> None:
    """Write a checkpoint's `manifest.json`; `info` is what `to_json` returned."""
    body = {
        "format": FORMAT,
        "wrote": _versions(),
        "number": number,
        "run": run,
        "info": info,
        "segments": [asdict(segment) for segment in segments],
        "files": files,
    }
    # Indented, for people. The first line, which holds the checksum of the others, brings the first brace.
    rest = json.dumps(body, allow_nan=False, indent=1).encode("ascii")[2:] + b"\n"
    file.write(b'{"sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode("ascii") + rest)


def open_saved(path: Path) -> Saved:
    """Read a checkpoint's manifest; its other files are not looked at.

    Raises:
        DamagedError: the manifest isn't what was written.
        CheckpointError: it is of a newer format.
    """
    file = path / "manifest.json"
    try:
        text = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    head = _HEAD.match(text)
    if head is None or hashlib.sha256(text[head.end() :]).hexdigest().encode() != head[1]:
        raise DamagedError(f"{file} is damaged: its checksum differs from what it says.")
    body = json.loads(text)
    if body["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {body['format']}, written by unbounded "
            f"{body['wrote']['unbounded']}; this is unbounded {_versions()['unbounded']}, which reads format "
            f"{FORMAT}. Update it (pip install -U unbounded), or use another directory."
        )
    return Saved(
        number=body["number"],
        path=path,
        info=from_json(body["info"]),
        segments=tuple(Segment(**segment) for segment in body["segments"]),
        run=body.get("run", ""),
        wrote=body["wrote"],
        files={name: (size, sha256) for name, (size, sha256) in body["files"].items()},
    )


def _unreadable(path: Path, error: OSError) -> Exception:
    """Damage is what the disk lost; no permission, or too many open files, says nothing of the file."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DamagedError(f"{path} is missing.")
    if error.errno == errno.EIO:
        return DamagedError(f"{path} is damaged: the disk can't read it ({error.strerror}).")
    return error


@cache
def _versions() -> dict[str, str]:
    import importlib.metadata  # slow to import, and needed once, when the first checkpoint is written
    import platform

    try:
        own = importlib.metadata.version("unbounded")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {"unbounded": own, "numpy": np.__version__, "python": platform.python_version()}
