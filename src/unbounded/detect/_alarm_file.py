"""AlarmFile: the alarms of a run as `alarms.csv`, which any spreadsheet opens.

Lines are appended. At a size the file is renamed to `alarms-000001.csv`, and a new one begins. A checkpoint has the
number of full files and the length of the newest one; a resume cuts them back to that.
"""

from __future__ import annotations

import csv
import datetime
import io
import os
from pathlib import Path
from typing import Any

from unbounded.detect._readings import Axis
from unbounded.detect._record import RecordedAlarm

FILE = "alarms.csv"
HEAD = ("time", "key", "column", "cause", "score", "tail", "change", "row", "words")
BYTES = 10_000_000  # of a file


class AlarmFile:
    """Writes alarms.

    Args:
        directory: the run's.
        axis: the meaning of times.
        size: the bytes after which a new file is begun.
    """

    def __init__(self, directory: Path, axis: Axis, *, size: int = BYTES) -> None:
        self.path = directory / FILE
        self._axis, self._size = axis, size
        self._full = 0  # the number of full files
        self._file: io.FileIO | None = None

    def add(self, *alarms: RecordedAlarm) -> None:
        """Append alarms."""
        for alarm in alarms:
            self._write(
                written(alarm.time, self._axis),
                alarm.key,
                alarm.column,
                alarm.cause,
                f"{alarm.score:.3f}",
                f"{alarm.tail:.3g}",
                f"{alarm.change:.6g}",
                alarm.row,
                alarm.words,
            )

    def _write(self, *cells: object) -> None:
        file = self._open()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        file.write(text.getvalue().encode())
        if file.tell() >= self._size:
            self._sync()
            self.close()
            self.path.replace(self._numbered(self._full + 1))
            self._full += 1

    def _open(self) -> io.FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self.path, "a")
            if not self._file.tell():
                self._file.write((",".join(HEAD) + "\n").encode())
        return self._file

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}-{number:06d}.csv")

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())

    def state_dict(self) -> dict[str, Any]:
        """Where the alarms end that are on the disk now."""
        self._open()
        self._sync()
        return {"full": self._full, "length": self._open().tell()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the files to a state.

        Args:
            state: from `state_dict`.
        """
        self.close()
        self._full = int(state["full"])
        later = [path for number, path in self._numbered_files() if number > self._full]
        if later:
            for path in reversed(later[1:]):
                path.unlink()
            later[0].replace(self.path)  # it was the newest one; last, so that a kill in between changes nothing
        file = self._open()
        file.truncate(min(int(state["length"]), os.fstat(file.fileno()).st_size))
        file.seek(0, os.SEEK_END)

    def begin(self) -> None:
        """Begin without alarms; those of a run that was never saved are removed.

        Raises:
            ValueError: there is a file of the same name that is none of a run.
        """
        if self.path.exists():
            with self.path.open("rb") as file:
                head = file.readline(1 << 12)
            if head.strip() and head.strip() != ",".join(HEAD).encode():
                raise ValueError(
                    f"{self.path} is not of a run: it begins with {head[:60].decode('utf-8', 'replace').strip()!r}. "
                    "Nothing was changed; choose another directory, or move it away."
                )
        for _, path in self._numbered_files():
            path.unlink()
        self._full = 0
        self.close()
        self.path.unlink(missing_ok=True)
        self._open()

    def _numbered_files(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.path.parent.glob(f"{self.path.stem}-*.csv"):
            number = path.stem.removeprefix(f"{self.path.stem}-")
            if number.isdigit():
                found.append((int(number), path))
        return sorted(found)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def written(time: float, axis: Axis) -> str:
    """A time in a file.

    Args:
        time: in seconds on the run's axis.
        axis: its meaning.

    Returns:
        ISO 8601, with the zone if the time is of a clock; seconds; or the number of the row.

    Example:
        >>> written(0.0, "date"), written(0.5, "utc"), written(12.5, "seconds"), written(7.0, "row")
        ('1970-01-01T00:00:00+00:00', '1970-01-01T00:00:00.500000', '12.5', '7')
    """
    if axis == "row":
        return f"{time:.0f}"
    if axis == "seconds":
        return f"{time:.10g}"
    try:
        moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    except (OverflowError, ValueError, OSError):  # no time that a calendar has
        return f"{time:.10g}"
    return (moment if axis == "date" else moment.replace(tzinfo=None)).isoformat()
