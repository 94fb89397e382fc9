"""A feed that is garbage collected ends its threads and closes its sources."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import from_start, wait_until

pytestmark = pytest.mark.usefixtures("no_threads_left")


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("unbounded")]


def endless() -> Iterator[Any]:
    for i in itertools.count():
        yield np.arange(i, i + 4)


CHAINS = {
    "live": lambda: ub.from_generator(endless).batch(4),
    "prefetch": lambda: ub.from_generator(from_start).batch(4).prefetch(2),
    "workers": lambda: ub.from_arrays(np.arange(99)).map(lambda r: r, workers=3).shuffle(9).batch(4).prefetch(2),
    "buffer": lambda: ub.from_generator(endless).buffer(10).buffer(10, overflow="drop_oldest").batch(2).prefetch(2),
}


@pytest.mark.parametrize("left", ["never begun", "in the middle", "interrupted", "failed", "saved"])
@pytest.mark.parametrize("chain", list(CHAINS))
def test_a_feed_that_nobody_holds_ends_its_threads(chain: str, left: str, tmp_path: Path) -> None:
    feed = ub.Feed(CHAINS[chain](), epoch=ub.Epoch(steps=3))
    if left != "never begun":
        batches = feed.batches()
        next(batches)
        feed.trained()
        if left == "interrupted":
            feed.interrupt()
        elif left == "failed":
            with pytest.raises(RuntimeError):
                batches.throw(RuntimeError())  # type: ignore[attr-defined]
        elif left == "saved":
            feed.save(tmp_path)
        del batches
        assert ours()
    gone = weakref.ref(feed)
    del feed
    gc.collect()
    assert gone() is None
    wait_until(lambda: not ours())


def test_a_dropped_feed_closes_what_it_reads() -> None:
    closed = threading.Event()

    def sensor() -> Iterator[Any]:
        try:
            yield from endless()
        finally:
            closed.set()

    feed = ub.Feed(ub.from_generator(sensor).batch(4).prefetch(2))
    assert feed.available()
    del feed
    gc.collect()
    assert closed.wait(60)


def test_a_feed_is_held_by_the_loop_over_it() -> None:
    batches = ub.Feed(ub.from_generator(from_start).batch(4).prefetch(2)).batches()
    gc.collect()
    assert [int(b[0]) for b in itertools.islice(batches, 20)] == list(range(0, 80, 4))
    batches.close()  # type: ignore[attr-defined]
    del batches
    gc.collect()
    wait_until(lambda: not ours())
