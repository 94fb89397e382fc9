"""Generator: rows that a Python function makes, without an end.

How a stream over a function resumes depends on the function. One with a parameter `start` is called with the row to
start at. One that returns an iterator with `state_dict` and `load_state_dict` is restored by them. The rows of any
other function go to the row log. The readers are in `generated`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from unbounded.core import check
from unbounded.core.identity import identity_of, name_of
from unbounded.core.node import CannotTell, StreamError
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.trees import Tree
from unbounded.sources.generated import Calls, Generated, GeneratedOnce
from unbounded.sources.iteration import Form, Made
from unbounded.sources.reader import JSON, Opening, Reader
from unbounded.sources.untrusted_states import refuse_untrusted

Grade = Literal["start", "state", "live"]
_GIVEN = ("start", "past")  # optional parameters of a function


@dataclass(frozen=True)
class Generator:
    """See `unbounded.from_generator` and `unbounded.from_samples`."""

    fn: Callable[..., Iterator[Tree]]
    passes: int | None = None
    single: bool = False
    ragged: tuple[Any, ...] = ()
    starts_over = False
    """True if the end of what the function returns is the end of a pass, and the next one is begun by its number."""

    def __post_init__(self) -> None:
        if inspect.isgenerator(self.fn) or (hasattr(self.fn, "__next__") and not callable(self.fn)):
            name = getattr(self.fn, "__name__", "sensor")
            if "<" in name:
                raise TypeError(
                    f"{self.word}() was given a generator expression, which is running already and can't be started "
                    f"again. Give a function that makes it: ub.{self.word}(lambda: (… for … in …))."
                )
            raise TypeError(
                f"{self.word}() was given a generator that is already running, and it can't be started again. Give the "
                f"function that makes it: ub.{self.word}({name}), or ub.{self.word}(lambda: {name}(…))."
            )
        if not callable(self.fn) and isinstance(self.fn, Iterable):
            kind = type(self.fn).__name__
            raise TypeError(
                f"{self.word}() takes a function, and was given a {kind} itself. Give a function that makes one each "
                f"time that it is called: ub.{self.word}(lambda: {kind}(…)). Rows that are all there, such as arrays "
                "or a list, go to ub.from_arrays."
            )
        check.function(self.fn, f"{self.word}(fn)")
        others = [name for name in check.required(self.fn) if name not in _GIVEN]
        if others:
            given = ", ".join(f"{name}=…" for name in others)
            raise TypeError(
                f"{self.word}() calls {self._name}() without arguments, and it requires {', '.join(others)}. Write "
                f"ub.{self.word}(lambda: {'fn' if '<' in self._name else self._name}({given}))."
            )
        if {"start", "past"} <= self._parameters:
            raise TypeError(
                f"{self.word}() was given {self._name}(), which has both `start` and `past`. One that can begin at any "
                "row takes `start` alone; one that can't takes `past`: what was read of it before."
            )
        if self.passes is not None:
            check.positive(self.passes, f"{self.word}(passes=n)")

    @property
    def word(self) -> str:
        """The constructor that the user called."""
        return "from_samples" if self.single else "from_generator"

    @property
    def _name(self) -> str:
        return name_of(self.fn)

    @cached_property
    def _parameters(self) -> frozenset[str]:
        try:
            return frozenset(inspect.signature(self.fn).parameters)
        except (TypeError, ValueError):
            return frozenset()

    @cached_property
    def grade(self) -> Grade:
        """How the function can resume: by `start`, by a state, or not. May call it: only a generator function's result
        is known without a call."""
        known = self._known_grade()
        if known is not None:
            return known
        # Kept for the first reader: a second call might open a second connection.
        made = Made(self.fn, self.form(SYSTEM))
        if made.keeps_state:
            self.refuse_untrusted(made)
        self.__dict__["_looked_at"] = made
        return "state" if made.keeps_state else "live"

    def refuse_untrusted(self, made: Made) -> None:
        """Raise TypeError if the state of the returned iterator is known to be incomplete."""
        refuse_untrusted(made.value, self.returned)

    @property
    def returned(self) -> str:
        """The beginning of a message about what the function returned."""
        return f"{self.word}() called {self._name}(), which returned"

    def _known_grade(self) -> Grade | None:
        """The grade, if it is known without a call."""
        if "start" in self._parameters:
            return "start"
        if "past" in self._parameters or inspect.isgeneratorfunction(self.fn):
            return "live"
        if inspect.isclass(self.fn):
            return "state" if hasattr(self.fn, "state_dict") and hasattr(self.fn, "load_state_dict") else "live"
        return None

    def form(self, runtime: Runtime) -> Form:
        """The required form of its rows."""
        return Form(self.word, self._name, self.single, runtime, self.ragged)

    # -- the protocol ------------------------------------------------------------------------------------------------

    @property
    def replayable(self) -> bool:
        """True if the function can give the same rows again."""
        return self.grade != "live"

    @property
    def any_thread(self) -> bool:
        """True if it is read in the thread that pulls (see `inline`): for functions that compute rows, not for those
        that wait for rows."""
        return self.replayable

    @property
    def takes_past(self) -> bool:
        """True if the function has a parameter `past`."""
        return "past" in self._parameters

    def identity(self) -> JSON:
        # Values don't count for a function that can't resume: its rows are in the row log, and never made again.
        return {"fn": identity_of(self.fn, values=self.grade != "live"), "passes": self.passes}

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        return {"": self._name, **({} if self.passes is None else {"passes": self.passes})}

    def open(self, opening: Opening) -> Reader:
        calls = Calls(self, self.form(opening.runtime), self.__dict__.pop("_looked_at", None))
        return Generated(calls) if self.replayable else GeneratedOnce(calls, opening)

    def forget(self) -> None:
        """Close the result of a call that was looked at, and is not read."""
        made = self.__dict__.pop("_looked_at", None)
        if made is not None:
            made.close()

    def position_at(self, row: int) -> JSON:
        """The position before row number `row`."""
        if self.grade != "start":
            raise CannotTell(
                f"{self.word}({self._name}) can't go to a row without running up to it: give {self._name}() a "
                "parameter `start`, the number of the first row to make"
            )
        if self.passes is not None:
            raise CannotTell(f"{self.word}(passes=n) can't go to a row without running up to it")
        return {"row": row, "passed": 0, "in_pass": row, "state": None, "skip": 0}

    def row_after(self, row: int, after: int) -> int:
        """The first ordinal, at least `after`, at which row `row` comes."""
        if self.grade != "start" or self.passes is not None or row < after:
            raise CannotTell(f"{self.word}() does not know its rows beforehand")
        return row

    def check_end(self, rows: int, in_pass: int) -> None:
        """Raise StreamError for an iterator that ended without a declared end, after `rows` rows, or `in_pass` in this
        pass."""
        if self.passes is not None:
            return
        raise StreamError(
            f"{self._name}() ended after {rows:,} rows, and {self.word}() expects it to go on for ever. If the "
            "end is meant, "
            f"declare it: ub.{self.word}({self._name}, passes=1); if it is to start over, passes=n repeats it n "
            "times; else let it wait for data."
        )
