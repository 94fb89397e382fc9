"""A data set of PyTorch whose items are arrays, read by `from_dataset` and by a DataLoader without workers.

Both shuffle, never end and give batches. Each turn begins a feed, or a loader, of its own, and closes it: a feed reads
ahead in a thread, and would otherwise work during the other side's turn, and hand out rows in its own that cost nothing
there. What is read ahead in vain counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed

ROWS = 200_000
OURS = "from_dataset"
TENSORS = "from_dataset, items are tensors"
THEIRS = "DataLoader(shuffle=True), num_workers=0"
THEIR_TENSORS = "DataLoader, items are tensors"


class Pairs(torch.utils.data.Dataset[Any]):
    """Rows of 10 float32 and a label, as arrays or as tensors."""

    def __init__(self, as_tensors: bool) -> None:
        x = np.random.default_rng(0).random((ROWS, 10), dtype=np.float32)
        y = x.sum(axis=1, keepdims=True)
        self._x, self._y = (torch.from_numpy(x), torch.from_numpy(y)) if as_tensors else (x, y)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> Any:
        return self._x[i], self._y[i]


def ours(name: str, data: Pairs, size: int) -> Side:
    """A feed of it, from its beginning to its end."""

    def run(n: int) -> None:
        with ub.Feed(ub.from_dataset(data).batch(size)) as feed:
            deque(islice(feed.batches(), n), maxlen=0)

    return Side(name, timed(run))


def theirs(name: str, data: Pairs, size: int) -> Side:
    """A loader of it, epoch after epoch."""

    def endless() -> Iterator[Any]:
        while True:
            yield from torch.utils.data.DataLoader(data, batch_size=size, shuffle=True)

    return Side(name, timed(lambda n: deque(islice(endless(), n), maxlen=0)))


def report(*, quick: bool = False) -> Report:
    """Batches of 32 and of 256 rows."""
    found = Report()
    rounds, seconds = (3, 0.3) if quick else (9, 1.0)
    arrays, tensors = Pairs(as_tensors=False), Pairs(as_tensors=True)
    for size in (32, 256):
        sides = [
            theirs(THEIRS, arrays, size),
            ours(OURS, arrays, size),
            theirs(THEIR_TENSORS, tensors, size),
            ours(TENSORS, tensors, size),
        ]
        timings = measure(
            f"Batches of {size} items of a data set, µs a batch", sides, rounds=rounds, slice_seconds=seconds
        )
        found.tables.append((timings, THEIRS))
        for one, other, what in ((OURS, THEIRS, "arrays"), (TENSORS, THEIR_TENSORS, "tensors")):
            note = f"{timings.spread(one).median:.0f} µs"
            ratio = timings.ratio(one, other)
            found.checks.append(Check.of(f"{size} items that are {what}: {OURS} / DataLoader", ratio, 1.0, note=note))
    return found
