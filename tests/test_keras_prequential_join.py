"""Test-then-train with labels that come later: predicted when the row comes, judged when its label comes."""

import keras
import numpy as np
import pytest

import unbounded as ub
from keras_models import KERAS_NOISE
from late_labels import ROWS, STREAMS, WITHIN, X, by_hand, joined, target
from prequential_runs import model, numbers, run, run_of

pytestmark = pytest.mark.filterwarnings(KERAS_NOISE)


def test_a_row_is_predicted_when_it_comes_and_judged_when_its_label_comes(tmp_path):
    table, seen, history, _, tested = run_of(STREAMS["plain"](), tmp_path, every=100)
    step, done, came = 0, 0, []
    predicted, judged = {}, []
    for number, kind in by_hand():
        if step == 36:
            break
        came.append(number) if kind == 0 else judged.append((number, step))
        done += kind
        if kind and done % 8 == 0:  # the batch is full: before it is trained on, all that came is tested
            predicted |= {each: step for each in came}
            came, step = [], step + 1
    expected = [(number, predicted[number], at) for number, at in judged if number in predicted][: 36 * 8]
    assert [(row, first, at) for row, first, at, *_ in table.tolist()] == expected
    assert len(table) == 36 * 8 == tested.rows
    assert (table["target"] == target(table["row"])).all()
    assert (np.diff(numbers(seen)) > 0).all()
    assert len(numbers(seen)) == tested.rows + tested.waiting + tested.unlabelled
    assert tested.unlabelled > 50
    assert 0 < tested.waiting <= WITHIN + 1
    errors = np.abs(table["prediction"] - table["target"]).astype("float64").mean(1)
    assert history["prequential_mae"][-1] == pytest.approx(errors.mean(), rel=1e-5)
    assert history["prequential_mae_last"][-1] == pytest.approx(errors[-50:].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["plain", "shuffle", "replay", "filter"])
def test_a_row_is_predicted_and_judged_before_a_batch_contains_it(tmp_path, name):
    described = STREAMS[name]()
    table, seen, _, _ = run(described, tmp_path, every=100)
    assert (table["step"] <= table["judged"]).all()
    assert len(set(table["row"].tolist())) == len(table)
    assert all(set(columns) == {"id", "t", "x"} for _, columns, _ in seen)
    assert (np.concatenate([columns["id"] for _, columns, _ in seen]) == numbers(seen)).all()
    judged_at = dict(zip(table["row"].tolist(), table["judged"].tolist(), strict=True))
    with ub.Feed(described) as feed:
        for step, (x, _) in zip(range(36), feed.batches(), strict=False):
            for row in x:
                (found,) = np.flatnonzero((row == X).all(1))
                at = [judged_at[number] for number in range(int(found), 2000, ROWS) if number in judged_at]
                assert min(at) <= step


def test_predictions_are_those_of_the_weights_when_the_row_came(tmp_path):
    table, _, _, _ = run(STREAMS["shuffle"](), tmp_path, every=100)
    by_hand, done = model(), {}
    with ub.Feed(STREAMS["shuffle"]()) as feed:
        for step, batch in zip(range(36), feed.batches(), strict=False):
            new = table[table["step"] == step]
            if len(new):
                made = np.asarray(by_hand.predict_on_batch(X[new["row"] % ROWS]))
                done |= dict(zip(new["row"].tolist(), made, strict=True))
            by_hand.train_on_batch(*batch)
    np.testing.assert_allclose([done[row] for row in table["row"].tolist()], table["prediction"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["live", "shuffle", "keep"])
def test_killed_and_resumed_equals_never_killed(tmp_path, name):
    made = joined(live=True).columns("x", "y").batch(8) if name == "live" else STREAMS[name]()
    described = made.prefetch(4)
    whole = run_of(described, tmp_path / "whole", every=4)
    run(described, tmp_path / "cut", every=4, stop=7)
    run(described, tmp_path / "cut", every=4, stop=15)
    cut = run_of(described, tmp_path / "cut", every=4)
    assert len(whole[0]) > 20
    assert whole[0].tobytes() == cut[0].tobytes()
    for figure in ("rows", "waiting", "unlabelled"):
        assert getattr(whole[4], figure) == getattr(cut[4], figure), figure
    for figure in ("prequential_mae", "prequential_mae_last"):
        assert whole[2][figure] == cut[2][figure]
    assert all((a == b).all() for a, b in zip(whole[3], cut[3], strict=True))


@pytest.mark.parametrize("name", ["plain", "keep"])
def test_nothing_depends_on_what_was_read_ahead_nor_on_the_callback(tmp_path, name):
    described = STREAMS[name]()
    one = run(described, tmp_path / "a", every=5)
    two = run(described.prefetch(20), tmp_path / "b", every=7)
    assert one[0].tobytes() == two[0].tobytes()
    without = run(described, tmp_path / "c", every=5, tested=False)
    assert all((a == b).all() for a, b in zip(one[3], without[3], strict=True))


def test_a_run_begun_without_it_judges_what_comes_after(tmp_path):
    described = STREAMS["plain"]()
    run(described, tmp_path, epochs=1, every=100, tested=False)
    table, _, _, _ = run(described, tmp_path, epochs=2, every=100)
    assert table["step"].min() == 13  # what came for step 12 may have been known before
    assert len(table) > 50


def test_the_joined_input_of_a_mix_is_tested(tmp_path):
    old = ub.from_arrays((X, target(np.arange(ROWS))), seed=3)
    mixed = ub.mix({"old": old, "new": joined().columns("x", "y")}).batch(8)
    table, _, _, _ = run(mixed, tmp_path / "a", every=100, source="new/rows")
    assert (table["target"] == target(table["row"])).all()
    assert 120 < len(table) < 160
    run(mixed, tmp_path / "b", every=5, source="new/rows", stop=8)
    cut, _, _, _ = run(mixed, tmp_path / "b", every=5, source="new/rows")
    assert table.tobytes() == cut.tobytes()
    with ub.keras.Feed(mixed) as feed, pytest.raises(ValueError, match="by the name of 'rows'"):
        ub.keras.Prequential(feed, source="new/labels")


def test_inputs_that_depend_on_the_label_are_refused(tmp_path):
    leaks = joined().map(lambda r: (r["x"] + r["y"], r["y"])).batch(8)
    with pytest.raises(ValueError, match="depends on its label"):
        run(leaks, tmp_path)
    with (
        ub.keras.Feed(joined().windows(3, by="id").batch(2)) as feed,
        pytest.raises(ValueError, match=r"Put \.windows\(\) before"),
    ):
        ub.keras.Prequential(feed)


def test_labels_without_nan_and_rows_without_an_end_of_waiting(tmp_path):
    ids = np.arange(200)
    kinds = (X[ids % ROWS].sum(1) > 1.5).astype("int64")
    events = ub.from_arrays({"id": ids, "x": X[ids % ROWS]}, shuffle=False, passes=1)
    late = np.maximum(ids - 20, 0)
    later = ub.from_arrays({"id": late, "kind": kinds[late]}, shuffle=False, passes=1)
    described = events.join(later, on="id", within=None).columns("x", "kind").batch(10)
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    made.compile("sgd", "sparse_categorical_crossentropy")
    with ub.keras.Feed(described) as feed:
        tested = ub.keras.Prequential(feed, ["sparse_categorical_accuracy"], table=tmp_path / "t.npy")
        made.fit(feed, epochs=1, verbose=0, callbacks=[tested])
    table = np.load(tmp_path / "t.npy")
    assert (table["target"] == kinds[table["row"]]).all()
    right = (table["prediction"].argmax(1) == table["target"]).mean()
    assert tested.results()["prequential_sparse_categorical_accuracy"] == pytest.approx(right, rel=1e-6)
