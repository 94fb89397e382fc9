"""Test-then-train: each new row is tested once, with the weights before the first update that could contain it."""

import signal
import warnings

import keras
import numpy as np
import pytest

import unbounded as ub
from keras_models import KERAS_NOISE, any_backend
from prequential_runs import model, numbers, run
from unbounded.feed.describe import StreamChanged

pytestmark = pytest.mark.filterwarnings(KERAS_NOISE)

ROWS = 300
X = np.random.default_rng(0).random((ROWS, 3), "float32")
Y = (X.sum(1, keepdims=True) + np.arange(ROWS)[:, None] / ROWS).astype("float32")


def rows(start=0):
    for i in range(start, 10**9, 7):
        at = np.arange(i, i + 7) % ROWS
        yield {"x": X[at], "y": Y[at], "i": np.arange(i, i + 7)}


def stream(*words):
    made = ub.from_generator(rows)
    for word in words:
        made = word(made)
    return made


def to_xy(rows):
    return rows["x"], rows["y"]


STREAMS = {
    "plain": lambda s: s.columns("x", "y").batch(8),
    "shuffle": lambda s: s.shuffle(30).columns("x", "y").batch(8),
    "replay": lambda s: s.replay(40, reuse=3).batch(8).map(to_xy),
    "rare replay": lambda s: s.columns("x", "y").replay(2, reuse=0.25).batch(8),
    "filter": lambda s: s.shuffle(20).filter(lambda r: r["i"] % 3 != 0).map(to_xy).batch(8),
    "both": lambda s: s.columns("x", "y").shuffle(20).replay(50, reuse=2, half_life=20.0).batch(8),
}


@pytest.mark.parametrize("name", ["both", *any_backend(*(name for name in STREAMS if name != "both"))])
def test_each_row_is_tested_once_before_a_batch_contains_it(tmp_path, name):
    described = STREAMS[name](stream())
    table, seen, _, _ = run(described, tmp_path, every=100)
    kept = numbers(seen)
    expected = np.arange(kept[-1] + 1)
    if name == "filter":
        expected = expected[expected % 3 != 0]
    assert (kept == expected).all()
    assert (table["row"] == kept).all()
    # Rows as they came to the tap: with columns that batches don't have.
    x = np.concatenate([r["x"] if isinstance(r, dict) else r[0] for _, r, _ in seen])
    assert (x == X[kept % ROWS]).all()
    tested_at = dict(zip(table["row"].tolist(), table["step"].tolist(), strict=True))
    with ub.Feed(described, epoch=ub.Epoch(steps=36)) as feed:
        for step, (inputs, _) in enumerate(feed.batches()):
            if step == 36:
                break
            for row in inputs:
                (found,) = np.flatnonzero((row == X).all(1))
                assert tested_at[int(found)] <= step


@pytest.mark.parametrize("multiple", [1] if keras.backend.backend() == "torch" else [1, 3])
def test_predictions_are_those_of_the_weights_after_the_last_acknowledged_step(tmp_path, multiple):
    table, _, _, _weights = run(STREAMS["shuffle"](stream()), tmp_path, every=100, multiple=multiple)
    by_hand = model()
    done, steps = [], 0
    with ub.Feed(STREAMS["shuffle"](stream())) as feed:
        batches = feed.batches()
        while steps < 36:
            new = table[table["step"] == steps]
            done += [np.asarray(by_hand.predict_on_batch(X[new["row"] % ROWS]))] if len(new) else []
            for _ in range(multiple):
                by_hand.train_on_batch(*next(batches))
                steps += 1
        batches.close()
    np.testing.assert_allclose(np.concatenate(done), table["prediction"], rtol=1e-5, atol=1e-6)
    assert (table["target"] == Y[table["row"] % ROWS]).all()


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["plain", "shuffle", "replay"])
@pytest.mark.parametrize("every", [None, 5])
def test_nothing_depends_on_what_was_read_ahead(tmp_path, name, every):
    described = STREAMS[name](stream())
    one = run(described, tmp_path / "a", every=every, table=tmp_path / "a/prequential.npy")
    two = run(described.prefetch(20), tmp_path / "b", every=every, table=tmp_path / "b/prequential.npy")
    assert one[0].tobytes() == two[0].tobytes()
    ours = [name for name in one[2] if "prequential" in name]
    assert len(ours) == 2
    assert all(one[2][name] == two[2][name] for name in ours)


@pytest.mark.parametrize("name", ["both", *any_backend(*(name for name in STREAMS if name != "both"))])
def test_killed_and_resumed_equals_never_killed(tmp_path, name):
    described = STREAMS[name](stream()).prefetch(4)
    whole = run(described, tmp_path / "whole", every=4)
    run(described, tmp_path / "cut", every=4, stop=7)
    run(described, tmp_path / "cut", every=4, stop=15)
    cut = run(described, tmp_path / "cut", every=4)
    assert whole[0].tobytes() == cut[0].tobytes()
    ours = [name for name in whole[2] if "prequential" in name]
    assert len(ours) == 2
    assert all(whole[2][name] == cut[2][name] for name in ours)
    assert all((a == b).all() for a, b in zip(whole[3], cut[3], strict=True))


@pytest.mark.parametrize("every", [None, 5])
def test_training_is_bit_equal_with_and_without_it(tmp_path, every):
    described = STREAMS["replay"](stream())
    with_it = run(described, tmp_path / "a", every=every)
    without = run(described, tmp_path / "b", every=every, tested=False)
    assert all((a == b).all() for a, b in zip(with_it[3], without[3], strict=True))
    assert with_it[2]["loss"] == without[2]["loss"]


@pytest.mark.any_backend
def test_metrics_are_over_all_rows_and_over_the_last_ones(tmp_path):
    table, _, history, _ = run(STREAMS["plain"](stream()), tmp_path, steps=50, epochs=4, every=1000)
    errors = np.abs(table["prediction"] - table["target"]).astype("float64").mean(1)
    assert len(errors) == 1600
    for epoch in range(4):
        rows = (epoch + 1) * 400
        assert history["prequential_mae"][epoch] == pytest.approx(errors[:rows].mean(), rel=1e-5)
        assert history["prequential_mae_last"][epoch] == pytest.approx(errors[rows - 50 : rows].mean(), rel=1e-5)


@pytest.mark.any_backend
def test_a_run_begun_without_it_tests_what_comes_after(tmp_path):
    described = STREAMS["shuffle"](stream())
    run(described, tmp_path, epochs=1, every=100, tested=False)
    table, _, _, _ = run(described, tmp_path, epochs=2, every=100)
    # 96 rows were trained, of buffers of 30: the fourth one was read.
    assert table["row"].tolist() == list(range(120, 210))
    assert table["step"].min() == 15


@pytest.mark.any_backend
def test_rows_of_steps_trained_without_it_are_not_tested_afterwards(tmp_path):
    made = model()
    with ub.keras.Feed(STREAMS["plain"](stream()).prefetch(30), epoch=ub.Epoch(steps=3)) as feed:
        tested = ub.keras.Prequential(feed, table=tmp_path / "t.npy")
        made.fit(feed, verbose=0, callbacks=[tested])
        made.fit(feed, verbose=0)
        made.fit(feed, epochs=3, initial_epoch=1, verbose=0, callbacks=[tested])
    # Rows 24 to 47 were trained in between; those of the first step after it may have been.
    assert np.load(tmp_path / "t.npy")["row"].tolist() == [*range(24), *range(56, 96)]


@pytest.mark.any_backend
def test_two_in_one_fit_have_tables_of_their_own(tmp_path):
    with ub.keras.Feed(STREAMS["plain"](stream()), epoch=ub.Epoch(steps=3)) as feed:
        one, two = (ub.keras.Prequential(feed, ["mae"]) for _ in range(2))
        checkpoint = ub.keras.Checkpoint(feed, tmp_path)
        with pytest.raises(ValueError, match=r"Two Prequentials of this fit would write .*prequential\.npy"):
            model().fit(feed, verbose=0, callbacks=[one, two, checkpoint])
        two = ub.keras.Prequential(feed, ["mse"], table=tmp_path / "two.npy", chunk=4)
        model().fit(feed, verbose=0, callbacks=[two, checkpoint, one])
        assert one.rows == two.rows == 24
    tables = [np.load(tmp_path / name) for name in ("prequential.npy", "two.npy")]
    np.testing.assert_allclose(tables[0]["prediction"], tables[1]["prediction"], rtol=1e-5)


@pytest.mark.any_backend
def test_a_table_that_begins_later_is_cut_back_to_its_own_length(tmp_path):
    described = STREAMS["plain"](stream())
    run(described, tmp_path, steps=4, epochs=1, every=4, table=False)
    run(described, tmp_path, steps=4, epochs=3, every=4, stop=2)
    table, _, _, _ = run(described, tmp_path, steps=4, epochs=3, every=4)
    assert table["row"].tolist() == list(range(32, 96))


@pytest.mark.any_backend
def test_the_table_of_another_run_is_kept(tmp_path):
    described, path = STREAMS["plain"](stream()), tmp_path / "t.npy"
    np.save(tmp_path / "saved.npy", np.zeros(3))
    run(described, tmp_path, steps=2, epochs=1, table=path)
    with pytest.warns(UserWarning, match=r"had rows of another run\. It was renamed to t\.npy\.old-1"):
        run(described, tmp_path, steps=3, epochs=1, table=path)
    assert [len(np.load(tmp_path / name)) for name in ("t.npy", "t.npy.old-1")] == [24, 16]
    for wrong, words in ((tmp_path / "saved.npy", "is no table"), (tmp_path, "Is a directory"), ("s3://a/t", "a URL")):
        with pytest.raises((ub.CheckpointError, ValueError), match=words):
            run(described, tmp_path, table=wrong)
    with pytest.raises(TypeError, match="the path of a file"):
        run(described, tmp_path, table=3)


@pytest.mark.any_backend
def test_one_made_after_a_fit_on_the_same_feed_reads_again_what_was_read_ahead(tmp_path):
    made = model()
    with ub.keras.Feed(STREAMS["plain"](stream()).prefetch(30), epoch=ub.Epoch(steps=10)) as feed:
        made.fit(feed, epochs=1, verbose=0)
        tested = ub.keras.Prequential(feed, table=tmp_path / "t.npy")
        made.fit(feed, epochs=2, verbose=0, callbacks=[tested])
    assert np.load(tmp_path / "t.npy")["row"].tolist() == list(range(88, 240))


@pytest.mark.any_backend
def test_the_rows_of_one_input_of_a_mix_are_tested(tmp_path):
    new = ub.from_generator(rows).columns("x", "y")
    old = ub.from_arrays((X, Y), seed=3)
    mixed = ub.mix({"old": old, "new": new}, weights={"old": 3, "new": 1}).batch(8)
    with ub.keras.Feed(mixed) as feed, pytest.raises(ValueError, match="'old', 'new'"):
        ub.keras.Prequential(feed)
    table, _, _, _ = run(mixed.prefetch(3), tmp_path / "a", every=100, source="new")
    assert (table["row"] == np.arange(len(table))).all()
    assert 60 <= len(table) <= 84
    run(mixed, tmp_path / "b", every=5, source="new", stop=8)
    cut, _, _, _ = run(mixed, tmp_path / "b", every=5, source="new")
    assert table.tobytes() == cut.tobytes()


@pytest.mark.any_backend
def test_what_can_not_be_applied_to_a_row_alone_is_refused():
    described = stream().shuffle(30).normalize("x").columns("x", "y").batch(8)
    with ub.keras.Feed(described) as feed, pytest.raises(ValueError, match=r"Put \.normalize\(\) before"):
        ub.keras.Prequential(feed)
    with ub.keras.Feed(described, epoch=ub.Epoch(steps=3)) as feed:
        tested = ub.keras.Prequential(feed, ["mae"], prepare=lambda rows: (rows["x"] - 0.5, rows["y"]))
        model().fit(feed, verbose=0, callbacks=[tested])
    assert tested.rows == 30


@pytest.mark.any_backend
def test_rows_that_are_not_finite_and_left_out_are_not_tested(tmp_path):
    def bad(rows):
        return np.where(rows["i"][:, None] % 10 == 3, np.nan, rows["x"]), rows["y"]

    described = stream().shuffle(20).map(bad).batch(8)
    seen = []
    with ub.keras.Feed(described, epoch=ub.Epoch(steps=10), on_nan="skip") as feed:
        tested = ub.keras.Prequential(feed, on_predictions=lambda n, r, p: seen.append((n, r, p)))
        with pytest.warns(ub.NonFiniteRows):
            model().fit(feed, epochs=1, verbose=0, callbacks=[tested])
    kept = numbers(seen)
    assert len(kept) > 80
    assert not (kept % 10 == 3).any()


@pytest.mark.any_backend
def test_rows_for_which_the_feed_ends_a_run_are_not_tested_and_it_goes_on_without_them(tmp_path):
    bad = Y.copy()
    bad[40] = np.nan
    described = ub.from_arrays((X, bad), shuffle=False).shuffle(60).batch(10)

    def attempt(on_nan, folder):
        with ub.keras.Feed(described, epoch=ub.Epoch(steps=12), on_nan=on_nan) as feed:
            tested = ub.keras.Prequential(feed, ["mae"])
            model().fit(feed, epochs=1, verbose=0, callbacks=[tested, ub.keras.Checkpoint(feed, folder, every=2)])
            return tested.results(), np.load(folder / "prequential.npy")

    with pytest.raises(ValueError, match="has a NaN"):
        attempt("raise", tmp_path / "a")
    with pytest.warns(ub.NonFiniteRows):
        figures, table = attempt("skip", tmp_path / "a")
    with pytest.warns(ub.NonFiniteRows):
        whole, expected = attempt("skip", tmp_path / "b")
    assert 40 not in table["row"]
    assert figures == whole
    assert table.tobytes() == expected.tobytes()


class Noisy(keras.layers.Layer):
    """Adds noise, in predictions, too."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)


def test_layers_that_draw_in_predictions_draw_the_same_in_training(tmp_path):
    def weights(tested):
        keras.utils.set_random_seed(1)
        made = keras.Sequential([keras.Input((3,)), Noisy(), keras.layers.Dense(1)])
        made.compile("sgd", "mse")
        return run(STREAMS["plain"](stream()), tmp_path, steps=3, epochs=1, made=made, tested=tested)[3]

    assert all((a == b).all() for a, b in zip(weights(True), weights(False), strict=True))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a flag of torch's")
def test_layers_that_look_at_the_flag_of_torch_predict_and_then_train(tmp_path):
    flags = []

    class Looks(keras.layers.Layer):
        def call(self, x):
            flags.append(self.training)
            return x

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.looks, self.dense = Looks(), keras.layers.Dense(1)

        def call(self, x):
            return self.dense(self.looks(x))

    made = Model()
    made.compile("sgd", "mse")
    run(STREAMS["plain"](stream()), tmp_path, steps=3, epochs=1, made=made)
    assert flags[-6:] == [False, True] * 3


def test_several_outputs_have_columns_of_their_own(tmp_path):
    inputs = keras.Input((3,))
    made = keras.Model(inputs, {"a": keras.layers.Dense(1)(inputs), "b": keras.layers.Dense(2)(inputs)})
    made.compile("sgd", {"a": "mse", "b": "mse"})
    described = ub.from_arrays((X, {"a": Y, "b": np.concatenate([Y, Y], 1)})).batch(10)
    with ub.keras.Feed(described, epoch=ub.Epoch(steps=3)) as feed:
        tested = ub.keras.Prequential(feed, {"a": ["mae", "mse"], "b": "mae"}, table=tmp_path / "t.npy")
        made.fit(feed, epochs=1, verbose=0, callbacks=[tested])
        table, found = np.load(tmp_path / "t.npy"), tested.results()
        for output in "ab":
            error = np.abs(table[f"prediction.{output}"] - table[f"target.{output}"]).mean()
            assert found[f"prequential_{output}_mae"] == pytest.approx(error, rel=1e-5)
        for wrong in (["mae"], {"c": ["mae"]}):
            with pytest.raises(ValueError, match="outputs"):
                made.fit(feed, verbose=0, callbacks=[ub.keras.Prequential(feed, wrong, table=False)])
    assert table.dtype.names == (
        "row",
        "step",
        "prediction.a",
        "prediction.b",
        "target.a",
        "target.b",
    )


EXCLUDED = {
    "generator": lambda: STREAMS["shuffle"](stream()),
    "arrays": lambda: ub.from_arrays((X, Y), seed=5).shuffle(20).batch(8),
    "replay": lambda: ub.from_arrays((X, Y), seed=5).replay(40, reuse=2).batch(8),
    "windows": lambda: ub.from_arrays((X, Y), shuffle=False).windows(4).batch(8).map(last_of_window),
}


def last_of_window(windows):
    return windows[0][:, -1], windows[1][:, -1]


@pytest.mark.any_backend
@pytest.mark.parametrize("name", EXCLUDED)
def test_excluded_rows_are_not_tested_and_count_in_no_metric(tmp_path, name):
    described, out = EXCLUDED[name](), [3, range(10, 60), 150]
    plain, _, _, before = run(described, tmp_path / "a", every=100)
    table, seen, history, after = run(described.exclude(out), tmp_path / "b", every=100)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    # Which rows of the source those tested are: by their values.
    (which,) = np.nonzero((plain["target"][:, None] == Y[None]).all(2))[1:]
    span = range(4) if name == "windows" else range(1)
    kept = ~np.isin(which[:, None] - span, [3, *range(10, 60), 150]).any(1)
    assert 0 < kept.sum() < len(kept)
    assert (table["row"] == plain["row"][kept]).all()
    assert (table["row"] == numbers(seen)).all()
    errors = np.abs(table["prediction"] - table["target"]).astype("float64").mean(1)
    assert history["prequential_mae"][-1] == pytest.approx(errors.mean(), rel=1e-5)
    run(described.exclude(out), tmp_path / "cut", every=4, stop=7)
    cut, _, figures, _ = run(described.exclude(out), tmp_path / "cut", every=4)
    assert cut.tobytes() == table.tobytes()
    assert figures["prequential_mae_last"] == history["prequential_mae_last"]


@pytest.mark.any_backend
def test_rows_that_are_excluded_later_are_tested_up_to_then(tmp_path):
    described = STREAMS["plain"](stream())
    run(described, tmp_path, epochs=1, every=100)
    table, _, _, _ = run(described.exclude([range(50, 70), range(100, 120)]), tmp_path, epochs=2, every=100)
    assert table["row"].tolist() == [i for i in range(192) if i < 96 or not 100 <= i < 120]


@pytest.mark.any_backend
def test_rows_that_an_input_of_a_mix_excludes_are_not_tested(tmp_path):
    new = ub.from_generator(rows).columns("x", "y").exclude([range(5, 15)])
    mixed = ub.mix({"old": ub.from_arrays((X, Y), seed=3), "new": new}).batch(8)
    table, _, _, _ = run(mixed, tmp_path, every=100, source="new")
    assert table["row"].tolist() == [i for i in range(table["row"][-1] + 1) if not 5 <= i < 15]


class Signals:
    """Counts calls, and sends SIGINT in one of them."""

    def __init__(self, at=0):
        self.at, self.calls = at, 0

    def __call__(self, rows):
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return to_xy(rows)


@pytest.mark.any_backend
def test_a_signal_in_any_call_of_a_users_function_ends_the_fit_cleanly_and_goes_on(tmp_path):
    def attempt(signals, folder):
        made = model()
        # Rows are tested before they come out of the shuffle, by calls of the function outside of the stream.
        described = stream(lambda s: s.shuffle(20).map(lambda rows: signals(rows)).batch(8))
        with ub.keras.Feed(described, epoch=ub.Epoch(steps=2)) as feed:
            checkpoint = ub.keras.Checkpoint(feed, folder, accept_changes=True)  # the count of calls has changed
            try:
                made.fit(feed, epochs=2, verbose=0, callbacks=[ub.keras.Prequential(feed, ["mae"]), checkpoint])
            except KeyboardInterrupt:
                assert feed.steps == 0  # Keras builds the model before training begins, and handlers are installed
                return "SIGINT", None
        return checkpoint.stopped_by, made.get_weights()

    whole = Signals()
    _, expected = attempt(whole, tmp_path / "whole")
    for at in range(1, whole.calls + 1, 4):
        folder = tmp_path / str(at)
        stopped_by, _ = attempt(Signals(at), folder)
        assert stopped_by == "SIGINT", at
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ub.RunFinished)  # a signal in the last calls leaves nothing to train
            warnings.simplefilter("ignore", StreamChanged)
            _, weights = attempt(Signals(), folder)
        assert all(np.array_equal(*pair) for pair in zip(weights, expected, strict=True)), (at, whole.calls)
