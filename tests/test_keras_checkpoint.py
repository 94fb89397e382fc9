"""Checkpoint: a run that was stopped at any point ends with the same weights, bit for bit."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.feed.describe import RunFinished
from unbounded.keras import Checkpoint, Feed
from unbounded.keras._saving import NotSaved
from unbounded.store.checkpoints import CheckpointError, Checkpoints

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

EXECUTIONS = [1] if km.BACKEND == "torch" else [1, 4]
N = 40


def noisy(rows: Any, rng: np.random.Generator) -> Any:
    x, y = rows
    return x + np.pad(rng.normal(0, 0.1, (len(x), x.shape[1] - 1)), ((0, 0), (1, 0))).astype(np.float32), y


def all_stages() -> ub.Stream:
    """A stream with everything that has to come back: chance, buffers, reuse, a thread."""
    return ub.from_arrays(km.rows(N), seed=5).random_map(noisy).shuffle(12).replay(16, reuse=2.0).batch(4).prefetch(3)


class At(keras.callbacks.Callback):
    """Does something at the end of a step, a round or an epoch, counted over this `fit`."""

    def __init__(self, step: int = 0, *, test_batch: int = 0, epoch: int = 0, do: Callable[[], None]) -> None:
        super().__init__()
        # Iterators are no plain data, so these counts are not taken up again with the run.
        steps, tests, epochs = itertools.count(1), itertools.count(1), itertools.count(1)
        self._on_step = lambda: next(steps) == step and do()
        self._on_test = lambda: next(tests) == test_batch and do()
        self._on_epoch = lambda: next(epochs) == epoch and do()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._on_step()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._on_test()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._on_epoch()


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Run:
    """One run with everything on: each `fit` of it is as another process would do it, with all objects new."""

    def __init__(self, directory: Path, **kwargs: Any) -> None:
        self.directory = directory
        self.kwargs = kwargs
        self.model: Any = None
        self.history: Any = None
        self.checkpoint: Any = None

    def fit(
        self,
        *extra: keras.callbacks.Callback,
        epochs: int = 3,
        steps: int = 8,
        stream: Callable[[], ub.Stream] = all_stages,
        every: Any = None,
        executions: int = 1,
        validation: Any = "next",
        patience: int = 50,
        epoch: ub.Epoch | None = None,
        wait: bool = False,
    ) -> Run:
        given = {
            "epochs": epochs,
            "steps": steps,
            "stream": stream,
            "every": every,
            "executions": executions,
            "validation": validation,
            "patience": patience,
            "epoch": epoch,
        }
        for name, value in self.kwargs.items():
            given[name] = value
        executions, patience, epoch = given["executions"], given["patience"], given["epoch"]
        # As a script would have it: other weights, other random states, whatever came before.
        keras.utils.set_random_seed(np.random.default_rng().integers(1, 10**6).item())
        self.model = km.ready_model(dropout=0.5, steps_per_execution=executions)
        extra_feed = ub.from_arrays(km.rows(24), shuffle=False).batch(3)
        with (
            Feed(given["stream"](), epoch or ub.Epoch(steps=given["steps"])) as feed,
            Feed(extra_feed, ub.Epoch(steps=2 * executions), validation=given["validation"]) as val,
        ):
            self.checkpoint = Checkpoint([feed, val], self.directory, given["every"], wait=wait)
            callbacks = [
                keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
                self.checkpoint,
                keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True),
                keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, factor=0.5, min_delta=10.0),
                *extra,
            ]
            history = self.model.fit(feed, epochs=given["epochs"], verbose=0, callbacks=callbacks, validation_data=val)
            self.history = history.history
            self.steps, self.stats = feed.steps, feed.stats
            self.val_steps = val.rounds.feed.steps
        return self

    def until_done(self, *extra: keras.callbacks.Callback, **kwargs: Any) -> Run:
        self.fit(*extra, **kwargs)
        while self.checkpoint.stopped_by is not None:
            self.fit(**kwargs)
        return self


def result(run: Run) -> tuple[list[np.ndarray], Any]:
    times = ("waiting", "reuse")  # these say how fast it went, and how far ahead the source was read
    return km.weights(run.model), {name: values for name, values in run.history.items() if name not in times}


def assert_same(run: Run, whole: Run) -> None:
    assert km.trained_ids(run.model) == km.trained_ids(whole.model)
    (weights, history), (expected, expected_history) = result(run), result(whole)
    assert history == expected_history
    assert all(np.array_equal(a, b) for a, b in zip(weights, expected, strict=True))
    assert run.val_steps == whole.val_steps


@pytest.fixture(scope="module", params=EXECUTIONS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing has stopped, and its weights as they were then: the model is used again."""
    run = Run(tmp_path_factory.mktemp("whole"), executions=request.param).fit()
    frozen = Frozen(run.model)
    run.model = frozen
    assert run.steps == 24
    return run


class Frozen:
    """What a model has recorded and become, with the model's own names."""

    def __init__(self, model: Any) -> None:
        self.ids, self.weights = km.trained_ids(model), km.weights(model)


_trained_ids, _weights = km.trained_ids, km.weights


@pytest.fixture(autouse=True)
def frozen_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(km, "trained_ids", lambda m: m.ids if isinstance(m, Frozen) else _trained_ids(m))
    monkeypatch.setattr(km, "weights", lambda m: m.weights if isinstance(m, Frozen) else _weights(m))


# -- going on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, *km.any_backend(2, 4)])
def test_a_run_that_is_stopped_in_mid_epoch_ends_as_one_that_never_was(whole: Run, step: int, tmp_path: Path) -> None:
    run = Run(tmp_path, **whole.kwargs).fit(At(step, do=stop))
    assert run.checkpoint.stopped_by == "SIGTERM"
    assert run.steps == step * whole.kwargs["executions"]
    assert_same(run.until_done(), whole)


def test_two_stops_in_a_row_and_one_before_the_first_new_step_change_nothing(whole: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, **whole.kwargs)
    for step in (1, 1, 2):
        run.fit(At(step, do=stop))
    assert run.steps == 4 * whole.kwargs["executions"]
    assert_same(run.until_done(), whole)


def test_a_stop_at_an_epochs_last_step_validates_that_epoch_when_it_goes_on(whole: Run, tmp_path: Path) -> None:
    last = 8 // whole.kwargs["executions"]
    run = Run(tmp_path, **whole.kwargs).fit(At(last, do=stop))
    assert run.steps == 8
    assert run.history == {}
    assert_same(run.until_done(), whole)


@pytest.mark.parametrize("test_batch", [2, *km.any_backend(1, 3)])
def test_a_stop_in_validation_gives_the_round_up_and_does_it_again(whole: Run, test_batch: int, tmp_path: Path) -> None:
    run = Run(tmp_path, **whole.kwargs).fit(At(test_batch=test_batch, do=stop))
    assert run.steps == (8 if test_batch <= 2 else 16)
    assert len(run.history.get("loss", [])) == run.steps // 8 - 1
    assert_same(run.until_done(), whole)


def test_a_stop_between_two_epochs_is_one_at_the_epochs_end(whole: Run, tmp_path: Path) -> None:
    run = Run(tmp_path, **whole.kwargs).fit(At(epoch=2, do=stop))
    assert run.steps == 16
    assert len(run.history["val_loss"]) == 2
    assert_same(run.until_done(), whole)


def test_an_exception_leaves_the_last_checkpoint_to_go_on_from(whole: Run, tmp_path: Path) -> None:
    executions = whole.kwargs["executions"]
    run = Run(tmp_path, **whole.kwargs)

    def fail() -> None:
        raise RuntimeError("a user's callback")

    with pytest.raises(RuntimeError, match="a user's callback"):
        run.fit(At(8 // executions + 1, do=fail), every=4, wait=True)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert Checkpoints(tmp_path).newest().number == 8  # type: ignore[union-attr]
    assert_same(run.until_done(), whole)


@pytest.mark.any_backend
@pytest.mark.slow
def test_a_killed_process_ends_as_one_that_was_never_killed(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole").fit(every=3)
    frozen = Frozen(whole.model)
    script = (
        "import sys, os, signal, pathlib; sys.path[:0] = [sys.argv[1]]\n"
        "import test_keras_checkpoint as t\n"
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.Run(pathlib.Path(sys.argv[2])).fit(t.At(13, do=die), every=3, wait=True)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "killed")]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert Checkpoints(tmp_path / "killed").newest().number == 12  # type: ignore[union-attr]
    killed = Run(tmp_path / "killed").fit(every=3)
    whole.model = frozen
    assert_same(killed, whole)


@pytest.mark.any_backend
def test_the_same_rounds_of_a_source_that_cannot_go_back_are_the_same_rows_in_the_next_process(tmp_path: Path) -> None:
    ids = []
    for first in (0, 256):  # what the sensor says in the first process, and in the second

        def sensor(first: int = first) -> Iterator[Any]:
            for row in range(first, first + 200, 4):
                yield km.rows(4, start=row)

        model = km.ready_model(ids=512, records_rounds=True)
        with (
            Feed(small(), ub.Epoch(steps=4)) as feed,
            Feed(ub.from_generator(lambda: sensor()).batch(4), ub.Epoch(steps=3)) as val,
        ):
            callbacks = [Checkpoint([feed, val], tmp_path), *([] if first else [At(epoch=2, do=stop)])]
            model.fit(feed, epochs=4, verbose=0, callbacks=callbacks, validation_data=val)
        ids.append(km.evaluated_ids(model))
    assert ids == [[*range(12)] * 2, [*range(12)] * 4]


# -- when it is written --------------------------------------------------------------------------------------------


def numbers(directory: Path) -> list[int]:
    return [saved.number for saved in Checkpoints(directory).all()]


def small(batches: int = 10) -> ub.Stream:
    return ub.from_arrays(km.rows(4 * batches), shuffle=False).batch(4)


def fit(
    directory: Path, every: Any = None, *, epochs: int = 2, steps: int = 6, callbacks: Any = (), **kwargs: Any
) -> tuple[Any, Any]:
    """A plain run, which waits for each checkpoint, so that which there are does not depend on the disk."""
    model = kwargs.pop("model", None) or km.ready_model()
    with Feed(kwargs.pop("stream", small()), kwargs.pop("epoch", ub.Epoch(steps=steps))) as feed:
        checkpoint = Checkpoint(feed, directory, every, **{"wait": True, **kwargs})
        model.fit(feed, epochs=epochs, verbose=0, callbacks=[checkpoint, *callbacks])
        return model, feed


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (None, [6, 12]),
        (4, [4, 8, 12]),
        (100, [12]),
        (ub.Epoch(steps=5), [5, 10, 12]),
        (ub.Epoch(rows=17), [5, 10, 12]),
        (ub.Epoch(passes=0.5), [5, 10, 12]),
        (ub.Epoch(seconds=3600), [12]),
    ],
)
def test_every_says_when_and_the_end_of_training_always_saves(every: Any, expected: list[int], tmp_path: Path) -> None:
    fit(tmp_path, every, keep=9)
    assert numbers(tmp_path) == expected


@pytest.mark.any_backend
def test_the_newest_are_kept(tmp_path: Path) -> None:
    fit(tmp_path, 2, keep=2)
    assert numbers(tmp_path) == [10, 12]


@pytest.mark.any_backend
def test_a_checkpoint_that_is_due_at_an_epochs_last_step_is_written_at_its_end(tmp_path: Path) -> None:
    seen: list[Any] = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(numbers(tmp_path)))
    fit(tmp_path, 3, epochs=1, callbacks=[note])
    assert seen == [[3]]
    saved = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert (saved.number, saved.info["feeds"][0]["epoch"]["number"]) == (6, 1)


@pytest.mark.skipif(km.BACKEND == "torch", reason="Keras refuses steps_per_execution on torch")
def test_with_several_steps_per_execution_it_is_saved_between_executions(tmp_path: Path) -> None:
    fit(tmp_path, 6, steps=8, keep=9, model=km.ready_model(steps_per_execution=4))
    assert numbers(tmp_path) == [8, 12, 16]


@pytest.mark.parametrize("executions", EXECUTIONS)
def test_a_declared_end_in_the_middle_of_an_execution_is_counted_to_the_step(executions: int, tmp_path: Path) -> None:
    stream = ub.from_arrays(km.rows(42), shuffle=False, passes=1).batch(4)
    model, feed = fit(tmp_path, steps=8, stream=stream, model=km.ready_model(steps_per_execution=executions))
    assert (feed.steps, km.trained_ids(model)) == (11, list(range(42)))
    assert numbers(tmp_path) == [8, 11]


def test_weights_that_are_not_finite_never_replace_finite_ones(tmp_path: Path) -> None:
    model, _ = fit(tmp_path)

    class Boundary(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kernel = self.model.layers[-1].kernel
            kernel.assign(np.full(kernel.shape, np.nan, np.float32))

    with pytest.warns(
        NotSaved, match=r"dense\w*/kernel'\] has a NaN or an infinity after step 18.*the newest is of step 12"
    ):
        fit(tmp_path, epochs=3, callbacks=[Boundary()])
    assert numbers(tmp_path) == [6, 12]
    model, feed = fit(tmp_path, epochs=3)
    assert feed.steps == 18
    assert all(np.isfinite(w).all() for w in km.weights(model))


# -- epochs --------------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
def test_a_finished_run_says_so_and_names_the_epochs_that_would_go_on(tmp_path: Path) -> None:
    model, _ = fit(tmp_path, epochs=2)
    whole = km.weights(model)
    with pytest.warns(
        RunFinished, match=r"trained 2 epochs already, and 2 were asked for.*epochs=4 would go on"
    ) as said:
        model, feed = fit(tmp_path, epochs=2)
    assert [each.filename for each in said if each.category is RunFinished] == [__file__]
    assert feed.steps == 12
    assert len(model.history.history["loss"]) == 2
    assert all(np.array_equal(a, b) for a, b in zip(whole, km.weights(model), strict=True))
    model, feed = fit(tmp_path, epochs=3)
    assert (feed.steps, model.history.epoch) == (18, [0, 1, 2])


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_a_run_that_a_callback_ended_stays_ended_unless_more_epochs_are_asked_for(tmp_path: Path) -> None:
    def stopping() -> Any:
        return keras.callbacks.EarlyStopping("loss", patience=1, min_delta=100.0, restore_best_weights=True)

    model, feed = fit(tmp_path, epochs=9, callbacks=[stopping()])
    assert feed.steps == 12
    best = km.weights(model)
    with pytest.warns(RunFinished, match="a callback ended it"):
        model, feed = fit(tmp_path, epochs=9, callbacks=[stopping()])
    assert feed.steps == 12
    assert all(np.array_equal(a, b) for a, b in zip(best, km.weights(model), strict=True))
    model, feed = fit(tmp_path, epochs=10)
    assert feed.steps == 60


@pytest.mark.any_backend
def test_a_run_whose_stream_has_ended_says_so(tmp_path: Path) -> None:
    def ending() -> ub.Stream:
        return ub.from_arrays(km.rows(40), shuffle=False, passes=1).batch(4)

    model, feed = fit(tmp_path, epochs=5, stream=ending())
    assert (feed.steps, km.trained_ids(model)) == (10, list(range(40)))
    with pytest.warns(RunFinished, match="the stream's declared end ended it"):
        fit(tmp_path, epochs=5, stream=ending())


def test_a_second_fit_in_the_same_process_goes_on_with_the_run(tmp_path: Path) -> None:
    model = km.ready_model()
    with Feed(small(16), ub.Epoch(steps=6)) as feed:
        for epochs in (1, 3):
            history = model.fit(feed, epochs=epochs, verbose=0, callbacks=[Checkpoint(feed, tmp_path)])
        assert history.epoch == [0, 1, 2]
        model.fit(feed, epochs=1, verbose=0)  # without it, Keras counts epochs from 0 again
        assert feed.steps == 24
    assert km.trained_ids(model) == [i % 64 for i in range(96)]


def test_a_resumed_fit_that_fails_leaves_no_epoch_number_on_the_model(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("a user's callback")

    fit(tmp_path, epochs=2)
    model = km.ready_model()
    with pytest.raises(RuntimeError):
        fit(tmp_path, epochs=3, callbacks=[At(1, do=fail)], model=model)
    with Feed(small(), ub.Epoch(steps=3)) as feed:
        assert model.fit(feed, epochs=1, verbose=0).epoch == [0]


@pytest.mark.any_backend
@pytest.mark.each_keras
@pytest.mark.filterwarnings("ignore::unbounded.feed.describe.RunFinished")
def test_a_fit_that_has_nothing_left_to_train_leaves_no_epoch_number_on_the_model(tmp_path: Path) -> None:
    model, _ = fit(tmp_path, epochs=2)
    fit(tmp_path, epochs=2, model=model)
    x, y = km.rows(8)
    assert model.fit(x, y, epochs=1, verbose=0).epoch == [0]


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_a_resumed_fit_that_fails_before_its_first_epoch_leaves_none_either(tmp_path: Path) -> None:
    class Failing(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            raise RuntimeError("a user's callback")

    model, _ = fit(tmp_path, epochs=2)
    with pytest.raises(RuntimeError):
        fit(tmp_path, epochs=3, model=model, callbacks=[Failing()])
    x, y = km.rows(8)
    assert model.fit(x, y, epochs=1, verbose=0).epoch == [0]


@pytest.mark.any_backend
def test_an_epoch_goes_on_in_its_middle_by_rows_passes_and_changing_lengths(tmp_path: Path) -> None:
    def run(directory: Path, *extra: Any) -> tuple[Any, Any]:
        return fit(directory, epochs=5, epoch=ub.Epoch(passes=0.55), callbacks=extra)

    whole, feed = run(tmp_path / "whole")
    ids, history, steps = km.trained_ids(whole), whole.history.history["rows"], feed.steps
    for _ in range(3):
        run(tmp_path / "stopped", At(4, do=stop))
    model, feed = run(tmp_path / "stopped")
    assert (km.trained_ids(model), model.history.history["rows"], feed.steps) == (ids, history, steps)


# -- what other callbacks see --------------------------------------------------------------------------------------


def test_the_stats_are_in_the_logs_before_a_callback_that_stands_first_runs(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    first = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    csv = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    model = km.ready_model()
    with Feed(small(), ub.Epoch(steps=5)) as feed:
        model.fit(feed, epochs=2, verbose=0, callbacks=[first, csv, Checkpoint(feed, tmp_path / "run")])
        assert str(feed.last_epoch) == "5 batches × 4 = 20 rows, 0.5 passes"
    assert [(logs["rows"], logs["passes"]) for logs in seen] == [(20.0, 0.5)] * 2
    assert 0.0 <= seen[0]["waiting"] <= 1.0
    assert "rows" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert model.history.history["rows"] == [20.0, 20.0]


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_callbacks_do_not_get_the_end_of_half_an_epoch(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            heard.append(f"epoch {epoch}")

        def on_test_begin(self, logs: Any = None) -> None:
            heard.append("test")

        def on_train_end(self, logs: Any = None) -> None:
            heard.append("end")

    model = km.ready_model()
    x, y = km.rows(8)
    with Feed(small(), ub.Epoch(steps=4)) as feed:
        callbacks = [Listen(), Checkpoint(feed, tmp_path), At(6, do=stop)]
        model.fit(feed, epochs=3, verbose=0, callbacks=callbacks, validation_data=(x, y))
    assert heard == ["test", "epoch 0", "end"]


@pytest.mark.any_backend
def test_each_step_and_epoch_is_heard_once_by_other_callbacks_over_all_stops(tmp_path: Path) -> None:
    heard: list[str] = []

    class Listen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            heard.append(f"epoch {epoch}")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            heard.append("step")

    for step in (3, 1, 4, 100):  # at an epoch's last step, then at the next one's first
        fit(tmp_path, epochs=2, steps=4, callbacks=[Listen(), At(step, do=stop)])
    assert heard == [*["step"] * 4, "epoch 0", *["step"] * 4, "epoch 1"]


def test_a_resumed_bar_counts_on_from_where_the_epoch_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verbose in (0, 1):
        model = km.ready_model()
        with Feed(small(), ub.Epoch(steps=6)) as feed:
            callbacks = [Checkpoint(feed, tmp_path), *([At(4, do=stop)] if not verbose else [])]
            model.fit(feed, verbose=verbose, callbacks=callbacks)
    out = capsys.readouterr().out
    assert "5/6" in out
    assert "6/6" in out
    assert "1/6" not in out


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
def test_another_feed_than_fits_own_is_refused(tmp_path: Path) -> None:
    with (
        Feed(small(), ub.Epoch(steps=2)) as feed,
        Feed(small(), ub.Epoch(steps=2)) as other,
        pytest.raises(ValueError, match="were given different feeds"),
    ):
        km.ready_model().fit(feed, verbose=0, callbacks=[Checkpoint(other, tmp_path)])


@pytest.mark.any_backend
def test_another_feed_is_refused_also_if_an_earlier_fit_was_on_it(tmp_path: Path) -> None:
    model, (x, y) = km.ready_model(), km.rows(8)
    with Feed(small(), ub.Epoch(steps=2)) as feed, Feed(small(), ub.Epoch(steps=2)) as other:
        model.fit(other, verbose=0, callbacks=[Checkpoint(other, tmp_path)])
        with pytest.raises(ValueError, match="were given different feeds"):
            model.fit(feed, verbose=0, callbacks=[Checkpoint(other, tmp_path)])
        with pytest.raises(ValueError, match="were given different feeds"):
            model.fit(x, y, verbose=0, callbacks=[Checkpoint(other, tmp_path)])
        assert (feed.steps, other.steps) == (0, 2)
        model.fit(feed, verbose=0)
        with pytest.raises(ValueError, match="were given different feeds"):
            model.fit(x, y, verbose=0, callbacks=[Checkpoint(feed, tmp_path)])


@pytest.mark.any_backend
def test_another_model_another_stream_and_another_number_of_feeds_are_refused(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(ValueError, match="The checkpoint is of another model"):
        fit(tmp_path, epochs=3, model=km.ready_model(dropout=0.5))
    with pytest.raises(ValueError, match=r"The state is of another stream: batch\(rows\) was 4 and is 5"):
        fit(tmp_path, epochs=3, stream=ub.from_arrays(km.rows(40), shuffle=False).batch(5))
    model = km.ready_model()
    with Feed(small(), ub.Epoch(steps=2)) as feed, pytest.raises(CheckpointError, match="of 1 feeds"):
        model.fit(feed, epochs=3, verbose=0, callbacks=[Checkpoint([feed, feed], tmp_path)])


@pytest.mark.any_backend
def test_accepted_changes_go_on_all_the_same(tmp_path: Path) -> None:
    fit(tmp_path, epochs=1)
    with pytest.warns(UserWarning, match=r"another stream: batch\(rows\) was 4 and is 5"):
        _, feed = fit(
            tmp_path, epochs=2, stream=ub.from_arrays(km.rows(40), shuffle=False).batch(5), accept_changes=True
        )
    assert feed.steps == 12


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_two_callbacks_that_would_both_restore_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BackupAndRestore stands beside Checkpoint"):
        fit(tmp_path / "a", callbacks=[keras.callbacks.BackupAndRestore(str(tmp_path / "b"))])


def test_an_unbuilt_model_is_built_before_it_is_restored(tmp_path: Path) -> None:
    _, feed = fit(tmp_path, epochs=1, model=km.recording_model())
    model, feed = fit(tmp_path, epochs=2, model=km.recording_model(seed=7))
    assert (feed.steps, km.trained_ids(model)) == (12, [i % 40 for i in range(48)])
    assert int(model.optimizer.iterations) == 12


@pytest.mark.skipif(km.BACKEND != "jax", reason="JAX alone looks ahead, and on accelerators only")
def test_what_jax_has_looked_ahead_at_comes_again_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    fit(tmp_path, epochs=2, callbacks=[At(4, do=stop)])
    assert numbers(tmp_path) == [4]
    model, feed = fit(tmp_path, epochs=2)
    assert (feed.steps, km.trained_ids(model)) == (12, [i % 40 for i in range(48)])
