"""The demo, in processes of its own: it is interrupted, typed again and killed, resumes, and its counts are right."""

import re
import signal
import subprocess
import sys

import pytest

from helpers import installed, short_start
from unbounded.detect._run import read_run

pytestmark = [
    pytest.mark.slow,  # live: its readings come ten times a second
    installed("psutil", "typer", "jax"),
]

OPTIONS = ("--after", "2", "--display", "plain")


def begun(directory, warm_up):
    """The demo, as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "unbounded.cli", "demo", "--run", str(directory), "--warm-up", str(warm_up), *OPTIONS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**short_start(directory.parent / "compiled"), "KERAS_BACKEND": "jax"},
    )


def ended(process, code, lines=()):
    """What the demo prints to its end."""
    out, _ = process.communicate(timeout=900)
    out = "".join(lines) + out
    assert process.returncode == code, out
    return out


def number(pattern, text):
    """The numbers of the first match."""
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in:\n{text}"
    numbers = [int(group.replace(",", "")) for group in match.groups()]
    return numbers[0] if len(numbers) == 1 else numbers


def test_the_demo_is_interrupted_and_typed_again_goes_on_from_there_and_is_killed_and_goes_on(tmp_path):
    folder = tmp_path / "runs" / "demo"
    process = begun(folder, 60)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 1"):
            process.send_signal(signal.SIGINT)
            break
    first = ended(process, 130, lines)
    run = read_run(folder)
    steps = len(run.steps)
    assert number(r"optimizer\.iterations is ([\d,]+)", first) == run.steps[-1] == steps
    # It leaves a checkpoint and a report.
    (folder / "report.html").unlink()
    assert first.rstrip().splitlines()[-1].endswith("train FILE.py:FUNCTION")

    again = ended(begun(folder, 12), 0)
    assert number(r"Going on with the run in .*: on at step ([\d,]+)", again) == steps + 1
    assert "Now loading one core for 3 s." in again
    # With nothing else at work there is an alarm; a computer that is busy already is told that it is.
    alarm = re.search(r"Alarm after ([\d.]+) s: (cpu|load) \+", again)
    if alarm:
        assert float(alarm[1]) <= 3.0
    else:
        assert number(r"No alarm within 3 s: the cpu had been at up to (\d+) %", again) > 30
    killed, on, twice, missed = number(
        r"killed at step ([\d,]+); on at ([\d,]+); ([\d,]+) rows trained twice; "
        r"([\d,]+) readings missed while it was dead",
        again,
    )
    # A kill may come before the step at hand is saved: then the same step comes again. Or a further step was saved
    # meanwhile, and not told yet.
    assert killed <= on <= killed + 3
    assert twice == 0
    assert missed > 5
    after = read_run(folder)
    assert after.steps.tolist() == list(range(1, len(after.steps) + 1))
    assert [start.step for start in after.starts] == [0, steps, on - 1]
    assert number(r"optimizer\.iterations is ([\d,]+)", again) == after.steps[-1]
    assert after.rows_trained_twice() == 0
    assert (folder / "report.html").stat().st_size > 10_000
