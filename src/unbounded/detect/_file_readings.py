"""FileReadings: the rows of files as readings, numbered in their order, for one or more passes.

The files are read by `ub.from_files`, which notices files that changed and reads a little ahead. Its boundaries between
files are left out: a series goes on in the next file, and windows span both. The end of a pass is a boundary.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

import unbounded as ub
from unbounded.detect._file_columns import FileColumns, found
from unbounded.detect._file_times import parsed


@dataclass(frozen=True)
class FileReadings:
    """Files as a source of readings.

    Args:
        path: a path, a directory, a glob or a URL.
        columns: the columns that are read.
        passes: how often the files are read; None for ever.
    """

    path: str
    columns: FileColumns
    passes: int | None = 1
    replayable = True
    has_passes = True

    def identity(self) -> Any:
        """The columns and what they mean; not the passes, of which a run may be given more."""
        chosen = self.columns
        return {
            "columns": [list(item) for item in chosen.dtypes],
            "time": [chosen.time, chosen.time_format],
            "by": chosen.by,
        }

    def open(self) -> FileRows:
        """A reader at the first row."""
        return FileRows(self)


class FileRows:
    """Reads files pass after pass, as rows of `row`, `time`, `values` and, with a key, `key`.

    `ub.from_files` reads each file up to the size that it has when a pass begins. Where the last pass ends and a file
    has grown, the rows that were read are skipped in the new files, so that a run goes on with what was appended.

    Args:
        source: the description.
    """

    def __init__(self, source: FileReadings) -> None:
        self._source = source
        self._at: dict[str, Any] = {"pass": 0, "row": 0, "done": 0, "bytes": None, "last": 0, "files": None, "skip": 0}
        self._feed: ub.Feed | None = None
        self._batches: Iterator[Any] = iter(())
        self._begun: dict[
            int, tuple[int, Any]
        ] = {}  # by pass, the bytes and the position in the files at its beginning

    def position(self) -> Any:
        """The pass, the number of the next row, and the position in the files of the pass.

        ``done`` counts the rows of this pass, and ``last`` is a checksum of the last of them. ``bytes`` is the size of
        its files. ``files`` is the position of `ub.from_files`, None for the beginning, and ``skip`` the rows after it
        that were read already.
        """
        return dict(self._at)

    def settled(self, position: Any) -> Any:
        """A position at the beginning of a pass, with the checksums of files that were opened since."""
        if position["files"] is not None or position["skip"] or position["pass"] not in self._begun:
            return position
        size, files = self._begun[position["pass"]]
        return {**position, "bytes": size, "files": files}

    def seek(self, position: Any) -> None:
        """Continue at a position of an earlier process."""
        self.close()
        self._at = dict(position)

    def _open(self) -> ub.Feed:
        wanted = dict(self._source.columns.dtypes)
        if self._at["bytes"] is None:
            self._at["bytes"] = size_of(self._source.path)
        # A line that can't be read is one reading to leave out, and not the end of a run.
        stream = ub.from_files(self._source.path, columns=wanted, passes=1, on_bad="skip")
        feed = ub.Feed(stream, on_nan="pass")
        if self._at["files"] is not None:
            feed.load_state_dict(self._at["files"])
        self._feed, self._batches = feed, feed.batches()
        return feed

    def read(self, timeout: float) -> ub.Rows | None:
        """The next rows of the files."""
        feed, at = self._feed or self._open(), self._at
        if at["files"] is None and not at["skip"]:
            with suppress(ub.EndOfStream, ub.StreamError):
                feed.peek()  # opens the first file: the position of the beginning has its checksum then
                self._begun = {at["pass"]: (at["bytes"], feed.state_dict())}
        rows = next(self._batches, None)
        if rows is not None:
            feed.trained()
            read, last = self._in_form(rows)
            # Nothing is changed before all that may fail is done: what failed is read again.
            self._at = {**at, "files": feed.state_dict(), "skip": max(0, at["skip"] - len(rows[next(iter(rows))]))}
            if read is None:
                return None
            count = len(read["row"])
            self._at |= {"row": at["row"] + count, "done": at["done"] + count, "last": last}
            return ub.Rows(read)
        if at["skip"]:
            raise ub.StreamError(f"{self._source.path} has fewer rows than when it was read: {at['skip']:,} are gone.")
        if self._source.passes is None or at["pass"] + 1 < self._source.passes:
            self.close()
            self._at = {**at, "pass": at["pass"] + 1, "done": 0, "bytes": None, "last": 0, "files": None}
            return ub.Rows(None, ub.Boundary("pass"))
        size = size_of(self._source.path)
        if size < at["bytes"]:
            raise ub.StreamError(
                f"{self._source.path} has {size:,} bytes now, and had {at['bytes']:,} when it was read: it is another "
                "file. Begin a new run in another directory."
            )
        if size == at["bytes"]:
            raise ub.EndOfStream
        self.close()
        self._at = {**at, "bytes": size, "files": None, "skip": at["done"]}
        return None

    def _in_form(self, rows: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray] | None, int]:
        """Rows of the files in the detector's form, and the checksum of the last row; None if all were read before."""
        chosen, at = self._source.columns, self._at
        values = np.stack([rows[name].astype(np.float64) for name in chosen.numbers], axis=1)
        skip = at["skip"]
        if 0 < skip <= len(values) and zlib.crc32(values[skip - 1].tobytes()) != at["last"]:
            raise ub.StreamError(
                f"{self._source.path} has changed: row {at['done']:,} is not what it was when it was read. Begin a new "
                "run in another directory."
            )
        if skip >= len(values):
            return None, 0
        values = values[skip:]
        row = np.arange(at["row"], at["row"] + len(values), dtype=np.int64)
        time = row.astype(np.float64) if chosen.time is None else parsed(rows[chosen.time][skip:], chosen.time_format)
        out = {"row": row, "time": time, "values": values}
        if chosen.by is not None:
            out["key"] = rows[chosen.by][skip:].astype("U")
        return out, zlib.crc32(values[-1].tobytes())

    def close(self) -> None:
        """Close the files of the pass."""
        feed, self._feed = self._feed, None
        if feed is not None:
            self._batches = iter(())
            feed.close()


def size_of(path: str) -> int:
    """The bytes of all files that a path names now."""
    files, names = found(path)
    return sum(int(files.size(name)) for name in names)
