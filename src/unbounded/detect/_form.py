"""ReadingForm: a function's blocks as `row`, `time` and `values`, resuming as well as the function does.

Row numbers only grow, even over restarts: they distinguish a reading that comes again from a new one.
"""

from __future__ import annotations

import copy
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from unbounded.detect._columns import Column
from unbounded.detect._function import Reading
from unbounded.detect._yielded import SourceEnded, SourceError, Yielded, read_block

Rows = dict[str, np.ndarray]
MISSING = 100  # rows in succession without a column, after which this is an error
SPREAD = 4.0  # the rows of a chunk are at most this many times as far apart as usual: a pause before it stays visible


class Remarks:
    """Messages for the display, from any thread, each once. They are kept until somebody listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._kept: list[str] = []
        self._listener: Callable[[str], None] | None = None

    def say(self, about: str, words: str) -> None:
        """Add a message.

        Args:
            about: its subject; a second message on a subject is dropped.
            words: a sentence.
        """
        with self._lock:
            if about in self._said:
                return
            self._said.add(about)
            if self._listener is None:
                self._kept.append(words)
                return
        self._listener(words)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Pass all messages, past and future, to `listener`.

        Args:
            listener: receives sentences.
        """
        with self._lock:
            self._listener, kept, self._kept = listener, self._kept, []
        for words in kept:
            listener(words)


class Arrivals:
    """The times of a chunk's rows: spread over the time since the last chunk, never decreasing.

    Args:
        now: when reading began, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._apart: deque[float] = deque(maxlen=9)  # seconds between two rows, for the last chunks

    def reaches(self, now: float) -> bool:
        """True if `now` is not before the last time."""
        return now >= self._last

    def times(self, rows: int, now: float) -> np.ndarray:
        """The times of the next chunk's rows.

        Args:
            rows: how many it has.
            now: when it came, in seconds.

        Returns:
            float64, [rows]; the last is `now`.

        Example:
            >>> Arrivals(100.0).times(4, now=102.0)
            array([100.5, 101. , 101.5, 102. ])
        """
        now = max(now, self._last)  # a clock that was set back
        apart = (now - self._last) / rows
        usual = sorted(self._apart)[len(self._apart) // 2] if self._apart else apart
        if apart > 0:
            self._apart.append(apart)
        apart = min(apart, SPREAD * usual)
        self._last = now
        return np.asarray(now - apart * np.arange(rows - 1, -1, -1.0))


def numbered(time: np.ndarray, last: int) -> np.ndarray:
    """Numbers for rows that can't be counted from a beginning: microseconds of the clock, strictly increasing.

    Args:
        time: in seconds, not decreasing, [rows].
        last: the number of the previous row.

    Returns:
        int64, [rows].

    Example:
        >>> numbered(np.array([0.0, 5e-6, 5e-6]), last=3).tolist()
        [4, 5, 6]
    """
    steps = np.arange(len(time))
    return np.asarray(np.maximum(np.maximum.accumulate((time * 1e6).astype(np.int64) - steps), last + 1) + steps)


class ReadingForm:
    """Converts blocks of one function to the detector's form.

    Args:
        columns: the columns of a reading, in order.
        source: the source's name in the command.
        remarks: receives messages about values that are left out or count as missing.
    """

    def __init__(self, columns: tuple[Column, ...], source: str, remarks: Remarks) -> None:
        self._names = [column.name for column in columns]
        self._source, self._remarks = source, remarks
        self._missing = 0  # rows in succession without a column
        self._own: Arrivals | None = None  # for a function that gives one time for each chunk

    def read(self, block: Any) -> Yielded:
        """A yielded block, checked against the columns.

        Args:
            block: the block.

        Returns:
            The columns.

        Raises:
            SourceError: it can't be read, or a column has been missing for long.
        """
        yielded = read_block(block, self._source)
        missing = [name for name in self._names if name not in yielded.numbers and name not in yielded.text]
        self._missing = self._missing + yielded.rows if missing else 0
        new = [name for name in (*yielded.numbers, *yielded.text) if name not in self._names]
        if missing and self._missing > MISSING:
            raise SourceError(
                f"{self._source} yielded {self._missing:,} rows in succession without the column {missing[0]!r}, which "
                f"the run has had from its first reading on. It yields {', '.join(map(repr, block))}. Yield the same "
                "columns each time, or start a new run in another directory (--run)."
            )
        for name in missing:
            self._remarks.say(
                f"missing {name}",
                f"{self._source} yielded a reading without the column {name!r}, which the first had: it counts as NaN.",
            )
        for name in new:
            words = f"holds no number ({yielded.text[name]})" if name in yielded.text else "came later than the first"
            self._remarks.say(f"new {name}", f"The column {name!r} {words} and is left out.")
        for name in self._names:
            other = yielded.unreadable.get(name, yielded.text.get(name))
            if other is not None:
                words = f"The column {name!r} held {other}, which is no number: it counts as NaN."
                self._remarks.say(f"text {name}", words)
        return yielded

    def rows(self, yielded: Yielded, row: np.ndarray, time: np.ndarray) -> Rows:
        """A block in the detector's form.

        Args:
            yielded: the block.
            row: the numbers of its rows, [rows].
            time: when they came, in seconds; the function's own column `time` takes precedence.

        Returns:
            `row`, `time` and `values`.
        """
        unknown = np.full(yielded.rows, np.nan)
        values = np.stack([yielded.numbers.get(name, unknown) for name in self._names], axis=1)
        own = yielded.time
        if own is not None and np.isfinite(own).all() and (own == own[0]).all():
            # A single time for a chunk is that of its last row.
            if self._own is None:
                self._own = Arrivals(float(own[0]))
            own = self._own.times(yielded.rows, float(own[0])) if self._own.reaches(float(own[0])) else own
        return {"row": row, "time": (time if own is None else own).astype(np.float64), "values": values}


def in_form(reading: Reading, form: ReadingForm) -> Callable[..., Iterator[Rows]]:
    """A function's readings in the detector's form, for `ub.from_generator`.

    Args:
        reading: the function.
        form: its columns.

    Returns:
        A function that resumes as well as the one in `reading`, and has its name in checkpoints. It raises SourceEnded
        when the function's generator ends.
    """

    def ended(rows: int) -> SourceEnded:
        return SourceEnded(f"{reading.source} ended after {rows:,} readings.")

    def from_start(start: int = 0) -> Iterator[Rows]:
        at = start
        for block in reading.blocks(start):
            yielded = form.read(block)
            row = np.arange(at, at + yielded.rows)
            if yielded.rows:
                yield form.rows(yielded, row, row)
            at += yielded.rows
        raise ended(at)

    def live() -> Iterator[Rows]:
        came, last, rows = reading.came, 0, 0
        arrivals = Arrivals(clock.time() if came is None else came[0])
        for block in reading.blocks():
            yielded = form.read(block)
            if not yielded.rows:
                continue
            # The first block may have come before the stream was opened, to find the columns.
            now, came = clock.time() if came is None else came[1], None
            time = arrivals.times(yielded.rows, now)
            row = numbered(time, last)
            last, rows = int(row[-1]), rows + yielded.rows
            yield form.rows(yielded, row, time)
        raise ended(rows)

    class Counted:
        """An iterator with a state: that of the function's iterator, and the number of the next row."""

        def __init__(self) -> None:
            self._at = 0
            self._iterator, self._before, self._seen = reading.take()

        def __iter__(self) -> Counted:
            return self

        def __next__(self) -> Rows:
            while True:
                try:
                    block = self._seen.pop(0) if self._seen else next(self._iterator)
                except StopIteration:
                    raise ended(self._at) from None
                yielded = form.read(block)
                if yielded.rows:
                    row = np.arange(self._at, self._at + yielded.rows)
                    self._at += yielded.rows
                    return form.rows(yielded, row, row)

        def state_dict(self) -> dict[str, Any]:
            # The first block was read ahead: until it is returned, the function's iterator is ahead by it.
            ahead = bool(self._seen) and self._at == 0
            return {"at": self._at, "rows": copy.deepcopy(self._before) if ahead else self._iterator.state_dict()}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self._at, self._seen = state["at"], []
            self._iterator.load_state_dict(state["rows"])

        def close(self) -> None:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()

    grades: dict[str, Any] = {"start": from_start, "live": live, "state": Counted}
    made: Callable[..., Iterator[Rows]] = grades[reading.grade]
    # The name in the stream's fingerprint.
    made.__qualname__ = getattr(reading.function, "__qualname__", type(reading.function).__qualname__)
    return made
