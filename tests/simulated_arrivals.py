"""Walks whose order is decided by what has arrived: a source with partitions, and a mix that leaves a silent input out.

What was decided before a checkpoint holds after it, or else rows would come twice, or not at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.simulated import Walk
from tests.simulated_live import LiveWalk
from tests.simulated_plans import Plan, Touch

import unbounded as ub

_PARTITION = 1_000_000  # rows are numbered from here on in the first partition, from twice as much in the second
_GROUP = 1024  # rows of a mix in which shares are exact


class PartitionsWalk(Walk):
    """One run of training on a topic whose partitions are read as rows arrive in them, from the newest on."""

    def make_plan(self) -> Plan:
        self.topic = Topic(self)
        self.shuffled = self.rng.choice((0, 0, self.rng.randint(2, 60)))
        workers, ahead, held = (self.rng.randint(0, 3) for _ in range(3))
        size, steps = self.rng.randint(1, 20), self.rng.randint(5, 40)

        def make(touch: Touch) -> ub.Stream:
            stream = ub.from_source(self.topic).map(lambda rows: touch(rows) + 0, workers=workers)
            stream = stream.buffer(held * 20) if held else stream
            stream = stream.shuffle(self.shuffled) if self.shuffled else stream
            return stream.batch(size).prefetch(ahead) if ahead else stream.batch(size)

        words = (
            f"topic.map(workers={workers}).buffer({held * 20}).shuffle({self.shuffled}).batch({size}).prefetch({ahead})"
        )
        return Plan(words, make, steps)

    def prepare(self) -> None:
        self.begins: list[list[int]] = []  # where in each partition the run may have begun
        self.is_wiped = True

    def note(self, batch: Any) -> None:
        self.trained += batch.tolist()

    def loaded(self, feed: ub.Feed) -> None:
        if self.is_wiped:
            self.begins = [*self.topic.openings]

    def check(self, feed: ub.Feed) -> None:
        # Of a shuffle that is not over, any rows may have come.
        whole = len(self.trained) // self.shuffled * self.shuffled if self.shuffled else len(self.trained)
        parts = [[row for row in self.trained[:whole] if row // _PARTITION == 1 + i] for i in range(self.topic.parts)]
        rest = self.trained[whole:]
        assert len(set(rest)) == len(rest), "trained twice"
        assert not set(rest) & set(self.trained[:whole]), "trained twice"
        if self.shuffled:
            parts = [sorted(part) for part in parts]
        self.begins = [
            begin
            for begin in self.begins
            if all(part == list(range(first, first + len(part))) for part, first in zip(parts, begin, strict=True))
        ]
        ends = [part[-5:] for part in parts]
        assert self.begins, f"rows of a partition are missing, come twice, or not in order: the last are {ends}"

    def saved(self, cut: int) -> None:
        self.is_wiped = False

    def wiped(self) -> None:
        self.is_wiped = True

    def moved(self, cut: int) -> None:
        self.is_wiped = True  # it may be another beginning's
        self.topic.kept = [_PARTITION * (1 + i) for i in range(self.topic.parts)]


class Topic:
    """Rows in partitions, outside of the process: as a broker has them. What no checkpoint needs is removed.

    Args:
        walk: whose.
    """

    replayable = True
    partitions = True

    def __init__(self, walk: PartitionsWalk) -> None:
        self.walk = walk
        self.parts = walk.rng.randint(1, 4)
        self.pace = walk.rng.choice((0.0, 0.3, 2.0))
        self.stops = [_PARTITION * (1 + i) for i in range(self.parts)]  # the next row of each
        self.kept = [*self.stops]  # the first row that is still there
        self.openings: list[list[int]] = []

    def identity(self) -> Any:
        return {"topic": "rows"}

    def open(self) -> TopicReader:
        self.walk.simulation.switch()
        self.openings.append([*self.stops])
        return TopicReader(self)

    def arrive(self) -> None:
        """Rows come, or not."""
        for i in range(self.parts):
            if self.walk.rng.random() < 0.3:
                self.stops[i] += self.walk.rng.randint(1, 6)


class TopicReader:
    """Reads from a topic, from the rows on that come after it was opened."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._at = [*topic.stops]

    def position(self) -> Any:
        return [*self._at]

    def seek(self, position: Any) -> None:
        self._at = [*position]

    def read(self, timeout: float, only: Any = None) -> ub.Rows | None:
        topic, rng = self._topic, self._topic.walk.rng
        topic.walk.simulation.switch()
        if rng.random() < topic.walk.fails:
            raise OSError("the broker is gone for a moment")
        if rng.random() < 0.3:
            topic.walk.simulation.sleep(min(timeout, rng.random() * topic.pace))
        topic.arrive()
        ready = [i for i in range(topic.parts) if self._at[i] < topic.stops[i] and only in (None, i)]
        if not ready:
            topic.walk.simulation.sleep(min(timeout, 0.05))
            return None
        i = rng.choice(ready)
        first = self._at[i]
        assert first >= topic.kept[i], f"row {first} is gone: {topic.kept[i]} is the first that was needed"
        self._at[i] = min(topic.stops[i], first + rng.randint(1, 8))
        return ub.Rows(np.arange(first, self._at[i]), partition=i)

    def commit(self, trained: Any, needed: Any) -> None:
        """What lies before `needed` goes."""
        assert all(a >= b for a, b in zip(trained, needed, strict=True))
        self._topic.kept = [max(pair) for pair in zip(self._topic.kept, needed, strict=True)]

    def close(self) -> None:
        pass


class SilenceWalk(LiveWalk):
    """One run of training on old rows beside live ones, which are left out while the sensor is silent."""

    def make_plan(self) -> Plan:
        weight, patience = self.rng.choice((1, 3)), self.rng.choice((0.0, 0.5, 5.0))
        size, workers, ahead = self.rng.randint(100, 400), self.rng.randint(0, 2), self.rng.randint(0, 3)
        self.share = _GROUP * weight // (1 + weight)

        def make(touch: Touch) -> ub.Stream:
            streams = {"old": ub.from_arrays(np.arange(100), shuffle=False), "new": ub.from_generator(self.sensor())}
            weights = {"old": 1, "new": weight}
            stream = ub.mix(streams, weights=weights, on_silence="leave_out", patience=patience)
            stream = stream.map(lambda rows: touch(rows) + 0, workers=workers).batch(size)
            return stream.prefetch(ahead) if ahead else stream

        return Plan(f"mix(new={weight}, patience={patience}).map({workers}).batch({size}).prefetch({ahead})", make, 25)

    def prepare(self) -> None:
        super().prepare()
        self.most = 400
        self.pace, self.rests = self.rng.choice((0.1, 3.0, 20.0)), 0.3

    def check(self, feed: ub.Feed) -> None:
        super().check(feed)
        for first in range(0, len(self.trained) - _GROUP + 1, _GROUP):
            live = sum(row >= _PARTITION for row in self.trained[first : first + _GROUP])
            assert live in (0, self.share), f"{live} live rows in the group from row {first} on, and not {self.share}"
