"""SIGINT and SIGTERM in a `fit`: the current step ends, a checkpoint is written; a second signal ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

import keras_models as km
import unbounded as ub
from helpers import wait_until
from unbounded.keras import Checkpoint, Feed
from unbounded.store.checkpoints import Checkpoints

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

LONG = 180.0  # seconds for which a silent source would keep fit waiting
SOON = 60.0  # far less than LONG, on the busiest machine; how soon it is on a quiet one is measured elsewhere


class Sender(threading.Thread):
    """Send this process a signal a moment after the event is set, so that it finds the main thread waiting.

    Args:
        event: set when the source is silent.
        number: of the signal.
        reached: whether all that came before is trained: a source is read ahead of that.
    """

    def __init__(self, event: threading.Event, number: int, reached: Callable[[], bool]) -> None:
        super().__init__()
        self.event, self.number, self.reached, self.sent = event, number, reached, 0.0
        self.start()

    def run(self) -> None:
        assert self.event.wait(LONG)
        wait_until(self.reached, LONG)
        time.sleep(0.2)
        self.sent = time.perf_counter()
        os.kill(os.getpid(), self.number)


def falls_silent(after_batches: int, silent: threading.Event, over: threading.Event) -> Any:
    """A generator that can go back, read in the trainer's own thread: it sleeps there."""

    def sensor(start: int = 0) -> Iterator[Any]:
        row = start
        while True:
            if row == 4 * after_batches:
                silent.set()
                time.sleep(LONG)
            yield km.rows(4, start=row)
            row += 4

    return sensor


def falls_silent_live(after_batches: int, silent: threading.Event, over: threading.Event) -> Any:
    """A generator that can't go back, read in a thread of its own."""

    def sensor() -> Iterator[Any]:
        for i in range(after_batches):
            yield km.rows(4, start=4 * i)
        silent.set()
        over.wait(2 * LONG)  # a thread in somebody else's code can't be ended
        yield km.rows(4, start=4 * after_batches)

    return sensor


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", [falls_silent, falls_silent_live])
@pytest.mark.parametrize("batches", [2, *km.any_backend(0, 5)])
def test_waiting_for_data_is_interrupted_at_once_and_saved(
    number: int, source: Any, batches: int, tmp_path: Path
) -> None:
    if batches != 2 and number == signal.SIGINT:
        pytest.skip("one signal is as good as the other")
    model = km.ready_model()
    handler = signal.getsignal(number)
    silent, over = threading.Event(), threading.Event()
    with Feed(ub.from_generator(source(batches, silent, over)), ub.Epoch(steps=5)) as feed:
        sender = Sender(silent, number, lambda: feed.core.steps == batches)
        checkpoint = Checkpoint(feed, tmp_path)
        model.fit(feed, epochs=3, verbose=0, callbacks=[checkpoint])
        ended = time.perf_counter()
        over.set()
        sender.join()
        assert checkpoint.stopped_by == signal.Signals(number).name
        assert feed.steps == batches
        assert ended - sender.sent < SOON
    assert signal.getsignal(number) == handler
    saved = Checkpoints(tmp_path).newest()
    assert (saved.number if saved else 0) == batches
    assert km.trained_ids(model) == list(range(4 * batches))


def test_the_step_at_hand_is_finished_and_no_other_begins(tmp_path: Path) -> None:
    model = km.ready_model()
    begun: list[int] = []

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            begun.append(batch)
            if batch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with Feed(ub.from_arrays(km.rows(40), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
        model.fit(feed, verbose=0, callbacks=[Checkpoint(feed, tmp_path), Interrupt()])
        assert feed.steps == 3
    assert begun == [0, 1, 2]
    assert km.trained_ids(model) == list(range(12))
    assert [saved.number for saved in Checkpoints(tmp_path).all()] == [3]


def test_a_long_validation_on_arrays_does_not_hold_up_the_end(tmp_path: Path) -> None:
    model = km.ready_model()
    evaluated: list[int] = []

    class Interrupt(keras.callbacks.Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            evaluated.append(batch)
            if batch == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with Feed(ub.from_arrays(km.rows(40), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
        callbacks = [Checkpoint(feed, tmp_path), Interrupt()]
        model.fit(
            feed,
            epochs=2,
            verbose=0,
            validation_data=km.rows(60),
            validation_batch_size=1,
            callbacks=callbacks,
        )
    assert evaluated == [0, 1, 2, 3]
    assert [saved.number for saved in Checkpoints(tmp_path).all()] == [6]


@pytest.mark.any_backend
def test_handlers_are_put_back_after_an_exception(tmp_path: Path) -> None:
    def mine(number: int, frame: Any) -> None: ...

    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise RuntimeError("a user's callback")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=6)) as feed:
            with pytest.raises(RuntimeError):
                km.ready_model().fit(feed, verbose=0, callbacks=[Checkpoint(feed, tmp_path), Fail()])
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_a_handler_that_outlives_its_fit_passes_the_signal_on(tmp_path: Path) -> None:
    kept: list[Any] = []

    class Fail(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # A debugger, or a notebook, keeps what the exception came from.
            kept.append(sys._getframe(1).f_locals["self"])
            raise RuntimeError("a user's callback")

    with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=6)) as feed:
        with pytest.raises(RuntimeError):
            km.ready_model().fit(feed, verbose=0, callbacks=[Checkpoint(feed, tmp_path), Fail()])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_fit_in_another_thread_takes_no_signals(tmp_path: Path) -> None:
    model = km.ready_model()
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            with Feed(ub.from_arrays(km.rows(40), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
                model.fit(feed, verbose=0, callbacks=[Checkpoint(feed, tmp_path)])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert errors == []
    assert km.trained_ids(model) == list(range(24))


@pytest.mark.slow
@pytest.mark.skipif(km.BACKEND == "tensorflow", reason="no backend has a part in it; one takes each signal")
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    number = signal.SIGINT if km.BACKEND == "torch" else signal.SIGTERM
    script = f"""
import os, sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}]
import keras, keras_models as km, unbounded as ub
class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os.kill(os.getpid(), {int(number)})
        print("first", flush=True)
        os.kill(os.getpid(), {int(number)})
        time.sleep({LONG})
        print("slept", flush=True)
with ub.keras.Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=6)) as feed:
    km.recording_model().fit(feed, verbose=0, callbacks=[Slow(), ub.keras.Checkpoint(feed, {str(tmp_path)!r})])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "first\n"
    if number == signal.SIGTERM:
        assert done.returncode == -signal.SIGTERM
    else:
        assert "KeyboardInterrupt" in done.stderr


@pytest.mark.any_backend
def test_a_fit_that_ends_takes_along_what_its_source_is_in_the_middle_of_reading(tmp_path: Path) -> None:
    handed: list[int] = []  # ids that are gone from wherever they came from
    reading, go_on = threading.Event(), threading.Event()

    def sensor() -> Iterator[Any]:
        while True:
            start = 4 * len(handed)
            handed.append(start)
            if len(handed) == 4:
                reading.set()
                go_on.wait(LONG)
            yield km.rows(4, start=start)

    class Last(keras.callbacks.Callback):  # type: ignore[misc]
        """The fourth block is being read while the last checkpoint is about to be written."""

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                assert reading.wait(LONG)
                threading.Timer(0.1, go_on.set).start()

    def fit(epochs: int) -> list[int]:
        model = km.ready_model(ids=4 * 64)
        with Feed(ub.from_generator(sensor), ub.Epoch(steps=1)) as feed:
            model.fit(feed, epochs=epochs, verbose=0, callbacks=[Last(), Checkpoint(feed, tmp_path)])
            return km.trained_ids(model)

    assert fit(2) == list(range(8))
    many = len(handed)
    trained = fit(many + 2)
    assert trained == list(range(4 * (many + 2)))
