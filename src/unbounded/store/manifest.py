"""A checkpoint's manifest: what it holds, who wrote it, and a checksum for each of its files and for itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from unbounded.core.packing import JSON, from_json

FORMAT = 1
NAME = "manifest.json"

# The first line of a manifest of any format, so that an old version can tell a newer one from a damaged one.
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n')


class CheckpointError(RuntimeError):
    """A checkpoint can't be written or read; the sentence says what to do.

    >>> import os, tempfile, numpy as np, unbounded as ub
    >>> with tempfile.NamedTemporaryFile() as file, ub.Feed(ub.from_arrays(np.arange(4)).batch(2)) as feed:
    ...     try:
    ...         feed.save(file.name)
    ...     except ub.CheckpointError:
    ...         print("a file is no directory")
    a file is no directory
    """


class DamagedError(CheckpointError):
    """A checkpoint isn't what was written: a file is missing, cut short or changed."""


class DamagedCheckpoint(UserWarning):
    """A warning: a damaged checkpoint was passed over, and the one before it was taken.

    To refuse instead, make it an error:

    >>> import warnings, unbounded as ub
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", ub.DamagedCheckpoint)
    """


@dataclass(frozen=True)
class Segment:
    """A file of arrays, written once, that checkpoints refer to.

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
class LogCopy:
    """The copy of a log's file beside a checkpoint at a URL, in pieces: a log only grows, so a piece stays as it is.

    Args:
        file: its path below the local directory, with `/`.
        pieces: of each, in order, its name in `logs/`, its size in bytes and its SHA-256.
    """

    file: str
    pieces: tuple[tuple[str, int, str], ...]

    @property
    def size(self) -> int:
        """In bytes, of all pieces."""
        return sum(size for _, size, _ in self.pieces)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint's `manifest.json` says.

    Args:
        number: which it was written as: a step.
        run: the id of the run that wrote it, carried on by each process that goes on with the run.
        info: the plain data that it was written with.
        segments: what it refers to, in the order given.
        logs: copies of the run's logs as they were, where the directory is a URL.
        files: size and SHA-256 of each of its files.
        wrote: names and versions of what wrote it.
    """

    number: int
    run: str
    info: dict[str, Any]
    segments: tuple[Segment, ...]
    logs: tuple[LogCopy, ...]
    files: dict[str, tuple[int, str]]
    wrote: dict[str, str]


def write(
    file: BinaryIO,
    number: int,
    run: str,
    info: JSON,
    segments: Sequence[Segment],
    logs: Sequence[LogCopy],
    files: Mapping[str, tuple[int, str]],
) -> None:
    """Write a checkpoint's `manifest.json`; `info` is what `to_json` returned."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "wrote": _versions(),
        "number": number,
        "run": run,
        "info": info,
        "segments": [asdict(segment) for segment in segments],
        "files": files,
    }
    if logs:
        body["logs"] = [asdict(copy) for copy in logs]
    # Indented, for people. The first line, which holds the checksum of the others, brings the first brace.
    rest = json.dumps(body, allow_nan=False, indent=1).encode("ascii")[2:] + b"\n"
    file.write(b'{"sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode("ascii") + rest)


def parse(text: bytes, path: object) -> Manifest:
    """What a manifest says.

    Args:
        text: the file's content.
        path: of the checkpoint, for errors.

    Raises:
        DamagedError: it isn't what was written.
        CheckpointError: it is of a newer format.
    """
    head = _HEAD.match(text)
    if head is None or hashlib.sha256(text[head.end() :]).hexdigest().encode() != head[1]:
        raise DamagedError(f"{path}/{NAME} is damaged: its checksum differs from what it says.")
    body = json.loads(text)
    if body["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {body['format']}, written by unbounded "
            f"{body['wrote']['unbounded']}; this is unbounded {_versions()['unbounded']}, which reads format "
            f"{FORMAT}. Update it (pip install -U unbounded), or use another directory."
        )
    return Manifest(
        number=body["number"],
        run=body.get("run", ""),
        info=from_json(body["info"]),
        segments=tuple(Segment(**segment) for segment in body["segments"]),
        logs=tuple(
            LogCopy(copy["file"], tuple((name, size, sha256) for name, size, sha256 in copy["pieces"]))
            for copy in body.get("logs", ())
        ),
        files={name: (size, sha256) for name, (size, sha256) in body["files"].items()},
        wrote=body["wrote"],
    )


@cache
def _versions() -> dict[str, str]:
    import importlib.metadata  # slow to import, and needed once, when the first checkpoint is written
    import platform

    try:
        own = importlib.metadata.version("unbounded")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {"unbounded": own, "numpy": np.__version__, "python": platform.python_version()}
