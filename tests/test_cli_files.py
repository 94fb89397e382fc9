"""The command on files: killed at any moment each reading is scored once; its status, its alarms, and its sentences."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from helpers import compiled_once, installed, short_start, wait_until
from unbounded.cli import _options, main
from unbounded.cli._app import app
from unbounded.cli._on_alarm import AlarmCommand
from unbounded.cli._status_command import in_lines, is_written, show_status, status_of
from unbounded.detect._run import read_run

pytestmark = installed("pyarrow", "fsspec", "jax")

ROWS, WINDOW = 1_200, 8
OPTIONS = ("--window", str(WINDOW), "--batch", "64", "--warm-up", "100", "--display", "json")


def started(folder, cache, *arguments):
    """The command, under way in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "unbounded.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**short_start(cache), "KERAS_BACKEND": "jax"},
    )


def until(process, event):
    """Read events up to one of a kind, and return it."""
    for line in process.stdout:
        if f'"event": "{event}"' in line:
            return json.loads(line)
    raise AssertionError(process.stderr.read())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plant's readings: two pumps, some gaps, and a jump of one pump."""
    folder = tmp_path_factory.mktemp("plant")
    rng = random.Random(0)
    lines = ["timestamp,flow,count,pump,remark"]
    for row in range(ROWS):
        flow = 20 + math.sin(row / 30) + rng.gauss(0, 0.2) + (30 if row % 2 and 801 <= row < 841 else 0)
        moment = f"2024-01-{1 + row // 288:02d} {row % 288 // 12:02d}:{row % 12 * 5:02d}:00"
        lines.append(f"{moment},{flow:.3f},{'' if row % 100 == 50 else row % 7},{'ba'[row % 2]},fine")
    (folder / "plant.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")
    with compiled_once(cache):
        yield cache


@pytest.fixture(scope="module")
def run(folder, cache):
    """A run that was killed again and again, and has ended: its directory, and what was seen while it went on."""
    directory, seen = folder / "runs" / "killed", {}
    arguments = ["train", "plant.csv", "--by", "pump", "--run", "runs/killed", "--every", "4", *OPTIONS]
    arguments += ["--on-alarm", 'cat >> told.jsonl; echo "$UNBOUNDED_KEY: $UNBOUNDED_WORDS" >> words.txt']
    for steps in (1, 40):
        process = started(folder, cache, *arguments)
        until(process, "begin")
        for _ in range(steps):
            until(process, "step")
        if steps == 40:
            wait_until(lambda: status_of(directory)["checkpoint_step"] is not None)
            seen["running"] = status_of(directory)
            seen["lines"] = in_lines(seen["running"])
            second = started(folder, cache, *arguments)
            seen["second"] = (*second.communicate(timeout=300), second.returncode)
        process.kill()
        process.communicate()
    seen["killed"] = status_of(directory)
    process = started(folder, cache, *arguments)
    seen["out"], seen["errors"] = process.communicate(timeout=300)
    assert process.returncode == 0, seen["errors"]
    return directory, seen


@pytest.mark.slow
def test_each_reading_is_scored_once_whenever_the_command_is_killed(run):
    import pyarrow.parquet as pq

    table = pq.read_table(run[0] / "scores.parquet")
    usable = [row for row in range(ROWS) if row % 100 != 50]
    # A key's first readings are in no whole window; all others are scored, in the order of the file.
    first = {key: [row for row in usable if row % 2 == key][: WINDOW - 1] for key in (0, 1)}
    expected = [row for row in usable if row not in first[0] and row not in first[1]]
    assert table.column("row").to_pylist() == expected
    assert set(zip(table.column("key").to_pylist(), [row % 2 for row in expected], strict=True)) == {("b", 0), ("a", 1)}
    assert read_run(run[0]).readings == len(expected)
    assert table.column("time").to_pylist()[-1].isoformat() == "2024-01-05T03:55:00"


@pytest.mark.slow
def test_an_alarm_is_in_the_file_once_and_told_to_the_command_with_its_key(run):
    directory, seen = run
    head, *lines = (directory / "alarms.csv").read_text().splitlines()
    assert head == "time,key,column,cause,score,tail,change,row,words"
    jump = [line.split(",") for line in lines if ",flow," in line and float(line.split(",")[6]) > 20]
    assert [(cells[1], cells[2]) for cells in jump[:1]] == [("a", "flow")]
    assert 801 <= int(jump[0][7]) < 845
    assert len({tuple(line.split(",")) for line in lines}) == len(lines) == len(read_run(directory).alarms)
    told = [json.loads(line) for line in (directory.parent.parent / "told.jsonl").read_text().splitlines()]
    assert {"time": jump[0][0], "key": "a", "row": int(jump[0][7]), "run": "runs/killed"}.items() <= next(
        alarm for alarm in told if alarm["row"] == int(jump[0][7])
    ).items()
    assert f"a: {jump[0][8]}" in (directory.parent.parent / "words.txt").read_text()
    event = next(json.loads(line) for line in seen["out"].splitlines() if '"event": "alarm"' in line)
    assert {"key", "cause", "tail", "at"} <= set(event)


@pytest.mark.slow
def test_the_status_is_that_of_the_run_whether_it_goes_on_or_not(run):
    directory, seen = run
    running, killed, ended = seen["running"], seen["killed"], status_of(directory)
    assert (running["running"], running["state"]) == (True, "training")
    assert running["steps"] >= 1
    assert running["checkpoint_step"] >= 4
    assert running["starts"] == 2
    assert "running\n" in seen["lines"]
    assert (killed["running"], killed["state"], killed["starts"]) == (False, "training", 2)
    assert "not running, killed" in in_lines(killed)
    assert (ended["running"], ended["state"], ended["starts"]) == (False, "ended", 3)
    assert ended["scored"] == read_run(directory).readings
    assert ended["alarms"] == read_run(directory).alarm_count
    text = in_lines(ended)
    for words in (
        "not running, ended",
        "12 without a number, left out",
        "restarts    2",
        "row 1,199, 2024-01-05T03:55",
    ):
        assert words in text
    result = CliRunner().invoke(app, ["status", str(directory), "--json"])
    assert json.loads(result.stdout) == status_of(directory)


@pytest.mark.slow
def test_a_second_process_on_a_run_is_refused_with_a_sentence_and_changes_nothing(run):
    out, errors, code = run[1]["second"]
    assert code == 2
    (line,) = [line for line in errors.splitlines() if "runs/killed" in line]
    assert "writes to it; stop that one, or use another directory" in line
    assert "Traceback" not in errors
    assert '"begin"' not in out


@pytest.mark.slow
def test_a_terminal_that_is_closed_saves_the_run_which_goes_on_with_a_further_pass(run, cache, monkeypatch):
    directory, _ = run
    folder = directory.parent.parent
    options = ("--run", "runs/killed", *OPTIONS)
    process = started(folder, cache, "train", "plant.csv", "--by", "pump", "--passes", "2", *options)
    until(process, "step")
    process.send_signal(signal.SIGHUP)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 129, errors
    assert "Stopped by SIGHUP after step" in out
    monkeypatch.chdir(folder)
    other = CliRunner().invoke(app, ["train", "plant.csv", *options])
    assert other.exit_code == 2
    assert "--accept-changes" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
def test_files_that_were_read_to_their_end_have_nothing_new_until_they_grow(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 40)
    options = ["train", "a.csv", "--window", "4", "--display", "plain"]
    first = CliRunner().invoke(app, options)
    assert "a.csv ended after 40 readings; 3 steps were trained." in first.stdout
    again = CliRunner().invoke(app, options)
    assert "a.csv has nothing new after 40 readings. --passes 2 reads it again, and goes on." in again.stdout
    with (tmp_path / "a.csv").open("a") as file:
        file.write("2\n" * 20)
    more = CliRunner().invoke(app, options)
    assert "a.csv ended after 60 readings; 5 steps were trained." in more.stdout
    assert read_run(tmp_path / "runs" / "a").readings == 60 - 3
    # Epochs are asked for that the run has not come to, of a source that had ended.
    last = CliRunner().invoke(app, [*options, "--passes", "2", "--steps", "1", "--epochs", "6"])
    assert "Trained 8 steps." in last.stdout
    done = CliRunner().invoke(app, [*options, "--passes", "2", "--steps", "1", "--epochs", "6"])
    assert "Trained 8 steps already: 6 epochs. More --epochs go on." in done.stdout


def test_too_few_readings_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.csv").write_text("x\n" + "1\n" * 5)
    result = CliRunner().invoke(app, ["train", "few.csv", "--display", "plain"])
    assert result.exit_code == 0, result.output
    assert "few.csv ended after 5 readings; 0 steps were trained. The first step takes 33 readings or more." in (
        result.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'SOURCE'"),
        (["train", "a.csv", "--passes", "some"], "--passes: 'some' is no number of passes: expected such as 3"),
        (["train", "a.csv", "--keep-scores", "much"], "--keep-scores: 'much' is no size: expected such as 1GB"),
        (["train", "a.csv", "--columns", ","], "--columns: ',' names no column"),
        (["train", "a.csv", "--every", "soon"], "--every: 'soon' is neither a time nor a number of steps"),
        (["train", "a.csv", "--window", "1"], "--window"),
        (["train", "a.csv", "--false-alarms", "2"], "--false-alarms"),
        (["train", "a.csv", "--display", "loud"], "There is no display 'loud'"),
        (["train", "a.csv"], "There is no file a.csv"),
        (["status", "."], "There is no run in ."),
        (["status", "nowhere"], "There is no directory nowhere"),
        (["report", "."], "There is no run in . to report on"),
    ],
)
def test_what_is_typed_wrongly_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["unbounded", *arguments])
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    out, errors = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert len(errors.strip().splitlines()) == 1
    assert words in errors


def test_a_directory_that_can_t_be_written_to_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 5)
    (tmp_path / "taken").write_text("a file")
    result = CliRunner().invoke(app, ["train", "a.csv", "--run", "taken"])
    assert result.exit_code == 2
    assert result.stderr == "taken is a file: name a directory for the run, by --run.\n"


# -- the command for alarms ------------------------------------------------------------------------------------------

ALARM = {"event": "alarm", "time": 5.0, "at": "2024-01-01T00:00:05", "key": "", "column": "flow", "cause": "sudden"}
ALARM |= {"score": 6.0, "tail": 1e-6, "change": 2.5, "row": 5, "words": "flow +2.5; $(touch here) `\"'"}


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []

    def made(text, **options):
        return AlarmCommand(text, "plant.csv", Path("runs/plant"), said.append, **options), said

    return made


def test_a_command_gets_the_alarm_as_json_and_in_variables_which_no_shell_reads(command, tmp_path):
    alarms, said = command('cat > json; printf %s "$UNBOUNDED_WORDS" > words; echo "$UNBOUNDED_TIME" > time')
    with alarms:
        alarms.add(ALARM)
    told = json.loads((tmp_path / "json").read_text())
    assert told["time"] == ALARM["at"]
    assert (told["words"], told["row"], told["source"], told["run"]) == (ALARM["words"], 5, "plant.csv", "runs/plant")
    assert (tmp_path / "words").read_text() == ALARM["words"]
    assert (tmp_path / "time").read_text() == ALARM["at"] + "\n"
    assert not (tmp_path / "here").exists()
    assert said == []


def test_commands_run_one_at_a_time_in_order_and_never_hold_up_the_trainer(command, tmp_path):
    os.mkfifo(tmp_path / "go")
    alarms, said = command('read line < go; echo "$UNBOUNDED_ROW" >> rows', waiting=2, leave=20.0)
    with alarms:
        alarms.add({**ALARM, "row": 0})
        wait_until(lambda: alarms.waiting == 0)  # the first one runs, and waits for a line
        for row in range(1, 6):
            alarms.add({**ALARM, "row": row})  # returns, although nothing is told yet
        assert not (tmp_path / "rows").exists()
        for told in range(3):
            (tmp_path / "go").write_text("go\n")
            wait_until(lambda told=told: _lines(tmp_path / "rows") > told)
    assert (tmp_path / "rows").read_text().split() == ["0", "1", "2"]
    assert len(said) == 1
    assert "2 alarms wait for the command, which takes longer than they come" in said[0]


def test_a_command_that_fails_is_said_once_with_what_it_said_last(command):
    alarms, said = command("echo first >&2; echo no mail server >&2; exit 3")
    with alarms:
        for _ in range(3):
            alarms.add(ALARM)
    assert said == [
        "--on-alarm: the command has failed (exit code 3): no mail server. It is run for later alarms, too; more "
        "failures are not told."
    ]


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(command, tmp_path):
    alarms, said = command("sleep 1000 & echo $! > pid; wait", timeout=0.5)
    with alarms:
        alarms.add(ALARM)
        wait_until(lambda: bool(said))
    assert "was ended" in said[0]
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: _is_gone(pid))


def test_the_end_of_a_run_waits_for_a_command_for_a_while_only(command, tmp_path):
    alarms, said = command("echo $$ > pid; sleep 1000", leave=0.3)
    begun = time.monotonic()
    with alarms:
        alarms.add(ALARM)
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    assert time.monotonic() - begun < 20
    wait_until(lambda: _is_gone(int((tmp_path / "pid").read_text())))
    assert said == []
    assert not any(thread.name == "on-alarm" for thread in threading.enumerate())


def _lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def _is_gone(pid):
    try:
        # A process that has ended and was not waited for by its new parent is a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# -- the status ------------------------------------------------------------------------------------------------------


def test_a_lock_is_seen_and_not_taken(tmp_path):
    assert is_written(tmp_path) is False
    (tmp_path / ".lock").touch()
    assert is_written(tmp_path) is False
    holder = "import fcntl, sys; f = open('.lock', 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", holder], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    assert is_written(tmp_path) is True
    process.communicate("\n")
    assert is_written(tmp_path) is False


def test_a_status_is_followed_until_ctrl_c(tmp_path, capsys):
    (tmp_path / "status.json").write_text(json.dumps({"source": "plant.csv", "state": "training", "starts": 1}))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    assert show_status(tmp_path, follow=True, as_json=True, pause=pause) == 130
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["source"] for line in lines] == ["plant.csv"] * 3


def test_values_of_options():
    assert _options.passes("2") == 2
    assert _options.passes("0") is _options.passes("forever") is None
    assert _options.size("1.5kB") == 1_500
    assert _options.names("a, b,") == ("a", "b")
