"""testing: the assertion detects a stream that does not resume; disturbances change no row."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, table
from unbounded.core.block import Block
from unbounded.stages.stage import Stage, Through
from unbounded.testing import Clock, Flaky, assert_resumes, assert_same_rows, shaken

pytestmark = pytest.mark.usefixtures("no_threads_left")


@dataclass(frozen=True)
class Wrong(Stage):
    """A stage of somebody's own, with a fault."""

    fault: str
    word = "wrong"

    def open(self, upstream: Any, context: Any) -> Any:
        return {"counts": _Counts, "blocks": _Blocks, "late": _Late, "writes": _Draws}[self.fault](upstream)


class _Counts(Through):
    """Numbers rows by itself, and forgets to cursor it."""

    row = 0

    def apply(self, block: Any) -> Any:
        self.row += block.count
        return block.with_rows(block.rows + np.arange(self.row - block.count, self.row))


class _Blocks(Through):
    """Looks across the rows of a block."""

    def apply(self, block: Any) -> Any:
        return block.with_rows(block.rows - block.rows.mean())


class _Late(Through):
    """Holds a block back, and cursors itself as if it did not."""

    held: Block | None = None

    def apply(self, block: Any) -> Any:
        out, self.held = self.held, block
        return out


class _Draws(Through):
    """Draws, where it should address."""

    rng = np.random.default_rng(0)

    def apply(self, block: Any) -> Any:
        return block.with_rows(block.rows + self.rng.random(block.count))


@pytest.mark.parametrize("fault", ["counts", "blocks", "late", "writes"])
def test_a_stage_that_does_not_resume_is_noticed(fault: str) -> None:
    stream = ub.from_arrays(np.arange(50.0))._then(Wrong(fault)).batch(4)
    with pytest.raises(AssertionError, match=r"batch|differs"):
        assert_resumes(stream, 8)


def test_a_source_that_does_not_resume_is_noticed() -> None:
    def again(start: int = 0) -> Any:
        for i in itertools.count():
            yield np.array([i])

    with pytest.raises(AssertionError, match=r"after a resume at step \d"):
        assert_resumes(ub.from_generator(again).batch(2), 5)


def test_shaking_stalls_fails_and_cuts_and_changes_no_row() -> None:
    stream = table(60).filter(lambda r: r["id"] % 3 > 0).shuffle(20).batch(5)
    failed, seen = 0, []
    with ub.Feed(shaken(stream, seed=2, fail=0.2)) as feed:
        while len(seen) < 40:
            try:
                for batch in itertools.islice(feed.batches(), 40 - len(seen)):
                    feed.trained()
                    seen.append(batch)
            except Flaky:
                failed += 1
                feed.rewind()
    assert failed > 2
    with ub.Feed(stream) as feed:
        for got, expected in zip(seen, feed.batches(), strict=False):
            assert_same_rows(got, expected)


def test_rows_that_differ_in_a_bit_a_dtype_or_a_leaf_are_not_the_same() -> None:
    rows = {"x": np.array([0.0, np.nan])}
    assert_same_rows(rows, {"x": np.array([0.0, np.nan])})
    for other, words in (
        ({"x": np.array([-0.0, np.nan])}, "differs"),
        ({"x": np.array([0.0, np.nan], np.float32)}, "float64 for float32"),
        ({"y": rows["x"]}, "leaves"),
        ({"x": rows["x"][:1]}, "shape"),
    ):
        with pytest.raises(AssertionError, match=words):
            assert_same_rows(rows, other)


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = Clock(5.0)
    done: list[bool] = []
    event = threading.Event()
    thread = threading.Thread(target=lambda: done.append(clock.wait(event, 60.0)))
    begun = time.monotonic()
    thread.start()
    clock.await_waiting()
    clock.advance(59.0)
    assert not done
    clock.advance(1.0)
    thread.join()
    assert done == [False]
    assert (clock.time(), clock.monotonic()) == (65.0, 65.0)
    assert time.monotonic() - begun < 50.0  # it is 60 by the clock that was moved
    event.set()
    assert clock.wait(event, None)


def test_a_stepped_source_is_dealt_with_in_order() -> None:
    steps = Steps()
    steps.give(np.arange(3))
    with ub.Feed(steps.stream().batch(3)) as feed:
        assert next(feed.batches()).tolist() == [0, 1, 2]
        steps.end()


def _modules(path: Iterable[str], package: str) -> Iterator[str]:
    """The names of the modules of a package; `pkgutil.walk_packages` would import Keras."""
    for module in pkgutil.iter_modules(path, package):
        if module.name not in ("unbounded.keras", "unbounded.detect", "unbounded.cli"):
            yield module.name
            if module.ispkg:
                yield from _modules(importlib.import_module(module.name).__path__, f"{module.name}.")


def test_the_examples_of_the_docs_run_as_they_are_shown() -> None:
    tried = 0
    for name in _modules(ub.__path__, "unbounded."):
        found = doctest.testmod(importlib.import_module(name), verbose=False)
        assert found.failed == 0, name
        tried += found.attempted
    assert tried > 30
