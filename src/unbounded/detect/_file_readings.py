"""FileReadings: the rows of files as readings, numbered in their order, for one or more passes.

The files are read by `ub.from_files`, which notices files that changed and reads a little ahead. Its boundaries between
files are left out: a series goes on in the next file, and windows span both. The end of a pass is a boundary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import unbounded as ub
from unbounded.detect._file_columns import FileColumns
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

    Args:
        source: the description.
    """

    def __init__(self, source: FileReadings) -> None:
        self._source = source
        self._pass = self._row = 0
        self._files: Any = None  # the position in the files of the pass; None at its beginning
        self._feed: ub.Feed | None = None
        self._batches: Iterator[Any] = iter(())

    def position(self) -> Any:
        """The pass, the number of the next row, and the position in the files of the pass."""
        return {"pass": self._pass, "row": self._row, "files": self._files}

    def seek(self, position: Any) -> None:
        """Continue at a position of an earlier process."""
        self.close()
        self._pass, self._row, self._files = position["pass"], position["row"], position["files"]

    def _open(self) -> ub.Feed:
        wanted = dict(self._source.columns.dtypes)
        # A line that can't be read is one reading to leave out, and not the end of a run.
        stream = ub.from_files(self._source.path, columns=wanted, passes=1, on_bad="skip")
        self._feed = ub.Feed(stream, on_nan="pass")
        if self._files is not None:
            self._feed.load_state_dict(self._files)
        self._batches = self._feed.batches()
        return self._feed

    def read(self, timeout: float) -> ub.Rows | None:
        """The next rows of the files."""
        feed = self._feed or self._open()
        rows = next(self._batches, None)
        if rows is not None:
            feed.trained()
            read = self._in_form(rows)
            self._files = feed.state_dict()
            return ub.Rows(read)
        if self._source.passes is not None and self._pass + 1 >= self._source.passes:
            # The position stays at the end of the last file: rows that are appended to it are read by a later process.
            raise ub.EndOfStream
        self.close()
        self._pass, self._files = self._pass + 1, None
        return ub.Rows(None, ub.Boundary("pass"))

    def _in_form(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        chosen = self._source.columns
        values = np.stack([rows[name].astype(np.float64) for name in chosen.numbers], axis=1)
        row = np.arange(self._row, self._row + len(values), dtype=np.int64)
        self._row += len(values)
        time = row.astype(np.float64) if chosen.time is None else parsed(rows[chosen.time], chosen.time_format)
        out = {"row": row, "time": time, "values": values}
        return out if chosen.by is None else {**out, "key": rows[chosen.by].astype("U")}

    def close(self) -> None:
        """Close the files of the pass."""
        feed, self._feed = self._feed, None
        if feed is not None:
            self._batches = iter(())
            feed.close()
