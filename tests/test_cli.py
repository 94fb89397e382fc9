"""The command: honest sentences, plain lines without a terminal, and a run that goes on when it is typed again."""

import io
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from unbounded.cli._app import app
from unbounded.cli._display import JsonDisplay, PlainDisplay, display, sparkline
from unbounded.cli._train import name_of
from unbounded.cli._view import View, alarm_line

HELLO = {"event": "hello", "source": "machine:", "columns": [["cpu", "%"], ["load", ""]], "epoch": 50}
STEP = {
    "event": "step",
    "step": 331,
    "epoch": 6,
    "in_epoch": 31,
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
    "lost": 0,
}
ALARM = {
    "event": "alarm",
    "row": 5,
    "time": 1.76e9,
    "column": "cpu",
    "change": 61.7,
    "score": 6.2,
    "record": False,
    "words": "cpu +62 points",
}


def command(*arguments, cwd=None):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "unbounded.cli", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


@pytest.mark.parametrize("source", ["kafka://host/topic", "readings.csv", "nowhere.py:sensor"])
def test_a_source_that_is_not_there_ends_with_a_sentence_and_no_traceback(source):
    result = CliRunner().invoke(app, ["train", source, "--display", "plain"])
    assert result.exit_code == 2
    assert "FILE.py:FUNCTION" in result.stderr
    assert "Traceback" not in result.output


def test_a_report_of_nothing_says_how_to_begin(tmp_path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "unbounded train machine:" in result.stderr


def test_the_help_names_the_sources():
    result = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "machine:" in result.output
    assert "FILE.py:FUNCTION" in result.output


@pytest.mark.slow
def test_a_run_that_is_typed_again_goes_on_and_leaves_a_report(tmp_path):
    (tmp_path / "lab.py").write_text(
        textwrap.dedent(
            """
            import numpy as np

            def boiler(start=0):
                while True:
                    yield {"temperature": [20 + np.sin(start / 9)]}
                    start += 1

            def cellar(start=0):
                yield from boiler(start)
            """
        )
    )
    first = command("train", "lab.py:boiler", "--steps", "5", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "epoch 1 (1/50), step 1, rows 32" in first.stdout
    again = command("train", "lab.py:boiler", "--steps", "8", cwd=tmp_path)
    assert "Going on at step 6, row 161." in again.stdout
    assert (tmp_path / "runs" / "lab-boiler" / "report.html").exists()
    assert "\x1b" not in first.stdout + again.stdout
    other = command("train", "lab.py:cellar", "--dir", "runs/lab-boiler", cwd=tmp_path)
    assert other.returncode == 2
    assert "Traceback" not in other.stderr
    done = command("train", "lab.py:boiler", "--steps", "8", cwd=tmp_path)
    assert "has trained 8 steps already" in done.stdout
    assert command("report", "runs/lab-boiler", cwd=tmp_path).returncode == 0


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
        "epoch 7 (31/50), step 331, rows 10,592, reuse 14.9, loss 0.610, fresh 12.3 s, waited 71%; "
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
    for word in ("331", "10,592", "14.9", "0.610", "12.3 s", "71%", "35% better", "cpu +62 points", "12 %"):
        assert word in text
    assert "Now [loading] one core." in text


def test_events_go_through_a_pipe_as_they_are():
    out = io.StringIO()
    shown = JsonDisplay(out)
    shown.show(STEP)
    shown.say("words")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [STEP, {"event": "say", "words": "words"}]


def test_a_display_that_is_not_there_is_refused_in_words():
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


def test_an_alarm_that_is_a_record_says_so():
    assert alarm_line({**ALARM, "record": True}).endswith("cpu +62 points, beyond all before")


def test_a_sparkline_shows_its_highest_and_lowest_and_holes():
    assert sparkline(np.array([0.0, 50.0, 100.0])) == "▁▄█"
    assert sparkline(np.array([5.0, 5.0])) == "▁▁"
    assert sparkline(np.array([0.0, np.nan, 1.0])) == "▁ █"
    assert sparkline(np.array([50.0]), 0.0, 100.0) == "▄"
    assert sparkline(np.array([np.nan])) == " "


def test_a_run_is_named_after_its_source():
    assert name_of("machine:") == "machine"
    assert name_of("lab/sensors.py:boiler") == "sensors-boiler"
