"""A signal at every line of the package that a `fit` executes: the next `fit` loses and doubles no row."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from lines import Line, Lines, places
from unbounded.keras import Checkpoint, Feed

pytestmark = [
    pytest.mark.filterwarnings(km.KERAS_NOISE),
    pytest.mark.skipif(km.BACKEND != "jax", reason="the lines are the same on each backend, and JAX is the quickest"),
    pytest.mark.slow,
]

BATCH, STEPS = 4, 3
# `make chaos` tries every line of the call, its begin and its end, by both signals; here, every line of the feed and
# of its part for Keras that each step executes, by one of them.
WHOLE_CALL = bool(os.environ.get("EVERY_LINE"))


def stream() -> ub.Stream:
    return ub.from_arrays(km.rows(64), seed=1).map(lambda r: r).shuffle(8).batch(BATCH)


def fit(model: Any, directory: Path, lines: Lines) -> Checkpoint:
    """One process's call."""
    with Feed(stream(), ub.Epoch(steps=STEPS)) as feed:
        checkpoint = Checkpoint(feed, directory, every=2 if WHOLE_CALL else None)
        with lines:
            model.fit(feed, epochs=1, verbose=0, callbacks=[checkpoint])
        assert feed.steps == len(km.trained_ids(model)) // BATCH
    return checkpoint


def attempt(directory: Path, lines: Lines) -> list[int]:
    """Train, with a signal at a line; and if that ended the run, go on as the next process would."""
    shutil.rmtree(directory, ignore_errors=True)
    model = km.ready_model()
    try:
        whole = fit(model, directory, lines).stopped_by is None
    except (KeyboardInterrupt, SystemExit):
        whole = False
    assert all(np.isfinite(w).all() for w in model.get_weights())
    if not whole:
        model = km.ready_model()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ub.RunFinished)  # a signal in the very last lines leaves nothing to train
            fit(model, directory, Lines())
    return km.trained_ids(model)


def is_of_steps(line: Line) -> bool:
    """Whether it has a part in handing out batches to Keras and counting them. At lines of stages, sources and stores
    test_interrupts.py sends signals; and those of the model's state are executed between steps."""
    path = Path(line[0])
    state = path.name.startswith(("_owned", "_optimizers", "_others", "_variables", "_model_state"))
    return WHOLE_CALL or (path.parent.name in ("keras", "feed") and not state)


def _first_signal(line: Line) -> signal.Signals:
    """The one of two signals that comes at a line here; `make chaos` tries both."""
    odd = zlib.crc32(f"{Path(line[0]).name} {line[1]}".encode()) % 2
    return signal.SIGTERM if odd else signal.SIGINT


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, and hundreds of runs would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_line_of_a_fit_loses_no_row_and_doubles_none(number: int, tmp_path: Path) -> None:
    def leave(number: int, frame: Any) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGTERM, leave)  # outside of training a signal goes to whom it went before
    try:
        every = Lines()
        expected = attempt(tmp_path / "run", every)
        assert len(expected) == BATCH * STEPS
        least = 1 if WHOLE_CALL else STEPS
        chosen = places({line: count for line, count in every.times.items() if count >= least and is_of_steps(line)}, 1)
        assert len(chosen) > 100
        if not WHOLE_CALL:
            chosen = [at for at in chosen if _first_signal(at[0]) is number]
        for at in chosen:
            lines = Lines(lambda: signal.raise_signal(number), at)
            assert attempt(tmp_path / "run", lines) == expected, at
            assert signal.getsignal(signal.SIGTERM) is leave
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
