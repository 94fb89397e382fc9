"""A signal at every line of the package that a step executes: the next loop loses and doubles no row.

Most lines are executed by several chains. Here one of them is interrupted when it executes a line first, and another
when it does so last; with EVERY_LINE set, as by `make chaos`, each chain is at both.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, ids
from lines import Line, Lines, places

pytestmark = [
    pytest.mark.usefixtures("no_threads_left"),
    # A signal in the very last lines leaves nothing to train.
    pytest.mark.filterwarnings("ignore::unbounded.RunFinished"),
]

STEPS = 9
EVERY_LINE = bool(os.environ.get("EVERY_LINE"))


def once(rows: int = 8) -> Iterator[Any]:
    i = 0
    while True:
        yield np.arange(i, i + rows)
        i += rows


def from_start(start: int = 0) -> Iterator[Any]:
    while True:
        yield np.arange(start, start + 16)
        start += 16


class Sixteen(Counter):
    rows = 16


def _counted(start: int = 0) -> Iterator[int]:
    return iter(range(start, 40))


def _with_float(r: Any) -> Any:
    return {"id": r, "x": r.astype(float)}


def _kept(r: Any) -> Any:
    return r % 7 != 3


CHAINS: dict[str, Callable[[], ub.Stream]] = {
    "arrays": lambda: ub.from_arrays(np.arange(30), seed=1).shuffle(10).batch(4),
    "start": lambda: (
        ub.from_generator(from_start)
        .map(lambda r: r)
        .filter(_kept)
        .random_map(lambda r, rng: r, group=5)
        .shuffle(7)
        .batch(4)
    ),
    "state": lambda: ub.from_generator(Sixteen).map(_with_float).normalize("x").take(40).batch(4).map(lambda r: r),
    "samples": lambda: ub.from_samples(_counted, passes=2).batch(4).random_map(lambda r, rng: r),
    "windows": lambda: ub.from_arrays(np.arange(30), shuffle=False).windows(3, stride=2).replay(12, reuse=2).batch(4),
    "keys": lambda: (
        ub.from_arrays({"id": np.arange(60), "k": np.arange(60) % 4}, shuffle=False).windows(2, by="k").batch(4)
    ),
    "ahead": lambda: ub.from_arrays(np.arange(30), seed=1).map(lambda r: r, workers=2).shuffle(9).batch(4).prefetch(2),
    "buffer": lambda: ub.from_generator(from_start).buffer(8).batch(4),
    "live": lambda: ub.from_generator(once).shuffle(10).batch(4),
    "live ahead": lambda: ub.from_generator(once).batch(4).prefetch(1),
}

BY_SIGTERM = ["arrays", "ahead"]


def train(feed: ub.Feed, seen: list[Any]) -> None:
    """A core loop over epochs, as in the README."""
    for epoch in feed.epochs(STEPS // 3):
        for batch in epoch:
            seen.append(np.asarray(ids(batch)).ravel().tolist())


def attempt(make: Callable[[], ub.Stream], lines: Lines) -> tuple[list[Any], int]:
    """Train, with a signal at a line; and where that ended the loop, train on."""
    seen: list[Any] = []
    with ub.Feed(make(), epoch=ub.Epoch(steps=3)) as feed:
        try:
            with lines:
                train(feed, seen)
        except (KeyboardInterrupt, SystemExit):
            train(feed, seen)
        return seen, feed.stats.in_doubt


@pytest.fixture
def swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python ignores what is raised while it lets go of a generator; the loop then simply goes on."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)


def without_doubtful(seen: list[Any], doubtful: int) -> list[Any]:
    """What was trained, without the repetition of a batch that is counted as in doubt."""
    out: list[Any] = []
    for batch in seen:
        if doubtful and out and batch == out[-1]:
            doubtful -= 1
            continue
        out.append(batch)
    return out


@functools.cache
def executed(chain: str) -> dict[Line, int]:
    """How often a chain's loop executes each line."""
    every = Lines()
    seen, doubtful = attempt(CHAINS[chain], every)
    assert len(seen) == STEPS
    assert doubtful == 0
    return every.times


def chosen(chain: str, chains: list[str], most: int) -> list[tuple[Line, int]]:
    """Where a chain is interrupted, so that some of these chains is at the first and at the last time of each line."""
    found = places(executed(chain), most)
    return found if EVERY_LINE else [at for at in found if chain == _whose(at, chains)]


def _whose(at: tuple[Line, int], chains: list[str]) -> str:
    line, time = at
    last = time > 0
    able = [chain for chain in chains if executed(chain).get(line, 0) > last]
    return able[(zlib.crc32(f"{os.path.basename(line[0])} {line[1]}".encode()) + last) % len(able)]


def check(chain: str, number: int, at: list[tuple[Line, int]]) -> None:
    """Send a signal at these places of a chain's loop, and see what was trained."""
    make = CHAINS[chain]
    expected, _ = attempt(make, Lines())
    assert len(at) > 30
    for place in at:
        seen, doubtful = attempt(make, Lines(lambda: signal.raise_signal(number), place))
        where = f"{place}: {doubtful} in doubt"
        assert doubtful <= 1, where
        assert without_doubtful(seen, doubtful) == expected, where


@pytest.mark.slow
@pytest.mark.parametrize("chain", list(CHAINS))
def test_sigint_at_any_line_loses_no_row_and_doubles_none(chain: str, swallowed: None) -> None:
    check(chain, signal.SIGINT, chosen(chain, list(CHAINS), most=2))


@pytest.mark.slow
@pytest.mark.parametrize("chain", BY_SIGTERM)
def test_nor_does_sigterm_where_its_handler_raises(chain: str, swallowed: None) -> None:
    def leave(number: int, frame: Any) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGTERM, leave)
    try:
        check(chain, signal.SIGTERM, chosen(chain, BY_SIGTERM, most=1))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_position_that_is_asked_for_after_an_interrupt_is_the_one_to_go_on_from() -> None:
    # Without a pull in between: nothing is put back yet, and the nodes stand anywhere.
    make = CHAINS["start"]
    every = Lines()
    expected, _ = attempt(make, every)
    held = {line: n for line, n in every.times.items() if line[0].endswith(("shuffle.py", "generate.py", "batch.py"))}
    assert len(held) > 50
    for at in places(held, 1):
        seen: list[Any] = []
        with ub.Feed(make(), epoch=ub.Epoch(steps=3)) as feed:
            try:
                with Lines(lambda: signal.raise_signal(signal.SIGINT), at):
                    train(feed, seen)
            except KeyboardInterrupt:
                pass
            state = feed.state_dict()
        with ub.Feed(make(), epoch=ub.Epoch(steps=3)) as feed:
            feed.load_state_dict(state)
            train(feed, seen)
        assert without_doubtful(seen, 1) == expected, at
