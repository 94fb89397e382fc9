"""Prefetcher: a queue filled by threads, whose cursor is that of the last block returned."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from helpers import wait_until
from unbounded.core.block import Block
from unbounded.core.node import EndOfStream
from unbounded.core.prefetcher import Prefetcher
from unbounded.core.runtime import SYSTEM
from unbounded.stages.map import Workers
from unbounded.stages.prefetch import Ahead

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Numbers:
    """Blocks of one row; some pulls fail once, or end the stream."""

    def __init__(self, *, fail: tuple[int, ...] = (), end: int | None = None) -> None:
        self.at = 0
        self.fail = set(fail)
        self.end = end
        self.pulls = 0
        self.released: list[Any] = []
        self.closed = False

    def pull(self, timeout: float | None) -> Any:
        self.pulls += 1
        if self.at in self.fail:
            self.fail.remove(self.at)
            raise OSError(f"at {self.at}")
        if self.at == self.end:
            raise EndOfStream
        self.at += 1
        return Block(np.array([self.at - 1]), 1)

    def cursor(self) -> Any:
        return {"at": self.at}

    def restore(self, cursor: Any) -> None:
        self.at = cursor["at"]

    def release(self, cursor: Any) -> None:
        self.released.append(cursor["at"])

    def close(self) -> None:
        self.closed = True

    def counts(self) -> dict[str, int]:
        return {"fetched": self.at}


def take(pump: Prefetcher, n: int) -> list[int]:
    out: list[int] = []
    while len(out) < n:
        block: Any = pump.pull(1.0)
        if block is not None:
            out += block.rows.tolist()
    return out


@pytest.mark.parametrize("threads", [1, 4])
def test_the_cursor_is_that_of_the_last_block_handed_on(threads: int) -> None:
    source = Numbers()
    pump = Prefetcher(source, SYSTEM, threads=threads)  # type: ignore[arg-type]
    for i in range(50):
        assert pump.cursor() == {"at": i}
        assert take(pump, 1) == [i]
    wait_until(lambda: source.at >= 51)
    pump.close()
    assert pump.cursor() == {"at": 50}


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_the_upstream_comes_after_the_blocks_before_it_and_the_next_pull_goes_on(threads: int) -> None:
    pump = Prefetcher(Numbers(fail=(3,)), SYSTEM, threads=threads)  # type: ignore[arg-type]
    assert take(pump, 3) == [0, 1, 2]
    with pytest.raises(OSError, match="at 3"):
        take(pump, 1)
    assert pump.cursor() == {"at": 3}
    assert take(pump, 3) == [3, 4, 5]
    pump.close()


def test_an_error_of_the_work_leaves_the_cursor_and_is_tried_again() -> None:
    failed = []

    def work(block: Any) -> Any:
        if block.rows[0] == 4 and not failed:
            failed.append(1)
            raise ValueError("four")
        return block.with_rows(block.rows * 10)

    pump = Workers(Numbers(), SYSTEM, work, 3)  # type: ignore[arg-type]
    assert take(pump, 4) == [0, 10, 20, 30]
    with pytest.raises(ValueError, match="four"):
        take(pump, 1)
    assert pump.cursor() == {"at": 4}
    assert take(pump, 3) == [40, 50, 60]
    pump.close()


def test_the_end_comes_last_and_stays() -> None:
    pump = Prefetcher(Numbers(end=5), SYSTEM, threads=3)  # type: ignore[arg-type]
    assert take(pump, 5) == [0, 1, 2, 3, 4]
    for _ in range(3):
        with pytest.raises(EndOfStream):
            pump.pull(1.0)
    pump.restore({"at": 3})
    assert take(pump, 2) == [3, 4]
    pump.close()


def test_a_restore_throws_away_what_is_queued() -> None:
    pump = Ahead(Numbers(), SYSTEM, 20)  # type: ignore[arg-type]
    assert take(pump, 3) == [0, 1, 2]
    for at in (1, 100, 2):
        pump.restore({"at": at})
        assert pump.cursor() == {"at": at}
        assert take(pump, 2) == [at, at + 1]
    pump.close()


def test_it_works_no_further_ahead_than_asked_for_and_sleeps_until_half_is_gone() -> None:
    source = Numbers()
    pump = Ahead(source, SYSTEM, 10)  # type: ignore[arg-type]
    take(pump, 1)
    wait_until(lambda: pump._asleep)
    full = source.at
    assert 10 <= full <= 12
    take(pump, 4)
    assert source.at == full
    take(pump, 2)
    wait_until(lambda: source.at > full)
    pump.close()


def test_a_release_is_passed_on_by_the_thread_that_pulls() -> None:
    source = Numbers()
    pump = Ahead(source, SYSTEM, 2)  # type: ignore[arg-type]
    take(pump, 3)
    pump.release({"at": 3})
    take(pump, 10)
    wait_until(lambda: source.released == [3])
    pump.close()
    assert source.closed


def test_nothing_yet_is_none_within_the_timeout() -> None:
    gate = threading.Event()

    class Quiet(Numbers):
        def pull(self, timeout: float | None) -> Any:
            return super().pull(timeout) if gate.wait(timeout) else None

    pump = Ahead(Quiet(), SYSTEM, 2)  # type: ignore[arg-type]
    assert pump.pull(0.01) is None
    gate.set()
    assert take(pump, 1) == [0]
    pump.close()


class SlowNumbers(Numbers):
    """Blocks of one row; some pulls wait in somebody else's code until they are let go on."""

    def __init__(self, stuck: int) -> None:
        super().__init__()
        self.stuck = stuck
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.using: set[str] = set()

    def _use(self, what: str) -> None:
        assert not self.using, f"{what} while {self.using}"

    def pull(self, timeout: float | None) -> Any:
        self._use("pull")
        self.using.add("pull")
        if self.at == self.stuck:
            self.inside.set()
            assert self.go_on.wait(60)
        out = super().pull(timeout)
        self.using.discard("pull")
        return out

    def restore(self, cursor: Any) -> None:
        self._use("restore")
        super().restore(cursor)

    def close(self) -> None:
        self._use("close")
        super().close()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_restore_waits_for_nobody_and_what_a_thread_still_brings_is_thrown_away(threads: int) -> None:
    source = SlowNumbers(3)
    pump = Prefetcher(source, SYSTEM, threads=threads)  # type: ignore[arg-type]
    assert take(pump, 2) == [0, 1]
    assert source.inside.wait(60)
    pump.restore({"at": 1})
    assert pump.cursor() == {"at": 1}
    assert pump.pull(0.01) is None  # and the feed may look whether it is to stop
    pump.restore({"at": 0})
    source.stuck = -1
    source.go_on.set()
    assert take(pump, 5) == [0, 1, 2, 3, 4]
    pump.close()
    assert source.closed


def test_closing_leaves_an_upstream_that_is_in_use_to_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbounded.core.prefetcher._JOIN", 0.05)
    source = SlowNumbers(2)
    pump = Ahead(source, SYSTEM, 5)  # type: ignore[arg-type]
    assert take(pump, 1) == [0]
    assert source.inside.wait(60)
    pump.close()
    assert not source.closed
    source.go_on.set()
    wait_until(lambda: source.closed)


def test_a_restore_that_fails_where_a_thread_makes_it_is_told_by_the_next_pull() -> None:
    class Lost(SlowNumbers):
        def restore(self, cursor: Any) -> None:
            if cursor["at"] == 99:
                raise LookupError("no longer there")
            super().restore(cursor)

    source = Lost(3)
    pump = Prefetcher(source, SYSTEM)  # type: ignore[arg-type]
    assert take(pump, 2) == [0, 1]
    assert source.inside.wait(60)
    pump.restore({"at": 99})
    source.stuck = -1
    source.go_on.set()
    for _ in range(2):  # never rows from elsewhere
        with pytest.raises(LookupError, match="no longer there"):
            take(pump, 1)
    pump.restore({"at": 1})
    assert take(pump, 2) == [1, 2]
    pump.close()


def test_a_release_is_never_lost_between_two_threads() -> None:
    source = Numbers()
    pump = Prefetcher(source, SYSTEM, threads=4)  # type: ignore[arg-type]
    for i in range(1, 200):
        take(pump, 1)
        pump.release({"at": i})
    take(pump, 20)
    wait_until(lambda: source.released[-1] == 199)
    assert source.released == sorted(source.released)
    pump.close()


def test_a_thread_whose_pool_was_retired_while_it_restored_pulls_nothing_after_it() -> None:
    restoring, go_on = threading.Event(), threading.Event()

    class Slow(SlowNumbers):
        def restore(self, cursor: Any) -> None:
            super().restore(cursor)
            if cursor["at"] == 7:
                restoring.set()
                assert go_on.wait(60)

    source = Slow(3)
    pump = Prefetcher(source, SYSTEM)  # type: ignore[arg-type]
    assert take(pump, 2) == [0, 1]
    assert source.inside.wait(60)
    pump.restore({"at": 7})
    source.stuck = -1
    source.go_on.set()
    pump.pull(0.0)  # a new pool, which finds the request
    assert restoring.wait(60)
    pump.restore({"at": 20})
    pump.pull(0.0)
    go_on.set()
    assert take(pump, 3) == [20, 21, 22]
    pump.close()
