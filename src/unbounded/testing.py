"""Tools for testing streams: assertions that they resume exactly and keep the source protocol, a clock that tests move,
a simulated machine, and streams that stall, fail and cut their blocks elsewhere on purpose.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from unbounded.core import ragged, trees
from unbounded.core.block import Block, Run
from unbounded.core.cursor import compose
from unbounded.core.node import Cursor, Node, Over
from unbounded.core.runtime import SYSTEM, Event, Runtime
from unbounded.core.trees import Tree
from unbounded.feed.feed import Feed
from unbounded.opened import Opened
from unbounded.simulation.simulated_files import Faults
from unbounded.simulation.simulation import Simulation
from unbounded.sources.assert_reads import assert_reads
from unbounded.stream import Stream

__all__ = ["Clock", "Faults", "Flaky", "Simulation", "assert_reads", "assert_resumes", "assert_same_rows", "shaken"]


class Clock(Runtime):
    """A clock that stands still until the test moves it.

    >>> clock = Clock(100.0)
    >>> clock.advance(2.5)
    >>> clock.time()
    102.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._moved = threading.Condition()
        self._waiting = 0

    def time(self) -> float:
        """The clock's seconds, as seconds since 1970."""
        return self._now

    def monotonic(self) -> float:
        """The clock's seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock; threads that wait until a time that has come continue."""
        with self._moved:
            self._now += seconds
            self._moved.notify_all()

    def wait(self, event: Event, timeout: float | None) -> bool:
        """Wait until the event is set, or the test has moved the clock by `timeout` seconds."""
        with self._moved:
            until = None if timeout is None else self._now + timeout
            self._waiting += 1
            self._moved.notify_all()
            # An event can't tell the clock when it is set: check it from time to time, in real time.
            while not event.is_set() and (until is None or self._now < until):
                self._moved.wait(0.02)
            self._waiting -= 1
        return event.is_set()

    def await_waiting(self, threads: int = 1, timeout: float = 60.0) -> None:
        """Wait until `threads` threads wait for the clock: all their other work is done then."""
        with self._moved:
            if not self._moved.wait_for(lambda: self._waiting >= threads, timeout):
                raise AssertionError(
                    f"{self._waiting} threads wait for the clock after {timeout} s. Expected {threads}."
                )


class _EveryState(Runtime):
    """A runtime that has an iterator's state taken at every position: rare ones could hide that they are incomplete."""

    every_state = True


class Flaky(RuntimeError):
    """The error that a shaken stream raises on purpose.

    >>> import numpy as np, unbounded as ub
    >>> stream = ub.testing.shaken(ub.from_arrays(np.arange(9)).batch(3), fail=1.0)
    >>> try:
    ...     stream.peek()
    ... except ub.testing.Flaky:
    ...     print("the next pull goes on where this one stood")
    the next pull goes on where this one stood
    """


class _Shaker(Over):
    """A node between two others that cuts blocks elsewhere, returns None, and raises, at random."""

    def __init__(self, upstream: Node, rng: np.random.Generator, stall: float, fail: float, cut: bool) -> None:
        super().__init__(upstream)
        self._rng = rng
        self._stall = stall
        self._fail = fail
        self._cut = cut
        self._pending: Block | Run | None = None
        self._base: Cursor = upstream.cursor()  # before the block of which `_given` rows were returned
        self._given = 0
        self._skip = 0

    def pull(self, timeout: float | None) -> Block | Run | None:
        chance = self._rng.random()
        if chance < self._stall:
            return None
        if chance < self._stall + self._fail:
            raise Flaky("a failure on purpose")
        while self._pending is None:
            before = self._upstream.cursor()
            block = self._upstream.pull(timeout)
            if block is None:
                return None
            # The rows to skip may be in more blocks than when the cursor was taken.
            over, skip = min(self._skip, block.count), self._skip
            if over == block.count and over and not block.boundary:
                self._skip -= over
                continue
            self._base, self._given, self._skip = before, skip, 0
            self._pending = block.part(over, block.count)
        pending = self._pending
        most = int(self._rng.integers(1, max(2, min(pending.count, 40) + 1))) if self._cut else pending.count
        out = pending.part(0, most)
        if out.count < pending.count:
            self._pending = pending.part(out.count, pending.count)
            self._given += out.count
        else:
            self._pending = None
        return out

    def cursor(self) -> Cursor:
        return compose([self._upstream.cursor() if self._pending is None else self._base], self.own())

    def own(self) -> Mapping[str, Any]:
        return {"skip": self._skip if self._pending is None else self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._pending = None
        self._skip = own["skip"]


class _Shaken(Stream):
    """A stream with a shaker after each node."""

    def __init__(self, stream: Stream, seed: int, stall: float, fail: float, cut: bool = True) -> None:
        super().__init__(stream.head, stream.stages)
        self._shaking = (seed, stall, fail, cut)

    def open(
        self, runtime: Runtime = SYSTEM, *, block_rows: int | None = None, wrap: Callable[[Node], Node] | None = None
    ) -> Opened:
        seed, stall, fail, cut = self._shaking
        rng = np.random.default_rng(seed)

        def shake(node: Node) -> Node:
            # A generator for each: nodes may be pulled from several threads.
            return _Shaker(node, np.random.default_rng(rng.integers(2**63)), stall, fail, cut)

        return super().open(runtime, block_rows=int(rng.integers(1, 60)) if cut else None, wrap=shake)


def shaken(stream: Stream, *, seed: int = 0, stall: float = 0.1, fail: float = 0.05) -> Stream:
    """The same rows with disturbances: between any two stages, blocks are cut elsewhere, pulls return None or raise.

    Args:
        stream: any stream.
        seed: of the disturbances.
        stall: the share of pulls that return None.
        fail: the share of pulls that raise `Flaky`; the next pull continues at the same row.

    >>> import numpy as np, unbounded as ub
    >>> stream = ub.testing.shaken(ub.from_arrays(np.arange(9), shuffle=False).batch(3), stall=0.2, fail=0.0)
    >>> stream.peek()
    array([0, 1, 2])
    """
    return _Shaken(stream, seed, stall, fail)


def assert_same_rows(got: Tree, expected: Tree, what: str = "the rows") -> None:
    """Assert that two trees of arrays are equal: structure, dtypes, shapes and every bit (NaN equals NaN).

    >>> import numpy as np
    >>> assert_same_rows({"x": np.array([1.0, np.nan])}, {"x": np.array([1.0, np.nan])})
    """
    ours, theirs = dict(trees.leaves(got)), dict(trees.leaves(expected))
    assert list(ours) == list(theirs), f"{what}: leaves {list(ours)} for {list(theirs)}"
    for path, leaf in theirs.items():
        mine = ours[path]
        if mine.dtype.kind == leaf.dtype.kind and leaf.dtype.kind in "US":
            # A string dtype is as wide as the longest string in its block, and block edges have no meaning.
            mine = mine.astype(leaf.dtype) if mine.dtype.itemsize < leaf.dtype.itemsize else mine
            leaf = leaf.astype(mine.dtype)
        assert mine.dtype == leaf.dtype, f"{what}: {trees.name(path)} is {mine.dtype} for {leaf.dtype}"
        assert mine.shape == leaf.shape, f"{what}: {trees.name(path)} has shape {mine.shape} for {leaf.shape}"
        if ragged.is_ragged(leaf) and ragged.is_ragged(mine):
            same = b"".join(ragged.encoded(mine)) == b"".join(ragged.encoded(leaf))
        else:
            same = mine.tobytes() == leaf.tobytes()
        assert same, f"{what}: {trees.name(path)} differs:\n{mine!r}\nexpected:\n{leaf!r}"


def assert_resumes(stream: Stream, steps: int = 20, *, seed: int = 0, ahead: int = 6) -> None:
    """Assert that a stream resumes exactly from each of its first `steps` batches.

    The stream runs once undisturbed. It runs again `shaken`, and its position is taken after each batch. From each
    position, converted to JSON and back, a new run with other disturbances must give the batches that followed. A
    source that can't seek is restored within the one run that reads it.

    Args:
        stream: the stream to test. It must have at least one batch.
        steps: the number of batches to resume from; fewer if the stream ends before.
        seed: of the disturbances.
        ahead: the number of batches to compare after each position; the run resumes a second time after the first of
            them.

    Raises:
        AssertionError: the message names the step after which other batches came.

    >>> import numpy as np, unbounded as ub
    >>> assert_resumes(ub.from_arrays(np.arange(50)).shuffle(20).batch(8), steps=10)
    """
    live = _is_live(stream)
    with Feed(stream, on_nan="pass", runtime=_EveryState()) as feed:
        feed.releases.hold()
        expected, states = _run(feed, steps + ahead)
        if live:
            for step in range(min(steps, len(expected))):
                feed.load_state_dict(_through_json(states[step]))
                again = list(_train(feed, min(ahead, len(expected) - step)))
                _compare(again, expected[step : step + ahead], f"batch {step} after it was put back")
            return
    assert expected, "The stream gave no batch at all."
    # Without `batch`, a source's own blocks are the batches: cut elsewhere, they would be other batches.
    cut = stream.batch_size is not None

    def shake(seed: int) -> Stream:
        return _Shaken(stream, seed, 0.1, 0.05, cut)

    calm, states = _collect(_Shaken(stream, 0, 0.0, 0.0, cut=False), steps + ahead)
    _compare(calm, expected, "a batch of a second run")
    shaky, positions = _collect(shake(seed), steps + ahead)
    _compare(shaky, expected, "a batch of the shaken stream")
    for step in range(min(steps, len(expected)) + 1):
        many = min(ahead, len(expected) - step)
        for origin, state in (("", states[step]), (" of the shaken run", positions[step])):
            with Feed(shake(seed + 1 + step), on_nan="pass") as feed:
                feed.load_state_dict(_through_json(state))
                first, later = _run(feed, min(1, many))
                with Feed(shake(seed + 2 + step), on_nan="pass") as twice:
                    twice.load_state_dict(_through_json(later[-1]))
                    rest = list(_train(twice, many - len(first)))
            _compare(first + rest, expected[step : step + many], f"a batch after a resume at step {step}{origin}")


def _is_live(stream: Stream) -> bool:
    opened = stream.open()
    try:
        return any(True for _ in opened.logged())
    finally:
        opened.top.close()


def _collect(stream: Stream, steps: int) -> tuple[list[Tree], list[dict[str, Any]]]:
    with Feed(stream, on_nan="pass", runtime=_EveryState()) as feed:
        return _run(feed, steps)


def _run(feed: Feed, steps: int) -> tuple[list[Tree], list[dict[str, Any]]]:
    """Some batches, and the positions before each and after the last."""
    states = [feed.state_dict()]
    seen: list[Tree] = []
    for batch in _train(feed, steps):
        seen.append(batch)
        states.append(feed.state_dict())
    return seen, states


def _train(feed: Feed, steps: int) -> Iterator[Tree]:
    """Copies of some batches, each trained on; failures on purpose are retried."""
    left = steps
    while left:
        try:
            for batch in feed.batches():
                feed.trained()
                left -= 1
                yield trees.map_leaves(np.copy, batch)
                if not left:
                    return
            return
        except Flaky:
            feed.rewind()


def _through_json(state: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(state))
    return loaded


def _compare(got: list[Tree], expected: list[Tree], what: str) -> None:
    assert len(got) == len(expected), f"{what}: {len(got)} batches for {len(expected)}"
    for i, batch in enumerate(got):
        assert_same_rows(batch, expected[i], f"{what} (+{i})")
