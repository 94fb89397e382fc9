"""The command: its messages, plain lines without a terminal, and resuming when it is run again."""

import contextlib
import doctest
import io
import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import unbounded
from helpers import compiled_once, short_start
from unbounded.cli import _view
from unbounded.cli._app import app
from unbounded.cli._display import JsonDisplay, PlainDisplay, display
from unbounded.cli._error_words import in_words
from unbounded.cli._live import panel, sparkline
from unbounded.cli._stop_signals import Stopped, StopSignals
from unbounded.cli._train_options import name_of
from unbounded.cli._view import Silence, View, alarm_line
from unbounded.detect._run import read_run
from unbounded.testing import Clock

HELLO = {"event": "hello", "source": "machine:", "columns": [["cpu", "%"], ["load", ""]]}
STEP = {
    "event": "step",
    "step": 331,
    "epoch": 6,
    "in_epoch": 31,
    "share": 0.62,
    "rate": 9.97,
    "rows": 10_592,
    "readings": 700,
    "scored": 660,
    "reuse": 14.9,
    "loss": 0.61,
    "persistence": 0.94,
    "better": 0.351,
    "age": 12.3,
    "waiting": 0.71,
    "missed": 0,
}
ALARM = {
    "event": "alarm",
    "row": 5,
    "time": 1.76e9,
    "column": "cpu",
    "change": 61.7,
    "score": 6.2,
    "tail": 6e-7,
    "cause": "sudden",
    "key": "",
    "words": "cpu +62 points",
}


class Lab:
    """A folder with a file of sensors, and the command in it."""

    def __init__(self, folder, cache):
        self.folder = folder
        self.environment = short_start(cache)
        (folder / "lab.py").write_text(textwrap.dedent(SENSORS))

    def __truediv__(self, name):
        return self.folder / name

    def command(self, *arguments):
        """The command, to its end, in this process, which has Keras already."""
        with contextlib.chdir(self.folder):
            return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "400"})

    def process(self, *arguments):
        """The command, to its end, in a process of its own."""
        process = self.started(*arguments)
        out, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, out, errors)

    def started(self, *arguments):
        """The command, under way, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "unbounded.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")
    with compiled_once(cache):
        yield cache


@pytest.fixture
def lab(tmp_path, compiled):
    return Lab(tmp_path, compiled)


SENSORS = """
    import itertools, math, time

    def boiler(start=0):
        while True:
            yield {"temperature": [20 + math.sin(start / 9)]}
            start += 1

    def cellar(start=0):
        yield from boiler(start)

    def short():
        for i in range(60):
            yield {"temperature": math.nan if i == 7 else 20.0 + i % 3}

    def broken():
        yield from ({"temperature": i} for i in range(20))
        1 / 0

    def asleep():
        time.sleep(100)
        yield {"temperature": 1}

    def falls_asleep():
        yield from ({"temperature": i % 7} for i in range(60))
        time.sleep(100)
"""


@pytest.mark.parametrize("source", ["kafka://host/topic", "readings.csv", "*.csv", "nowhere.py:sensor"])
def test_a_source_that_is_not_there_ends_with_a_sentence_and_no_traceback(source):
    result = CliRunner().invoke(app, ["train", source, "--display", "plain"])
    assert result.exit_code == 2
    assert "FILE.py:FUNCTION" in result.stderr
    assert "Traceback" not in result.output


def test_a_report_of_nothing_says_how_to_begin(tmp_path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "unbounded train machine:" in result.stderr


def test_the_help_names_the_sources():
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "machine:" in result.output
    assert "FILE.py:FUNCTION" in result.output


@pytest.mark.parametrize("words", [[], ["train"], ["status"], ["report"], ["demo"]])
def test_help_may_be_asked_for_in_one_letter(words):
    result = CliRunner().invoke(app, [*words, "-h"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_help_says_what_a_kill_loses_and_what_exit_codes_mean():
    text = " ".join(CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "400"}).output.split())
    assert "A kill (SIGKILL, a power cut) loses the training since the last one" in text
    for code in ("0, the last epoch", "130, stopped by Ctrl-C", "143, by SIGTERM", "2, a sentence"):
        assert code in text


def test_the_version_is_the_library_s():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"unbounded {unbounded.__version__}\n")


@pytest.mark.parametrize("every", ["0", "soon", "0s", "-3", "nans", "infs", "1.5"])
def test_a_time_between_checkpoints_that_is_none_is_refused(every):
    result = CliRunner().invoke(app, ["train", "machine:", "--every", every], env={"COLUMNS": "400"})
    assert result.exit_code == 2
    assert "expected seconds such as 5s, or steps such as 50" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["train", "machine:", "--run"], ["status"], ["report"], ["demo", "--run"]], ids=lambda words: words[0]
)
def test_a_url_is_no_directory_of_a_run(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words, "gs://bucket/run"], env={"COLUMNS": "400"})
    assert result.exit_code == 2
    assert "is a URL, and a path on a local or mounted file system is expected" in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_typed_again_goes_on_and_leaves_a_report(lab):
    first = lab.process("train", "lab.py:boiler", "--steps", "5", "--epochs", "1")
    assert first.returncode == 0, first.stderr
    assert "epoch 1 of 1 (20%), step 1 of 5, readings 2, " in first.stdout
    assert all(f"step {step} of 5" in first.stdout for step in range(1, 6))
    again = lab.command("train", "lab.py:boiler", "--steps", "5", "--epochs", "2")
    assert "Going on at step 6, row 161." in again.stdout
    assert (lab / "runs" / "lab-boiler" / "report.html").exists()
    assert "\x1b" not in first.stdout + again.stdout
    other = lab.command("train", "lab.py:cellar", "--run", "runs/lab-boiler")
    assert other.exit_code == 2
    assert "Traceback" not in other.stderr
    assert "--accept-changes" in other.stderr
    assert "accept_changes=" not in other.stderr
    done = lab.command("train", "lab.py:boiler", "--steps", "5", "--epochs", "2")
    assert "Trained 10 steps already: 2 epochs. More --epochs go on." in done.stdout
    assert lab.command("report", "runs/lab-boiler").exit_code == 0


@pytest.mark.slow
def test_a_generator_that_ends_leaves_the_report_and_nothing_of_the_library_s_advice(lab):
    result = lab.command("train", "lab.py:short")
    assert result.exit_code == 0, result.stderr
    assert "lab.py:short ended after 60 readings" in result.stdout
    assert "Reading 8 is left out: temperature is nan." in result.stdout
    assert "The report is in runs/lab-short/report.html" in result.stdout
    assert "passes=" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert read_run(lab / "runs" / "lab-short").trained.skipped == {"temperature": 1}


@pytest.mark.slow
def test_an_error_of_the_function_is_shown_from_its_file_on(lab):
    result = lab.command("train", "lab.py:broken")
    assert result.exit_code == 1
    assert "ZeroDivisionError: division by zero\n\nlab.py:broken raised this error." in result.stderr
    assert result.stderr.count('File "') == 1
    assert "The report is in" in result.stdout


@pytest.mark.parametrize("source", ["lab_with_errors.py:sensor", "lab_with_errors:sensor"])
def test_an_error_of_a_file_s_import_is_shown_from_that_file_on(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for code, words in (("def sensor(:\n", "SyntaxError"), ("import nothing_of_that_name\n", "nothing_of_that_name")):
        (tmp_path / "lab_with_errors.py").write_text(code)
        result = CliRunner().invoke(app, ["train", source, "--display", "plain"])
        assert result.exit_code in (1, 2)
        assert words in result.stderr
        assert "importlib" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sensor", "line", "number", "code"),
    [
        ("asleep", "waiting for the first reading", signal.SIGINT, 130),
        ("boiler", "loading Keras", signal.SIGTERM, 143),
        ("boiler", "epoch", signal.SIGINT, 130),
        ("boiler", "epoch", signal.SIGTERM, 143),
        ("falls_asleep", "no reading for", signal.SIGINT, 130),
    ],
)
def test_a_signal_ends_the_command_cleanly_wherever_it_is(lab, sensor, line, number, code):
    process = lab.started("train", f"lab.py:{sensor}")
    lines = []
    for text in process.stdout:
        lines.append(text)
        if line in text:
            process.send_signal(number)
            break
    out, errors = process.communicate(timeout=600)
    lines.append(out)
    assert process.returncode == code, "".join(lines) + errors
    assert "Traceback" not in errors
    assert f"Stopped by {number.name}" in "".join(lines)
    if line in ("epoch", "no reading for"):
        assert (lab / "runs" / f"lab-{sensor.replace('_', '-')}" / "report.html").exists()


@pytest.mark.slow
def test_a_run_whose_output_nobody_reads_any_more_ends(lab):
    process = lab.started("train", "lab.py:boiler")
    for text in process.stdout:
        if text.startswith("epoch"):
            break
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "BrokenPipe" not in errors
    assert read_run(lab / "runs" / "lab-boiler").trained.step > 0


def test_a_signal_while_a_framework_begins_is_noted_and_delivered_after():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        with pytest.raises(Stopped, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        signals.hold()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGINT"):
            signals.deliver()
        signals.deliver()
        signals.hold()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_messages_of_the_library_are_in_the_terms_of_the_command():
    assert in_words("Pass accept_changes=True to go on.") == "Type it with --accept-changes to go on."


def test_without_a_terminal_lines_are_printed_and_no_control_characters():
    out = io.StringIO()
    shown = display("auto", out)
    assert isinstance(shown, PlainDisplay)
    for event in (HELLO, {"event": "loading"}, {"event": "reading", "values": [12.0, 0.5], "time": 0.0}, STEP, ALARM):
        shown.show(event)
    shown.say("That was all.")
    lines = out.getvalue().splitlines()
    assert lines[0] == "loading Keras …"
    assert lines[1] == "cpu 12 %, load 0.5"
    assert lines[2] == (
        "epoch 7 (62%), step 331, readings 660, a second 9.97, rows 10,592, reuse 14.9, loss 0.610, fresh 12.3 s, "
        "waited 71%; "
        "35% better than “the next reading is the last one”"
    )
    assert lines[3].endswith(": cpu +62 points")
    assert lines[4] == "That was all."


def test_the_live_display_shows_what_happens_and_leaves_the_terminal_as_it_was():
    pytest.importorskip("rich")
    out = io.StringIO()
    shown = display("live", out)
    try:
        for event in (HELLO, {"event": "reading", "values": [12.0, 0.5], "time": 0.0}, STEP, ALARM):
            shown.show(event)
        shown.say("Now [loading] one core.")
    finally:
        shown.close()
    text = out.getvalue()
    for word in ("331", "660", "14.9", "0.610", "12.3 s", "71%", "35% better", "cpu +62 points", "12 %"):
        assert word in text
    assert "Now [loading] one core." in text


def test_events_go_through_a_pipe_as_they_are():
    out = io.StringIO()
    shown = JsonDisplay(out)
    shown.show(STEP)
    shown.say("words")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [STEP, {"event": "say", "words": "words"}]


def test_an_unknown_display_is_refused():
    with pytest.raises(ValueError, match="choose auto, live, plain, json"):
        display("loud", io.StringIO())
    result = CliRunner().invoke(app, ["train", "machine:", "--display", "loud"])
    assert result.exit_code == 2


def test_a_view_before_the_first_step_has_no_figures_but_no_errors_either():
    view = View()
    assert view.reading() == "no reading yet"
    assert view.figures() == [("step", "–")]
    assert view.better() == ""
    view.take(HELLO)
    view.take({**STEP, "reuse": None, "age": None, "loss": float("nan"), "better": -0.2})
    assert ("loss", "–") in view.figures()
    assert view.better().startswith("20% worse")


def view_of(clock, *events):
    """A view on a clock that the test moves."""
    view = View(now=clock.monotonic)
    for event in events:
        view.take(event)
    return view


BEGIN = {"event": "begin", "step": 0, "threshold": 4.0}
READING = {"event": "reading", "values": [12.0, 0.5], "time": 0.0, "readings": 7}


def test_silence_is_said_in_place_of_figures_that_are_no_longer_true():
    clock = Clock(0.0)
    view = view_of(clock, HELLO, BEGIN, READING, STEP)
    assert view.silence() == ""
    assert "fresh" in dict(view.figures())
    clock.advance(12.0)
    assert view.silence() == "no reading for 12 s"
    assert not {"fresh", "waited"} & set(dict(view.figures()))
    view.take(READING)
    assert view.silence() == ""
    clock.advance(754.0)
    assert view.silence() == "no reading for 12 min 34 s"


def test_silence_says_what_is_waited_for():
    clock = Clock(0.0)
    view = view_of(clock, {"event": "opening", "source": "lab.py:asleep"})
    clock.advance(8.0)
    assert view.silence() == "waiting for the first reading for 8 s"
    view = view_of(clock, HELLO, BEGIN)
    clock.advance(5.0)
    skipped = {"event": "skipped", "reading": 7, "column": "cpu", "value": "nan", "first": False, "skipped": 9}
    for _ in range(3):
        view.take(skipped)
    assert view.silence() == (
        "no reading with a number in each column for 5 s: 3 were left out, the last since cpu was nan"
    )
    view = view_of(clock, HELLO, BEGIN)
    clock.advance(5.0)
    view.take({"event": "again", "readings": 12_345})
    assert view.silence() == "reading again what is known: 12,345 readings so far"


def test_a_long_silence_is_said_ever_less_often_and_a_new_one_at_once():
    clock, silence = Clock(0.0), Silence()
    view = view_of(clock, HELLO, BEGIN)
    said = []
    for second in range(1, 100):
        clock.advance(1.0)
        if silence.due(view):
            said.append(second)
    assert said == [5, 10, 20, 40, 80]
    view.take(READING)
    clock.advance(5.0)
    assert silence.due(view) == "no reading for 5 s"


def test_silence_reaches_lines_and_pipes():
    for kind in (PlainDisplay, JsonDisplay):
        clock, out = Clock(0.0), io.StringIO()
        shown = kind(out)
        shown.view.now = clock.monotonic
        for event in (HELLO, BEGIN):
            shown.show(event)
        clock.advance(6.0)
        shown.tick()
        shown.tick()
        assert out.getvalue().count("no reading for 6 s") == 1


def test_thirty_steps_in_a_moment_are_more_than_one_line():
    out = io.StringIO()
    shown = PlainDisplay(out, View(now=Clock(0.0).monotonic))
    shown.show({**HELLO, "steps": 30})
    shown.show(BEGIN)
    for step in range(1, 31):
        shown.show({**STEP, "step": step})
    shown.show({"event": "end", "step": 30})
    steps = [int(line.split("step ")[1].split(" of")[0]) for line in out.getvalue().splitlines()]
    assert steps == [*range(1, 30, 3), 30]


def test_what_is_not_finite_is_null_in_a_pipe():
    out = io.StringIO()
    JsonDisplay(out).show({**STEP, "loss": float("nan"), "nested": [float("inf"), {"a": 1.0}]})
    event = json.loads(out.getvalue(), parse_constant=lambda name: pytest.fail(name))
    assert event["loss"] is None
    assert event["nested"] == [None, {"a": 1.0}]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 16), (200, 60), (80, 12)])
@pytest.mark.parametrize("columns", [1, 7, 100])
def test_the_panel_fits_the_terminal_and_hides_neither_score_nor_alarms(width, height, columns):
    rich = pytest.importorskip("rich.console")
    clock = Clock(0.0)
    names = [[f"a column {number}", "%"] for number in range(columns)]
    view = view_of(clock, {**HELLO, "columns": names}, BEGIN)
    last = f"a column {columns - 1}"
    for _ in range(100):
        view.take({"event": "reading", "values": [50.0] * columns, "time": 0.0})
        view.take({"event": "score", "score": 2.5, "scored": 1})
    view.take(STEP)
    for number in range(5):
        view.take({**ALARM, "column": last, "words": f"{last} +{number}"})
    clock.advance(4.0)  # a silence has a line, too
    console = rich.Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(panel(view, {last: clock.monotonic()}, width, height))
    lines = console.file.getvalue().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "score" in text
    assert all(f"{last} +{number}" in text for number in ((2, 3, 4) if height > 14 else (4,)))
    assert "no reading" in text
    assert "331" in text
    if columns == 100:
        assert "more" in text
        # The column that raised an alarm is among those that are shown.
        assert height < 16 or any(last in line and "50 %" in line for line in lines)


@pytest.mark.parametrize("scores", [[2.5], [None], [None, 2.5], [2.5, None]])
def test_the_panel_shows_scores_before_there_is_a_threshold(scores):
    rich = pytest.importorskip("rich.console")
    # As a trainer tells it through a pipe, where NaN is null.
    view = view_of(Clock(0.0), HELLO, {**BEGIN, "threshold": None})
    view.take({"event": "reading", "values": [None, 0.5], "time": 0.0})
    for score in scores:
        view.take({"event": "score", "score": score, "scored": 1})
    console = rich.Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    console.print(panel(view, {}, 80, 24))
    (line,) = [line for line in console.file.getvalue().splitlines() if "score" in line]
    assert ("2.5" in line) is (scores[-1] is not None)
    assert ("█" in line) is (2.5 in scores)


def test_an_alarm_that_is_a_record_says_so():
    assert alarm_line({**ALARM, "cause": "extreme"}).endswith("cpu +62 points, beyond all before")


@pytest.mark.parametrize(("axis", "words"), [("row", "alarm at row 5: "), ("seconds", "alarm at 5 s: ")])
def test_an_alarm_of_a_source_without_a_clock_does_not_live_in_1970(axis, words):
    assert alarm_line({**ALARM, "time": 5.0}, axis).startswith(words)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(_view).failed == 0


def test_a_sparkline_shows_its_highest_and_lowest_and_holes():
    assert sparkline(np.array([0.0, 50.0, 100.0])) == "▁▄█"
    assert sparkline(np.array([5.0, 5.0])) == "▁▁"
    assert sparkline(np.array([0.0, np.nan, 1.0])) == "▁ █"
    assert sparkline(np.array([50.0]), 0.0, 100.0) == "▄"
    assert sparkline(np.array([np.nan])) == " "


def test_a_run_is_named_after_its_source():
    assert name_of("machine:") == "machine"
    assert name_of("lab/sensors.py:boiler") == "sensors-boiler"
    assert name_of("plant.sensors:boiler") == "plant-sensors-boiler"
    assert name_of("data/2024/plant.csv.gz") == name_of("plant.csv") == "plant"
    assert name_of("data/2024/*.csv") == "2024"
    assert name_of("*.csv") == "files"
    assert name_of("s3://bucket/plant/") == "plant"
