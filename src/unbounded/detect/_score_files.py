"""ScoreFiles: the score of every reading as Parquet, in the directory `scores.parquet` of a run.

A Parquet file can't be appended to, so the directory has parts. The newest part is written anew at each checkpoint,
with the rows that came since; at a size it is closed, and the next one begins. A part is first written beside its place
and then renamed to it, so each is whole at any moment. A resume cuts the newest part to its rows at the checkpoint, and
removes later ones: each reading is there once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.detect._readings import Axis

FOLDER = "scores.parquet"
ROWS = 100_000  # in a part


class ScoreFiles:
    """Writes scores.

    Args:
        directory: the run's.
        axis: the meaning of times.
        keyed: True if readings have keys.
        rows: in a part.
        kept: the bytes of all parts after which the oldest are removed; None to keep all.
        say: receives a sentence when that happens first.
    """

    def __init__(
        self,
        directory: Path,
        axis: Axis,
        *,
        keyed: bool = False,
        rows: int = ROWS,
        kept: int | None = None,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.folder = directory / FOLDER
        self._axis, self._keyed, self._most, self._kept, self._say = axis, keyed, rows, kept, say
        self._part = 1  # the number of the open part
        self._rows: list[dict[str, np.ndarray]] = []  # of the open part
        self._count = self._written = 0  # the rows of the open part, and those of them in its file
        self._said = False

    def add(self, row: np.ndarray, time: np.ndarray, score: np.ndarray, key: np.ndarray | None = None) -> None:
        """Add scored readings.

        Args:
            row: their numbers, int64, [rows].
            time: in seconds on the run's axis, [rows].
            score: NaN for readings that were not judged, [rows].
            key: text, [rows]; None without keys.
        """
        columns = {"row": row, "time": time, "score": score.astype(np.float32)}
        if self._keyed:
            assert key is not None
            columns["key"] = key
        at = 0
        while at < len(row):
            stop = min(len(row), at + self._most - self._count)
            self._rows.append({name: column[at:stop].copy() for name, column in columns.items()})
            self._count += stop - at
            at = stop
            if self._count == self._most:
                self.write()
                self._part, self._rows, self._count, self._written = self._part + 1, [], 0, 0
                self._remove_oldest()

    def write(self) -> None:
        """Write the rows that came since the last call."""
        if self._written == self._count:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = [{name: np.concatenate([part[name] for part in self._rows]) for name in self._rows[0]}]
        self._replace(self._table(self._rows[0]))
        self._written = self._count

    def _replace(self, table: Any) -> None:
        import pyarrow.parquet as pq

        path = self._path(self._part)
        unfinished = path.with_name(f".{path.name}.tmp")  # readers of the directory pass over names with a dot
        with unfinished.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            # A checkpoint refers to these rows: a power cut must not take them after it is written.
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync(self.folder)

    def _table(self, rows: dict[str, np.ndarray]) -> Any:
        import pyarrow as pa

        columns: dict[str, Any] = {"row": pa.array(rows["row"], pa.int64())}
        if self._axis == "row":
            pass  # it is the number of the row
        elif self._axis == "seconds":
            columns["time"] = pa.array(rows["time"], pa.float64())
        else:
            # Times in files may have no zone, and are written as they were read; those of a clock are UTC.
            kind = pa.timestamp("us", tz=None if self._axis == "utc" else "UTC")
            columns["time"] = pa.array(np.round(rows["time"] * 1e6).astype(np.int64), pa.int64()).cast(kind)
        if self._keyed:
            columns["key"] = pa.array(rows["key"].tolist(), pa.string())
        columns["score"] = pa.array(rows["score"], pa.float32())
        return pa.table(columns)

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.parquet"

    def _parts(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.folder.glob("part-*.parquet"):
            number = path.stem.removeprefix("part-")
            if number.isdigit():
                found.append((int(number), path))
        return sorted(found)

    def _remove_oldest(self) -> None:
        """Keep the newest parts, up to the limit."""
        if self._kept is None:
            return
        parts = self._parts()
        size = sum(path.stat().st_size for _, path in parts)
        for _, path in parts[:-1]:
            if size <= self._kept:
                break
            size -= path.stat().st_size
            path.unlink()
            if not self._said:
                self._said = True
                self._say(f"{self.folder} has reached {self._kept:,} bytes: its oldest parts are removed from here on.")

    def state_dict(self) -> dict[str, Any]:
        """Where the rows end that are written now."""
        self.write()
        return {"part": self._part, "rows": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the files to a state.

        Args:
            state: from `state_dict`.
        """
        self._part, wanted = int(state["part"]), int(state["rows"])
        self._rows, self._count, self._written = [], 0, 0
        for number, path in self._parts():
            if number > self._part or (number == self._part and not wanted):
                path.unlink()
        path = self._path(self._part)
        if wanted and path.is_file():
            table = self._read(path)
            if table.num_rows > wanted:
                table = table.slice(0, wanted)
                self._replace(table)
            self._rows = [self._arrays(table)]
            self._count = self._written = table.num_rows
        if self._count < wanted:
            self._say(f"{path} had {wanted:,} scores at the checkpoint and has {self._count:,}: some are lost.")

    def begin(self) -> None:
        """Begin without scores; those of a run that was never saved are removed.

        Raises:
            ValueError: there is a file in place of the directory.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                f"{self.folder} is a file, and not of a run, whose scores are in a directory. Nothing was changed; "
                "choose another directory, or move it away."
            )
        if self.folder.is_dir():
            self.load_state_dict({"part": 1, "rows": 0})

    def _read(self, path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError):
            return self._table({"row": np.empty(0, np.int64), "time": np.empty(0), "score": np.empty(0, np.float32)})

    def _arrays(self, table: Any) -> dict[str, np.ndarray]:
        rows: dict[str, np.ndarray] = {name: table.column(name).to_numpy() for name in table.column_names}
        if self._axis == "row":
            rows["time"] = rows["row"].astype(np.float64)
        elif self._axis != "seconds":
            rows["time"] = rows["time"].astype("datetime64[us]").astype(np.int64) / 1e6
        if self._keyed:
            rows["key"] = rows["key"].astype("U")
        return rows


def _sync(folder: Path) -> None:
    """Put a directory's names on the disk."""
    if os.name == "nt":  # directories can't be opened there
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
