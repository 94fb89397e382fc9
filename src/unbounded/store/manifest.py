"""Manifest: a checkpoint's content, the run and versions that wrote it, and a checksum of each file and of itself."""

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

# The first line of a manifest of any format: an old version can tell a newer format from damage.
_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})",\n')


class CheckpointError(RuntimeError):
    """A checkpoint can't be written or read; the message says what to do.

    >>> import os, tempfile, numpy as np, unbounded as ub
    >>> with tempfile.NamedTemporaryFile() as file, ub.Feed(ub.from_arrays(np.arange(4)).batch(2)) as feed:
    ...     try:
    ...         feed.save(file.name)
    ...     except ub.CheckpointError:
    ...         print("a file is no directory")
    a file is no directory
    """


class DamagedError(CheckpointError):
    """A checkpoint differs from what was written: a file is missing, truncated or changed."""


class DamagedCheckpoint(UserWarning):
    """A warning: a damaged checkpoint was skipped, and an older one was taken.

    To stop instead, make it an error:

    >>> import warnings, unbounded as ub
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", ub.DamagedCheckpoint)
    """


@dataclass(frozen=True)
class Segment:
    """A file of arrays, written once, that checkpoints refer to.

    Args:
        name: the name that the caller gave it.
        file: its file name in `segments/`.
        size: in bytes.
        sha256: of the file.
    """

    name: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LogCopy:
    """The copy of a log's file beside a checkpoint at a URL, in pieces that are written once.

    Args:
        file: the log file's path below the local directory, with `/`.
        pieces: in order: name in `logs/`, size in bytes, and SHA-256 of each.
    """

    file: str
    pieces: tuple[tuple[str, int, str], ...]

    @property
    def size(self) -> int:
        """The bytes of all pieces."""
        return sum(size for _, size, _ in self.pieces)


@dataclass(frozen=True)
class Manifest:
    """The content of a checkpoint's `manifest.json`.

    Args:
        number: the step.
        run: the id of the run; processes that resume the run keep it.
        info: the plain data given to `write`.
        segments: the segments that the checkpoint refers to, in the order given.
        logs: the copies of the run's logs, if the directory is at a URL.
        files: size and SHA-256 of each file.
        wrote: names and versions of the libraries that wrote it.
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
    """Write a checkpoint's `manifest.json`; `info` is a result of `to_json`."""
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
    # Indented for people. The first line has the checksum of all others, and the opening brace.
    rest = json.dumps(body, allow_nan=False, indent=1).encode("ascii")[2:] + b"\n"
    file.write(b'{"sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode("ascii") + rest)


def parse(text: bytes, path: object) -> Manifest:
    """Parse a manifest.

    Args:
        text: the file's content.
        path: of the checkpoint, for errors.

    Raises:
        DamagedError: the text differs from what was written.
        CheckpointError: it has a newer format.
    """
    head = _HEAD.match(text)
    if head is None or hashlib.sha256(text[head.end() :]).hexdigest().encode() != head[1]:
        raise DamagedError(f"{path}/{NAME} is damaged: its checksum differs from the one in its first line.")
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
    import importlib.metadata  # here: it is slow to import, and needed only to write a checkpoint
    import platform

    try:
        own = importlib.metadata.version("unbounded")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {"unbounded": own, "numpy": np.__version__, "python": platform.python_version()}
