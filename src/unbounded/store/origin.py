"""The run's origin: the identity and opening position of each source, so that a run killed before its first checkpoint
begins again at the same row.

Also the renaming of other runs' logs: they are set aside, never mixed in and never deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from unbounded.core.packing import JSON
from unbounded.core.runtime import Runtime
from unbounded.store.manifest import CheckpointError

_NAME = "origin.json"
_FORMAT = 1


@dataclass(frozen=True)
class SourceOrigin:
    """The origin of one source.

    Args:
        identity: what tells it from another source.
        position: the reader's before its first row; None where a reader has none.
        log: the id of its row log; None where it can seek.
        carried: what the log began with, where these were rows that a checkpoint carried: their checksum.
    """

    identity: JSON
    position: JSON = None
    log: str | None = None
    carried: str | None = None


def read_origin(directory: Path, runtime: Runtime) -> dict[str, SourceOrigin] | None:
    """The origins by source name; None if none were written.

    Raises:
        CheckpointError: they can't be read, or have a newer format.
    """
    path = directory / _NAME
    try:
        with runtime.files.open_read(path) as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = json.loads(text)
        if data["format"] > _FORMAT:
            raise CheckpointError(
                f"{path} has format {data['format']}, and this version of unbounded reads up to {_FORMAT}. Use the "
                "version that wrote it, or a newer one; or another directory."
            )
        return {name: SourceOrigin(**origin) for name, origin in data["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged: it is not what was written ({error}). It says where the sources of a run began. Move "
            f"{directory} away to begin anew, or put back a copy."
        ) from error


def write_origin(directory: Path, sources: Mapping[str, SourceOrigin], runtime: Runtime) -> None:
    """Write the origins, all or nothing, and fsync them.

    Raises:
        OSError: they can't be written.
    """
    files = runtime.files
    files.make_directory(directory)
    unfinished = directory / f".tmp-{runtime.unique()}"
    data = {"format": _FORMAT, "sources": {name: asdict(origin) for name, origin in sources.items()}}
    fd = files.create(unfinished)
    try:
        try:
            text = memoryview(json.dumps(data, indent=1).encode() + b"\n")
            while text:
                text = text[files.write(fd, text) :]
            files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(unfinished, directory / _NAME)
    except BaseException:
        with suppress(OSError):  # the first error is the one to raise
            files.remove(unfinished)
        raise
    files.sync_directory(directory)


def set_aside(directory: Path, runtime: Runtime) -> Path:
    """Rename a directory or a file to the first free name of `NAME.old-1`, `NAME.old-2`, …; return the new path.

    Raises:
        OSError: it can't be renamed.
    """
    number = 1
    while runtime.files.exists(there := directory.with_name(f"{directory.name}.old-{number}")):
        number += 1
    runtime.files.rename(directory, there)
    runtime.files.sync_directory(directory.parent)
    return there
