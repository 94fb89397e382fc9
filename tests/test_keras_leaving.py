"""A `fit` that is left in any way: the model stays usable, no row is lost or doubled, and the next one continues."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import Checkpoint, Feed
from unbounded.store.checkpoints import Checkpoints

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

EXECUTIONS = [1] if km.BACKEND == "torch" else [1, 4]
BATCH = 4


class Broken(Exception):
    """What a source, a function or a callback of a test raises."""


def rows_but(bad: int, how: str) -> Callable[..., Iterator[Any]]:
    """Blocks of one batch each, from any row on; batch number `bad` can't be had, once."""
    failed: list[int] = []

    def make(start: int = 0) -> Iterator[Any]:
        for number in itertools.count(start // BATCH):
            x, y = km.rows(BATCH, start=number * BATCH)
            if number == bad and not failed:
                failed.append(number)
                if how == "raises":
                    raise Broken("the source is down")
                x = np.concatenate([x[:, :1], x[:, 1:] * np.nan], 1)
            yield x, y

    return make


def alive(model: Any) -> bool:
    return all(np.isfinite(w).all() for w in model.get_weights())


# -- a batch that can't be had -----------------------------------------------------------------------------------


@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("how", ["raises", "nan"])
@pytest.mark.parametrize("bad", [0, 1, 5, 8])  # first, second of an execution, in mid-epoch, first after validation
def test_a_batch_that_cant_be_had_leaves_the_model_alive_and_the_next_fit_goes_on_with_it(
    bad: int, how: str, counted: bool, executions: int, tmp_path: Path
) -> None:
    model = km.ready_model(ids=256, steps_per_execution=executions)
    val = km.rows(4)
    with Feed(ub.from_generator(rows_but(bad, how)).batch(BATCH), ub.Epoch(steps=8)) as feed:

        def fit(epochs: int) -> None:
            callbacks = [keras.callbacks.History(), *([Checkpoint(feed, tmp_path)] if counted else [])]
            model.fit(feed, epochs=epochs, verbose=0, validation_data=val, callbacks=callbacks)

        with pytest.raises(Broken if how == "raises" else ValueError, match=f"down|row 0 of batch {bad}") as told:
            fit(2)
        assert alive(model)
        trained = bad // executions * executions
        assert feed.steps == trained
        assert km.trained_ids(model) == list(range(BATCH * trained))
        if how == "nan":
            assert "leaf [0]" in str(told.value)
            if not counted:  # the batch is in the feed's hands, and stays what it is
                with pytest.raises(ValueError, match=f"row 0 of batch {bad}"):
                    fit(2)
                assert alive(model)
                assert feed.steps == trained
                return
        fit(2)  # a source that is up again; with a checkpoint, the same run
        steps = 16 if counted else trained + 16
        assert feed.steps == steps
        assert km.trained_ids(model) == list(range(BATCH * steps))
        assert feed.stats.in_doubt == 0


@pytest.mark.skipif(km.BACKEND != "jax", reason="JAX alone takes batches ahead, and on accelerators only")
@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("bad", [0, 1, 4, 5, 8])
def test_a_batch_that_is_taken_ahead_and_cant_be_had_is_no_failure_of_the_step_before(
    bad: int, counted: bool, executions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    model = km.ready_model(ids=256, steps_per_execution=executions)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with Feed(ub.from_generator(rows_but(bad, "raises")).batch(BATCH), ub.Epoch(steps=8)) as feed:
        callbacks = [keras.callbacks.History(), *([Checkpoint(feed, tmp_path)] if counted else [])]
        with pytest.raises(Broken):
            model.fit(feed, epochs=2, verbose=0, callbacks=callbacks)
        assert alive(model)
        trained = bad // executions * executions
        assert (feed.steps, km.trained_ids(model)) == (trained, list(range(BATCH * trained)))
        model.fit(feed, epochs=2, verbose=0, callbacks=callbacks)
        steps = 16 if counted else trained + 16
        assert (feed.steps, feed.stats.in_doubt) == (steps, 0)
        assert km.trained_ids(model) == list(range(BATCH * steps))


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
@pytest.mark.parametrize("how", ["raises", "nan"])
@pytest.mark.parametrize("bad", [0, 2])
def test_a_round_that_fails_leaves_the_model_alive(verb: str, bad: int, how: str) -> None:
    model = km.ready_model(records_rounds=True)
    with Feed(ub.from_generator(rows_but(bad, how)).batch(BATCH), ub.Epoch(steps=4), validation="next") as feed:
        with pytest.raises((Broken, ValueError), match=f"down|row 0 of batch {bad}"):
            getattr(model, verb)(feed, verbose=0)
        assert alive(model)
        if how == "raises":
            getattr(model, verb)(feed, verbose=0)  # a round that was left is begun again
            assert km.evaluated_ids(model) == [*range(BATCH * bad), *range(16)]


@pytest.mark.any_backend
@pytest.mark.parametrize("counted", [False, True])
def test_a_column_of_objects_is_refused_by_name_before_a_model_is_built_or_a_step_is_trained(
    counted: bool, tmp_path: Path
) -> None:
    columns = {"id": np.arange(8.0), "name": np.array(["a", None] * 4, object)}
    for model in (km.ready_model(), km.recording_model()):
        stream = ub.from_arrays((columns["id"][:, None].repeat(3, 1), columns["name"])).batch(4)
        with (
            Feed(stream, ub.Epoch(steps=2)) as feed,
            pytest.raises(ub.RowsError, match=r"leaf \[1\].*object"),
        ):
            model.fit(feed, verbose=0, callbacks=[Checkpoint(feed, tmp_path)] if counted else None)
        assert alive(model)


# -- ways to leave -----------------------------------------------------------------------------------------------


class Leave(keras.callbacks.Callback):
    """Leaves `fit` at the end of a step, counted from 1 over all of it, or at its begin."""

    def __init__(self, at: int, how: Callable[[Any], None], *, begin: bool = False) -> None:
        super().__init__()
        self._left, self._how, self._at_begin = at, how, begin

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self._how(self)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._at_begin:
            self._count()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._at_begin:
            self._count()


def _raise(kind: type[BaseException]) -> Callable[[Any], None]:
    def leave(callback: Any) -> None:
        raise kind("left")

    return leave


def _stop_training(callback: Any) -> None:
    callback.model.stop_training = True


WAYS: dict[str, tuple[Callable[[Any], None], type[BaseException] | None]] = {
    "exception": (_raise(Broken), Broken),
    "KeyboardInterrupt": (_raise(KeyboardInterrupt), KeyboardInterrupt),
    "SystemExit": (_raise(SystemExit), SystemExit),
    "stop_training": (_stop_training, None),
}


def _fit(model: Any, feed: Feed, callbacks: list[Any], left_by: type[BaseException] | None, **given: Any) -> None:
    if left_by is None:
        model.fit(feed, verbose=0, callbacks=callbacks, **given)
    else:
        with pytest.raises(left_by):
            model.fit(feed, verbose=0, callbacks=callbacks, **given)


@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_plain_fit_that_is_left_in_mid_epoch_has_trained_what_the_model_says(
    way: str, begin: bool, executions: int
) -> None:
    how, left_by = WAYS[way]
    model = km.ready_model(ids=256, steps_per_execution=executions)
    with Feed(ub.from_arrays(km.rows(256), shuffle=False).batch(BATCH), ub.Epoch(steps=4 * executions)) as feed:
        _fit(model, feed, [Leave(3, how, begin=begin)], left_by, epochs=2)
        trained = len(km.trained_ids(model)) // BATCH
        assert trained == (2 if begin and left_by else 3) * executions
        assert feed.steps == trained
        assert feed.position.steps == feed.stats.steps == trained
        assert feed.state_dict()["count"][0] == trained
        model.fit(feed, epochs=2, verbose=0, callbacks=[keras.callbacks.History()])
        assert feed.steps == trained + 8 * executions
        assert feed.stats.in_doubt == 0
    assert km.trained_ids(model) == list(range(BATCH * (trained + 8 * executions)))


@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_left_in_mid_epoch_goes_on_by_the_same_call(
    way: str, begin: bool, executions: int, tmp_path: Path
) -> None:
    how, left_by = WAYS[way]
    model = km.ready_model(ids=256, steps_per_execution=executions)
    with Feed(ub.from_arrays(km.rows(256), shuffle=False).batch(BATCH), ub.Epoch(steps=4 * executions)) as feed:
        checkpoint = Checkpoint(feed, tmp_path, every=executions)
        # A callback of the user's stands before ours, and one after it.
        _fit(model, feed, [Leave(3, how, begin=begin), checkpoint, keras.callbacks.History()], left_by, epochs=2)
        assert feed.steps == len(km.trained_ids(model)) // BATCH
        # A callback that stopped a run has ended it: more epochs go on.
        model.fit(feed, epochs=2 + (way == "stop_training"), verbose=0, callbacks=[checkpoint])
        expected = 3 * executions + 2 * 4 * executions if not left_by else 8 * executions
        assert (feed.steps, feed.stats.in_doubt) == (expected, 0)
        assert feed.epoch_number == (3 if not left_by else 2)
    assert km.trained_ids(model) == list(range(BATCH * expected))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.any_backend
def test_two_models_in_turn_train_each_batch_once_between_them(tmp_path: Path) -> None:
    models = [km.recording_model(), km.recording_model(seed=1)]
    with Feed(ub.from_arrays(km.rows(64), shuffle=False).batch(BATCH), ub.Epoch(steps=2)) as feed:
        for turn in range(4):
            models[turn % 2].fit(feed, verbose=0, callbacks=[keras.callbacks.History()])
        assert feed.steps == 8
    seen = [km.trained_ids(model) for model in models]
    assert seen == [[*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)]]


@pytest.mark.any_backend
def test_a_fit_that_another_one_takes_the_feed_from_says_so() -> None:
    model, other = km.ready_model(), km.recording_model()

    class Inner(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            other.fit(feed, verbose=0)

    with Feed(ub.from_arrays(km.rows(64), shuffle=False).batch(BATCH), ub.Epoch(steps=2)) as feed:
        with pytest.raises(ub.StreamError, match="already at work for another fit"):
            model.fit(feed, verbose=0, callbacks=[Inner()])
        assert alive(model)


# -- saved before it is said ---------------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.parametrize("how", ["raises", "nan"])
def test_what_was_trained_is_saved_before_an_error_of_the_data_is_raised(how: str, tmp_path: Path) -> None:
    model = km.ready_model(ids=256)
    source = rows_but(13, how)
    with (
        Feed(ub.from_generator(source).batch(BATCH), ub.Epoch(steps=10)) as feed,
        pytest.raises((Broken, ValueError), match=r"down|NaN"),
    ):
        model.fit(feed, epochs=2, verbose=0, callbacks=[Checkpoint(feed, tmp_path)])
    assert [saved.number for saved in Checkpoints(tmp_path).all()] == [10, 13]
    again = km.ready_model(ids=256)
    with Feed(ub.from_generator(source).batch(BATCH), ub.Epoch(steps=10)) as feed:
        again.fit(feed, epochs=2, verbose=0, callbacks=[Checkpoint(feed, tmp_path)])
        assert feed.steps == 20
    assert km.trained_ids(again) == list(range(80))


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_left_before_its_first_checkpoint_trains_nothing_twice(
    kind: type[BaseException], tmp_path: Path
) -> None:
    model = km.ready_model(ids=256)
    for epochs in (1, 1):
        with Feed(ub.from_arrays(km.rows(256), shuffle=False).batch(BATCH), ub.Epoch(steps=20)) as feed:
            left = Leave(13, _raise(kind)) if not km.trained_ids(model) else keras.callbacks.History()
            _fit(
                model,
                feed,
                [left, Checkpoint(feed, tmp_path)],
                kind if isinstance(left, Leave) else None,
                epochs=epochs,
            )
    assert km.trained_ids(model) == list(range(80))


# -- runs and epochs -----------------------------------------------------------------------------------------------


def _run(directory: Path, **given: Any) -> tuple[Any, Feed]:
    model = km.ready_model(ids=256)
    with Feed(ub.from_arrays(km.rows(256), shuffle=False).batch(BATCH), ub.Epoch(steps=5)) as feed:
        callbacks = [Checkpoint(feed, directory), *given.pop("callbacks", [])]
        model.fit(feed, verbose=0, callbacks=callbacks, **given)
        return model, feed


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_initial_epoch_is_counted_in_the_runs_epochs(tmp_path: Path) -> None:
    model, feed = _run(tmp_path, epochs=10, initial_epoch=7)
    assert (feed.steps, feed.epoch_number, model.history.epoch) == (15, 10, [7, 8, 9])
    with pytest.warns(UserWarning, match="trained 10 epochs already"):
        model, feed = _run(tmp_path, epochs=10, initial_epoch=7)
    assert (feed.steps, len(km.trained_ids(model))) == (15, 60)


@pytest.mark.any_backend
def test_a_run_with_an_initial_epoch_that_is_stopped_goes_on_in_that_epoch(tmp_path: Path) -> None:
    stop = Leave(7, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    _run(tmp_path, epochs=10, initial_epoch=7, callbacks=[stop])
    model, feed = _run(tmp_path, epochs=10, initial_epoch=7)
    assert (feed.steps, model.history.epoch) == (15, [7, 8, 9])
    assert km.trained_ids(model) == list(range(60))


@pytest.mark.any_backend
def test_a_run_of_its_own_counts_its_own_epochs_whatever_the_feed_was_trained_on_before(tmp_path: Path) -> None:
    model = km.ready_model(ids=256)
    with Feed(ub.from_arrays(km.rows(256), shuffle=False).batch(BATCH), ub.Epoch(steps=5)) as feed:
        model.fit(feed, epochs=2, verbose=0)  # a warm-up
        for phase in ("first", "second"):
            history = model.fit(feed, epochs=3, verbose=0, callbacks=[Checkpoint(feed, tmp_path / phase)])
            assert history.epoch == [0, 1, 2]
        assert feed.steps == 40
    assert km.trained_ids(model) == list(range(160))


# -- models of all kinds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("rate", ["accumulation", *km.any_backend("ema", "scaled")])
def test_an_optimizer_of_another_kind_goes_on_bit_equal(rate: str, counted: bool, tmp_path: Path) -> None:
    if rate == "ema" and not counted:
        pytest.skip("Keras overwrites the weights at the end of each fit, which only a checkpoint can undo")

    def optimizer() -> Any:
        if rate == "ema":
            return keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=None)
        if rate == "accumulation":
            return keras.optimizers.Adam(1e-2, gradient_accumulation_steps=3)
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2), dynamic_growth_steps=4)

    def model() -> Any:
        keras.utils.set_random_seed(0)
        made = keras.Sequential([keras.Input((3,)), km.Recorder(256, 4096), keras.layers.Dense(1)])
        made.compile(optimizer(), "mse")
        return made

    def feed() -> Feed:
        return Feed(ub.from_arrays(km.rows(256), shuffle=False).batch(BATCH), ub.Epoch(steps=5))

    whole = model()
    with feed() as fed:
        whole.fit(fed, epochs=3, verbose=0)
    part = model()
    with feed() as fed:
        for at in (4, 3) if counted else (4,):
            callbacks = [Leave(at, _raise(Broken)), *([Checkpoint(fed, tmp_path, every=1)] if counted else [])]
            _fit(part, fed, callbacks, Broken, epochs=3)
            if counted:
                part = model()  # what another process would make
        if counted:
            part.fit(fed, epochs=3, verbose=0, callbacks=[Checkpoint(fed, tmp_path)])
            assert fed.steps == 15
        else:
            part.fit(fed, epochs=1, steps_per_epoch=None, verbose=0)
            assert fed.steps == 9
    ids = km.trained_ids(part)
    assert ids == list(range(BATCH * fed.steps))
    if counted:
        for ours, theirs in zip(part.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


# -- what stands beside ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("kind", ["labels", *km.any_backend("column", "one-hot")])
def test_class_weight_weighs_as_it_does_for_arrays(kind: str, executions: int) -> None:
    x = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    labels = np.arange(24) % 3
    y = {"labels": labels, "column": labels[:, None], "one-hot": np.eye(3, dtype=np.float32)[labels]}[kind]
    loss = "categorical_crossentropy" if kind == "one-hot" else "sparse_categorical_crossentropy"

    def fitted(**given: Any) -> list[np.ndarray]:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax")])
        model.compile(keras.optimizers.SGD(0.5), loss, steps_per_execution=executions)
        model.fit(verbose=0, class_weight={0: 1.0, 1: 5.0}, **given)
        return [np.array(w) for w in model.get_weights()]

    with Feed(ub.from_arrays((x, y), shuffle=False).batch(6), ub.Epoch(steps=4)) as feed:
        ours = fitted(x=feed)
    theirs = fitted(x=x, y=y, batch_size=6, shuffle=False)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_class_weight_beside_weights_or_without_targets_gets_a_sentence() -> None:
    x, y = km.rows(8)
    for rows, said in (((x, y, np.ones(8, np.float32)), "beside batches that have weights"), (x, "have no targets")):
        with Feed(ub.from_arrays(rows).batch(4), ub.Epoch(steps=2)) as feed, pytest.raises(ValueError, match=said):
            km.ready_model().fit(feed, verbose=0, class_weight={0: 1.0})
    with (
        Feed(ub.from_arrays((x, y)).batch(4), ub.Epoch(steps=2)) as feed,
        pytest.raises(TypeError, match="Expected a dict"),
    ):
        km.ready_model().fit(feed, verbose=0, class_weight=[1.0, 2.0])


def test_a_stream_or_a_core_feed_in_fit_and_a_feed_in_adapt_get_the_word_to_write() -> None:
    stream = ub.from_arrays(km.rows(8)).batch(4)
    with pytest.raises((TypeError, AttributeError), match=r"Keras takes a feed of it: model.fit\(ub.keras.Feed"):
        km.ready_model().fit(stream, verbose=0)
    with (
        ub.Feed(stream, epoch=ub.Epoch(steps=2)) as core,
        pytest.raises((TypeError, AttributeError), match=r"model.fit\(ub.keras.Feed"),
    ):
        km.ready_model().fit(core, verbose=0)
    if km.BACKEND != "tensorflow":
        return  # Keras 3.11 needs TensorFlow to adapt a layer, and the tests hide it from other backends
    with Feed(stream, ub.Epoch(steps=2)) as feed:
        with pytest.raises(TypeError, match=r"layer.adapt\(feed.peek\(\)\[0\]\)"):
            keras.layers.Normalization().adapt(feed)
        keras.layers.Normalization().adapt(feed.peek()[0])


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_steps_per_execution_auto_gets_a_sentence() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution="auto")
    with (
        Feed(ub.from_arrays(km.rows(8)).batch(4), ub.Epoch(steps=2)) as feed,
        pytest.raises(ValueError, match=r"steps_per_execution='auto'.*Compile it with a number"),
    ):
        model.fit(feed, verbose=0)


# -- the bar -----------------------------------------------------------------------------------------------------------


@pytest.mark.any_backend
def test_the_bar_shows_loss_metrics_and_one_of_our_figures_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for show, shown in ((None, ["waiting"]), (("rows", "reuse"), ["rows", "reuse"]), ((), [])):
        model = km.ready_model()
        given = {} if show is None else {"show": show}
        with Feed(ub.from_arrays(km.rows(40)).batch(4), ub.Epoch(steps=5), **given) as feed:
            directory = tmp_path / str(len(shown)) / str(shown)
            history = model.fit(feed, verbose=2, callbacks=[Checkpoint(feed, directory)])
        line = next(line for line in capsys.readouterr().out.splitlines() if "loss" in line)
        names = [part.split(":")[0] for part in line.split("/step")[1].split(" - ")[1:]]
        assert names == ["loss", "mae", *shown]
        assert {"rows", "passes", "waiting", "reuse"} <= set(history.history)
