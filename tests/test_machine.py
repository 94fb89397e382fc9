"""machine: readings are due at a fixed rate; those that were missed are a gap, and counted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from unbounded.core.arrival_log import ArrivalLog
from unbounded.core.block import Block
from unbounded.core.node import Context
from unbounded.sources.machine import Machine
from unbounded.sources.reader import Opening
from unbounded.sources.source import SourcePart
from unbounded.testing import Clock

pytest.importorskip("psutil")
pytestmark = pytest.mark.usefixtures("no_threads_left")


def readings(clock: Clock, *, rows: int = 0, last: float | None = None) -> Iterator[Block]:
    """What a reader gives, without the times at which there was nothing."""
    reader = Machine(10.0).open(Opening(rows, last, runtime=clock))
    while True:
        block = reader.read(1.0)
        if block is not None:
            yield block


class Eager(Clock):
    """Whoever waits finds the time gone by at once."""

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self.advance(max(0.0, timeout or 0.0))
        return event.is_set()


def test_readings_are_real_rows_of_this_computer() -> None:
    rows = [b.rows for b in itertools.islice(readings(Eager(1000.0)), 5) if b.count]
    assert len(rows) >= 3
    assert list(rows[0]) == ["time", "cpu", "memory", "load", "disk_read", "disk_write", "net_in", "net_out"]
    assert all(leaf.shape == (1,) for leaf in rows[0].values())
    assert rows[0]["cpu"].dtype == np.float32
    assert 0 < rows[-1]["memory"][0] <= 100


def test_a_reading_that_could_not_be_taken_in_time_is_a_gap() -> None:
    clock = Eager(1000.0)
    blocks = readings(clock)
    for _ in range(3):
        next(blocks)
    clock.advance(0.55)
    found: list[Block] = [next(blocks) for _ in range(4)]
    gaps = [b.boundary.missed for b in found if b.boundary]
    assert sum(gaps) in (4, 5)


def test_the_time_between_two_runs_is_a_gap_of_the_readings_that_fell_due() -> None:
    clock = Eager(1000.0)
    first = next(readings(clock, rows=50, last=990.0))
    assert (first.count, first.boundary.kind, first.boundary.missed) == (0, "gap", 100)


def test_it_is_a_stream_that_ends_its_thread() -> None:
    with ub.Feed(ub.from_machine(rate=200).batch(2)) as feed:
        batch = next(feed.batches())
        assert batch["cpu"].shape == (2,)
    assert ub.from_machine().guarantee == "at_most_once"
    clock = Clock()
    assert SourcePart(Machine(5.0)).open(Context(clock, ArrivalLog(clock))).counts()["fetched"] == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "fast"])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match="expected readings a second"):
        ub.from_machine(rate=rate)
