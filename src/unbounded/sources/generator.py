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
from typing import Any, Literal, NamedTuple

from unbounded.core import check, user_code
from unbounded.core.block import Block, Boundary
from unbounded.core.identity import identity_of, name_of
from unbounded.core.node import CannotTell, Context, Cursor, EndOfStream, Node, StreamError
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.trees import Tree
from unbounded.sources.iteration import Form, Made, Reading
from unbounded.sources.live import Live, Past
from unbounded.sources.source import Source

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
        check.function(self.fn, f"{self.word}(fn)")
        others = [name for name in check.required(self.fn) if name != "start"]
        if others:
            given = ", ".join(f"{name}=…" for name in others)
            raise TypeError(
                f"{self.word}() calls {self._name}() without arguments, and it requires {', '.join(others)}. Write "
                f"ub.{self.word}(lambda: {self._name}({given}))."
            )
        if self.passes is not None:
            check.positive(self.passes, f"{self.word}(passes=n)")

    @property
    def word(self) -> str:  # type: ignore[override]
        """The word that the user wrote."""
        return "samples" if self.single else "generate"

    @property
    def _name(self) -> str:
        return name_of(self.fn)

    @cached_property
    def grade(self) -> Grade:
        """How exactly the function allows a resume. If it is no generator function, what it returns must be seen."""
        known = self._known_grade()
        if known is not None:
            return known
        # Kept for the first who reads: a second call might open a second connection.
        self.__dict__["_looked_at"] = made = Made(self.fn, self._form(SYSTEM))
        return "state" if made.keeps_state else "live"

    def _known_grade(self) -> Grade | None:
        """The grade, where it can be told without a call."""
        try:
            if "start" in inspect.signature(self.fn).parameters:
                return "start"
        except (TypeError, ValueError):
            pass
        if inspect.isgeneratorfunction(self.fn):
            return "live"
        if inspect.isclass(self.fn):
            return "state" if hasattr(self.fn, "state_dict") and hasattr(self.fn, "load_state_dict") else "live"
        return None

    def _form(self, runtime: Runtime) -> Form:
        return Form(self.word, self._name, self.single, runtime)

    @property
    def guarantee(self) -> Any:
        return "at_most_once" if self.grade == "live" else "exact"

    def identity(self) -> dict[str, Any]:
        # What a source that can't go back has yielded travels with the position: no other values make it again.
        return {"fn": identity_of(self.fn, values=self.grade != "live"), "passes": self.passes}

    def arguments(self) -> dict[str, Any]:
        return {"": self._name, **({} if self.passes is None else {"passes": self.passes})}

    def cursor_at(self, ordinal: int) -> Cursor:
        if self.grade != "start":
            raise CannotTell(
                f"{self.word}({self._name}) can't go to a row without running up to it: give {self._name}() a "
                "parameter `start`, the number of the first row to make"
            )
        if self.passes is not None:
            return super().cursor_at(ordinal)
        return {"row": ordinal, "passed": 0, "in_pass": ordinal, "state": None, "skip": 0}

    def ordinal_of(self, row: int, after: int) -> int:
        if self.passes is not None or row < after:
            return super().ordinal_of(row, after)
        return row

    def open(self, context: Context) -> Node:
        grade = self.grade
        calls = _Calls(self, self._form(context.runtime), self.__dict__.pop("_looked_at", None))
        return _LiveGenerated(calls) if grade == "live" else _Generated(calls)

    def undeclared_end(self, rows: int) -> StreamError:
        """The error for an iterator that ended though nobody had said that it would."""
        return StreamError(
            f"{self._name}() ended after {rows:,} rows, and {self.word}() expects it to go on for ever. If the "
            "end is meant, "
            f"declare it: ub.{self.word}({self._name}, passes=1); if it is to start over, passes=n repeats it n "
            "times; else let it wait for data."
        )


class _Calls:
    """Calls the function, once for each pass; what was made to be looked at is the first of them."""

    def __init__(self, source: Generate, form: Form, looked_at: Made | None) -> None:
        self.source = source
        self.runtime = form.runtime
        self._form = form
        self._looked_at = looked_at

    def reading(self, row: int, **given: Any) -> Reading:
        """Call the function with what is given; its first row has number `row`."""
        made, self._looked_at = self._looked_at, None
        return Reading(made or Made(self.source.fn, self._form, **given), self._form, row)

    def close(self) -> None:
        """Let go of what was looked at and never read."""
        made, self._looked_at = self._looked_at, None
        if made is not None:
            made.close()


class _LiveGenerated(Live):
    """A function that can't go back: read in a thread of its own."""

    def __init__(self, calls: _Calls) -> None:
        super().__init__(lambda past, stop: _read_live(calls, past))
        self._calls = calls

    def close(self) -> None:
        super().close()
        self._calls.close()


def _read_live(calls: _Calls, past: Past) -> Iterator[Block]:
    source = calls.source
    row, passed = past.rows, past.passed
    while source.passes is None or passed < source.passes:
        reading = calls.reading(row)
        try:
            while (block := reading.next()) is not None:
                row += block.count
                yield block  # one without rows, too: the thread looks whether it is to stop
        finally:
            reading.close()
        passed += 1
        if source.passes is None:
            raise source.undeclared_end(row)
        yield Block(None, 0, Boundary("pass"))


class _Place(NamedTuple):
    """Where a function is read: rows from the beginning, passes that ended, and rows in the pass at hand."""

    row: int
    passed: int
    in_pass: int


class _Generated:
    """A function that can be asked for rows from a given one on, or whose iterator can be put back: read
    where it is pulled."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._source = calls.source
        self._runtime = calls.runtime
        self._by_state = self._source.grade == "state"
        self._reading: Reading | None = None
        self._go({"row": 0, "passed": 0, "in_pass": 0, "state": None, "skip": 0})

    def _go(self, cursor: Cursor) -> None:
        self._place = _Place(cursor["row"], cursor["passed"], cursor["in_pass"])
        # A state of the iterator, and how many rows of the pass it had given then.
        self._taken: tuple[Any, int] = (cursor["state"], cursor["in_pass"] - cursor["skip"])
        self._todo = 0  # rows that the reading has to pass over
        self._worked = 0.0  # seconds spent in the iterator since the state was taken
        self._cost = 0.0

    def pull(self, timeout: float | None) -> Block | None:
        place = self._place
        if self._source.passes is not None and place.passed >= self._source.passes:
            raise EndOfStream
        begun = self._runtime.monotonic()
        try:
            reading = self._reading or self._open()
            block = reading.next()
        except BaseException:
            # A generator that raised is dead: the next pull opens it again where this one stood.
            failed, self._reading = self._reading, None
            if failed is not None:
                failed.abandon()
            raise
        self._worked += self._runtime.monotonic() - begun
        if block is None:
            return self._end_of_pass()
        over = min(self._todo, block.count)
        self._todo -= over
        block = block.part(over, block.count)
        if not block.count:
            return None
        self._place = _Place(place.row + block.count, place.passed, place.in_pass + block.count)
        return block

    def _open(self) -> Reading:
        place, (state, given) = self._place, self._taken
        if self._by_state:
            self._todo = place.in_pass - given
            self._reading = reading = self._calls.reading(place.row - self._todo)
            if state is not None:
                user_code.call(reading.made.value.load_state_dict, copy.deepcopy(state))
        else:
            self._todo = 0
            self._reading = reading = self._calls.reading(place.row, start=place.in_pass)
        return reading

    def _end_of_pass(self) -> Block:
        self._close()
        place = self._place
        if self._source.passes is None:
            raise self._source.undeclared_end(place.row)
        self._go({"row": place.row, "passed": place.passed + 1, "in_pass": 0, "state": None, "skip": 0})
        return Block(None, 0, Boundary("pass"))

    def cursor(self) -> Cursor:
        place, reading = self._place, self._reading
        skip = place.in_pass - self._taken[1] if self._by_state else 0
        due = skip and reading is not None and not self._todo and not reading.is_ahead
        if due and self._worked >= _SHARE * self._cost:
            assert reading is not None
            begun = self._runtime.monotonic()
            state = copy.deepcopy(user_code.call(reading.made.value.state_dict))
            self._taken, skip = (state, place.in_pass), 0
            self._cost, self._worked = self._runtime.monotonic() - begun, 0.0
        return {**place._asdict(), "state": self._taken[0] if self._by_state else None, "skip": skip}

    def restore(self, cursor: Cursor) -> None:
        self._close()
        self._go(cursor)

    def release(self, cursor: Cursor) -> None:
        """The function makes the rows again."""

    def close(self) -> None:
        self._close()
        self._calls.close()

    def _close(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def counts(self) -> dict[str, int]:
        return {"fetched": self._place.row}

    def arrivals(self) -> dict[str, Any]:
        return {}

    def recall(self, arrivals: Mapping[str, Any]) -> None:
        """There is none."""
