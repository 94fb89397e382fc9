"""A whole `fit` of a Dense(1) on batches of 32×10, on the backend that KERAS_BACKEND names.

The smallest model there is, so that what feeds it shows. Each side has a compiled model of its own and the
same single callback (one that is told of each step makes JAX on the CPU faster: all must have it, or none). It
is the clock, and leaves out the first execution, in which models are traced and buffers filled.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

from benchmarks._floors import Batch, floors
from benchmarks._harness import Check, Report, Side, Took, measure

ROWS = 1_000_000
SIZE = 32
OURS = "unbounded"
AGAIN = "the floor once more"


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """The time from the end of the first execution to that of step number `last`."""

    last = 0
    begin: Took | None = None
    took: Took | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """A new measurement."""
        self.begin = self.took = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras has read the loss by now, so that this step's update is done."""
        if self.begin is None:
            self.begin = Took.now()
        elif batch == self.last:
            self.took = Took.now().since(self.begin)


class Endless(keras.utils.PyDataset):  # type: ignore[misc]
    """The same batch again and again."""

    num_batches = None  # a length would make Keras shuffle a list of so many numbers

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch

    def __getitem__(self, index: int) -> Batch:
        """The batch."""
        return self._batch


def fitted(name: str, data: Callable[[int], dict[str, Any]], steps_per_execution: int) -> Side:
    """A side that fits a model of its own on `data(steps)`, the keyword arguments of `fit`."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution)
    clock = Clock()

    def run(n: int) -> Took:
        steps = n + steps_per_execution
        clock.last = steps - 1
        given = data(steps)
        callbacks = [clock, *given.pop("callbacks", ())]
        model.fit(**given, epochs=1, verbose=0, callbacks=callbacks)
        assert clock.took is not None, f"{name} did not train {steps} steps"
        return clock.took

    return Side(name, run, multiple=steps_per_execution, least=4 * steps_per_execution)


def peers(backend: str, x: Any, y: Any) -> dict[str, Callable[[int], dict[str, Any]]]:
    """What Keras takes today, by name: a constant batch where that is cheapest, else a million rows."""
    import grain  # type: ignore[import-untyped]
    import tensorflow as tf
    import torch

    batch = (x[:SIZE], y[:SIZE])

    def generator() -> Iterator[Batch]:
        while True:
            yield batch

    class Rows(torch.utils.data.Dataset[Any]):  # type: ignore[misc]
        """A data set of torch that reads a batch's rows at once."""

        def __len__(self) -> int:
            return ROWS

        def __getitems__(self, indices: list[int]) -> Any:
            index = np.array(indices)
            return torch.from_numpy(x.take(index, axis=0)), torch.from_numpy(y.take(index, axis=0))

    class Source:
        """Rows by their number, as Grain asks for them."""

        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, i: int) -> Any:
            return x[i], y[i]

    constant = tf.data.Dataset.from_tensors(batch).repeat()
    shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(10_000).repeat().batch(SIZE)
    order = torch.utils.data.RandomSampler(range(ROWS), num_samples=ROWS * 1000)
    loader = torch.utils.data.DataLoader(Rows(), batch_size=SIZE, sampler=order, collate_fn=lambda b: b)
    # Grain's default of 16 threads would first fill a queue of 500 batches, longer than a turn lasts.
    unthreaded = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    grained = grain.MapDataset.source(Source()).shuffle(seed=0).repeat().batch(SIZE).to_iter_dataset(unthreaded)
    ways: dict[str, Callable[[], Any]] = {
        "generator, constant": generator,
        "PyDataset, constant": lambda: Endless(batch),
        "tf.data, constant": lambda: constant,
        "tf.data shuffle(10k)": lambda: shuffled,
        "torch DataLoader, shuffled": lambda: loader,
    }
    if backend != "torch":  # Keras hands Grain's NumPy batches to torch as they are, and its layers refuse them.
        ways["Grain, shuffled"] = lambda: grained
    sides = {name: _with_steps(way) for name, way in ways.items()}
    return sides | {"arrays, shuffled": lambda steps: {"x": x, "y": y, "batch_size": SIZE, "steps_per_epoch": steps}}


def _same(adapter: Any) -> Any:
    return adapter


def _with_steps(way: Callable[[], Any]) -> Callable[[int], dict[str, Any]]:
    return lambda steps: {"x": way(), "steps_per_epoch": steps}


def ours(x: Any, y: Any, checkpoints: str | None = None) -> Callable[[int], dict[str, Any]]:
    """A shuffled stream of real rows, a new feed for each turn, as it is written in a script.

    With a directory, there is a `Checkpoint`, whose callback then counts each step; it writes when the epoch has
    ended, which is not timed.
    """
    import unbounded as ub

    stream = ub.from_arrays((x, y), seed=0).batch(SIZE)

    def given(steps: int) -> dict[str, Any]:
        feed = ub.keras.Feed(stream, epoch=ub.Epoch(steps=steps))
        if checkpoints is None:
            return {"x": feed}
        return {"x": feed, "callbacks": [ub.keras.Checkpoint(feed, tempfile.mkdtemp(dir=checkpoints))]}

    return given


def report(*, quick: bool = False, ours_too: bool = True) -> Report:
    """All sides on this process's backend, for one step an execution and, where the backend can, for 32."""
    warnings.filterwarnings("ignore", message=".*shuffle=True.*")  # Keras's own default, beside a tf.data
    random = np.random.default_rng(0)
    x = random.random((ROWS, 10), dtype=np.float32)
    y = random.random((ROWS, 1), dtype=np.float32)
    found = Report()
    with tempfile.TemporaryDirectory() as checkpoints:
        # Keras's trainer for torch knows no other number than 1.
        for executed in (1,) if keras.backend.backend() == "torch" else (1, 32):
            found.add(_report(x, y, executed, checkpoints if ours_too else None, quick))
    return found


def _report(x: Any, y: Any, executed: int, checkpoints: str | None, quick: bool) -> Report:
    """The close-up of ours beside the floor, and then all sides; without `checkpoints`, all sides but ours."""
    backend = keras.backend.backend()
    constant = floors(backend, (x[:SIZE].copy(), y[:SIZE].copy()), executed)
    floor = next(iter(constant))
    sides = {name: _with_steps(partial(_same, adapter)) for name, adapter in constant.items()}
    title = f"fit on {backend}, steps_per_execution={executed}, µs a step"
    found = Report()
    if checkpoints is not None:
        sides[OURS] = ours(x, y)
        close = {floor: sides[floor], AGAIN: sides[floor], OURS: sides[OURS]}
        close[f"{OURS}, with a Checkpoint"] = ours(x, y, checkpoints)
        made = [fitted(name, data, executed) for name, data in close.items()]
        rounds, seconds = (7, 0.05) if quick else (41, 0.1)
        timings = measure(f"{title}: a close-up", made, rounds=rounds, slice_seconds=seconds)
        found.tables.append((timings, floor))
        control = timings.ratio(AGAIN, floor)
        note = f"ours {timings.spread(OURS).median:.0f} µs; the floor beside itself {control.median:.2f}"
        what = f"fit, {backend}, {executed} a call: ours / {floor}"
        found.checks.append(Check.of(what, timings.ratio(OURS, floor), 1.05, note=note))
    made = [fitted(name, data, executed) for name, data in (sides | peers(backend, x, y)).items()]
    rounds, seconds = (5, 0.05) if quick else (15, 0.15)
    timings = measure(title, made, rounds=rounds, slice_seconds=seconds)
    found.tables.append((timings, OURS if checkpoints is not None else floor))
    if checkpoints is not None:
        rival = timings.fastest([side for side in timings.micros if side not in (OURS, *constant)])
        what = f"fit, {backend}, {executed} a call: {rival} / ours"
        note = f"ours {timings.spread(OURS).median:.0f} µs"
        found.checks.append(Check.of(what, timings.ratio(rival, OURS), 1.0, at_least=True, note=note))
    return found
