"""A feed in `fit`, `evaluate` and `predict` without our callback, checked by a model that records its batches."""

from __future__ import annotations

import doctest
import gc
import itertools
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from unbounded.keras import Feed, internals
from unbounded.testing import Clock

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)

EXECUTIONS = [1] if km.BACKEND == "torch" else [1, 4]  # Keras refuses more on torch


def stream(n: int = 64, batch: int = 4, **kwargs: Any) -> ub.Stream:
    return ub.from_arrays(km.rows(n), shuffle=False, **kwargs).batch(batch)


def blocks(*sizes: int) -> ub.Stream:
    """A stream whose batches have these many rows, with ids that go up."""

    def make() -> Iterator[Any]:
        start = 0
        for size in sizes:
            yield km.rows(size, start=start)
            start += size

    return ub.from_generator(make, passes=1)


# -- what is trained on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("validation", [False, True])
def test_every_row_is_trained_on_once_and_in_order_over_epochs_and_fits(built: bool, validation: bool) -> None:
    model = km.ready_model() if built else km.recording_model()
    with Feed(stream(40), ub.Epoch(steps=3)) as feed, Feed(stream(8, 3, passes=1)) as val:
        for fit in range(2):
            model.fit(feed, epochs=2, verbose=0, validation_data=val if validation else None)
            assert feed.steps == 6 * (fit + 1)
    assert km.trained_ids(model) == [i % 40 for i in range(48)]
    assert int(model.optimizer.iterations) == 12


@pytest.mark.parametrize("executions", EXECUTIONS)
@pytest.mark.parametrize("directed", [False, True])
def test_a_fit_that_is_interrupted_trains_none_of_the_batches_that_are_at_hand(
    executions: int, directed: bool, tmp_path: Path
) -> None:
    if executions > 1 and not directed and km.BACKEND == "tensorflow":
        pytest.skip("TensorFlow then trains the block that it has in hand")
    model = km.ready_model(steps_per_execution=executions)
    with Feed(stream(64), ub.Epoch(steps=40 * executions)) as feed:

        def stop(batch: int, logs: Any) -> None:
            if batch == last:
                feed.interrupt()

        callbacks: list[Any] = [keras.callbacks.LambdaCallback(on_train_batch_end=stop)]
        if directed:
            callbacks.append(ub.keras.Checkpoint(feed, tmp_path))
        last = 5 * executions - 1
        model.fit(feed, epochs=1, verbose=0, callbacks=callbacks)
        assert feed.steps == 5 * executions
        last = -1
        model.fit(feed, epochs=2 if directed else 1, verbose=0, callbacks=callbacks)
        assert feed.steps == 45 * executions
        assert feed.stats.in_doubt == 0
    assert km.trained_ids(model) == [i % 64 for i in range(4 * 45 * executions)]


def test_shuffled_prefetched_and_mapped_rows_are_trained_on_once_in_each_pass() -> None:
    model = km.ready_model()
    rows = ub.from_arrays(km.rows(64), seed=3).shuffle(10).map(lambda r: r, workers=2).batch(4).prefetch(8)
    with Feed(rows, ub.Epoch(passes=1)) as feed:
        model.fit(feed, epochs=2, verbose=0)
    ids = km.trained_ids(model)
    assert sorted(ids[:64]) == sorted(ids[64:]) == list(range(64))
    assert ids[:64] != ids[64:]


def test_a_generator_that_ends_is_an_error_and_not_the_first_two_batches_again() -> None:
    def five() -> Iterator[Any]:
        for i in range(5):
            yield km.rows(4, start=4 * i)

    model = km.ready_model()
    with (
        Feed(ub.from_generator(five), ub.Epoch(steps=4)) as feed,
        pytest.raises(ub.StreamError, match="ended after 20 rows"),
    ):
        model.fit(feed, epochs=3, verbose=0)
    assert km.trained_ids(model) == list(range(20))


@pytest.mark.parametrize("epoch", [None, ub.Epoch(steps=2), ub.Epoch(steps=5)])
def test_a_declared_end_ends_training_with_its_last_row(epoch: ub.Epoch | None) -> None:
    model = km.ready_model()
    with Feed(stream(18, passes=1), epoch) as feed:
        history = model.fit(feed, epochs=4, verbose=0)
        lengths = {None: 1, ub.Epoch(steps=2): 3, ub.Epoch(steps=5): 1}
        assert len(history.history["loss"]) == lengths[epoch]
        with pytest.raises(ub.StreamError, match="declared end after 5 steps"):
            model.fit(feed, verbose=0)
    assert km.trained_ids(model) == list(range(18))


@pytest.mark.any_backend
@pytest.mark.each_keras
@pytest.mark.parametrize("verbose", [0, 1])
def test_epochs_of_changing_length_are_exact(verbose: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = km.ready_model(ids=256)
    with Feed(blocks(*[20] * 3, *[12] * 5, *[30] * 2, *[10] * 6), ub.Epoch(rows=60)) as feed:
        # Without a callback of ours Keras's bar takes the first epoch's length for that of all.
        callbacks = [ub.keras.Checkpoint(feed, tmp_path)] if verbose else []
        history = model.fit(feed, epochs=4, verbose=verbose, callbacks=callbacks)
    assert km.trained_ids(model) == list(range(240))
    assert int(model.optimizer.iterations) == 16
    assert len(history.history["loss"]) == 4
    assert len({round(loss, 6) for loss in history.history["loss"]}) == 4
    if verbose:
        out = capsys.readouterr().out
        assert [f"{n}/{n}\x1b" in out for n in (3, 5, 2, 6)] == [True] * 4
        assert "21474" not in out


def test_a_last_batch_of_fewer_rows_and_blocks_of_several_lengths_are_trained_on_as_they_are() -> None:
    short = ub.from_arrays(km.rows(60), shuffle=False, passes=1).batch(8)
    for made, count in ((short, 60), (blocks(*[20] * 3, *[12] * 3, 7, *[20] * 2), 143)):
        model = km.ready_model(ids=256)
        with Feed(made) as feed:
            model.fit(feed, verbose=0)
            assert int(model.optimizer.iterations) == feed.steps
        assert km.trained_ids(model) == list(range(count))


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_passes_are_carried_and_the_bar_knows_each_epochs_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = km.ready_model()
    with Feed(stream(10), ub.Epoch(passes=1)) as feed:
        model.fit(feed, epochs=6, verbose=2, callbacks=[ub.keras.Checkpoint(feed, tmp_path)])
        assert feed.steps == 15
    out = capsys.readouterr().out
    assert [line.split(" - ")[0] for line in out.splitlines() if "/step" in line] == ["3/3", "2/2"] * 3


def test_a_bar_shows_the_true_target_from_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Feed(stream(), ub.Epoch(steps=7)) as feed:
        km.ready_model().fit(feed, verbose=1)
    # Which step is shown first depends on the thread in which Keras calls its bar on JAX; each has the target.
    assert set(re.findall(r"\d+/(\w+)", capsys.readouterr().out)) == {"7"}


def test_a_source_that_falls_silent_does_not_hold_up_the_end_of_an_epoch() -> None:
    silence = threading.Event()

    def sensor() -> Iterator[Any]:
        for i in range(8):
            yield km.rows(4, start=4 * i)
        assert silence.wait(60), "the epoch waited for a batch that it does not need"

    model = km.ready_model()
    feed = Feed(ub.from_generator(sensor), ub.Epoch(steps=8))
    model.fit(feed, verbose=0)
    assert km.trained_ids(model) == list(range(32))
    silence.set()
    feed.close()


@pytest.mark.parametrize("executions", EXECUTIONS)
def test_an_epoch_of_seconds_ends_with_the_step_that_reaches_them(
    executions: int, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    model = km.ready_model(steps_per_execution=executions)
    took = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: clock.advance(3.0))
    with Feed(stream(), ub.Epoch(seconds=10), runtime=clock) as feed:
        history = model.fit(feed, epochs=2, verbose=2, callbacks=[took])
        steps = 4 * executions
        assert (feed.steps, len(history.history["loss"])) == (2 * steps, 2)
    assert km.trained_ids(model) == [i % 64 for i in range(4 * 2 * steps)]
    assert f"{steps}/{steps} - " in capsys.readouterr().out


def test_keras_own_cap_on_steps_for_debugging_holds_for_a_feed() -> None:
    keras.config.set_max_steps_per_epoch(2)
    try:
        with Feed(stream(), ub.Epoch(steps=6)) as feed:
            with pytest.warns(UserWarning, match="Limiting steps_per_epoch"):
                km.ready_model().fit(feed, epochs=2, verbose=0)
            assert feed.steps == 4
    finally:
        keras.config.set_max_steps_per_epoch(None)


# -- steps per execution -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("executions", EXECUTIONS)
def test_steps_per_execution_trains_as_many_steps_as_the_epoch_has(executions: int) -> None:
    model = km.ready_model(steps_per_execution=executions)
    with Feed(stream(), ub.Epoch(steps=8)) as feed:
        model.fit(feed, epochs=2, verbose=0)
        assert feed.steps == 16
    assert km.trained_ids(model) == list(range(64))


@pytest.mark.skipif(km.BACKEND == "torch", reason="Keras refuses steps_per_execution on torch")
def test_an_epoch_that_is_no_multiple_of_steps_per_execution_is_refused_with_the_numbers_to_use() -> None:
    with (
        Feed(stream(), ub.Epoch(steps=10)) as feed,
        pytest.raises(ValueError, match=r"Epoch\(steps=10\) is not a multiple of steps_per_execution=4: use 8 or 12"),
    ):
        km.ready_model(steps_per_execution=4).fit(feed, verbose=0)


@pytest.mark.skipif(km.BACKEND == "torch", reason="Keras refuses steps_per_execution on torch")
def test_other_bounds_are_rounded_up_to_whole_executions_and_a_declared_end_is_not() -> None:
    model = km.ready_model(steps_per_execution=4)
    with Feed(stream(44, passes=1), ub.Epoch(rows=17)) as feed:
        history = model.fit(feed, epochs=5, verbose=0)
        assert feed.steps == 11
    assert km.trained_ids(model) == list(range(44))
    assert len(history.history["loss"]) == 2


@pytest.mark.skipif(km.BACKEND != "tensorflow", reason="only there are batches handed over many at a time")
def test_steps_that_have_run_are_counted_before_the_epoch_is_over_though_batches_are_handed_over_many_at_a_time() -> (
    None
):
    counted: list[int] = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: counted.append(feed.steps))
    with Feed(stream(), ub.Epoch(steps=160)) as feed:
        km.ready_model(steps_per_execution=4).fit(feed, verbose=0, callbacks=[note])
        assert feed.steps == 160
    assert counted == list(range(4, 164, 4))


# -- rounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", ["same", "next"])
def test_each_round_of_validation_sees_the_same_batches_or_the_next_ones(validation: Any) -> None:
    model = km.ready_model(records_rounds=True)
    with (
        Feed(stream(40), ub.Epoch(steps=3)) as feed,
        Feed(stream(32), ub.Epoch(steps=2), validation=validation) as val,
    ):
        model.fit(feed, epochs=3, verbose=0, validation_data=val)
    assert km.trained_ids(model) == list(range(36))
    assert km.evaluated_ids(model) == [*range(8)] * 3 if validation == "same" else [*range(24)]


@pytest.mark.parametrize("executions", EXECUTIONS)
def test_a_declared_end_is_seen_exactly_once_each_round(executions: int) -> None:
    model = km.ready_model(records_rounds=True, steps_per_execution=executions)
    with Feed(stream(40), ub.Epoch(steps=4)) as feed, Feed(stream(22, passes=1)) as val:
        model.fit(feed, epochs=2, verbose=0, validation_data=val)
        model.evaluate(val, verbose=0)
    assert km.evaluated_ids(model) == [*range(22)] * 3


@pytest.mark.any_backend
def test_the_same_rounds_of_a_source_that_cannot_go_back_are_the_same_rows() -> None:
    def sensor() -> Iterator[Any]:
        for i in range(100):
            yield km.rows(4, start=4 * i)

    model = km.ready_model(ids=512, records_rounds=True)
    with Feed(stream(40), ub.Epoch(steps=2)) as feed, Feed(ub.from_generator(sensor), ub.Epoch(steps=2)) as val:
        model.fit(feed, epochs=3, verbose=0, validation_data=val)
    assert km.evaluated_ids(model) == [*range(8)] * 3


@pytest.mark.any_backend
def test_validation_steps_beside_a_feed_without_an_epoch_are_exact() -> None:
    model = km.ready_model(records_rounds=True)
    with Feed(stream(40), ub.Epoch(steps=2)) as feed, Feed(stream(32)) as val:
        model.fit(feed, epochs=2, verbose=0, validation_data=val, validation_steps=3)
        with pytest.raises(ValueError, match="nothing says how much of it makes a round"):
            model.evaluate(val, verbose=0)
    assert km.evaluated_ids(model) == [*range(12)] * 2


def test_evaluating_and_predicting_on_the_feed_that_is_trained_leave_its_place_alone() -> None:
    model = km.ready_model(records_rounds=True)

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.evaluate(feed, verbose=0)

    with Feed(stream(40), ub.Epoch(steps=3)) as feed:
        model.fit(feed, epochs=2, verbose=0, callbacks=[Look()])
        assert model.predict(feed, verbose=0).shape == (12, 1)
        assert len(model.evaluate(feed, verbose=0)) == 2
        model.fit(feed, epochs=1, verbose=0)
    assert km.trained_ids(model) == list(range(36))
    assert km.evaluated_ids(model) == [*range(12)] * 4


@pytest.mark.parametrize("executions", EXECUTIONS)
def test_evaluating_gives_what_arrays_would_give(executions: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = km.ready_model(steps_per_execution=executions)  # of four steps at once there are three
    x, y = km.rows(12)
    with Feed(stream(12, passes=1)) as feed:
        assert model.evaluate(feed, verbose=1) == pytest.approx(model.evaluate(x, y, batch_size=4, verbose=0))
        np.testing.assert_allclose(model.predict(feed, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert "3/3" in capsys.readouterr().out


# -- what stands beside a feed -----------------------------------------------------------------------------------


@pytest.mark.any_backend
@pytest.mark.each_keras
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("y", np.zeros((4, 1))),
        ("sample_weight", np.ones(4)),
        ("batch_size", 8),
    ],
)
def test_what_keras_would_drop_in_silence_is_refused(name: str, value: Any) -> None:
    with (
        Feed(stream(), ub.Epoch(steps=2)) as feed,
        pytest.raises(ValueError, match=f"^{name}.* beside a feed"),
    ):
        km.ready_model().fit(feed, verbose=0, **{name: value})


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (np.array(["a", "b"] * 4), "text"),
        (np.arange(8).astype("M8[s]"), "times"),
        (np.arange(8).astype("m8[s]"), "durations"),
    ],
)
@pytest.mark.parametrize("built", [False, True])
def test_a_column_that_the_backend_has_no_dtype_for_is_named_before_the_first_step(
    values: Any, word: str, built: bool
) -> None:
    if km.BACKEND == "tensorflow" and word == "text":
        pytest.skip("TensorFlow has strings, which layers such as StringLookup take")
    model = km.ready_model() if built else km.recording_model()
    x, y = km.rows(8)
    bad = ub.from_arrays(({"x": x, "name": values}, y)).batch(4)
    with Feed(bad, ub.Epoch(steps=2)) as feed, pytest.raises(ub.RowsError, match=f"the column 'name' is {word}"):
        model.fit(feed, verbose=0)


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_batches_without_targets_are_refused_where_the_models_loss_needs_them() -> None:
    x, _ = km.rows(8)
    for rows, shown in ((x, "one array"), ({"a": x}, "a dict of 'a'"), ((x,), "a tuple of 1")):
        with (
            Feed(ub.from_arrays(rows).batch(4), ub.Epoch(steps=2)) as feed,
            pytest.raises(ValueError, match=rf"loss='mse', and the batches have no targets: each is {shown}"),
        ):
            km.ready_model().fit(feed, verbose=0)
    model = keras.Sequential([keras.Input((x.shape[1],)), keras.layers.Dense(1, activity_regularizer="l2")])
    model.compile("sgd")  # without a loss, what its layers add is trained on
    with Feed(ub.from_arrays(x).batch(4), ub.Epoch(steps=2)) as feed:
        model.fit(feed, verbose=0)
        assert feed.steps == 2


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_targets_beside_a_validation_feed_are_refused() -> None:
    _, y = km.rows(8)
    with (
        Feed(stream(), ub.Epoch(steps=2)) as feed,
        pytest.raises(ValueError, match=r"^y was given beside a feed"),
    ):
        km.ready_model().fit(feed, verbose=0, validation_data=(feed, y))
    with Feed(stream(), ub.Epoch(steps=2)) as feed, pytest.raises(ValueError, match=r"^y was given"):
        km.ready_model().evaluate(feed, y, verbose=0)


@pytest.mark.parametrize("executions", EXECUTIONS)
def test_steps_per_epoch_beside_a_feed_without_an_epoch_is_exact(executions: int) -> None:
    model = km.ready_model(steps_per_execution=executions)
    with Feed(stream(40)) as feed:
        history = model.fit(feed, epochs=3, steps_per_epoch=4, verbose=0)
        assert (feed.steps, len(history.history["loss"])) == (12, 3)
    assert km.trained_ids(model) == [i % 40 for i in range(48)]


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_steps_per_epoch_beside_another_epoch_is_refused() -> None:
    with (
        Feed(stream(), ub.Epoch(rows=60)) as feed,
        pytest.raises(ValueError, match=r"steps_per_epoch=10 was given beside a feed with Epoch\(rows=60\)"),
    ):
        km.ready_model().fit(feed, steps_per_epoch=10, verbose=0)
    with Feed(stream(), ub.Epoch(steps=2)) as feed:
        km.ready_model().fit(feed, steps_per_epoch=2, verbose=0)


@pytest.mark.any_backend
@pytest.mark.each_keras
def test_an_endless_feed_without_an_epoch_is_refused_and_told_what_to_write() -> None:
    with (
        Feed(stream()) as feed,
        pytest.raises(ValueError, match=r"nothing says what an epoch is.*Epoch\(steps=1000\)"),
    ):
        km.ready_model().fit(feed, verbose=0)


@pytest.mark.any_backend
def test_a_closed_feed_is_refused() -> None:
    feed = Feed(stream(), ub.Epoch(steps=2))
    feed.close()
    with pytest.raises(ub.StreamError, match="closed"):
        km.ready_model().fit(feed, verbose=0)


def test_weights_and_several_inputs_reach_the_model_as_keras_wants_them() -> None:
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(1)(keras.layers.Concatenate()([a, b])))
    model.compile(optimizer="sgd", loss="mse", weighted_metrics=["mae"])
    columns = {name: np.arange(8, dtype=np.float32)[:, None] for name in ("p", "q", "t")}
    rows = ub.from_arrays({**columns, "w": np.zeros(8, np.float32)}).columns(
        x={"a": "p", "b": "q"}, y="t", sample_weight="w"
    )
    with Feed(rows.batch(4), ub.Epoch(steps=2)) as feed:
        assert model.fit(feed, verbose=0).history["loss"] == [0.0]


# -- when fit is left ----------------------------------------------------------------------------------------------


class Raise(keras.callbacks.Callback):
    """Raises after so many steps."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            raise RuntimeError("a user's callback")


def test_after_an_exception_the_next_fit_goes_on_with_the_first_batch_that_was_not_trained_on() -> None:
    model = km.ready_model()
    with Feed(stream(40), ub.Epoch(steps=6)) as feed:
        with pytest.raises(RuntimeError, match="a user's callback"):
            model.fit(feed, verbose=0, callbacks=[Raise(4)])
        model.fit(feed, verbose=0)
        assert feed.steps == 10
        assert feed.stats.in_doubt == 0
    assert km.trained_ids(model) == list(range(40))


def test_two_models_in_turn_share_the_batches_though_the_first_was_left_by_an_exception() -> None:
    model, other = km.recording_model(), km.recording_model()
    with Feed(stream(40), ub.Epoch(steps=6)) as feed:
        with pytest.raises(RuntimeError, match="a user's callback"):
            model.fit(feed, verbose=0, callbacks=[Raise(4)])
        other.fit(feed, verbose=0)
        assert (feed.steps, feed.stats.in_doubt) == (10, 0)
    assert km.trained_ids(model) == list(range(16))
    assert km.trained_ids(other) == list(range(16, 40))


def test_a_batch_that_no_counter_has_counted_comes_again_and_is_counted() -> None:
    model, other = km.recording_model(), km.ready_model()
    with Feed(stream(40), ub.Epoch(steps=6)) as feed:
        with pytest.raises(RuntimeError, match="a user's callback"):
            model.fit(feed, verbose=0, callbacks=[Raise(4)])
        del model  # and with it the optimizer that could tell
        gc.collect()
        other.fit(feed, verbose=0)
        assert feed.stats.in_doubt == 1
    assert km.trained_ids(other) == list(range(12, 36))


def test_training_that_a_callback_stops_goes_on_with_the_next_batch() -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                self.model.stop_training = True

    model = km.ready_model()
    with Feed(stream(40), ub.Epoch(steps=5)) as feed:
        model.fit(feed, epochs=3, verbose=0, callbacks=[Stop()])
        model.fit(feed, epochs=1, verbose=0)
        assert feed.steps == 7
    assert km.trained_ids(model) == list(range(28))


@pytest.mark.any_backend
def test_two_fits_at_once_on_one_feed_are_refused() -> None:
    model, other = km.ready_model(), km.recording_model()

    class Inner(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            other.fit(feed, verbose=0)

    with (
        Feed(stream(40), ub.Epoch(steps=2)) as feed,
        pytest.raises(ub.StreamError, match="already at work for another fit"),
    ):
        model.fit(feed, verbose=0, callbacks=[Inner()])


def test_no_thread_is_left_after_the_with() -> None:
    def sensor() -> Iterator[Any]:
        while True:
            yield km.rows(4)

    before = set(threading.enumerate())
    model = km.ready_model()
    rows = ub.from_generator(sensor).shuffle(16).map(lambda r: r, workers=2).batch(4).prefetch(4)
    with Feed(rows, ub.Epoch(steps=4)) as feed, pytest.raises(RuntimeError):
        model.fit(feed, verbose=0, validation_data=feed, callbacks=[Raise(3)])
    ours = [thread for thread in set(threading.enumerate()) - before if "unbounded" in thread.name]
    assert ours == []


# -- the backends' own ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(km.BACKEND != "jax", reason="JAX alone looks ahead, and on accelerators only")
@pytest.mark.skipif(hasattr(internals.DataAdapter, "builtin_prefetch"), reason="Keras 3.11 to 3.13 can be told not to")
def test_what_jax_has_looked_ahead_at_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    model = km.ready_model()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    handed: list[int] = []

    def note(rows: Any) -> Any:
        handed.append(len(rows[0]))
        return rows

    with Feed(stream(40).map(note), ub.Epoch(steps=6)) as feed:
        with pytest.raises(RuntimeError, match="a user's callback"):
            model.fit(feed, verbose=0, callbacks=[Raise(3)])
        assert feed.core.steps == 2
        assert feed.fit is not None
        assert feed.core.outstanding == 1 + feed.fit.ahead  # the third step's, and the one that was looked ahead at
        model.fit(feed, epochs=2, verbose=0)
        assert feed.steps == 15
        assert feed.stats.in_doubt == 0  # the optimizer knows
    assert km.trained_ids(model) == [i % 40 for i in range(60)]


@pytest.mark.skipif(km.BACKEND != "jax", reason="JAX alone reads memory after the call")
def test_memory_that_was_handed_out_is_never_written_again() -> None:
    # A slow step, so that many are on their way at once; nothing waits for them before the end.
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [km.Recorder(1024, 4096), keras.layers.Dense(1500), keras.layers.Dense(1500), keras.layers.Dense(1)]
    )
    model.compile(optimizer="sgd", loss="mse")
    rows = ub.from_arrays(km.rows(1024, columns=16), seed=1).shuffle(64).batch(16).prefetch(4)
    with Feed(rows, ub.Epoch(steps=64)) as feed:
        model.fit(feed, epochs=1, verbose=0)
    assert km.trained_counts(model) == [1] * 1024


@pytest.mark.skipif(km.BACKEND != "torch", reason="tensors are torch's")
def test_torch_gets_tensors_over_the_batchs_own_memory() -> None:
    from unbounded.keras._batches import to_torch

    x, y = km.rows(4)
    (tensors,) = to_torch(iter([(x, {"y": y[::-1]})]))
    assert tensors[0].data_ptr() == x.ctypes.data
    assert np.array_equal(tensors[1]["y"].numpy(), y[::-1])
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (copy,) = to_torch(iter([x]))
        assert np.array_equal(copy.numpy(), x)


@pytest.mark.skipif(km.BACKEND != "tensorflow", reason="strategies are TensorFlow's")
def test_under_a_strategy_of_tensorflow_what_is_taken_ahead_is_not_trained(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = km.recording_model(records_rounds=True)
    with Feed(stream(40), ub.Epoch(steps=3)) as feed, Feed(stream(8, passes=1)) as val:
        for fit in range(2):  # the second one counted by a callback
            callbacks = [ub.keras.Checkpoint(feed, tmp_path)] if fit else []
            model.fit(feed, epochs=2, verbose=0, validation_data=val, callbacks=callbacks)
            assert feed.steps == 6 * (fit + 1)
    assert km.trained_ids(model) == [i % 40 for i in range(48)]
    assert km.evaluated_ids(model) == [*range(8)] * 4


@pytest.mark.skipif(km.BACKEND != "jax", reason="distributions are JAX's here")
def test_under_a_distribution_of_keras_every_row_is_trained_on_once_and_in_order() -> None:
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    try:
        model = km.recording_model()
        with Feed(stream(40), ub.Epoch(steps=3)) as feed:
            for _ in range(2):
                model.fit(feed, epochs=2, verbose=0)
            assert feed.steps == 12
        assert km.trained_ids(model) == [i % 40 for i in range(48)]
    finally:
        keras.distribution.set_distribution(None)


@pytest.mark.any_backend
def test_the_docstrings_examples_run() -> None:
    from unbounded.keras import _checkpoint, _keras_feed, _model_state

    for module in (_keras_feed, _checkpoint, _model_state):
        assert doctest.testmod(module).failed == 0


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras's torch trainer runs one step at a time")
def test_batches_whose_lengths_come_and_go_keep_their_order_where_steps_run_together() -> None:
    model = km.ready_model(ids=256, steps_per_execution=4)
    lengths = [4, 7, 4, 4, 7, 7, 4, 7]
    with Feed(blocks(*lengths), ub.Epoch(steps=4)) as feed:
        model.fit(feed, epochs=2, verbose=0)
    assert km.trained_ids(model) == list(range(sum(lengths)))


@pytest.mark.any_backend
def test_a_round_on_a_live_feed_that_is_trained_on_is_refused_with_two_ways_that_work() -> None:
    read = itertools.count()

    def sensor() -> Any:
        while True:
            n = next(read)
            yield np.full((4, 3), n, "float32"), np.full((4, 1), n, "float32")

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with Feed(ub.from_generator(sensor).batch(4), ub.Epoch(steps=3)) as feed:
        model.fit(feed, verbose=0)
        for again in (
            lambda: model.predict(feed, verbose=0),
            lambda: model.evaluate(feed, verbose=0),
            lambda: model.fit(feed, validation_data=feed, epochs=2, verbose=0),
        ):
            with pytest.raises(ub.StreamError, match=r"sensor\(\) can't seek.*from_arrays.*Prequential"):
                again()
        assert feed._rounds is None  # no second reader was opened
    with Feed(ub.from_generator(sensor).batch(4), ub.Epoch(steps=3)) as feed:
        assert model.predict(feed, verbose=0).shape == (12, 1)
        with pytest.raises(ub.StreamError, match=r"fit, after a round with the same feed,.*sensor\(\) can't seek"):
            model.fit(feed, verbose=0)
    x = np.zeros((32, 3), "float32")
    with Feed(ub.from_arrays((x, x[:, :1])).batch(4), ub.Epoch(steps=3)) as feed:
        model.fit(feed, validation_data=feed, verbose=0)
