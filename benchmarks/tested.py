"""What `Prequential` adds to a `fit`, on the backend that KERAS_BACKEND names: a Dense(1) on batches of 32×10.

Without a replay each step has as many new rows as its batch, so that it predicts as much as it trains. Beside it
stand Keras's own `predict_on_batch` of such a batch by itself, and a loop that tests and trains by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed
from benchmarks.fit import ROWS, SIZE, fitted

WITHOUT = "without Prequential"
WITH = "with Prequential"
BY_HAND = "by hand: a callback that calls predict_on_batch"
ALONE = "predict_on_batch by itself"


class ByHand(keras.callbacks.Callback):  # type: ignore[misc]
    """Predicts a batch before each step, as one would by hand."""

    def __init__(self, x: Any) -> None:
        super().__init__()
        self._x = x

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Predict."""
        self.model.predict_on_batch(self._x)


def _data(stream: ub.Stream, callbacks: Callable[[Any], list[Any]]) -> Callable[[int], dict[str, Any]]:
    def given(steps: int) -> dict[str, Any]:
        feed = ub.keras.Feed(stream, epoch=ub.Epoch(steps=steps))
        return {"x": feed, "callbacks": callbacks(feed)}

    return given


def _alone(x: Any) -> Side:
    model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    def run(n: int) -> None:
        for _ in range(n):
            model.predict_on_batch(x)

    return Side(ALONE, timed(run), least=8)


def _joined(x: Any, y: Any) -> ub.Stream:
    ids = np.arange(ROWS)
    labels = ub.from_arrays({"id": ids, "y": y}, shuffle=False)
    return ub.from_arrays({"id": ids, "x": x}, shuffle=False).join(labels, on="id").columns("x", "y").batch(SIZE)


def report(*, quick: bool = False) -> Report:
    """All sides on this process's backend."""
    random = np.random.default_rng(0)
    x = random.random((ROWS, 10), dtype=np.float32)
    y = random.random((ROWS, 1), dtype=np.float32)
    rows = ub.from_arrays((x, y), seed=0)
    plain, joined = rows.batch(SIZE), _joined(x, y)
    shuffled, repeated = rows.shuffle(10_000).batch(SIZE), rows.replay(10_000, reuse=4).batch(SIZE)

    def tested(*metrics: str) -> Callable[[Any], list[Any]]:
        return lambda feed: [ub.keras.Prequential(feed, metrics)]

    data = {
        WITHOUT: _data(plain, lambda feed: []),
        WITH: _data(plain, tested()),
        f"{WITH}, a metric": _data(plain, tested("mae")),
        BY_HAND: _data(plain, lambda feed: [ByHand(x[:SIZE])]),
        "shuffle(10_000), without": _data(shuffled, lambda feed: []),
        "shuffle(10_000), with": _data(shuffled, tested()),
        "replay(reuse=4), without": _data(repeated, lambda feed: []),
        "replay(reuse=4), with": _data(repeated, tested()),
        "join, without": _data(joined, lambda feed: []),
        "join, with": _data(joined, tested()),
    }
    sides = [*(fitted(name, given, 1) for name, given in data.items()), _alone(x[:SIZE])]
    rounds, seconds = (5, 0.05) if quick else (21, 0.1)
    backend = keras.backend.backend()
    timings = measure(f"tests before training on {backend}, µs a step", sides, rounds=rounds, slice_seconds=seconds)
    found = Report([(timings, WITHOUT)])
    note = f"{timings.spread(WITHOUT).median:.0f} µs without, {timings.spread(WITH).median:.0f} with"
    what = f"test-then-train, {backend}: {WITH} / {WITHOUT}"
    found.checks.append(Check.of(what, timings.worked_ratio(WITH, WITHOUT), 3.0, note=note))
    found.checks.append(Check.of(f"test-then-train, {backend}: ours / by hand", timings.ratio(WITH, BY_HAND), 1.0))
    return found
