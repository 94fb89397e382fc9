"""ImageFiles: the paths of image files as a source, which `Stream.images` reads; any position costs the same."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unbounded.core import check
from unbounded.sources.arrays import Arrays
from unbounded.sources.files.file_paths import FilePaths, as_paths
from unbounded.sources.reader import JSON

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files with these suffixes are images."""


def are_images(paths: Any, format: str | None) -> bool:
    """True if paths are to be read as image files: by `format`, or else by the suffix of each, or of the first file of
    a directory."""
    if format is not None:
        return format == "images"
    given = as_paths(paths)
    if all(posixpath.splitext(path.lower())[1] in SUFFIXES for path in given):
        return True
    if any(posixpath.splitext(path)[1] for path in given):
        return False
    return _suffix(FilePaths(given).found()[0].name) in SUFFIXES


def _suffix(name: str) -> str:
    return posixpath.splitext(name.lower())[1]


@dataclass(frozen=True)
class ImageFiles(Arrays):
    """See `unbounded.from_files`. `rows` are the paths, and the name of the directory of each."""

    names: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    given: str = ""
    word = "from_files"

    def identity(self) -> JSON:
        """The names of the files, relative to the directory that they share, and their sizes."""
        digest = hashlib.blake2b(repr(self.names).encode(), digest_size=8)
        return {"images": digest.hexdigest(), "rows": self.rows_per_pass(), **self.pass_order.identity()}

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        given = {"shuffle": (self.shuffle, False), "seed": (self.seed, 0), "passes": (self.passes, None)}
        return {"": repr(self.given), **{k: v for k, (v, d) in given.items() if v != d}}


def image_files(paths: Any, shuffle: bool, seed: int, passes: int | None, others: dict[str, Any]) -> ImageFiles:
    """The image files that paths name.

    Args:
        paths: see `unbounded.from_files`.
        shuffle: True for a new order of all files in each pass.
        seed: of the orders.
        passes: the number of passes before the declared end.
        others: further arguments of `from_files` that were given, which have no meaning for images.

    Raises:
        FileNotFoundError: a path names no file.
        ValueError: files of another kind are among them, or they are not on this machine.
    """
    check.yes_or_no(shuffle, f"from_files(shuffle={shuffle!r})", "A buffer of another size is .shuffle(rows).")
    for name, value in others.items():
        raise ValueError(
            f"from_files({name}={value!r}) was given with images, whose rows have a path and a folder. Leave it out; "
            ".images('path', size, on_bad='skip') leaves out images that are broken."
        )
    found = FilePaths(as_paths(paths))
    files = found.found()
    if not found.is_local:
        raise ValueError("from_files() was given images at a URL. Expected files of this machine: copy them to a disk.")
    other = next((file for file in files if _suffix(file.name) not in SUFFIXES), None)
    if other is not None:
        raise ValueError(
            f"from_files() was given images, and {other.name!r} among them. Expected files that end in "
            f"{', '.join(SUFFIXES)}: a narrower glob, such as 'photos/*/*.jpg'."
        )
    rows = {
        "path": np.array([file.path for file in files]),
        "folder": np.array([posixpath.basename(posixpath.dirname(file.path)) for file in files]),
    }
    names = tuple((file.name, file.size) for file in files)
    return ImageFiles(rows, shuffle, seed, passes, names, as_paths(paths)[0])
