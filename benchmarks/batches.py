"""Shuffled, endless batches of 32 and of 512 rows, out of a million rows in memory.

Every side shuffles and never ends, and all but tf.data, which copies them, read the same two arrays. Only a
loop in C takes the batches, so that only their making is timed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Check, Report, Side, Timings, Took, measure, timed

Rows = tuple[NDArray[np.float32], NDArray[np.float32]]

ROWS = 1_000_000
OURS = "unbounded"
BARE = "NumPy take, blocks of 64 batches"
USUAL = "torch DataLoader, `TensorDataset`"
TORCH = "torch DataLoader, `__getitems__` of `x[indices]`"
BEST = "torch DataLoader at its best"
PEERS = {USUAL: 10.0, TORCH: 10.0, BEST: 1.0, "tf.data shuffle(10k)": 30.0, "Grain": 100.0}
OVER_BARE = {32: 1.8, 512: 1.6}


def rows() -> Rows:
    """A million rows: x is float32 [rows, 10], y is float32 [rows, 1]."""
    random = np.random.default_rng(0)
    return random.random((ROWS, 10), dtype=np.float32), random.random((ROWS, 1), dtype=np.float32)


def drained(batches: Iterator[Any]) -> Callable[[int], Took]:
    """Time the taking of n batches, each dropped at once."""
    return timed(lambda n: deque(islice(batches, n), maxlen=0))


def numpy_blocks(data: Rows, size: int, gather: Callable[[Any, Any], Any], batches: int) -> Iterator[Rows]:
    """The floor: one index array, permuted outside, gathered for so many batches at a time, and cut."""
    x, y = data
    order = np.random.default_rng(1).permutation(ROWS)
    step = size * batches
    while True:
        for begin in range(0, ROWS - step + 1, step):
            index = order[begin : begin + step]
            block_x, block_y = gather(x, index), gather(y, index)
            for i in range(0, step, size):
                yield block_x[i : i + size], block_y[i : i + size]


def numpy_sides(data: Rows, size: int) -> list[Side]:
    """By `take` and by `a[index]`, in blocks and batch by batch; `take` is the faster for rows so narrow."""

    def side(name: str, gather: Callable[[Any, Any], Any], batches: int) -> Side:
        return Side(name, drained(numpy_blocks(data, size, gather, batches)))

    return [
        side(BARE, lambda a, index: a.take(index, axis=0), 64),
        side("NumPy a[index], blocks of 64 batches", lambda a, index: a[index], 64),
        side("NumPy take, batch by batch", lambda a, index: a.take(index, axis=0), 1),
        side("NumPy a[index], batch by batch", lambda a, index: a[index], 1),
    ]


def torch_batches(data: Rows, size: int, read: Callable[[list[int]], Any]) -> Iterator[Any]:
    """A DataLoader whose data set takes a batch's indices at once, in a new order each pass, for ever."""
    from torch.utils.data import DataLoader, Dataset, RandomSampler

    class Batched(Dataset[Any]):  # type: ignore[misc]
        """Rows that are read a batch at a time."""

        def __len__(self) -> int:
            return ROWS

        def __getitems__(self, indices: list[int]) -> Any:
            return read(indices)

    endless = RandomSampler(range(ROWS), num_samples=ROWS * 1_000_000)
    return iter(DataLoader(Batched(), batch_size=size, sampler=endless, collate_fn=_as_it_is))


def torch_usual(data: Rows, size: int) -> Iterator[Any]:
    """The DataLoader of its guides: row by row, and stacked."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler, TensorDataset

    dataset = TensorDataset(*map(torch.from_numpy, data))
    endless = RandomSampler(range(ROWS), num_samples=ROWS * 1_000_000)
    return iter(DataLoader(dataset, batch_size=size, sampler=endless))


def torch_best(data: Rows, size: int) -> Iterator[Any]:
    """As fast as it goes: the sampler gives a batch's indices as one array, the data set takes them at once, and
    nothing is collated, nor made a tensor."""
    from torch.utils.data import DataLoader, Dataset, Sampler

    x, y = data

    class Orders(Sampler[Any]):
        """A batch's indices at a time, in a new order each pass, for ever."""

        def __iter__(self) -> Iterator[Any]:
            random = np.random.default_rng(0)
            while True:
                order = random.permutation(ROWS)
                yield from (order[i : i + size] for i in range(0, ROWS - size + 1, size))

    class Taken(Dataset[Any]):  # type: ignore[misc]
        """Rows that are read a batch at a time."""

        def __getitem__(self, index: Any) -> Any:
            return x.take(index, axis=0), y.take(index, axis=0)

    return iter(DataLoader(Taken(), batch_size=None, sampler=Orders(), collate_fn=_as_it_is))


def _as_it_is(batch: Any) -> Any:
    return batch


def torch_sides(data: Rows, size: int) -> list[Side]:
    """The DataLoader as its guides have it, with `__getitems__` as it is mostly written, tuned, and at its best."""
    import torch

    torch.set_num_threads(1)  # a second one gains nothing with rows so few, and may wait milliseconds for a core
    x, y = data
    tensor_x, tensor_y = torch.from_numpy(x), torch.from_numpy(y)

    def plain(indices: list[int]) -> Any:
        return tensor_x[indices], tensor_y[indices]

    def select(indices: list[int]) -> Any:
        index = torch.tensor(indices)
        return tensor_x.index_select(0, index), tensor_y.index_select(0, index)

    def take(indices: list[int]) -> Any:
        index = np.array(indices)
        return x.take(index, axis=0), y.take(index, axis=0)

    return [
        Side(USUAL, drained(torch_usual(data, size))),
        Side(TORCH, drained(torch_batches(data, size, plain))),
        Side("torch DataLoader, tuned with index_select", drained(torch_batches(data, size, select))),
        Side("torch DataLoader, tuned with NumPy take, no tensors", drained(torch_batches(data, size, take))),
        Side(BEST, drained(torch_best(data, size))),
    ]


def tensorflow_side(data: Rows, size: int) -> Side:
    """The chain that tf.data's guides show; 10,000 rows in the buffer."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).shuffle(10_000).repeat().batch(size)
    return Side("tf.data shuffle(10k)", drained(iter(dataset.as_numpy_iterator())))


def grain_sides(data: Rows, size: int) -> list[Side]:
    """Grain's chain, read by the trainer itself and by two threads with a short queue.

    Grain's own default, 16 threads and a queue of 500, would fill that queue in the others' turns.
    """
    import grain  # type: ignore[import-untyped]

    x, y = data

    class Source:
        """Rows by their number, as Grain asks for them."""

        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, i: int) -> Any:
            return x[i], y[i]

    def batches(threads: int) -> Iterator[Any]:
        chained = grain.MapDataset.source(Source()).shuffle(seed=0).repeat().batch(size)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        return iter(chained.to_iter_dataset(options))

    return [
        Side("Grain", drained(batches(0))),
        Side("Grain, two read threads", drained(batches(2)), least=16),
    ]


def our_side(data: Rows, size: int) -> Side:
    """Ours, through a feed that counts what was trained."""
    import unbounded as ub

    feed = ub.Feed(ub.from_arrays(data, seed=0).batch(size), epoch=ub.Epoch(steps=1000))
    return Side(OURS, drained(chain.from_iterable(feed.epochs(10**12))))


def report(*, quick: bool = False, ours: bool = True) -> Report:
    """Measure all sides for both sizes; `ours=False` leaves out our own side and every verdict."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    data = rows()
    found = Report()
    for size in (32, 512):
        sides = [*numpy_sides(data, size), *torch_sides(data, size), tensorflow_side(data, size)]
        sides += grain_sides(data, size)
        if ours:
            sides.append(our_side(data, size))
        title = f"Shuffled endless batches of {size} from {ROWS:,} rows of 10+1 float32"
        rounds, seconds = (7, 0.02) if quick else (25, 0.05)
        timings = measure(title, sides, rounds=rounds, slice_seconds=seconds, warm=0.25)
        found.tables.append((timings, OURS if ours else BARE))
        if ours:
            found.checks += verdicts(timings, size)
    return found


def verdicts(timings: Timings, size: int) -> list[Check]:
    """Ours beside the peers, each kind at its fastest, and beside the bare gather."""
    note = f"ours {timings.spread(OURS).median:.1f} µs"
    checks = []
    for peer, times in PEERS.items():
        name = timings.fastest([side for side in timings.micros if side.startswith(peer)])
        what = f"batch of {size}: {name} / ours"
        checks.append(Check.of(what, timings.ratio(name, OURS), times, at_least=True, note=note))
    bare = f"batch of {size}: ours / {BARE}"
    return [*checks, Check.of(bare, timings.ratio(OURS, BARE), OVER_BARE[size], note=note)]
