"""The report shows what a run wrote down: one file that loads nothing."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from unbounded.detect import _run
from unbounded.detect._columns import VITALS
from unbounded.detect._report import write_report
from unbounded.detect._run import Epoch, Start, read_run
from unbounded.detect._score import Alarm, Scorer


def write_run(directory, readings=1_200, columns=VITALS, epochs=8, starts=2):
    """A run as the trainer would write it: half of it, a pause of four seconds, the other half."""
    rng = np.random.default_rng(0)
    time = 1.76e9 + np.arange(readings) / 10
    time[readings // 2 :] += 4.0
    values = np.stack(
        [
            np.clip(rng.gamma(2, 6, readings) + 50 * (np.arange(readings) // 30 == readings // 45), 0, 100),
            20 + 0.01 * rng.normal(size=readings).cumsum(),
            1 + 0.01 * rng.normal(size=readings).cumsum(),
            *(rng.gamma(0.3, 1e6, readings) for _ in columns[3:]),
        ][: len(columns)],
        axis=1,
    )
    x = values / values.std(axis=0)
    score = Scorer(columns).score(np.arange(readings), time, values, x, np.repeat(x.mean(0)[None], readings, 0)).score
    figures = {"score": score, "error": np.full(readings, 0.5), "last": np.full(readings, 1.0)}
    lines = [
        _run.start_record(Start(time[0], "machine:", 0, "the beginning", columns, 4.0)),
        *_run.reading_records(range(readings), time, values, figures),
        *(_run.step_record(step, range(step, step + 32)) for step in range(1, readings // 2)),
        *(
            _run.epoch_record(
                Epoch(e, 50 * e, time[0] + 5 * e, {"loss": 1 / e, "persistence": 1.1, "waiting": 0.7, "reuse": 16.0})
            )
            for e in range(1, epochs + 1)
        ),
    ]
    if starts > 1:
        again = Start(time[readings // 2], "machine:", 300, "row 600", columns, 4.0)
        lines += [_run.start_record(again), _run.missed_record(38, time[readings // 2])]
    row = readings // 45 * 30
    alarm = Alarm(row, float(time[row]), columns[0].name, 61.7, 6.2, False, columns[0].change(61.7))
    lines.append(_run.alarm_record(alarm))
    (directory / _run.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


class Elements(HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    return elements


@pytest.mark.slow
def test_the_report_is_one_file_that_loads_nothing(tmp_path):
    write_run(tmp_path)
    path = write_report(tmp_path)
    elements = parsed(path)
    assert path == tmp_path / "report.html"
    assert elements.loads == []
    assert not {"script", "link", "img", "iframe"} & set(elements.tags)
    assert re.findall(r"url\((?!#)", path.read_text()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", _run.FILE}


@pytest.mark.slow
def test_the_report_has_a_plot_of_each_subject_and_the_alarm_with_its_column(tmp_path):
    write_run(tmp_path)
    elements = parsed(write_report(tmp_path))
    text = " ".join("".join(elements.text).split())
    assert elements.tags.count("svg") == 3
    assert all(column.name in text for column in VITALS)
    # In the table, at its column and at its score.
    assert text.count("+62 points") == 3
    assert "50% better than" in text
    assert "38" in text


def test_a_run_that_has_only_begun_has_a_report_too(tmp_path):
    write_run(tmp_path, epochs=0, starts=1)
    lines = (tmp_path / _run.FILE).read_text().splitlines(keepends=True)
    (tmp_path / _run.FILE).write_text(lines[0])
    assert "Nothing has been scored yet" in write_report(tmp_path).read_text()


@pytest.mark.slow
def test_a_long_run_s_report_stays_small_and_shows_its_highest_reading(tmp_path):
    write_run(tmp_path, readings=40_000, columns=VITALS[:2])
    assert write_report(tmp_path).stat().st_size < 1_500_000


def test_names_are_shown_as_they_are_and_never_run(tmp_path):
    write_run(tmp_path, readings=100)
    text = write_report(tmp_path, title="<script>alert(1)</script>").read_text()
    assert "<script>" not in text


def test_a_directory_without_a_run_says_how_to_begin_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="unbounded train machine:"):
        write_report(tmp_path)


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    write_run(tmp_path, readings=900)
    run = read_run(tmp_path)
    assert len(run.row) == 900
    assert run.values.shape == (900, 7)
    assert run.columns == VITALS
    assert [start.step for start in run.starts] == [0, 300]
    assert run.missed == 38
    assert run.alarms[0].words == "cpu +62 points"
    assert run.better_by() == pytest.approx(0.5)
    assert run.better_by(100) == pytest.approx(0.5)
    assert run.steps[-1] == 449


def test_a_batch_that_comes_again_is_counted_and_a_row_in_two_batches_is_not(tmp_path):
    write_run(tmp_path, readings=900)
    assert read_run(tmp_path).rows_trained_twice() == 0
    with (tmp_path / _run.FILE).open("a") as file:
        file.write(json.dumps(_run.step_record(450, range(7, 7 + 32))) + "\n")
    assert read_run(tmp_path).rows_trained_twice() == 32


def test_a_line_that_was_cut_short_by_a_kill_is_left_out(tmp_path):
    write_run(tmp_path, readings=900)
    with (tmp_path / _run.FILE).open("a") as file:
        file.write('{"kind": "step", "st')
    assert read_run(tmp_path).steps[-1] == 449


def test_a_run_that_has_not_begun_is_empty(tmp_path):
    run = read_run(tmp_path)
    assert run.starts == ()
    assert run.better_by() is None
    assert run.rows_trained_twice() == 0
