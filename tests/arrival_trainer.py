"""The training process that test_arrival_kills.py kills: nothing of what it reads comes in the same order twice.

`python arrival_trainer.py DIRECTORY EVERY` trains until it is killed, saves after each EVERY steps, and prints a line
for each batch that it was handed: its number, and the rows in it.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import unbounded as ub

CHANCE = random.Random(os.urandom(8))  # of this process alone
TOPIC, SENSOR, LIVE = 1_000_000, 3_000_000, 4_000_000
SILENCE_IS_OVER = threading.Event()


class Topic:
    """A topic of two partitions, which can be read again; which of them has rows at which moment is chance."""

    replayable = True
    partitions = True

    def identity(self) -> Any:
        return "topic"

    def open(self) -> ub.Reader:
        return TopicReader()


class TopicReader:
    def __init__(self) -> None:
        self.at = {"a": 0, "b": 0}

    def position(self) -> Any:
        return dict(self.at)

    def seek(self, position: Any) -> None:
        self.at = dict(position)

    def read(self, timeout: float, only: Any = None) -> Any:
        if CHANCE.random() < 0.002:
            return None
        which = only or CHANCE.choice("ab")
        first, self.at[which] = self.at[which], self.at[which] + CHANCE.choice((1, 1, 2, 30, 300))
        rows = np.arange(first, self.at[which]) + TOPIC * (1 + "ab".index(which))
        return ub.Rows(rows, partition=which)

    def close(self) -> None:
        pass


def sensor(start: int = 0) -> Iterator[Any]:
    """It can be read again, and falls silent now and then."""
    for row in itertools.count(start, 100):
        if CHANCE.random() < 0.1:
            time.sleep(CHANCE.uniform(0, 0.03))
        yield np.arange(row, row + 100) + SENSOR


def live(past: Any) -> Iterator[Any]:
    """It can't go back, and numbers its rows on from those that were read of it. Early in the run it is silent
    until the others' rows were trained on, past the first group of the mix: it has to be left out of the second one,
    however slow the machine is."""
    for row in itertools.count(past.rows, 50):
        if row == 200:
            SILENCE_IS_OVER.wait()
        if CHANCE.random() < 0.1:
            time.sleep(CHANCE.uniform(0, 0.03))
        yield np.arange(row, row + 50) + LIVE


def stream() -> ub.Stream:
    """All that decides by what has arrived, one after the other."""
    inputs = {
        "topic": ub.from_source(Topic()),
        "sensor": ub.from_generator(sensor),
        "live": ub.from_generator(live).prefetch(2),
    }
    mixed = ub.mix(inputs, weights=[3, 2, 1], on_silence="leave_out", patience=0.01)
    return mixed.buffer(3000, overflow="drop_oldest").shuffle(40).batch(16).prefetch(3)


def main(directory: str, every: int) -> None:
    """Train until it is killed."""
    is_first = not os.path.exists(directory) or not os.listdir(directory)
    with ub.Feed(stream()) as feed:
        feed.load(directory)
        for count, batch in enumerate(feed.batches()):
            if count == 100:
                SILENCE_IS_OVER.set()
            # No input is waited for any more. A later process would wait for what was decided already to be passed on.
            while count == 150 and is_first and not feed.stats.dropped:
                time.sleep(0.001)
            os.write(1, f"{feed.steps} {' '.join(map(str, batch.tolist()))}\n".encode())
            feed.trained()
            if CHANCE.random() < 0.02:
                time.sleep(CHANCE.uniform(0, 0.03))  # a slow step: rows are dropped
            if feed.steps % every == 0:
                feed.save(directory, keep=2, wait=CHANCE.random() < 0.5)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
