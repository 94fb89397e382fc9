"""Walks of a training run on a function that can't go back: each row it yielded is trained once, in order.

Rows may be lost where nobody could have kept them: the block that the function had just yielded when its process was
killed, and, where the power was cut, what was not synced. Nothing that a checkpoint on the disk knows of may.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.simulated import Walk
from tests.simulated_plans import Plan, Touch

import unbounded as ub

_LIVE = 1_000_000  # added to the numbers of live rows, beside which others may come


class LiveWalk(Walk):
    """One run of training on rows that the world gives once, numbered from `_LIVE`."""

    def make_plan(self) -> Plan:
        return _plan(self.rng, self.sensor)

    def prepare(self) -> None:
        self.next = _LIVE  # of the row that the world gives next
        self.accepted = _LIVE  # up to here they are in the log: the function was asked for more
        self.safe = _LIVE  # up to here they are on the disk
        self.lost: set[int] = set()  # rows that may be missing
        self.gone: int | None = None  # from this row on nothing is on the disk, until the next checkpoint
        self.most = 5  # rows at once
        self.drops = "drop_oldest" in self.plan.words
        # Rows that are dropped as fast as they come leave nothing to train on where a schedule starves who takes them.
        self.pace, self.rests = (10.0, 1.0) if self.drops else (self.rng.choice((0.0, 0.01, 1.0)), 0.3)
        self.held = sum(map(int, re.findall(r"shuffle\((\d+)", self.plan.words)))  # rows out of their order, at most

    def sensor(self) -> Callable[[], Iterator[Any]]:
        """The function that gives the rows, to a feed that is made now."""
        self.latest = Sensor(self)
        return self.latest.rows

    def note(self, batch: Any) -> None:
        self.trained += batch.tolist()

    def check(self, feed: ub.Feed) -> None:
        live = [row for row in self.trained if row >= _LIVE]
        old = [row for row in self.trained if row < _LIVE]
        assert old == [i % 100 for i in range(len(old))], "rows beside the live ones are not in order"
        assert len(set(live)) == len(live), f"trained twice: {sorted({r for r in live if live.count(r) > 1})}"
        assert self.held or live == sorted(live), "not in order"
        missing = set(range(_LIVE, max(live, default=_LIVE))) - set(live) - self.lost
        most = self.held + feed.stats.dropped
        assert len(missing) <= most, (
            f"lost: {len(missing)} of which {most} are held back or dropped: {sorted(missing)[:9]}"
        )

    def _leg(self, feed: ub.Feed) -> None:
        try:
            super()._leg(feed)
        except ub.StreamError as error:
            if "max_bytes allows" not in str(error):
                raise
            assert "log of" in self.plan.words
            for _ in range(2):  # as many as are kept
                self.save(feed, self.directory, wait=True)

    def saving(self) -> int:
        return self.accepted

    def saved(self, cut: int) -> None:
        self.safe = max(self.safe, cut)
        self.gone = None

    def ended(self, *, power_cut: bool) -> None:
        gone = self.safe if power_cut else self.accepted
        self.lost.update(range(gone if self.gone is None else self.gone, self.next))

    def forgotten(self) -> None:
        self.latest.forget()
        self.ended(power_cut=False)

    def wiped(self) -> None:
        self.gone = _LIVE
        self.lost.update(range(_LIVE, self.next))

    def moved(self, cut: int) -> None:
        self.gone = cut  # what is read before the next checkpoint is set aside
        self.lost.update(range(cut, self.next))


class Sensor:
    """The sensor as one feed reads it.

    Args:
        walk: whose.
    """

    def __init__(self, walk: LiveWalk) -> None:
        self.walk = walk
        self.is_forgotten = False

    def forget(self) -> None:
        """The feed was forgotten: whatever of it still reads gets no rows."""
        self.is_forgotten = True

    def rows(self) -> Iterator[Any]:
        """The function that is read."""
        walk, simulation = self.walk, self.walk.simulation
        while not self.is_forgotten:
            walk.accepted = walk.next
            simulation.switch()
            if walk.rng.random() < walk.rests:
                simulation.sleep(walk.rng.random() * walk.pace)
            if self.is_forgotten:
                return
            if walk.rng.random() < walk.fails:
                raise ConnectionError("the sensor is gone for a moment")
            first, n = walk.next, walk.rng.randint(1, walk.most)
            walk.next += n
            yield np.arange(first, first + n)


def _plan(rng: random.Random, sensor: Callable[[], Callable[[], Iterator[Any]]]) -> Plan:
    words, stages = [], []
    mixed = rng.random() < 0.3
    for _ in range(rng.randint(0, 3)):
        n, workers = rng.randint(1, 60), rng.randint(0, 3)
        choice = rng.choice(("map", "buffer", "drop_oldest", "shuffle"))
        if choice == "map":
            words.append(f"map(workers={workers})")
            stages.append(lambda s, f, w=workers: s.map(lambda rows: f(rows) + 0, workers=w))
        elif choice == "buffer":
            words.append(f"buffer({n})")
            stages.append(lambda s, f, n=n: s.buffer(n))
        elif choice == "drop_oldest" and not mixed:
            n += 20
            words.append(f"buffer({n}, drop_oldest)")
            stages.append(lambda s, f, n=n: s.buffer(n, overflow="drop_oldest"))
        elif choice == "shuffle" and not mixed:
            words.append(f"shuffle({n})")
            stages.append(lambda s, f, n=n: s.shuffle(n))
    size, ahead = rng.randint(1, 20), rng.randint(0, 6)
    words.append(f"batch({size}).prefetch({ahead})")
    log, chance = None, rng.random()
    if chance < 0.3:
        log = ub.LogOptions(rng.choice((20_000, 60_000)), "block" if chance < 0.15 else "drop_oldest")
        words.append(f"log of {log.max_bytes} bytes, {log.overflow}")

    def make(touch: Touch) -> ub.Stream:
        stream = ub.from_generator(sensor(), log=log)
        if mixed:
            stream = ub.mix({"old": ub.from_arrays(np.arange(100), shuffle=False), "new": stream})
        for stage in stages:
            stream = stage(stream, touch)
        stream = stream.batch(size)
        return stream.prefetch(ahead) if ahead else stream

    text = f"{'mix' if mixed else 'live'}.{'.'.join(words)}"
    # What is dropped takes its time to come.
    return Plan(text, make, rng.randint(5, 12 if "drop_oldest" in text else 40))
