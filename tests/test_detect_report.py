"""The report contains what a run recorded, in one self-contained file."""

import doctest
import json
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from unbounded.detect import _bins, _plots, _record, _report, _svg
from unbounded.detect._bins import EpochBins, Ladder, ReadingBins
from unbounded.detect._columns import VITALS, Column
from unbounded.detect._plots import coalesced
from unbounded.detect._record import FILE, RecordedAlarm, Start, Trained
from unbounded.detect._report import write_report
from unbounded.detect._run import last_start, read_run


def write_run(
    directory,
    readings=1_200,
    columns=VITALS,
    epochs=8,
    starts=2,
    alarms=1,
    axis="date",
    skipped=None,
    pause=4.0,
    key="",
):
    """A run as the trainer would write it: half of it, a pause, the other half."""
    rng = np.random.default_rng(0)
    begin = 1.76e9 if axis == "date" else 0.0
    time = begin + np.arange(readings) * (1 if axis == "row" else 0.1)
    time[readings // 2 :] += pause
    values = np.stack(
        [
            np.clip(rng.gamma(2, 6, readings) + 50 * (np.arange(readings) // 30 == readings // 45), 0, 100),
            *(20 + 0.01 * rng.normal(size=readings).cumsum() for _ in columns[1:3]),
            *(rng.gamma(0.3, 1e6, readings) for _ in columns[3:]),
        ][: len(columns)],
        axis=1,
    )
    bins, of_epochs = ReadingBins(len(columns)), EpochBins()
    one = np.ones(readings)
    lines = [_record.as_line(Start(time[0], "machine:", 0, "the beginning", columns, 4.0, axis))]
    for at in range(0, readings, 500):
        part = slice(at, at + 500)
        lines += bins.add(time[part], values[part], rng.exponential(0.4, len(one[part])), one[part] / 2, one[part])
    lines += bins.rest()
    for e in range(1, epochs + 1):
        logs = {"loss": 1 / e, "persistence": 1.1, "waiting": 0.7, "reuse": 16.0}
        lines += of_epochs.add(e, 50 * e, time[0] + 5 * e, logs, [15.0, 30.0, 30])
    if starts > 1:
        lines.append(_record.as_line(Start(time[-1], "machine:", 300, "row 600", columns, 4.0, axis)))
    lines.append(_record.as_line(Trained(449, 449, 449 * 32, 0, 38 * (starts > 1), skipped or {}, time[-1])))
    for number in range(alarms):
        row = (readings // 45 * 30 + 37 * number) % readings
        column = columns[number % len(columns)]
        words = column.change(61.7 + number)
        alarm = RecordedAlarm(float(time[row]), key, column.name, "sudden", 6.2, 10**-6.2, 61.7, row, words)
        lines.append(_record.as_line(alarm))
    (directory / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return values


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


def test_the_report_is_one_file_that_loads_nothing(tmp_path):
    write_run(tmp_path)
    path = write_report(tmp_path)
    elements = parsed(path)
    assert path == tmp_path / "report.html"
    assert elements.loads == []
    assert not {"script", "link", "img", "iframe"} & set(elements.tags)
    assert re.findall(r"url\((?!#)", path.read_text()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", FILE}


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
    lines = (tmp_path / FILE).read_text().splitlines(keepends=True)
    (tmp_path / FILE).write_text(lines[0])
    assert "Nothing has been scored yet" in write_report(tmp_path).read_text()


def test_a_long_run_s_report_stays_small_and_shows_its_highest_reading(tmp_path):
    values = write_run(tmp_path, readings=40_000, columns=VITALS[:2], epochs=3_000, alarms=3_000)
    assert (tmp_path / FILE).stat().st_size < 2_000_000
    run = read_run(tmp_path)
    assert run.readings == 40_000
    assert run.alarm_count == 3_000
    assert len(run.alarms) == 1_000
    assert len(run.epochs) < 2_000
    for bins in (run.bins, coalesced(run, 300)):
        assert bins.count.sum() == 40_000
        np.testing.assert_allclose(bins.high.max(axis=0), values.max(axis=0), rtol=1e-6)
        np.testing.assert_allclose(bins.low.min(axis=0), values.min(axis=0), rtol=1e-6, atol=1e-6)
    assert len(coalesced(run, 300)) < 610
    path = write_report(tmp_path)
    assert path.stat().st_size < 1_000_000
    assert "The newest 50 of 3,000 alarms" in path.read_text()


def test_a_record_grows_with_the_logarithm_of_the_run():
    sizes = []
    for readings in (10_000, 100_000):
        bins, records = ReadingBins(1, most=100), 0
        one = np.ones(1_000)
        for at in range(0, readings, 1_000):
            records += len(bins.add(at + np.arange(1_000.0), one[:, None], one, one, one))
        sizes.append(records)
    assert sizes[1] - sizes[0] < 500
    assert Ladder(100, 10**12).size < 10**12 / 100


def test_a_hundred_columns_cost_little(tmp_path):
    columns = tuple(Column(f"column {i}") for i in range(100))
    write_run(tmp_path, readings=3_000, columns=columns[:100], alarms=300)
    tracemalloc.start()
    path = write_report(tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size < 3_000_000
    assert most < 60_000_000
    assert parsed(path).text.count("column 99") >= 1


@pytest.mark.parametrize("cuts", [[1] * 40, [7, 13, 20], [40]])
def test_bins_are_the_same_however_readings_came_and_over_a_restart(cuts):
    rng = np.random.default_rng(1)
    time, values = np.arange(40.0), rng.normal(size=(40, 2))
    time[25:] += 500
    score, error, last = rng.random((3, 40))
    whole = ReadingBins(2, most=4)
    expected = [*whole.add(time, values, score, error, last), *whole.rest()]
    bins, found, at = ReadingBins(2, most=4), [], 0
    for count in cuts:
        part = slice(at, at + count)
        found += bins.add(time[part], values[part], score[part], error[part], last[part])
        at += count
        state = json.loads(json.dumps(bins.state_dict(), default=lambda array: array.tolist()))
        bins = ReadingBins(2, most=4)
        bins.load_state_dict(state)
    found += bins.rest()
    assert [record["kind"] for record in found] == [record["kind"] for record in expected]
    for one, other in zip(found, expected, strict=True):
        for name in one:
            assert one[name] == other[name] or np.allclose(one[name], other[name], rtol=1e-6)
    assert [record for record in found if record["kind"] == "pause"] == [{"kind": "pause", "from": 24.0, "to": 525.0}]


def test_no_line_bridges_a_pause_and_no_grey_covers_what_was_read(tmp_path):
    write_run(tmp_path, readings=1_200, pause=60.0)
    run = read_run(tmp_path)
    assert len(run.pauses) == 1
    since, until = run.pauses[0]
    assert until - since == pytest.approx(60.1, abs=0.01)
    read = (run.bins.begin <= since) & (run.bins.end >= until)
    assert not read.any()


def test_no_line_runs_back_where_a_clock_was_set_back(tmp_path):
    write_run(tmp_path, readings=1_000, pause=-30.0)
    run = read_run(tmp_path)
    middle, low, _ = _plots._with_holes(run, coalesced(run, 900))
    known = np.isfinite(middle)
    back = np.flatnonzero(np.diff(middle[known]) < 0)
    assert len(back) == 1
    assert np.isnan(low).any()
    write_run(tmp_path, readings=1_000, pause=60.0)
    run = read_run(tmp_path)
    middle, _, _ = _plots._with_holes(run, run.bins)
    assert np.isnan(middle).sum() == 1


@pytest.mark.parametrize(("axis", "words"), [("row", "row 784"), ("seconds", "82 s"), ("date", "2025-10-09")])
def test_times_are_told_as_the_run_has_them(tmp_path, axis, words):
    write_run(tmp_path, axis=axis, starts=1)
    text = " ".join(parsed(write_report(tmp_path)).text)
    assert words in text
    assert "1970" not in text
    assert (" in " in text.split("readings of")[1][:40]) == (axis != "row")


@pytest.mark.parametrize("time", [-1e300, 1e300, 4e17, -4e17])
def test_a_time_that_no_calendar_has_breaks_nothing(tmp_path, time):
    write_run(tmp_path, readings=50)
    text = (tmp_path / FILE).read_text().replace("176000000", f"{time:.0f}"[:12])
    (tmp_path / FILE).write_text(text)
    write_report(tmp_path)
    assert _report.moment(time, "date")


def test_a_short_span_is_no_span_of_none():
    assert _report._span(0.34) == "0.34 seconds"
    assert _report._span(3_600) == "60 minutes"
    assert _report._span(86_400 * 30) == "30.0 days"


def test_the_figure_at_the_top_and_the_chart_measure_the_same(tmp_path):
    write_run(tmp_path, epochs=6)
    run = read_run(tmp_path)
    text = " ".join(" ".join(parsed(write_report(tmp_path)).text).split())
    assert "50% better" in text
    # In each epoch as in all.
    assert all(epoch.error / epoch.last == pytest.approx(0.5) for epoch in run.epochs)
    assert "what the figure at the top of the page sums up" in text


def test_keys_are_shown_with_their_alarms_as_they_are(tmp_path):
    write_run(tmp_path, readings=100, alarms=2, key="<i>pump</i> & 1")
    page = write_report(tmp_path).read_text()
    assert "<td>&lt;i&gt;pump&lt;/i&gt; &amp; 1</td>" in page
    assert "<th>key</th>" in page
    assert "of all keys" not in page
    text = (tmp_path / FILE).read_text().replace('"keyed": false', '"keyed": true')
    (tmp_path / FILE).write_text(text)
    assert "The readings of all keys are drawn together." in write_report(tmp_path).read_text()


def test_what_was_left_out_is_named_with_its_columns(tmp_path):
    write_run(tmp_path, skipped={"cpu": 3, "load": 12})
    text = " ".join(" ".join(parsed(write_report(tmp_path)).text).split())
    assert "15 more were left out, since a column held no number: load in 12, cpu in 3." in text


def test_what_another_version_wrote_does_not_break_a_report(tmp_path):
    write_run(tmp_path, readings=100)
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps({"kind": "something new", "step": 1}) + "\n")
        file.write('{"kind": "trained", "st{"kind": "alarm"}\n')
        file.write(json.dumps({**_record.as_line(Trained(step=7)), "more": 1}) + "\n")
    run = read_run(tmp_path)
    assert run.damaged == 1
    assert run.trained.step == 7
    assert "1 line of its record could not be read" in write_report(tmp_path).read_text()


def test_the_columns_of_a_run_are_known_from_its_last_start(tmp_path):
    assert last_start(tmp_path) is None
    write_run(tmp_path, readings=50, columns=VITALS[:2], axis="seconds")
    start = last_start(tmp_path)
    assert start.columns == VITALS[:2]
    assert start.axis == "seconds"
    assert start.step == 300


@pytest.mark.parametrize("module", [_bins, _svg])
def test_the_examples_in_the_docstrings_run(module):
    assert doctest.testmod(module).failed == 0


def test_names_are_shown_as_they_are_and_never_run(tmp_path):
    write_run(tmp_path, readings=100)
    text = write_report(tmp_path, title="<script>alert(1)</script>").read_text()
    write_run(tmp_path, readings=100, columns=(Column("<script>alert(2)</script>", "<b>"),))
    text += write_report(tmp_path).read_text()
    assert "<script>" not in text


def test_a_directory_without_a_run_says_how_to_begin_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="unbounded train machine:"):
        write_report(tmp_path)


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    values = write_run(tmp_path, readings=900)
    run = read_run(tmp_path)
    assert run.readings == len(run.bins) == 900
    np.testing.assert_allclose(run.bins.low, values, rtol=1e-6)
    assert run.columns == VITALS
    assert [start.step for start in run.starts] == [0, 300]
    assert run.trained.missed == 38
    assert run.alarms[0].words == "cpu +62 points"
    assert run.better_by() == pytest.approx(0.5)
    assert run.better_by(100) == pytest.approx(0.5)
    assert run.steps[-1] == 449
    assert run.uses == pytest.approx(449 * 32 / 900)


def test_a_line_that_was_cut_short_by_a_kill_is_left_out(tmp_path):
    write_run(tmp_path, readings=900)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"kind": "step", "st')
    assert read_run(tmp_path).steps[-1] == 449


def test_a_run_that_has_not_begun_is_empty(tmp_path):
    run = read_run(tmp_path)
    assert run.starts == ()
    assert run.better_by() is None
    assert run.rows_trained_twice() == 0
