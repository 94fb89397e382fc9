"""The guard around user functions: where a signal handler may raise, and the state after it has raised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, ids
from unbounded.core import user_code
from unbounded.core.user_code import CatchInterrupt, Interrupted, can_interrupt


@pytest.fixture
def handler() -> Iterator[None]:
    """SIGTERM raises where the contract allows it, and does nothing elsewhere."""

    def handle(number: int, frame: Any) -> None:
        if can_interrupt():
            raise Interrupted

    before = signal.signal(signal.SIGTERM, handle)
    yield
    signal.signal(signal.SIGTERM, before)


def test_only_a_guarded_call_may_be_interrupted(handler: None) -> None:
    signal.raise_signal(signal.SIGTERM)
    ended = True
    with CatchInterrupt():
        user_code.call(signal.raise_signal, signal.SIGTERM)
        ended = False
    assert ended
    assert not can_interrupt()
    with CatchInterrupt():
        assert user_code.call(lambda: (user_code.call(can_interrupt), can_interrupt())) == (True, True)
        assert not can_interrupt()
    user_code.call(signal.raise_signal, signal.SIGTERM)  # nobody would catch it


def test_a_block_within_a_block_leaves_the_outer_one_in_force() -> None:
    with CatchInterrupt():
        with CatchInterrupt():
            pass
        assert user_code.call(can_interrupt)
    assert not user_code.call(can_interrupt)


def test_other_exceptions_pass_through_the_block() -> None:
    with pytest.raises(KeyboardInterrupt), CatchInterrupt():
        raise KeyboardInterrupt
    assert not user_code.call(can_interrupt)


def test_a_function_that_runs_in_another_thread_allows_nothing_in_this_one() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(60)

    thread = threading.Thread(target=user_code.call, args=(wait,))
    thread.start()
    assert begun.wait(60)
    with CatchInterrupt():
        assert not can_interrupt()
    go_on.set()
    thread.join()


class _At:
    """A function of the user's that gets a signal in its n-th call."""

    def __init__(self, number: int) -> None:
        self.calls = 0
        self.number = number

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.number:
            signal.raise_signal(signal.SIGTERM)


def _chains() -> dict[str, Callable[[_At], ub.Stream]]:
    def sure(at: _At, value: Any) -> Any:
        at()
        return value

    def start(at: _At) -> Callable[..., Any]:
        def rows(start: int = 0) -> Iterator[Any]:
            while True:
                at()
                yield np.arange(start, start + 7)
                start += 7

        return rows

    def single(at: _At) -> Callable[..., Any]:
        def rows(start: int = 0) -> Iterator[Any]:
            while True:
                at()
                yield start
                start += 1

        return rows

    class Loud(Counter):
        def __init__(self, at: _At) -> None:
            super().__init__()
            self.at = at

        def __next__(self) -> Any:
            value = super().__next__()
            self.at()  # after it has moved on
            return value

        def state_dict(self) -> dict[str, int]:
            self.at()
            return super().state_dict()

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.at()
            super().load_state_dict(state)

    rows = ub.from_arrays(np.arange(60), shuffle=False)
    return {
        "map": lambda at: rows.shuffle(20).map(lambda r: sure(at, r)).shuffle(9).batch(8),
        "map_rows": lambda at: rows.map_rows(lambda r: sure(at, r)).batch(8),
        "filter": lambda at: rows.shuffle(20).filter(lambda r: sure(at, r % 5 > 0)).shuffle(9).batch(8),
        "random_map": lambda at: rows.random_map(lambda r, rng: sure(at, r), group=9).shuffle(9).batch(8),
        "map after batch": lambda at: rows.shuffle(20).batch(8).map(lambda r: sure(at, r)),
        "random_map after batch": lambda at: rows.batch(8).random_map(lambda r, rng: sure(at, r)),
        "generate": lambda at: ub.from_generator(start(at)).shuffle(9).batch(8),
        "samples": lambda at: ub.from_samples(single(at)).shuffle(9).batch(8),
        "state": lambda at: ub.from_generator(lambda: Loud(at)).shuffle(9).batch(8),
    }


@pytest.mark.parametrize("chain", list(_chains()))
def test_a_signal_in_any_call_of_the_users_functions_loses_no_row_and_doubles_none(chain: str, handler: None) -> None:
    make = _chains()[chain]

    def run(number: int) -> tuple[list[int], int, bool]:
        at, seen, interrupted = _At(number), [], False
        with ub.Feed(make(at)) as feed:
            for _ in range(2):
                ended = False
                with CatchInterrupt():
                    for batch in feed.batches():
                        seen += ids(batch)
                        feed.trained()
                        if feed.steps == 12:
                            break
                    ended = True
                if ended:
                    break
                interrupted = True
        return seen, at.calls, interrupted

    expected, calls, _ = run(0)
    for number in range(1, min(calls, 60) + 1):
        seen, made, interrupted = run(number)
        # How often a state is taken depends on how long it takes: this run may have had fewer calls.
        assert interrupted == (made >= number), f"call {number} of {calls}"
        assert seen == expected, f"call {number} of {calls}"
