"""A function's blocks in the detector's form: `row`, `time` and `values`, resuming as well as the function does.

A row's number only ever grows, over restarts too: it is what tells a reading that comes again from one that is new.
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
MISSING = 100  # rows in succession without one of the columns, after which this is no dropout any more
SPREAD = 4.0  # a chunk's rows lie at most so many times as far apart as usual: a pause before it stays a pause


class Remarks:
    """Things to tell whoever watches, from any thread; each once. They are kept until somebody listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._kept: list[str] = []
        self._listener: Callable[[str], None] | None = None

    def say(self, about: str, words: str) -> None:
        """Say something.

        Args:
            about: what it is about; a second remark about it is not said.
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
        """Tell the remarks there were, and those to come.

        Args:
            listener: is told sentences.
        """
        with self._lock:
            self._listener, kept, self._kept = listener, self._kept, []
        for words in kept:
            listener(words)


class Arrivals:
    """When the rows of chunks were taken: spread over the time since the chunk before, and never falling.

    Args:
        now: when reading began, in seconds.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._apart: deque[float] = deque(maxlen=9)  # seconds between two rows, of the last chunks

    def reaches(self, now: float) -> bool:
        """Whether a time is not before the last one."""
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
    """Numbers for rows that can't be counted from a beginning: microseconds of the clock, and always rising.

    Args:
        time: in seconds, not falling, [rows].
        last: the number of the row before.

    Returns:
        int64, [rows].

    Example:
        >>> numbered(np.array([0.0, 5e-6, 5e-6]), last=3).tolist()
        [4, 5, 6]
    """
    steps = np.arange(len(time))
    return np.asarray(np.maximum(np.maximum.accumulate((time * 1e6).astype(np.int64) - steps), last + 1) + steps)


class ReadingForm:
    """Blocks of one function, brought to the detector's form.

    Args:
        columns: those that a reading has, in order.
        source: how the source was named in the command.
        remarks: is told what was left out or taken for a missing value.
    """

    def __init__(self, columns: tuple[Column, ...], source: str, remarks: Remarks) -> None:
        self._names = [column.name for column in columns]
        self._source, self._remarks = source, remarks
        self._missing = 0  # rows in succession that lacked a column
        self._own: Arrivals | None = None  # by the function's own column `time`, where it gives one for a whole chunk

    def read(self, block: Any) -> Yielded:
        """What was yielded, checked against the columns.

        Args:
            block: as it was yielded.

        Returns:
            The columns.

        Raises:
            SourceError: it can't be read, or has had not all of the columns for long.
        """
        yielded = read_block(block, self._source)
        missing = [name for name in self._names if name not in yielded.numbers and name not in yielded.text]
        self._missing = self._missing + yielded.rows if missing else 0
        new = [name for name in (*yielded.numbers, *yielded.text) if name not in self._names]
        if missing and self._missing > MISSING:
            raise SourceError(
                f"{self._source} yielded {self._missing:,} rows in succession without the column {missing[0]!r}, which "
                f"the run has had from its first reading on. It yields {', '.join(map(repr, block))}. Yield the same "
                "columns each time, or start a new run in another directory (--dir)."
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
            yielded: what was yielded.
            row: its rows' numbers, [rows].
            time: when they came, in seconds; the function's own column `time` is preferred.

        Returns:
            `row`, `time` and `values`.
        """
        unknown = np.full(yielded.rows, np.nan)
        values = np.stack([yielded.numbers.get(name, unknown) for name in self._names], axis=1)
        own = yielded.time
        if own is not None and np.isfinite(own).all() and (own == own[0]).all():
            # One time for a chunk is when its last row was taken.
            if self._own is None:
                self._own = Arrivals(float(own[0]))
            own = self._own.times(yielded.rows, float(own[0])) if self._own.reaches(float(own[0])) else own
        return {"row": row, "time": (time if own is None else own).astype(np.float64), "values": values}


def in_form(reading: Reading, form: ReadingForm) -> Callable[..., Iterator[Rows]]:
    """A function's readings in the detector's form, as `ub.from_generator` takes them.

    Args:
        reading: the function.
        form: its columns.

    Returns:
        A function that resumes as well as the one in `reading`, and is known to the checkpoint by that one's name.
        Where the function's generator ends, it raises SourceEnded.
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
            # The first block was there before the stream was, if it was looked at.
            now, came = clock.time() if came is None else came[1], None
            time = arrivals.times(yielded.rows, now)
            row = numbered(time, last)
            last, rows = int(row[-1]), rows + yielded.rows
            yield form.rows(yielded, row, time)
        raise ended(rows)

    class Counted:
        """An iterator that can be put back, and the number of the row that it is at."""

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
            # While a block that was looked at is still to come, the iterator is ahead by it.
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
    # What the checkpoint knows the stream by.
    made.__qualname__ = getattr(reading.function, "__qualname__", type(reading.function).__qualname__)
    return made
