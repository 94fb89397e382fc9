"""Sources and small runs that several of the core's tests use."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from unbounded.core import trees
from unbounded.core.block import Block, Run
from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.node import EndOfStream
from unbounded.store.checkpoints import Checkpoints


def installed(*packages: str) -> pytest.MarkDecorator:
    """Skips tests without these packages, and does not import them: each worker collects all tests, and a framework
    takes seconds."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def short_start(cache: Path) -> dict[str, str]:
    """The environment of a process that trains with Keras on JAX, as after `pip install unbounded[demo]`: Keras imports
    TensorFlow where it finds it, which takes longer than all that the process is to do. What one process has compiled,
    the others with this cache find."""
    hidden = str(Path(__file__).parent / "no_tensorflow")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [hidden, os.environ.get("PYTHONPATH", "")])),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@contextlib.contextmanager
def compiled_once(cache: Path) -> Iterator[None]:
    """What Keras on JAX has compiled for one model is found for the next of its form; elsewhere nothing changes."""
    import keras

    if keras.backend.backend() != "jax":
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    options = {
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    # JAX asks once whether it has a cache.
    for values in (options, before):
        compilation_cache.reset_cache()
        for name, value in values.items():
            jax.config.update(name, value)
        if values is options:
            yield


def table(n: int = 100, **given: Any) -> ub.Stream:
    """n rows with an id, a key and a float."""
    ids = np.arange(n)
    return ub.from_arrays({"id": ids, "k": ids % 3, "x": np.sin(ids) * 5 + ids / 10}, **given)


def ids(batch: Any) -> list[int]:
    """The ids in a batch of `table`, or in a batch that is an array."""
    return (batch["id"] if isinstance(batch, dict) else batch).tolist()


def first(stream: ub.Stream, steps: int, **given: Any) -> list[Any]:
    """The first batches of a stream; fewer where it ends."""
    with ub.Feed(stream, **{"on_nan": "pass", **given}) as feed:
        return list(itertools.islice(feed.batches(), steps))


def train_all(feed: ub.Feed, seen: list[int] | None = None) -> None:
    """Train on all that comes, to the end or to an error, and note the ids in `seen`."""
    for batch in feed.batches():
        if seen is not None:
            seen += ids(batch)
        feed.trained()


def first_ids(stream: ub.Stream, steps: int) -> list[int]:
    """The ids in the first batches, one after the other."""
    return [i for batch in first(stream, steps) for i in ids(batch)]


def blocks(stream: ub.Stream, rows: int | None = None) -> Iterator[Block | Run]:
    """What a stream's last node gives, breaks and all; up to `rows` rows or batches."""
    opened = stream.open()
    seen = 0
    try:
        while rows is None or seen < rows:
            try:
                block = opened.top.pull(None)
            except EndOfStream:
                return
            if block is not None:
                seen += block.count
                yield block
    finally:
        opened.top.close()


def segments(stream: ub.Stream, rows: int | None = None) -> list[Any]:
    """The rows between breaks, the blocks between two of them joined, an unfinished last one left out."""
    done, parts = [], []
    for block in blocks(stream, rows):
        if block.count:
            parts.append(block.rows)
        if block.boundary:
            done.append(trees.join(parts) if parts else None)
            parts = []
    return done


class Steps:
    """A source that a test steps: a plain generator function that yields what `give` was given."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._more = threading.Condition()
        self.taken = 0
        self.done = False

    def give(self, *items: Any) -> None:
        """Let the generator yield these; an exception is raised there."""
        with self._more:
            self._items += items
            self._more.notify_all()

    def end(self) -> None:
        """Let the generator end."""
        with self._more:
            self.done = True
            self._more.notify_all()

    def await_taken(self, items: int) -> None:
        """Until so many were asked beyond, so that all of them were dealt with."""
        with self._more:
            assert self._more.wait_for(lambda: self.taken >= items, 60), f"{self.taken} of {items} were taken"

    def stream(self, **given: Any) -> ub.Stream:
        """The stream of it: one that can't go back."""

        def sensor() -> Iterator[Any]:
            number = 0
            while True:
                with self._more:
                    self.taken = number
                    self._more.notify_all()
                    self._more.wait_for(lambda wanted=number: len(self._items) > wanted or self.done)
                    if len(self._items) <= number:
                        return
                    item = self._items[number]
                number += 1
                if isinstance(item, BaseException):
                    raise item
                yield item

        return ub.from_generator(sensor, **given)


def over_restarts(
    stream: ub.Stream, cuts: list[int], *, pulls: int = 3, at_end: Callable[[Any], object] = lambda top: None
) -> Iterator[Any]:
    """The blocks of a stream that ends, where after each few pulls another run goes on: from the cursor as plain data,
    and with blocks of another length. `at_end` is given the last node of the last run."""
    cursor: Any = None
    for turn in itertools.count():
        top: Any = stream.open(block_rows=cuts[turn % len(cuts)]).top
        if cursor is not None:
            top.restore(from_plain(json.loads(json.dumps(to_plain(cursor)))))
        try:
            for _ in range(pulls):
                block = top.pull(None)
                if block is not None:
                    yield block
            cursor = top.cursor()
        except EndOfStream:
            at_end(top)
            return
        finally:
            top.close()


class CountingReader:
    """Reads a source that can seek: the numbers from `at` on, so many at once."""

    def __init__(self, at: int, rows: int = 1) -> None:
        self.at, self.rows = at, rows

    def position(self) -> Any:
        return self.at

    def seek(self, position: Any) -> None:
        self.at = position

    def read(self, timeout: float) -> Any:
        self.at += self.rows
        return np.arange(self.at - self.rows, self.at)

    def close(self) -> None:
        pass


def log_of(feed: ub.Feed) -> Any:
    """The log of the feed's only source."""
    return feed.opened.sources[0].log


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until something that another thread brings about is so; fails after a generous while."""
    poll = threading.Event()
    for _ in range(int(seconds / 0.002)):
        if true():
            return
        poll.wait(0.002)
    raise AssertionError("it did not come about")


def train(feed: ub.Feed, steps: int) -> list[list[int]]:
    """Train on so many batches, each confirmed; the rows of each."""
    seen = []
    for batch in itertools.islice(feed.batches(), steps):
        feed.trained()
        seen.append(ids(batch))
    return seen


class Counter:
    """An iterator that can be put back: rows 0, 1, 2, … `rows` at a time."""

    rows = 3

    def __init__(self) -> None:
        self.i = 0

    def __iter__(self) -> Counter:
        return self

    def __next__(self) -> Any:
        self.i += self.rows
        return np.arange(self.i - self.rows, self.i)

    def state_dict(self) -> dict[str, int]:
        return {"i": self.i}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.i = state["i"]


def from_start(start: int = 0) -> Iterator[Any]:
    """Rows 0, 1, 2, … in blocks of changing length, from any row on."""
    while True:
        n = start % 5 + 1
        yield np.arange(start, start + n)
        start += n


def once() -> Iterator[Any]:
    """Rows 0, 1, 2, … of a generator that can't go back."""
    i = 0
    while True:
        yield np.arange(i, i + 3)
        i += 3


class WriteGate:
    """Makes the writing of checkpoints wait until `open` is set, and fail once with `failure`; see the fixture
    `write_gate`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.threads: list[str] = []
        write = Checkpoints.write

        def gated(checkpoints: Checkpoints, *args: Any, **given: Any) -> Path | str:
            self.threads.append(threading.current_thread().name)
            self.reached.set()
            assert self.open.wait(20)
            failure, self.failure = self.failure, None
            if failure is not None:
                raise failure
            return write(checkpoints, *args, **given)

        monkeypatch.setattr(Checkpoints, "write", gated)
