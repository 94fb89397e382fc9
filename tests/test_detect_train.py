"""The detector's training: what is scored before what is trained, and what a restart changes, which is nothing."""

import json
import textwrap

import numpy as np
import pytest

pytest.importorskip("keras")

from unbounded.detect import _run
from unbounded.detect._readings import readings
from unbounded.detect._run import read_run
from unbounded.detect._train import Plan, steps_done, train

pytestmark = [
    pytest.mark.slow,  # a compilation for each start
    # Keras's own conversions to NumPy set it off, under NumPy 2 with torch and TensorFlow.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]

LENGTH = 16


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


def trained(source, directory, steps, **options):
    events = []
    plan = Plan(**options, steps=steps, epoch=10, length=LENGTH, capacity=40, reuse=8.0, batch=16, warm_up=60)
    train(readings(source), directory, plan, tell=events.append)
    return events


def lines(directory, *kinds):
    with (directory / _run.FILE).open() as file:
        records = [json.loads(line) for line in file]
    return [record for record in records if record["kind"] in kinds]


def test_every_window_is_scored_before_it_is_first_trained_on(source, tmp_path):
    trained(source, tmp_path / "run", 40)
    scored = -1
    for record in lines(tmp_path / "run", "reading", "step"):
        if record["kind"] == "reading":
            # A window is known by its last row: the first one has LENGTH - 1 rows before it.
            scored = record["row"] + LENGTH - 1
        else:
            assert max(record["rows"]) <= scored
    assert scored > 60


def test_a_window_is_scored_with_weights_that_have_not_seen_it(source, tmp_path):
    trained(source, tmp_path / "run", 6)
    trained(source, tmp_path / "still", 6, learning_rate=1e-30)
    run, still = (lines(tmp_path / name, "reading", "step") for name in ("run", "still"))
    first = [record["kind"] for record in run].index("step")
    # Until a first step was trained, a model that learns is one that does not.
    assert run[: first + 1] == still[: first + 1]
    assert run != still


def test_a_run_in_two_parts_is_the_run_in_one(source, tmp_path):
    trained(source, tmp_path / "whole", 40)
    first = trained(source, tmp_path / "parts", 20)
    second = trained(source, tmp_path / "parts", 40)
    kinds = ("reading", "step")
    # Scores depend on the weights: where these differed in a bit, the readings would.
    assert lines(tmp_path / "whole", *kinds) == lines(tmp_path / "parts", *kinds)
    assert first[-1] == {"event": "end", "step": 20, "iterations": 20}
    assert second[-1] == {"event": "end", "step": 40, "iterations": 40}
    begins = [event for event in second if event["event"] == "begin"]
    assert [begin["step"] for begin in begins] == [20]
    run = read_run(tmp_path / "parts")
    assert run.rows_trained_twice() == 0
    assert run.steps.tolist() == list(range(1, 41))
    assert [epoch.epoch for epoch in run.epochs] == [1, 2, 3, 4]


def test_what_was_written_after_the_checkpoint_is_cut_off(source, tmp_path):
    trained(source, tmp_path / "run", 20)
    before = lines(tmp_path / "run", "step", "reading", "alarm")
    with (tmp_path / "run" / _run.FILE).open("a") as file:
        file.write(json.dumps(_run.step_record(21, [1, 2, 3])) + '\n{"kind": "st')
    trained(source, tmp_path / "run", 30)
    run = read_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, 31))
    assert (1, 2, 3) not in run.batches
    assert lines(tmp_path / "run", "step", "reading", "alarm")[: len(before)] == before


def test_a_jump_raises_an_alarm_that_names_its_column(source, tmp_path):
    events = trained(source, tmp_path / "run", 80)
    alarms = [event for event in events if event["event"] == "alarm"]
    assert any(alarm["column"] == "temperature" and alarm["change"] > 25 for alarm in alarms)
    assert [alarm.words for alarm in read_run(tmp_path / "run").alarms] == [alarm["words"] for alarm in alarms]


def test_the_figures_that_are_told_are_true(source, tmp_path):
    events = trained(source, tmp_path / "run", 40)
    steps = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 41))
    assert steps[-1]["rows"] == 40 * 16
    assert [step["in_epoch"] for step in steps] == [*range(1, 11)] * 4
    assert steps[-1]["scored"] == read_run(tmp_path / "run").row[-1] + 1
    assert all(0 <= step["waiting"] <= 1 for step in steps)
    # Each reading is used eight times, once its window is full.
    assert read_run(tmp_path / "run").uses == pytest.approx(8.0, rel=0.1)
    assert [event["event"] for event in events[:2]] == ["loading", "begin"]


def test_a_run_that_has_its_steps_says_so_and_trains_nothing(source, tmp_path):
    trained(source, tmp_path / "run", 20)
    assert steps_done(tmp_path / "run") == 20
    assert trained(source, tmp_path / "run", 20) == [{"event": "done", "step": 20}]
    assert steps_done(tmp_path / "nothing") == 0


def test_the_model_s_error_is_that_of_readings_it_was_not_trained_on(source, tmp_path):
    events = trained(source, tmp_path / "run", 60)
    run = read_run(tmp_path / "run")
    told = [event["better"] for event in events if event["event"] == "step"][-1]
    assert np.isfinite(run.error).all()
    assert run.better_by() is not None
    assert -1 < told < 1
