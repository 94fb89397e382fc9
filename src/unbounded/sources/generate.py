"""generate and samples: rows that a Python function makes, for ever.

How exactly a stream over a function resumes is up to the function: one with a parameter named `start` is
asked for the rows from there; one that returns an iterator with `state_dict` and `load_state_dict` is put
back; of any other, the rows that were read and not trained on travel with the checkpoint.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from unbounded import _check, _rows, _user_code
from unbounded._block import Block, Break
from unbounded._clock import Clock
from unbounded._identity import identity_of, name_of
from unbounded._node import CannotTell, Context, EndOfStream, Mark, Node, StreamError
from unbounded._rows import Tree
from unbounded.sources._base import Source
from unbounded.sources.live import Live, Past

_MOST_SAMPLES = 256
_SOON = 0.01  # seconds after which single samples are handed on, few as they may be
_SHARE = 20  # a state is taken at most once in so many times as long as taking it took

Grade = Literal["start", "state", "live"]


@dataclass(frozen=True)
class Generate(Source):
    """See `unbounded.generate` and `unbounded.samples`."""

    fn: Callable[..., Iterator[Tree]]
    passes: int | None = None
    single: bool = False

    def __post_init__(self) -> None:
        if inspect.isgenerator(self.fn) or (hasattr(self.fn, "__next__") and not callable(self.fn)):
            name = getattr(self.fn, "__name__", "sensor")
            raise TypeError(
                f"{self.word}() was given a generator that is already running, and it can't be started again. Give the "
                f"function that makes it: ub.{self.word}({name}), or ub.{self.word}(lambda: {name}(…))."
            )
        _check.function(self.fn, f"{self.word}(fn)")
        others = [name for name in _check.required(self.fn) if name != "start"]
        if others:
            given = ", ".join(f"{name}=…" for name in others)
            raise TypeError(
                f"{self.word}() calls {self._name}() without arguments, and it requires {', '.join(others)}. Write "
                f"ub.{self.word}(lambda: {self._name}({given}))."
            )
        if self.passes is not None:
            _check.positive(self.passes, f"{self.word}(passes=n)")

    @property
    def word(self) -> str:  # type: ignore[override]
        """The word that the user wrote."""
        return "samples" if self.single else "generate"

    @property
    def _name(self) -> str:
        return name_of(self.fn)

    @cached_property
    def grade(self) -> Grade:
        """How exactly the function allows a resume. If it is no generator function, its iterator must be seen."""
        try:
            if "start" in inspect.signature(self.fn).parameters:
                return "start"
        except (TypeError, ValueError):
            pass
        if inspect.isgeneratorfunction(self.fn):
            return "live"
        iterator = self.fn if inspect.isclass(self.fn) else _user_code.call(self.fn)
        return "state" if hasattr(iterator, "state_dict") and hasattr(iterator, "load_state_dict") else "live"

    @property
    def guarantee(self) -> Any:
        return "at_most_once" if self.grade == "live" else "exact"

    def identity(self) -> dict[str, Any]:
        # What a source that can't go back has yielded travels with the position: no other values make it again.
        return {"fn": identity_of(self.fn, values=self.grade != "live"), "passes": self.passes}

    def arguments(self) -> dict[str, Any]:
        return {"": self._name, **({} if self.passes is None else {"passes": self.passes})}

    def mark_at(self, ordinal: int) -> Mark:
        if self.grade != "start":
            raise CannotTell(
                f"{self.word}({self._name}) can't go to a row without running up to it: give {self._name}() a "
                "parameter `start`, the number of the first row to make"
            )
        if self.passes is not None:
            return super().mark_at(ordinal)
        return {"row": ordinal, "passed": 0, "in_pass": ordinal, "state": None, "skip": 0}

    def ordinal_of(self, row: int, after: int) -> int:
        if self.passes is not None or row < after:
            return super().ordinal_of(row, after)
        return row

    def open(self, context: Context) -> Node:
        grade = self.grade
        if grade == "live":
            return Live(lambda past, stop: self._live(context.clock, past))
        return _Generated(self, grade, context.clock)

    def _live(self, clock: Clock, past: Past) -> Iterator[Block]:
        row, passed = past.rows, past.passed
        reader = _Reader(self, clock)
        while self.passes is None or passed < self.passes:
            for block in reader.blocks(_user_code.call(self.fn), row):
                row += block.count
                yield block
            passed += 1
            if self.passes is None:
                raise self.undeclared_end(row)
            yield Block(None, 0, Break("pass"))

    def undeclared_end(self, rows: int) -> StreamError:
        """The error for an iterator that ended though nobody had said that it would."""
        return StreamError(
            f"{self._name}() ended after {rows:,} rows, and {self.word}() expects it to go on for ever. If the "
            "end is meant, "
            f"declare it: ub.{self.word}({self._name}, passes=1); if it is to start over, passes=n repeats it n "
            "times; else let it wait for data."
        )


_ENDED = object()


def _asked(values: Iterator[Tree]) -> Iterator[Tree]:
    """What a user's iterator gives, each asked for under the guard."""
    while (value := _user_code.call(next, values, _ENDED)) is not _ENDED:
        yield value


class _Reader:
    """Turns what a user's iterator yields into blocks: checked, stamped with the time, and single samples
    stacked."""

    def __init__(self, source: Generate, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._spec: Tree = None

    def blocks(self, values: Iterator[Tree], row: int) -> Iterator[Block]:
        """The blocks of an iterator whose first row has number `row`."""
        values = iter(values)
        for rows in self._stacked(values) if self._source.single else _asked(values):
            block = self._block(rows, row)
            if block.count:
                row += block.count
                yield block

    def _block(self, value: Tree, row: int) -> Block:
        what = f"Row {row:,} of {self._source._name}()"
        rows = _rows.map_leaves(np.asarray, value)
        if self._source.single:
            what = f"Sample {row:,} of {self._source._name}()"
        count = _rows.count_checked(rows, what)
        if self._spec is None:
            self._spec = _rows.spec(rows)
        else:
            _rows.check_same(self._spec, rows, what)
        return Block(rows, count, None, np.full(count, self._clock.time()))

    def _stacked(self, values: Iterator[Tree]) -> Iterator[Tree]:
        samples: list[Tree] = []
        asked = self._clock.monotonic()
        failure: Exception | None = None
        while True:
            try:
                value = _user_code.call(next, values, _ENDED)
            except Exception as error:
                failure = error  # the samples before it are rows all the same
                break
            if value is _ENDED:
                break
            sample = _rows.map_leaves(lambda leaf: np.asarray(leaf)[None], value)
            if samples and _rows.spec(sample) != _rows.spec(samples[0]):
                yield _rows.join(samples)
                samples = []
            samples.append(sample)
            # A sample that was long in coming is handed on at once: the next may be as long.
            if len(samples) == _MOST_SAMPLES or self._clock.monotonic() - asked >= _SOON:
                yield _rows.join(samples)
                samples = []
                asked = self._clock.monotonic()
        if samples:
            yield _rows.join(samples)
        if failure is not None:
            raise failure


class _Generated:
    """A function that can be asked for rows from a given one on, or whose iterator can be put back: read
    where it is pulled."""

    def __init__(self, source: Generate, grade: Grade, clock: Clock) -> None:
        self._source = source
        self._grade = grade
        self._clock = clock
        self._reader = _Reader(source, clock)
        self._go({"row": 0, "passed": 0, "in_pass": 0, "state": None, "skip": 0})

    def _go(self, mark: Mark) -> None:
        self._row: int = mark["row"]
        self._passed: int = mark["passed"]
        self._in_pass: int = mark["in_pass"]  # of the pass's rows, those pulled
        self._state: Any = mark["state"]  # of the iterator, as it was when all but the last `skip` rows had been pulled
        self._skip: int = mark["skip"]
        self._todo = self._skip  # rows to be read over
        self._iterator: Any = None
        self._blocks: Iterator[Block] | None = None
        self._worked = 0.0  # seconds spent in the iterator since the state was taken
        self._cost = 0.0

    def pull(self, timeout: float | None) -> Block | None:
        if self._source.passes is not None and self._passed >= self._source.passes:
            raise EndOfStream
        while True:
            if self._blocks is None:
                self._open()
            assert self._blocks is not None
            begun = self._clock.monotonic()
            try:
                block = next(self._blocks, None)
            except BaseException:
                # The generator is dead: the next pull opens it again where this one stood.
                self._go(self._here())
                raise
            self._worked += self._clock.monotonic() - begun
            if block is None:
                return self._end_of_pass()
            over = min(self._todo, block.count)
            self._todo -= over
            block = block.part(over, block.count)
            if block.count:
                self._row += block.count
                self._in_pass += block.count
                self._skip += block.count
                return block

    def _open(self) -> None:
        if self._grade == "start":
            self._iterator = _user_code.call(self._source.fn, start=self._in_pass)
            self._todo = 0
        else:
            self._iterator = _user_code.call(self._source.fn)
            if self._state is not None:
                _user_code.call(self._iterator.load_state_dict, copy.deepcopy(self._state))
        self._blocks = self._reader.blocks(self._iterator, self._row - self._todo)

    def _end_of_pass(self) -> Block:
        if self._source.passes is None:
            self._go(self._here())
            raise self._source.undeclared_end(self._row)
        self._go({"row": self._row, "passed": self._passed + 1, "in_pass": 0, "state": None, "skip": 0})
        return Block(None, 0, Break("pass"))

    def _here(self) -> Mark:
        place = {"row": self._row, "passed": self._passed, "in_pass": self._in_pass}
        return {**place, "state": self._state, "skip": self._skip if self._grade == "state" else 0}

    def mark(self) -> Mark:
        due = self._grade == "state" and self._iterator is not None and self._skip and not self._todo
        if due and self._worked >= _SHARE * self._cost:
            begun = self._clock.monotonic()
            self._state = copy.deepcopy(_user_code.call(self._iterator.state_dict))
            self._cost = self._clock.monotonic() - begun
            self._skip, self._worked = 0, 0.0
        return self._here()

    def restore(self, mark: Mark) -> None:
        self._close()
        self._go(mark)

    def release(self, mark: Mark) -> None:
        """The function makes the rows again."""

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def counts(self) -> dict[str, int]:
        return {"fetched": self._row}

    def journal(self) -> dict[str, Any]:
        return {}

    def recall(self, journal: Mapping[str, Any]) -> None:
        """There is none."""
