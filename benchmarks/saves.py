"""What a checkpoint of 100 MB of weights costs a `fit`, on the backend that KERAS_BACKEND names.

Training stands still between two steps while a checkpoint is taken; that is held against copying as many bytes. It is
written in another thread meanwhile, which takes a core from the steps that follow; on JAX and TensorFlow the next step
also writes to fresh memory. What they lose in all is told beside it, and what a checkpoint costs that is waited for.
"""

from __future__ import annotations

import statistics
import tempfile
from time import perf_counter
from typing import Any

import keras
import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Spread

SIDE = 5_000  # of a square of weights: 100 MB of float32
EVERY = 25  # steps, of some 40 ms each: time enough to write


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """When each step began and ended, as callbacks hear of it: `Checkpoint` hears last of its end. Half-way between two
    saves it copies an array, so that both meet the same state of the machine."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.copied: list[float] = []
        self._every = every
        self._array = np.ones((SIDE, SIDE), np.float32)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """A step begins."""
        if batch % self._every == self._every // 2:
            begin = perf_counter()
            self._array.copy()
            self.copied.append(perf_counter() - begin)
        self.begun.append(perf_counter())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A step has ended; a checkpoint may follow."""
        self.ended.append(perf_counter())


def report(*, quick: bool = False) -> Report:
    """The stall of a save beside a copy."""
    saves = 4 if quick else 12
    model = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(SIDE, use_bias=False)])
    model.compile(optimizer=keras.optimizers.SGD(1e-6), loss="mse")
    fitted(model, 3, 3, wait=False)  # makes what is made once
    apart, losses, copied = fitted(model, saves, EVERY, wait=False)
    waited, _, _ = fitted(model, saves, EVERY, wait=True)
    ratios = [stall / copy for stall, copy in zip(apart, copied, strict=True)]
    backend = keras.backend.backend()
    note = (
        f"{statistics.median(apart) * 1e3:.1f} ms, a copy {statistics.median(copied) * 1e3:.1f} ms; the steps that "
        f"follow lose {statistics.median(losses) * 1e3:.0f} ms in all while it is written; "
        f"waited for, {statistics.median(waited) * 1e3:.0f} ms"
    )
    what = f"100 MB of weights saved, the stall of a step over copying them: {backend}"
    return Report(checks=[Check.of(what, Spread.of(ratios), 1.3, note=note)])


def fitted(model: Any, saves: int, every: int, *, wait: bool) -> tuple[list[float], list[float], list[float]]:
    """Seconds: what each save took between two steps, beyond what lies between others; what the steps after it took,
    beyond others; and a copy of as many bytes, made between two saves."""
    rows = np.random.default_rng(0).random((256, SIDE), np.float32)
    clock = Clock(every)
    with (
        tempfile.TemporaryDirectory() as folder,
        ub.keras.Feed(ub.from_arrays((rows, rows)).batch(4), ub.Epoch(steps=every * (saves + 1))) as feed,
    ):
        callbacks = [clock, ub.keras.Checkpoint(feed, folder, every=every, keep=1, wait=wait)]
        model.fit(feed, verbose=0, callbacks=callbacks)
    between = np.array(clock.begun[1:]) - np.array(clock.ended[:-1])
    steps = np.array(clock.ended) - np.array(clock.begun)
    usual, long = np.median(between), np.median(steps[-every // 2 :])
    at = [every * i for i in range(1, saves + 1)]
    stalls = [float(between[i - 1] - usual) for i in at]
    losses = [float(np.sum(steps[i : i + every - 1] - long)) for i in at]
    return stalls, losses, clock.copied[:saves]
