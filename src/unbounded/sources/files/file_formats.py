"""The formats of files by name, and which one the names of files tell."""

from __future__ import annotations

import posixpath
from typing import Any

from unbounded.sources.files.arrow_columns import Wanted
from unbounded.sources.files.csv_files import CsvFormat
from unbounded.sources.files.file_paths import FilePaths, FoundFile
from unbounded.sources.files.file_pieces import FileFormat, NoRows
from unbounded.sources.files.ipc_files import IpcFormat
from unbounded.sources.files.json_lines import JsonLinesFormat
from unbounded.sources.files.parquet_files import ParquetFormat
from unbounded.sources.files.tar_shards import TarFormat
from unbounded.sources.files.text_blocks import codec_of
from unbounded.sources.files.tfrecord_files import TFRecordFormat

FORMATS: dict[str, Any] = {
    "parquet": ParquetFormat,
    "csv": CsvFormat,
    "jsonl": JsonLinesFormat,
    "arrow": IpcFormat,
    "tfrecord": TFRecordFormat,
    "tar": TarFormat,
}
"""For each name that `from_files(format=…)` takes, its class."""

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".tar": "tar",
}
"""The format of files with a suffix."""


def format_of(files: list[FoundFile]) -> str:
    """The name of the format that the files' suffixes tell.

    Raises:
        ValueError: a suffix is unknown, or there are several formats.
    """
    found: dict[str, FoundFile] = {}
    for file in files:
        stem, suffix = posixpath.splitext(file.name.lower())
        if codec_of(file.name) is not None:
            suffix = posixpath.splitext(stem)[1]
        if suffix not in SUFFIXES:
            raise ValueError(
                f"from_files() can't tell the format of {file.name!r} from its suffix. Say it: format= takes one of "
                f"{', '.join(map(repr, FORMATS))}."
            )
        found.setdefault(SUFFIXES[suffix], file)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise ValueError(
            f"from_files() was given files of several formats: {first.name!r} is {one} and {second.name!r} is {other}. "
            "Expected one format: a narrower glob, or ub.mix() of two streams."
        )
    return next(iter(found))


def first_format(name: str, files: list[FoundFile], paths: FilePaths, wanted: Wanted, shuffle: bool) -> FileFormat:
    """The format, with the columns of the first file that has rows.

    Raises:
        RowsError: none has; or a column that is wanted is missing.
    """
    compressed = next((file for file in files if codec_of(file.name) is not None), None)
    if compressed is not None and (shuffle or name not in ("csv", "jsonl")):
        raise ValueError(
            f"from_files() was given {compressed.name!r}, which is compressed as a whole: it can only be read from its "
            f"beginning on. Expected {'shuffle=False, and .shuffle(rows) after it' if shuffle else 'it without that'}; "
            "or write the rows as Parquet, which is compressed inside."
        )
    refused: NoRows | None = None
    for file in files:
        source = paths.open(file)
        try:
            made: FileFormat = FORMATS[name](file, source, wanted)
            return made
        except NoRows as error:
            refused = refused or error
        finally:
            source.close()
    assert refused is not None
    raise refused
