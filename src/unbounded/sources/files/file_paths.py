"""FilePaths: the paths, globs and URLs that a user gave, and the files that they name at the moment of asking.

Local paths and URLs are listed by fsspec. Local files are opened by Arrow, whose reads release Python's lock.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

_MAGIC = ("*", "?", "[")


class FoundFile(NamedTuple):
    """A file that a path names.

    Args:
        name: its path relative to the directory that the given paths share, with "/" between the parts.
        path: its path as its file system takes it.
        size: its bytes; rows beyond them, which were appended later, are left to the next pass.
    """

    name: str
    path: str
    size: int


def as_paths(paths: Any) -> tuple[str, ...]:
    """The argument `paths` as texts.

    Raises:
        TypeError: it is neither a path nor a list of paths.
        ValueError: the list is empty.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    is_table = hasattr(several, "columns")
    if is_table or isinstance(several, (bytes, dict, np.ndarray)) or not isinstance(several, Iterable):
        raise TypeError(
            f"from_files() was given a {type(paths).__name__}. Expected a path, a glob such as 'data/*.parquet', a "
            "URL, or a list of these." + (" Rows of a table are ub.from_dataset(table)." if is_table else "")
        )
    given = list(several)
    for path in given:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"from_files() was given a list with a {type(path).__name__}. Expected paths, such as texts."
            )
    if not given:
        raise ValueError("from_files() was given an empty list. Expected at least one path or glob.")
    return tuple(str(os.fspath(path)) for path in given)


@dataclass(frozen=True)
class FilePaths:
    """Paths of one file system.

    Args:
        given: paths of files or directories, globs and URLs.
        without: the path of a file of this machine that is not one of them, wherever it is; None for none.
    """

    given: tuple[str, ...]
    without: str | None = None

    @cached_property
    def _resolved(self) -> tuple[Any, list[str]]:
        """The file system, and the paths as it takes them."""
        try:
            import pyarrow  # noqa: F401 - formats import it where they use it
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ImportError(
                f"from_files() needs pyarrow and fsspec, and {error.name} is not installed: "
                "pip install 'unbounded[files]'."
            ) from None
        systems, paths = [], []
        for given in self.given:
            try:
                system, path = url_to_fs(given)
            except (ValueError, ImportError) as error:
                raise ValueError(f"from_files() was given {given!r}, which fsspec can't open: {error}.") from None
            systems.append(system)
            paths.append(path)
        if any(system != systems[0] for system in systems):
            raise ValueError(
                "from_files() was given paths of several file systems. Expected those of one: mix a stream of each by "
                "ub.mix([…])."
            )
        return systems[0], paths

    @property
    def system(self) -> Any:
        """The fsspec file system."""
        return self._resolved[0]

    @cached_property
    def is_local(self) -> bool:
        """True for files of this machine."""
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.system, LocalFileSystem)

    @cached_property
    def _root(self) -> str:
        """The directory to which names are relative. It follows from the paths alone: a new file changes no name."""
        roots = []
        for path in self._resolved[1]:
            fixed = path
            while any(mark in fixed for mark in _MAGIC):
                fixed = posixpath.dirname(fixed)
            is_file = fixed == path and not self.system.isdir(path)
            roots.append(posixpath.dirname(fixed) if is_file else fixed)
        return posixpath.commonpath(roots)

    def found(self) -> list[FoundFile]:
        """The files that exist now, by name.

        Raises:
            FileNotFoundError: a path or glob names no file.
        """
        self.system.invalidate_cache()
        files: dict[str, FoundFile] = {}
        for given, path in zip(self.given, self._resolved[1], strict=True):
            infos = self._infos(path)
            if not infos:
                raise FileNotFoundError(
                    f"from_files() found no file for {given!r}. Expected a path of a file, of a directory with files, "
                    "or a glob that matches some, such as 'data/*.parquet'."
                )
            for info in infos:
                if self.is_local and info["name"] == self.without:
                    continue
                if info["size"] is None:
                    raise ValueError(
                        f"from_files(): the server of {info['name']!r} does not tell its size, so it can only be read "
                        "as a whole. Copy it to a disk or a store first."
                    )
                name = posixpath.relpath(info["name"], self._root)
                files[name] = FoundFile(name, info["name"], info["size"])
        return [files[name] for name in sorted(files)]

    def _infos(self, path: str) -> list[Any]:
        if any(mark in path for mark in _MAGIC):
            infos = list(self.system.glob(path, detail=True).values())
        else:
            try:
                info = self.system.info(path)
            except FileNotFoundError:
                return []
            if info["type"] != "directory":
                return [info]
            # As with pyarrow.dataset and Spark, names with these first letters are of files of other tools.
            inside = self.system.ls(path, detail=True)
            infos = [each for each in inside if not posixpath.basename(each["name"]).startswith((".", "_"))]
        return [info for info in infos if info["type"] == "file"]

    def open(self, file: FoundFile) -> Any:
        """A `pyarrow.NativeFile` for reading anywhere.

        Raises:
            FileNotFoundError: the file does not exist any more.
        """
        import pyarrow as pa

        if self.is_local:
            return pa.OSFile(file.path)
        return pa.PythonFile(self.system.open(file.path, "rb"), mode="r")
