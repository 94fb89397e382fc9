"""The readers of user functions: Generated, which can seek by `start` or by a state, and GeneratedOnce, which can't."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from unbounded.core import user_code
from unbounded.core.block import Block, Boundary
from unbounded.core.node import EndOfStream
from unbounded.sources import shared_state
from unbounded.sources.iteration import Form, Iteration, Made, Offer
from unbounded.sources.reader import JSON, Opening
from unbounded.sources.untrusted_states import refuse_unsavable

if TYPE_CHECKING:
    from unbounded.sources.generator import Generator

_SHARE = 20  # states are taken so rarely that taking them is at most 1/20 of the time


class Past(NamedTuple):
    """The argument of a function with a parameter `past`: the number of rows that were read of it so far, over all
    processes of the run, and the arrival time of the last (seconds since 1970; None if there is none)."""

    rows: int
    last: float | None


class Calls:
    """Calls the function, once for each pass. The first call may have been made already, to look at its result."""

    def __init__(self, source: Generator, form: Form, looked_at: Made | None) -> None:
        self.source = source
        self.runtime = form.runtime
        self._form = form
        self._looked_at = looked_at

    def iteration(self, row: int, **given: Any) -> Iteration:
        """Call the function with the arguments `given`; its first row has the number `row`."""
        return Iteration(self._made(**given), self._form, row)

    def put_back(self, row: int, state: Any, **given: Any) -> Iteration:
        """Call the function with the arguments `given`, and put what it returns back to `state`; None leaves it at its
        beginning.

        Raises:
            StreamError: it returned an object that was read before, and can't be begun again.
        """
        made = self._made(**given)
        shared_state.take(made.value, self, state, self.source.returned)
        return Iteration(made, self._form, row, state=state)

    def check_own(self, iteration: Iteration) -> None:
        """Raise StreamError where what is iterated over was returned again since, and moved."""
        shared_state.check_own(iteration.made.value, self, self.source.returned)

    def one_by_one(self, row: int, **given: Any) -> Iteration:
        """The same with one sample for each block: each can be logged before the next one is requested."""
        return Iteration(self._made(**given), self._form, row, stack=1)

    def _made(self, **given: Any) -> Made:
        made, self._looked_at = self._looked_at, None
        return made or Made(self.source.fn, self._form, **given)

    def close(self) -> None:
        """Close the result of a call that was looked at and never read."""
        made, self._looked_at = self._looked_at, None
        if made is not None:
            made.close()


class GeneratedOnce:
    """The reader of a function that can't seek. A read takes as long as the function does."""

    def __init__(self, calls: Calls, opening: Opening) -> None:
        self._calls = calls
        self._source = calls.source
        self._row = opening.rows
        self._passed = opening.passes
        self._begun = opening.rows  # the row with which the pass began, in this process
        self._past = Past(opening.rows, opening.last)
        self._iteration: Iteration | None = None
        self.offer: Offer | None = None
        """Takes each value that the function yields, before the next one is requested; a read returns what it does not
        take."""

    def position(self) -> JSON:
        return None

    def seek(self, position: JSON) -> None:
        """No-op: the function can't seek."""

    def read(self, timeout: float) -> Block | None:
        source = self._source
        if source.passes is not None and self._passed >= source.passes:
            raise EndOfStream
        if self._iteration is None:
            given: dict[str, Any] = {"past": self._past} if source.takes_past else {}
            given |= {"number": self._passed} if source.starts_over else {}
            self._iteration, self._begun = self._calls.one_by_one(self._row, **given), self._row
        block = self._iteration.next(self.offer)
        self._row = self._iteration.row
        if block is not None:
            return block
        self._iteration.close()
        self._iteration = None
        self._passed += 1
        source.check_end(self._row, self._row - self._begun)
        return Block(None, 0, Boundary("pass"))

    def close(self) -> None:
        iteration, self._iteration = self._iteration, None
        if iteration is not None:
            iteration.close()
        self._calls.close()


class _FunctionPosition(NamedTuple):
    """The position of a function: rows from the beginning, ended passes, and rows in the current pass."""

    row: int
    passed: int
    in_pass: int


class Generated:
    """The reader of a function with a parameter `start`, or whose iterator has a state."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._source = calls.source
        self._monotonic: Callable[[], float] = calls.runtime.monotonic
        self._every_state = calls.runtime.every_state
        self._by_state = self._source.grade == "state"
        self._iteration: Iteration | None = None
        self._seen_state = False
        self._go({"row": 0, "passed": 0, "in_pass": 0, "state": None, "skip": 0})

    def _go(self, position: JSON) -> None:
        self._place = _FunctionPosition(position["row"], position["passed"], position["in_pass"])
        # A state of the iterator, and the number of rows of this pass that it had given then.
        self._taken: tuple[Any, int] = (position["state"], position["in_pass"] - position["skip"])
        self._todo = 0  # rows to skip after an iterator was restored
        self._worked = 0.0  # seconds spent in the iterator since the last state was taken
        self._cost = 0.0

    def read(self, timeout: float) -> Block | None:
        place = self._place
        if self._source.passes is not None and place.passed >= self._source.passes:
            raise EndOfStream
        begun = self._monotonic()
        try:
            iteration = self._iteration or self._open()
            if self._by_state:
                self._calls.check_own(iteration)
            block = iteration.next()
        except BaseException:
            # A generator that raised has ended: the next read calls the function again, at this position.
            failed, self._iteration = self._iteration, None
            if failed is not None:
                failed.abandon()
            raise
        self._worked += self._monotonic() - begun
        if block is None:
            return self._end_of_pass()
        over = min(self._todo, block.count)
        self._todo -= over
        block = block.part(over, block.count)
        if not block.count:
            return None
        self._place = _FunctionPosition(place.row + block.count, place.passed, place.in_pass + block.count)
        return block

    def _open(self) -> Iteration:
        place, (state, given) = self._place, self._taken
        if self._by_state:
            self._todo = place.in_pass - given
            of_pass = {"number": place.passed} if self._source.starts_over else {}
            self._iteration = iteration = self._calls.put_back(place.row - self._todo, state, **of_pass)
            self._source.refuse_untrusted(iteration.made)  # what it is made of may be there once it is iterated over
        else:
            self._todo = 0
            self._iteration = iteration = self._calls.iteration(place.row, start=place.in_pass)
        return iteration

    def _end_of_pass(self) -> Block:
        self._close_iteration()
        place = self._place
        self._source.check_end(place.row, place.in_pass)
        self._go({"row": place.row, "passed": place.passed + 1, "in_pass": 0, "state": None, "skip": 0})
        return Block(None, 0, Boundary("pass"))

    def position(self) -> JSON:
        place, iteration = self._place, self._iteration
        skip = place.in_pass - self._taken[1] if self._by_state else 0
        due = skip and iteration is not None and not self._todo and not iteration.is_ahead
        if due and (self._every_state or self._worked >= _SHARE * self._cost):
            assert iteration is not None
            begun = self._monotonic()
            state = copy.deepcopy(user_code.call(iteration.made.value.state_dict))
            if not self._seen_state:
                self._seen_state = True
                refuse_unsavable(state, self._source.returned)
            self._taken, skip = (state, place.in_pass), 0
            self._cost, self._worked = self._monotonic() - begun, 0.0
        return {**place._asdict(), "state": self._taken[0] if self._by_state else None, "skip": skip}

    def seek(self, position: JSON) -> None:
        self._close_iteration()
        self._go(position)

    def close(self) -> None:
        self._close_iteration()
        self._calls.close()

    def _close_iteration(self) -> None:
        iteration, self._iteration = self._iteration, None
        if iteration is not None:
            iteration.close()
