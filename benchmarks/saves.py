"""What a checkpoint costs those who train: a feed alone, and a `fit` on the backend that KERAS_BACKEND names.

Training stands still while a checkpoint is taken, and what it takes may leave the next step more to do: fresh memory in
the place of that which the checkpoint holds. Both together are held against copying as many bytes, once with nothing
written meanwhile, and once beside the thread that writes. What the steps that follow lose to that thread, which takes a
core from them, is told beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Spread

SIDE = 5_000
EVERY = 24  # steps, of some 40 ms each: time enough to write 100 MB
LIMIT = 1.3
RATES = 1e-6


class Saves(NamedTuple):
    """Seconds, for each save: where training stood still, what the next step took beyond others, what the others after
    it took beyond others; and a copy of as many bytes, half-way between two saves."""

    gaps: list[float]
    next: list[float]
    others: list[float]
    copies: list[float]

    def over_a_copy(self) -> Spread:
        """The gap and what the next step lost, over a copy."""
        lost = zip(self.gaps, self.next, self.copies, strict=True)
        return Spread.of([(gap + after) / copy for gap, after, copy in lost])

    def gap_over_a_copy(self) -> Spread:
        """The gap alone, over a copy."""
        return Spread.of([gap / copy for gap, copy in zip(self.gaps, self.copies, strict=True)])


class Steps:
    """When steps began and ended; half-way between two saves it copies arrays as large as those that are saved."""

    def __init__(self, every: int, arrays: int, finish: Callable[[], object]) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.copied: list[float] = []
        self.saved: list[int] = []  # after which steps
        self._every, self._finish = every, finish
        self._arrays = [np.ones((SIDE, SIDE), np.float32) for _ in range(arrays)]

    def begin(self) -> None:
        """A step begins."""
        if len(self.begun) % self._every == self._every // 2:
            begin = perf_counter()
            kept = [array.copy() for array in self._arrays]
            self.copied.append(perf_counter() - begin)
            del kept
        if len(self.begun) % self._every == self._every - 1:
            self._finish()  # on a slow disk too, the next save is taken when it falls due
        self.begun.append(perf_counter())

    def end(self) -> None:
        """A step has ended; a checkpoint may follow."""
        self.ended.append(perf_counter())

    def save(self) -> None:
        """One was taken."""
        self.saved.append(len(self.ended))

    def saves(self) -> Saves:
        """What the saves cost, but for the first, which takes the memory that the others use again."""
        between = np.array(self.begun[1:]) - np.array(self.ended[:-1])
        steps = np.array(self.ended) - np.array(self.begun)
        half = self._every // 2
        at = [i for i in self.saved[1:] if i + half < len(steps)]
        usual, long = np.median(between), np.median(np.concatenate([steps[i - half + 2 : i] for i in at]))
        return Saves(
            [float(between[i - 1] - usual) for i in at],
            [float(steps[i] - long) for i in at],
            [float(np.sum(steps[i + 1 : i + half] - long)) for i in at],
            self.copied[-len(at) :],
        )


class Held:
    """Holds back what is to be written until half-way to the next save, or lets it through."""

    def __init__(self, held: bool, every: int) -> None:
        self._held, self._every, self._open = held, every, threading.Event()

    def write(self, write: Callable[[Any], None]) -> Callable[[Any], None]:
        """What is to be called in its place."""

        def later(cut: Any) -> None:
            if self._held:
                self._open.wait()
                self._open.clear()
            write(cut)

        return later

    def step(self, number: int) -> None:
        """So many steps are done."""
        if number % self._every == self._every // 2:
            self._open.set()


def fitted(optimizer: str, saves: int, *, held: bool, wait: bool = False) -> Saves:
    """A `fit` of one square of weights, saved each so many steps."""
    import keras

    keras.utils.set_random_seed(0)
    arrays = {"sgd": 1, "adam": 3}[optimizer]
    every = EVERY * arrays
    model = keras.Sequential([keras.Input((SIDE,)), keras.layers.Dense(SIDE, use_bias=False)])
    made = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[optimizer](RATES)
    model.compile(optimizer=made, loss="mse")
    rows = np.random.default_rng(0).random((256, SIDE), np.float32)
    writing = Held(held, every)

    class Told(keras.callbacks.Callback):  # type: ignore[misc]
        """`Checkpoint` hears of a step's end after it."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            steps.begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            writing.step(len(steps.begun))
            steps.end()

    epoch = ub.Epoch(steps=every * (saves + 2))
    with (
        tempfile.TemporaryDirectory() as folder,
        ub.keras.Feed(ub.from_arrays((rows, rows)).batch(4), epoch) as feed,
    ):
        steps = Steps(every, arrays, feed.core.writer.finish)
        saver = ub.keras.Checkpoint(feed, folder, every=every, keep=1, wait=wait)
        saver._saving._write = writing.write(saver._saving._write)  # type: ignore[method-assign]
        take = saver._saving.write

        def taken(*given: Any, **named: Any) -> bool:
            was = take(*given, **named)
            if was and not named["last"]:
                steps.save()
            return was

        saver._saving.write = taken  # type: ignore[method-assign]
        model.fit(feed, verbose=0, callbacks=[Told(), saver])
    return steps.saves()


def looped(saves: int, *, held: bool) -> Saves:
    """A loop over a feed that updates 100 MB of NumPy's in place, and saves it."""
    import unbounded.store.checkpoints as checkpoints

    weights = np.zeros((SIDE, SIDE), np.float32)
    writing = Held(held, EVERY)
    write = checkpoints.Checkpoints.write

    def later(store: Any, *given: Any, **named: Any) -> Any:
        found: list[Any] = []
        writing.write(lambda _: found.append(write(store, *given, **named)))(None)
        return found[0]

    checkpoints.Checkpoints.write = later  # type: ignore[method-assign, assignment]
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            ub.Feed(ub.from_arrays(np.arange(1000.0)).batch(4)) as feed,
        ):
            steps = Steps(EVERY, 1, feed.writer.finish)
            for number, _ in zip(range(1, EVERY * (saves + 2)), feed.batches(), strict=False):
                steps.begin()
                np.add(weights, 1, out=weights)
                writing.step(number)
                steps.end()
                feed.trained()
                if number % EVERY == 0:
                    feed.save(folder, state={"weights": weights}, keep=1, wait=False)
                    steps.save()
    finally:
        checkpoints.Checkpoints.write = write  # type: ignore[method-assign]
    return steps.saves()


def report(*, quick: bool = False) -> Report:
    """The stall of a save beside a copy: of a fit with two optimizers, and on JAX's turn of a loop too."""
    import keras

    saves = 4 if quick else 12
    backend = keras.backend.backend()
    sides: dict[str, Callable[[bool], Saves]] = {
        f"100 MB of weights, fit on {backend}": lambda held: fitted("sgd", saves, held=held),
        f"300 MB of weights and Adam, fit on {backend}": lambda held: fitted("adam", max(3, saves // 3), held=held),
    }
    if backend == "jax":
        sides = {"100 MB of NumPy's, a loop": lambda held: looped(saves, held=held), **sides}
    found = Report()
    for name, side in sides.items():
        alone, beside = side(True), side(False)
        note = f"still for {_ms(alone.gaps)}, the next step {_ms(alone.next)} longer; a copy {_ms(alone.copies)}"
        what = f"a save of {name}: gap and next step / a copy"
        found.checks.append(Check.of(what, alone.over_a_copy(), LIMIT, note=note))
        lost = [next_step + others for next_step, others in zip(beside.next, beside.others, strict=True)]
        note = f"still for {_ms(beside.gaps)}; the steps that follow lose {_ms(lost)} in all while it is written"
        what = f"a save of {name}, written meanwhile: gap / a copy"
        found.checks.append(Check.of(what, beside.gap_over_a_copy(), LIMIT, note=note))
    return found


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} ms"
