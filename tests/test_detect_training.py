"""The detector's training: readings are scored before they are trained on, and a restart changes nothing."""

import json
import textwrap

import numpy as np
import pytest

import unbounded as ub
from helpers import compiled_once, installed
from unbounded.detect._readings import readings
from unbounded.detect._record import FILE, Trained, as_line
from unbounded.detect._run import last_start, read_run
from unbounded.detect._trained import Counter
from unbounded.detect._training import Plan, steps_done, train

pytestmark = [
    pytest.mark.slow,  # a compilation for each start
    installed("keras"),
    # Keras's own conversions to NumPy set it off, under NumPy 2 with torch and TensorFlow.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]

LENGTH = 16


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture
def source(tmp_path):
    """Two columns that can be read again from any row, with a jump at row 100."""
    path = tmp_path / "sensors.py"
    path.write_text(
        textwrap.dedent(
            """
            import numpy as np

            def sensor(start=0):
                while True:
                    rng = np.random.default_rng(start // 4)
                    rows = np.arange(start // 4 * 4, start // 4 * 4 + 4)
                    block = {
                        "temperature": 20 + np.sin(rows / 9) + 0.1 * rng.normal(size=4) + 30 * (rows >= 100),
                        "pressure": rng.normal(size=4),
                    }
                    skip = start % 4
                    yield {name: column[skip:] for name, column in block.items()}
                    start += 4 - skip
            """
        )
    )
    return f"{path}:sensor"


def trained(source, directory, epochs, **options):
    """The events of a run of so many epochs of ten steps; with `epoch`, of others."""
    events = []
    epoch = options.pop("epoch", ub.Epoch(steps=10))
    plan = Plan(**options, epochs=epochs, epoch=epoch, length=LENGTH, capacity=40, reuse=8.0, batch=16, warm_up=60)
    train(readings(source), directory, plan, tell=events.append)
    return events


def lines(directory, *kinds):
    with (directory / FILE).open() as file:
        records = [json.loads(line) for line in file]
    return [record for record in records if record["kind"] in kinds]


def scores(events):
    return [(event["scored"], event["score"]) for event in events if event["event"] == "score"]


def test_every_window_is_scored_before_it_is_first_trained_on(source, tmp_path, monkeypatch):
    from unbounded.detect._watch import Watch

    events, handed = [], []
    hand_out, end = Watch.hand_out, Watch.on_train_batch_end

    def note(self, batch):
        handed.append(int(batch["row"][:, -1].max()))
        return hand_out(self, batch)

    def check(self, batch, logs=None):
        # A window is known by its last row; those that were scored are the first ones.
        events.append((handed.pop(0), self._scorer.last))
        end(self, batch, logs)

    monkeypatch.setattr(Watch, "hand_out", note)
    monkeypatch.setattr(Watch, "on_train_batch_end", check)
    trained(source, tmp_path / "run", 4)
    assert len(events) == 40
    assert all(newest <= scored for newest, scored in events)
    assert events[-1][1] > 60


def test_a_window_is_scored_with_weights_that_have_not_seen_it(source, tmp_path):
    run, still = (
        trained(source, tmp_path / name, 1, epoch=ub.Epoch(steps=6), learning_rate=rate)
        for name, rate in (("run", 1e-2), ("still", 1e-30))
    )
    first = [event["event"] for event in run].index("step")
    kinds = ("reading", "score")
    # Until a first step was trained, a model that learns is one that does not.
    assert [e for e in run[:first] if e["event"] in kinds] == [e for e in still[:first] if e["event"] in kinds]
    bins = [[record["error"] for record in lines(tmp_path / name, "readings")] for name in ("run", "still")]
    assert bins[0] != bins[1]


def by_hand(columns, batches, steps):
    """The scores of a loop in NumPy and Keras: windows are tested with the weights at hand, and then trained on.

    Args:
        columns: what the readings' columns are.
        batches: which windows each step trains on, by their last rows; each window twice as often as rows come.
        steps: how many.
    """
    import keras

    from unbounded.detect._predictor import Predictor
    from unbounded.detect._score import Scorer

    keras.utils.set_random_seed(0)
    scorer = Scorer(columns, warm_up=60)
    model = Predictor(LENGTH, 2)
    model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=1.0))
    n = 2 * steps + LENGTH
    noise = [np.random.default_rng(first // 4) for first in range(0, n, 4)]
    drawn = [(rng.normal(size=4), rng.normal(size=4)) for rng in noise]
    rows = np.arange(n)
    temperature, pressure = (np.concatenate(each)[:n] for each in zip(*drawn, strict=True))
    values = np.stack([20 + np.sin(rows / 9) + 0.1 * temperature + 30 * (rows >= 100), pressure], axis=1)
    x = values.astype("float32").astype("float64")
    known = rows[:, None] + 1
    mean = np.cumsum(x, axis=0) / known
    deviation = np.sqrt(np.maximum(np.array([x[: i + 1].var(axis=0) for i in range(n)]), 0))
    normal = ((x - mean) / np.where(deviation > 0, deviation, 1)).astype("float32")
    found, tested = [], LENGTH - 1
    for step, batch in enumerate(batches):
        # A window is used eight times, in batches of sixteen: two windows have come before each.
        new = np.arange(tested, LENGTH - 1 + 2 * (step + 1))
        tested = int(new[-1]) + 1
        windows = np.stack([normal[row - LENGTH + 1 : row + 1] for row in new])
        expected = np.asarray(model.predict_on_batch(windows))
        found.append(scorer.score(new, new, values[new], normal[new], expected).score)
        model.train_on_batch(np.stack([normal[row - LENGTH + 1 : row + 1] for row in batch]))
    return np.concatenate(found)


def test_scores_are_those_of_a_loop_in_numpy_and_keras(source, tmp_path, monkeypatch):
    from unbounded.detect._score import Scorer
    from unbounded.detect._watch import Watch

    batches, found = [], []
    hand_out, score = Watch.hand_out, Scorer.score

    def note(self, batch):
        batches.append(batch["row"][:, -1].copy())
        return hand_out(self, batch)

    def keep(self, *given):
        scored = score(self, *given)
        found.append(scored.score)
        return scored

    monkeypatch.setattr(Watch, "hand_out", note)
    monkeypatch.setattr(Scorer, "score", keep)
    trained(source, tmp_path / "run", 12)
    monkeypatch.undo()
    scores, expected = np.concatenate(found), by_hand(readings(source).columns, batches[:120], 120)
    assert len(scores) == len(expected) == 240
    assert (scores > 0).sum() > 100
    assert scores.max() > 2
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_a_run_in_two_parts_is_the_run_in_one(source, tmp_path):
    whole = trained(source, tmp_path / "whole", 4)
    first = trained(source, tmp_path / "parts", 2)
    second = trained(source, tmp_path / "parts", 4)
    # Scores depend on the weights: where these differed in a bit, the readings would.
    assert lines(tmp_path / "whole", "readings") == lines(tmp_path / "parts", "readings")
    assert dict(scores(first + second)).items() >= dict(scores(whole)[-10:]).items()
    assert {**first[-1], "readings": 0} == {"event": "end", "step": 20, "readings": 0, "iterations": 20, "by": None}
    assert {**second[-1], "readings": 0} == {"event": "end", "step": 40, "readings": 0, "iterations": 40, "by": None}
    begins = [event for event in second if event["event"] == "begin"]
    assert [begin["step"] for begin in begins] == [20]
    run = read_run(tmp_path / "parts")
    assert run.rows_trained_twice() == 0
    assert run.steps.tolist() == list(range(1, 41))
    assert run.trained.rows == 40 * 16
    assert [epoch.first for epoch in run.epochs] == [1, 2, 3, 4]
    # What the epochs judged is what was read in their course.
    assert sum(epoch.judged for epoch in run.epochs) <= run.readings


def test_what_was_written_after_the_checkpoint_is_cut_off(source, tmp_path):
    trained(source, tmp_path / "run", 2)
    before = lines(tmp_path / "run", "readings", "alarm")
    with (tmp_path / "run" / FILE).open("a") as file:
        file.write(json.dumps(as_line(Trained(99, 99))) + '\n{"kind": "tr')
    trained(source, tmp_path / "run", 3)
    run = read_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, 31))
    assert run.damaged == 0
    assert lines(tmp_path / "run", "readings", "alarm")[: len(before)] == before


@pytest.fixture
def holes(tmp_path):
    """Readings that are not all numbers: the first, one later, then a hundred in a row, and an infinity."""
    path = tmp_path / "holes.py"
    path.write_text(
        textwrap.dedent(
            """
            import math

            def sensor(start=0):
                while True:
                    a = math.nan if start in (0, 50) or 100 <= start < 200 else math.sin(start / 5)
                    yield {"a": a, "b": math.inf if start == 60 else 1e300 if start == 70 else start % 3}
                    start += 1
            """
        )
    )
    return f"{path}:sensor"


def test_readings_that_hold_no_number_are_left_out_counted_and_named_once(holes, tmp_path):
    first = trained(holes, tmp_path / "run", 6)
    second = trained(holes, tmp_path / "run", 16)
    skipped = [event for event in first + second if event["event"] == "skipped"]
    assert [(s["reading"], s["column"]) for s in skipped[:4]] == [(1, "a"), (51, "a"), (61, "b"), (71, "b")]
    assert [s["reading"] for s in skipped if s["first"]] == [1, 61]
    assert [s["reading"] for s in skipped] == sorted({s["reading"] for s in skipped})
    assert len(skipped) == skipped[-1]["skipped"] == 104
    run = read_run(tmp_path / "run")
    assert run.trained.skipped == {"a": 102, "b": 2}
    assert run.steps.tolist() == list(range(1, 161))
    assert np.isfinite(run.bins.low).all()
    steps = [event["skipped"] for event in second if event["event"] == "step"]
    assert steps[-1] == 104


def test_a_reading_without_a_number_that_travels_with_the_checkpoint_is_left_out_once(tmp_path):
    """Of a source that can't go back, what was read ahead is saved: it comes again, and is known."""
    path = tmp_path / "live.py"
    path.write_text(
        textwrap.dedent(
            """
            import itertools, math

            def sensor():
                for i in itertools.count():
                    yield {"a": math.nan if i % 10 == 5 else i % 7}
            """
        )
    )
    first = trained(f"{path}:sensor", tmp_path / "run", 2)
    second = trained(f"{path}:sensor", tmp_path / "run", 6)
    skipped = [event for event in first + second if event["event"] == "skipped"]
    assert [s["reading"] for s in skipped] == sorted({s["reading"] for s in skipped})
    assert [s["skipped"] for s in skipped] == list(range(1, len(skipped) + 1))
    assert [s["reading"] for s in skipped if s["first"]] == [6]
    assert second[-1]["step"] == 60


def test_the_end_of_a_generator_ends_the_training_and_is_no_error(tmp_path):
    path = tmp_path / "short.py"
    path.write_text("def sensor():\n    for i in range(100):\n        yield {'a': i % 7}\n")
    events = trained(f"{path}:sensor", tmp_path / "run", None)
    assert events[-1]["by"] == "source"
    assert events[-1]["readings"] == 100
    assert events[-1]["step"] == (100 - LENGTH + 1) * 8 // 16
    # Windows are scored when a batch may hold them: the last one came to none.
    assert read_run(tmp_path / "run").readings == (100 - LENGTH + 1) // 2 * 2
    few = tmp_path / "few.py"
    few.write_text("def sensor():\n    yield {'a': 1}\n")
    assert trained(f"{few}:sensor", tmp_path / "few", None)[-1]["step"] == 0
    assert last_start(tmp_path / "few").step == 0


def test_what_is_read_again_after_a_restart_is_said(source, tmp_path):
    trained(source, tmp_path / "run", 2)
    events = trained(source, tmp_path / "run", 3)
    again = [event["readings"] for event in events if event["event"] == "again"]
    assert again
    assert all(reading["readings"] > 50 for reading in events if reading["event"] == "reading")


def test_a_batch_that_is_trained_again_is_counted(source, tmp_path, monkeypatch):
    from unbounded.detect._watch import Watch

    hand_out = Watch.hand_out

    def same(self, batch):
        return hand_out(self, {**batch, "row": batch["row"] * 0})

    monkeypatch.setattr(Watch, "hand_out", same)
    trained(source, tmp_path / "run", 1, epoch=ub.Epoch(steps=5))
    assert read_run(tmp_path / "run").rows_trained_twice() == 4 * 16


def test_batches_that_a_restore_reads_again_and_skips_are_not_counted_as_trained_twice():
    def batch(number):
        return np.arange(number, number + 4)

    before = Counter()
    for number in range(10):
        before.hand_out(batch(number))
        before.train(number + 1, ub.Stats(), {})
    after = Counter()
    after.load_state_dict(before.state_dict(), {})
    for number in range(7, 13):  # the position is before batch 10, in a run that begins with batch 7
        after.hand_out(batch(number))
    for number in range(10, 13):
        after.train(number + 1, ub.Stats(), {})
    assert after.total.twice == 0
    assert after.total.steps == 13
    after.hand_out(batch(11))
    after.train(14, ub.Stats(), {})
    assert after.total.twice == 4


def test_a_jump_raises_an_alarm_that_names_its_column(source, tmp_path):
    events = trained(source, tmp_path / "run", 8)
    alarms = [event for event in events if event["event"] == "alarm"]
    assert any(alarm["column"] == "temperature" and alarm["change"] > 25 for alarm in alarms)
    assert [alarm.words for alarm in read_run(tmp_path / "run").alarms] == [alarm["words"] for alarm in alarms]


def test_the_figures_that_are_told_are_true(source, tmp_path):
    events = trained(source, tmp_path / "run", 4)
    steps = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 41))
    assert steps[-1]["rows"] == 40 * 16
    assert [step["in_epoch"] for step in steps] == [*range(1, 11)] * 4
    assert steps[-1]["scored"] == read_run(tmp_path / "run").readings
    assert all(0 <= step["waiting"] <= 1 for step in steps)
    # Each reading is used eight times, once its window is full.
    assert read_run(tmp_path / "run").uses == pytest.approx(8.0, rel=0.1)
    assert [event["event"] for event in events[:2]] == ["loading", "begin"]


def test_a_run_that_has_its_epochs_says_so_and_trains_nothing(source, tmp_path):
    trained(source, tmp_path / "run", 2)
    assert steps_done(tmp_path / "run") == 20
    before = (tmp_path / "run" / FILE).read_bytes()
    events = trained(source, tmp_path / "run", 2)
    assert [event["event"] for event in events] == ["loading", "end"]
    assert (events[-1]["step"], events[-1]["by"]) == (20, None)
    assert (tmp_path / "run" / FILE).read_bytes() == before
    assert steps_done(tmp_path / "nothing") == 0


def test_the_model_s_error_is_that_of_readings_it_was_not_trained_on(source, tmp_path):
    events = trained(source, tmp_path / "run", 6)
    run = read_run(tmp_path / "run")
    told = [event["better"] for event in events if event["event"] == "step"][-1]
    assert np.isfinite(run.bins.error).all()
    assert run.better_by() is not None
    assert -1 < told < 1
