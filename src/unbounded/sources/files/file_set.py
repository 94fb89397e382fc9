"""FileSet: files of one format as a source, in order or shuffled, for as many passes as are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from unbounded.core import check
from unbounded.sources.arrow_arrays import as_dtypes
from unbounded.sources.files.arrow_columns import Wanted
from unbounded.sources.files.file_formats import FORMATS, first_format, format_of
from unbounded.sources.files.file_paths import FilePaths, as_paths
from unbounded.sources.files.file_pieces import FileFormat
from unbounded.sources.files.ordered_pieces import OrderedPieces
from unbounded.sources.files.shuffled_pieces import ShuffledPieces
from unbounded.sources.ragged_columns import RAGGED, as_names
from unbounded.sources.reader import JSON, Opening, Reader


@dataclass(frozen=True)
class FileSet:
    """See `unbounded.from_files`."""

    paths: Any
    format: str | None = None
    columns: Any = field(default=None, repr=False)
    shuffle: bool = False
    seed: int = 0
    passes: int | None = None
    on_bad: str | os.PathLike[str] = "raise"
    dtypes: Any = field(default=None, repr=False)
    ragged: Any = field(default=None, repr=False)
    word = "from_files"
    replayable = True
    has_passes = True  # how many rows one has is not known beforehand: files may become more

    def __post_init__(self) -> None:
        check.yes_or_no(
            self.shuffle,
            f"from_files(shuffle={self.shuffle!r})",
            "The size of its windows is fixed; a buffer of another size is .shuffle(rows).",
        )
        object.__setattr__(self, "seed", check.seed(self.seed, "from_files(seed=n)"))
        if self.passes is not None:
            check.positive(self.passes, "from_files(passes=n)")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"from_files(format={self.format!r}): expected one of {', '.join(map(repr, FORMATS))}.")
        if not isinstance(self.on_bad, (str, os.PathLike)):
            raise TypeError(f"from_files(on_bad={self.on_bad!r}): expected 'raise', 'skip', or the path of a file.")
        ragged = dict.fromkeys(as_names(self.ragged, "from_files"), RAGGED)
        dtypes = {**as_dtypes(self.dtypes, "from_files"), **ragged}
        object.__setattr__(self, "columns", _as_wanted(self.columns, dtypes))
        _ = self._reading  # errors of the paths, the format and the columns come now

    @cached_property
    def _paths(self) -> FilePaths:
        # Broken lines may be kept beside the files that they are from.
        kept = None if self.on_bad in ("raise", "skip") else os.path.abspath(self.on_bad)
        return FilePaths(as_paths(self.paths), kept)

    @cached_property
    def _reading(self) -> FileFormat:
        """The format, with the columns and types of the first file."""
        found = self._paths.found()
        name = self.format or format_of(found)
        return first_format(name, found, self._paths, self.columns, self.shuffle)

    def identity(self) -> JSON:
        """Columns, types, and order. The files themselves, which may become more, are in positions."""
        order = {"shuffle": self.shuffle, "seed": self.seed if self.shuffle else 0}
        columns = [list(item) for item in self._reading.columns().items()]
        return {"columns": columns, **order, "passes": self.passes, "on_bad": self.on_bad != "raise"}

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        given = {
            "format": (self.format, None),
            "shuffle": (self.shuffle, False),
            "seed": (self.seed, 0),
            "passes": (self.passes, None),
        }
        shown = repr(self._paths.given[0]) + (", …" if len(self._paths.given) > 1 else "")
        return {"": shown, **{name: value for name, (value, default) in given.items() if value != default}}

    def open(self, opening: Opening) -> Reader:
        shared = (self._paths, self._reading, self.passes, os.fspath(self.on_bad), opening)
        return ShuffledPieces(*shared, self.seed, self.identity()) if self.shuffle else OrderedPieces(*shared)


def _as_wanted(columns: Any, dtypes: dict[str, str]) -> Wanted:
    """The arguments `columns`, names or a dict of names and dtypes, and `dtypes`."""
    if columns is None:
        return Wanted(None, dtypes)
    if isinstance(columns, Mapping):
        dtypes = {**as_dtypes(columns, "from_files", "columns"), **dtypes}
    elif isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        raise TypeError(
            f"from_files(columns={columns!r}): expected a list of names, such as ['x', 'y'], or a dict of names and "
            "dtypes, such as {'x': 'float64'}."
        )
    names = tuple(columns)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"from_files(columns=…) has {name!r}. Expected names of columns, which are texts.")
    if not names:
        raise ValueError("from_files(columns=…) is empty. Expected at least one name; None reads all columns.")
    return Wanted(names, dtypes)
