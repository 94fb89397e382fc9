"""A checkpoint is of one moment: no later step changes it before it is written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from helpers import WriteGate, wait_until
from unbounded.core import leaf
from unbounded.keras import Checkpoint, Feed, _model_state, _optimizers
from unbounded.keras._model_state import model_state
from unbounded.store.checkpoints import CheckpointError, Checkpoints
from unbounded.store.writer import Writer

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


def arrays(tree: Any, path: str = "") -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        return {name: array for key, item in tree.items() for name, array in arrays(item, f"{path}/{key}").items()}
    return {path: tree} if isinstance(tree, np.ndarray) else {}


class Cuts(keras.callbacks.Callback):
    """Takes the model's state after each step, and a copy of it that is certainly one."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[Any] = []
        self.copies: list[dict[str, np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        state = model_state(self.model)
        self.cut.append(state)
        self.copies.append({path: np.array(array) for path, array in arrays(state).items()})


def model(optimizer: Any, **compiled: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(512, "relu"), keras.layers.BatchNormalization()]
    made = keras.Sequential([*layers, keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    made.compile(optimizer=optimizer, loss="mse", metrics=["mae"], **compiled)
    return made


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "average": lambda: keras.optimizers.RMSprop(0.1, use_ema=True),
}
# What other optimizers hold is copied as Adam's is.
WAYS: list[Any] = [("adam", {})]
WAYS += [pytest.param(name, {}, marks=pytest.mark.any_backend) for name in OPTIMIZERS if name != "adam"]
if km.BACKEND != "torch":
    WAYS += [("adam", {"run_eagerly": True}), ("adam", {"steps_per_execution": 2})]


@pytest.mark.parametrize(("optimizer", "compiled"), WAYS, ids=str)
def test_a_state_stays_as_it_was_while_training_goes_on(optimizer: str, compiled: dict[str, Any]) -> None:
    made, cuts = model(OPTIMIZERS[optimizer](), **compiled), Cuts()
    x = np.random.default_rng(0).random((64, 8), np.float32)
    made.fit(x, x.sum(1), batch_size=8, epochs=2, verbose=0, callbacks=[cuts])
    assert len(cuts.cut) == 16 // compiled.get("steps_per_execution", 1)
    for state, copies in zip(cuts.cut, cuts.copies, strict=True):
        now = arrays(state)
        assert now.keys() == copies.keys()
        assert not [path for path in copies if now[path].tobytes() != copies[path].tobytes()]
    first, last = cuts.copies[0], cuts.copies[-1]
    kernel = next(path for path in first if "kernel" in path)
    assert not np.array_equal(first[kernel], last[kernel])  # it did learn


@pytest.mark.skipif(km.BACKEND != "jax", reason="Only JAX copies arrays from an accelerator in the background.")
def test_arrays_of_an_accelerator_are_all_on_their_way_before_the_first_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The arrays lie in main memory, and are taken for an accelerator's: they are not copied a second time."""
    import jax

    made, cuts = model(keras.optimizers.Adam(0.1)), Cuts()
    calls: list[str] = []
    kind = type(jax.numpy.zeros(1))
    start, read = kind.copy_to_host_async, _model_state.read

    def starting(array: Any) -> None:
        calls.append("start")
        start(array)

    def reading(*given: Any) -> Any:
        calls.append("read")
        return read(*given)

    monkeypatch.setattr(leaf, "in_main_memory", lambda value: False)
    x = np.random.default_rng(0).random((32, 8), np.float32)
    made.fit(x, x.sum(1), batch_size=8, verbose=0, callbacks=[cuts])
    for state, copies in zip(cuts.cut, cuts.copies, strict=True):
        now = arrays(state)
        assert not [path for path in copies if now[path].tobytes() != copies[path].tobytes()]
    monkeypatch.setattr(kind, "copy_to_host_async", starting)
    monkeypatch.setattr(_model_state, "read", reading)
    monkeypatch.setattr(_optimizers, "read", reading)
    state = model_state(made)
    first = calls.index("read")
    assert "start" not in calls[first:]
    metrics = sum(len(metric) for metric in state["metrics"].values())
    optimizers = sum(len(optimizer["variables"]) for optimizer in state["optimizers"].values())
    assert first >= len(state["variables"]) + metrics + optimizers


class Weights(keras.callbacks.Callback):
    """A copy of the weights after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[dict[str, np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.after.append({path: np.array(array) for path, array in arrays(model_state(self.model)).items()})


@pytest.mark.parametrize("wait", [False, *km.any_backend(True)])
def test_checkpoints_that_follow_one_another_are_each_of_their_step(wait: bool, tmp_path: Path) -> None:
    """Of arrays so large that the memory of one checkpoint's copies is used for the next one's."""
    keras.utils.set_random_seed(0)
    wide = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8_000), keras.layers.Dense(1)])
    wide.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    weights = Weights()
    with Feed(ub.from_arrays(km.rows(64, 8), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
        saver = Checkpoint(feed, tmp_path, every=1, keep=20, wait=wait)
        wide.fit(feed, epochs=2, verbose=0, callbacks=[weights, saver])
    found = Checkpoints(tmp_path).all()
    assert found[-1].number == 12
    for saved in found:
        state = arrays(saved.read_state()["model"])
        copies = weights.after[saved.number - 1]
        large = [path for path in copies if copies[path].nbytes > 1 << 17]
        assert len(large) == 3  # the weights and Adam's two slots
        assert not [path for path in large if state[path].tobytes() != copies[path].tobytes()]


# -- written while training goes on ---------------------------------------------------------------------------------


class Each(keras.callbacks.Callback):
    """Does something at the ends of steps and epochs."""

    def __init__(self, do: Callable[[int], None], *, at_epochs: bool = False) -> None:
        super().__init__()
        self._do, self._at_epochs, self._step = do, at_epochs, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        if not self._at_epochs:
            self._do(self._step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._at_epochs:
            self._do(self._step)


def numbers(directory: Path) -> list[int]:
    return [saved.number for saved in Checkpoints(directory).all()]


def train(directory: Path, each: Any, every: int | None, *, epochs: int = 2, **given: Any) -> tuple[Any, Feed]:
    made = km.ready_model()
    with Feed(ub.from_arrays(km.rows(64), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
        callbacks = [each, Checkpoint(feed, directory, every, keep=20, **given)]
        made.fit(feed, epochs=epochs, verbose=0, callbacks=callbacks)
        return made, feed


@pytest.mark.any_backend
def test_a_save_that_falls_due_while_another_is_written_is_taken_at_the_next_step_after_it(
    write_gate: WriteGate, tmp_path: Path
) -> None:
    feeds: list[Any] = []

    def step(number: int) -> None:
        if number == 5:
            assert numbers(tmp_path) == []  # training has gone on, and 4 fell due, while 2 was written
            write_gate.open.set()
        if number >= 5:
            wait_until(lambda: not feeds[0].core.writer.busy)

    made = km.ready_model()
    with Feed(ub.from_arrays(km.rows(64), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
        feeds.append(feed)
        made.fit(feed, epochs=2, verbose=0, callbacks=[Each(step), Checkpoint(feed, tmp_path, 2, keep=20)])
    assert numbers(tmp_path) == [2, 5, 6, 8, 10, 12]
    for saved in Checkpoints(tmp_path).all():
        ids = saved.read_state()["model"]["variables"]
        seen = int(next(array for path, array in ids.items() if path.endswith("seen")))
        assert seen == 4 * saved.number
        assert saved.info["feeds"][0]["count"][0] == saved.number


@pytest.mark.any_backend
def test_the_end_of_an_epoch_that_comes_while_another_is_written_is_saved_later(
    write_gate: WriteGate, tmp_path: Path
) -> None:
    def step(number: int) -> None:
        if number == 14:  # 6, the end of the first epoch, has been held up, and 12 fell due
            write_gate.open.set()
            wait_until(lambda: bool(numbers(tmp_path)))
            wait_until(lambda: all(not t.name.startswith("unbounded-writer") for t in threading.enumerate()))

    train(tmp_path, Each(step), None, epochs=3)
    assert numbers(tmp_path) == [6, 14, 18]


@pytest.mark.any_backend
@pytest.mark.parametrize("at_epochs", [False, True])
def test_a_write_that_fails_ends_fit_with_the_model_whole_and_the_next_fit_goes_on(
    at_epochs: bool, write_gate: WriteGate, tmp_path: Path
) -> None:
    train(tmp_path, Each(lambda step: write_gate.open.set()), None, epochs=1)
    assert numbers(tmp_path) == [6]
    write_gate.failure = CheckpointError("Step 8 was not saved: No space left on device.")

    def step(number: int) -> None:
        if write_gate.failure is None:
            wait_until(lambda: all(not t.name.startswith("unbounded-writer") for t in threading.enumerate()))

    made = km.ready_model()
    with Feed(ub.from_arrays(km.rows(64), shuffle=False).batch(4), ub.Epoch(steps=6)) as feed:
        callbacks = [Each(step, at_epochs=at_epochs), Checkpoint(feed, tmp_path, 2, keep=20)]
        with pytest.raises(CheckpointError, match="Step 8 was not saved"):
            made.fit(feed, epochs=3, verbose=0, callbacks=callbacks)
        trained = feed.steps
        assert trained < 18
        assert km.trained_ids(made) == [i % 64 for i in range(4 * trained)]
        assert all(np.isfinite(w).all() for w in km.weights(made))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        made.fit(feed, epochs=3, verbose=0, callbacks=[Checkpoint(feed, tmp_path, 2, keep=20)])
        assert feed.steps == 18
    assert numbers(tmp_path)[0] == 6
    assert numbers(tmp_path)[-1] == 18
    assert km.trained_ids(made) == [i % 64 for i in range(72)]


@pytest.mark.any_backend
@pytest.mark.parametrize("ending", ["the end", "SIGTERM", "an exception"])
def test_what_is_being_written_is_on_the_disk_before_a_fit_is_over(
    ending: str, write_gate: WriteGate, tmp_path: Path
) -> None:
    def step(number: int) -> None:
        if number == 4:
            assert write_gate.reached.wait(60)  # of step 2
            threading.Timer(0.1, write_gate.open.set).start()
            if ending == "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            if ending == "an exception":
                raise ZeroDivisionError

    if ending == "an exception":
        with pytest.raises(ZeroDivisionError):
            train(tmp_path, Each(step), 2, epochs=1)
        assert numbers(tmp_path) == [2]  # the feed was closed
    else:
        _, feed = train(tmp_path, Each(step), 2, epochs=1)
        last = 4 if ending == "SIGTERM" else 6
        assert numbers(tmp_path)[0] == 2
        assert numbers(tmp_path)[-1] == last == feed.steps


@pytest.mark.any_backend
def test_a_second_signal_does_not_wait_for_the_disk(
    write_gate: WriteGate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, signalled = Writer.finish, threading.Event()

    def finish_until_signalled(writer: Writer) -> None:
        if signalled.is_set():  # by the first signal: it waits for the disk now
            signalled.clear()
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif write_gate.reached.is_set():  # closing the feed waits as well
            write_gate.open.set()
        finish(writer)

    monkeypatch.setattr(Writer, "finish", finish_until_signalled)

    def step(number: int) -> None:
        if number == 4:
            assert write_gate.reached.wait(60)
            signalled.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Each(step), 2, epochs=1)
    assert numbers(tmp_path) == [2]  # closing the feed has waited for it


@pytest.mark.any_backend
def test_a_checkpoint_that_waits_writes_in_the_training_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    threads, write = [], Checkpoints.write

    def noting(checkpoints: Checkpoints, *args: Any, **given: Any) -> Path:
        threads.append(threading.current_thread())
        return write(checkpoints, *args, **given)

    monkeypatch.setattr(Checkpoints, "write", noting)
    train(tmp_path, Each(lambda step: None), 1, epochs=1, wait=True)
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert set(threads) == {threading.main_thread()}
