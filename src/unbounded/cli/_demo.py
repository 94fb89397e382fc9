"""Demo: a trainer on this computer's own vitals, an alarm, a kill, and the resume.

The demo itself trains nothing. It starts a trainer like a user would, shows its events, loads a core, kills the
trainer, starts it again, and compares its records from before and after. Every number comes from the run.
"""

from __future__ import annotations

import shutil
import sys
import time as clock
from pathlib import Path
from typing import Any

import unbounded as ub
from unbounded.cli._display import Display, display
from unbounded.cli._train_command import leave_report
from unbounded.cli._trainer import BusyCore, Trainer, TrainerError
from unbounded.detect._report import compared
from unbounded.detect._run import read_run

LOADED = 3.0
ALARM_WITHIN = 3.0
BEGINS_WITHIN = 600.0  # a busy computer takes minutes to import Keras and to compile a model


class Demo:
    """One run of the demo.

    Args:
        directory: the run's; an existing run is resumed.
        warm_up: seconds of training before the core is loaded.
        after: seconds of training after the kill.
        show: the kind of display.
    """

    def __init__(self, directory: Path, *, warm_up: float, after: float, show: str) -> None:
        self._directory = directory
        self._warm_up, self._after = warm_up, after
        self._display: Display = display(show)
        self._trainer: Trainer | None = None
        self._step: dict[str, Any] = {}
        self._begin: dict[str, Any] = {}

    def run(self) -> int:
        """Run the demo.

        Returns:
            The process's exit code.
        """
        say = self._display.say
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            say("Training an anomaly detector on this computer's own vitals, ten readings a second.")
            self._start()
            self._train_for(self._warm_up)
            self._load_a_core()
            self._kill_and_go_on()
            self._train_for(self._after)
            self._end()
        except TrainerError as error:
            self._display.close()
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            if self._trainer is not None:
                self._end()
            return 130
        finally:
            if self._trainer is not None:
                self._trainer.stop()
            self._display.close()
        return 0

    # -- the parts -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the trainer, and wait until it trains."""
        # No alarm before 30 s of readings, or half of the warm-up if that is shorter.
        quiet = max(16, min(300, int(5 * self._warm_up)))
        options = ["--run", str(self._directory), "--warm-up", str(quiet), "--every", "1"]
        self._trainer = Trainer(["machine:", *options], self._directory / "trainer.log")
        self._begin = self._wait_for("begin", BEGINS_WITHIN)
        if not self._begin:
            raise TrainerError(f"The trainer has not begun within {BEGINS_WITHIN:.0f} s.")
        if self._begin["step"] and not self._step:
            on = f"on at step {self._begin['step'] + 1:,}, {self._begin['position']}"
            self._display.say(f"Going on with the run in {self._directory}: {on}.")
        self._wait_for("step", BEGINS_WITHIN)

    def _load_a_core(self) -> None:
        """Load a core for three seconds, and wait for the alarm."""
        self._train_until_calm()
        self._display.say(f"Now loading one core for {LOADED:.0f} s.")
        cpu = sorted(values[0] for values in self._display.view.values)
        busiest = cpu[len(cpu) * 19 // 20] if cpu else 0.0
        core = BusyCore(LOADED)
        try:
            # Other columns may raise alarms of their own.
            alarm = self._wait_for("alarm", ALARM_WITHIN, since=core.began, columns=("cpu", "load"))
        finally:
            core.close()
        if alarm:
            self._display.say(f"Alarm after {alarm['heard'] - core.began:.1f} s: {alarm['words']}.")
        else:
            self._display.say(
                f"No alarm within {ALARM_WITHIN:.0f} s: the cpu had been at up to {busiest:.0f} % of late, so one core "
                "more was no surprise. Try again when the computer has less to do."
            )
        self._train_for(3.0)

    def _kill_and_go_on(self) -> None:
        """SIGKILL the trainer, start it again, and compare."""
        assert self._trainer is not None
        self._display.say("Now killing the trainer (SIGKILL), in the midst of its work.")
        self._wait_for("step", 30.0)
        # Checkpoints are written while training goes on: wait until the last step is saved.
        until = clock.monotonic() + 10.0
        while clock.monotonic() < until and self._step["step"] not in ub.saved_steps(self._directory):
            self._train_for(0.01)
        self._trainer.kill()
        before = dict(self._step)
        self._start()
        first = self._begin["step"] + 1
        # Missed readings are counted when the first new one comes, and told with the next step.
        until = clock.monotonic() + 20.0
        while clock.monotonic() < until and self._missing(before) == 0:
            self._train_for(0.2)
        twice = read_run(self._directory).rows_trained_twice()
        words = (
            f"killed at step {before['step']:,}; on at {first:,}; {twice:,} rows trained twice; "
            f"{self._missing(before):,} readings missed while it was dead"
        )
        self._display.say(words)

    def _end(self) -> None:
        """Stop the trainer by a signal, and write the report."""
        assert self._trainer is not None
        end: dict[str, Any] = {}
        for event in self._trainer.stop():
            self._take(event)
            end = event if event["event"] == "end" else end
        self._trainer = None
        self._display.view.doing = "ended"
        run = read_run(self._directory)
        say = self._display.say
        if end:
            ends = [*(start.step for start in run.starts[1:]), end["step"]]
            each = " + ".join(f"{stop - start.step:,}" for start, stop in zip(run.starts, ends, strict=True))
            say(f"optimizer.iterations is {end['iterations']:,}; {run.trained.step:,} steps were written down: {each}.")
        better = run.better_by()
        if better is not None:
            say(f"Each reading was predicted before it was trained on: {compared(better)}.")
        leave_report(self._directory, say)
        say(f"Typed again, it goes on from here. For your own data: {_command()} train FILE.py:FUNCTION")

    # -- watching ------------------------------------------------------------------------------------------------

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "say":
            return
        if event["event"] == "step":
            self._step = event
        self._display.show(event)

    def _wait_for(
        self, kind: str, timeout: float, *, since: float = 0.0, columns: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The next event of a kind; an empty dict if none comes in time."""
        assert self._trainer is not None
        until = clock.monotonic() + timeout
        while (left := until - clock.monotonic()) > 0:
            event = self._trainer.next(left)
            if event is None:
                break
            self._take(event)
            of_columns = not columns or event.get("column") in columns
            if event["event"] == kind and event.get("time", since) >= since and of_columns:
                return {**event, "heard": clock.time()}
        return {}

    def _train_for(self, seconds: float) -> None:
        self._wait_for("", seconds)

    def _train_until_calm(self) -> None:
        """Wait until no column has raised an alarm for three seconds, but no longer than twenty."""
        until = clock.monotonic() + 20.0
        while clock.monotonic() < until:
            alarms = self._display.view.alarms
            if not alarms or clock.time() - alarms[-1]["time"] > 3.0:
                return
            self._train_for(0.5)

    def _missing(self, before: dict[str, Any]) -> int:
        return int(self._step.get("missed", 0) - before.get("missed", 0))


def _command() -> str:
    """The command line of the running command."""
    if shutil.which("unbounded"):
        return "unbounded"
    beside = Path(sys.executable).with_name("unbounded")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
