"""`unbounded train`: shows readings at once, and trains as soon as the frameworks are imported."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unbounded.cli._display import Display, PlainDisplay, Ticker, display
from unbounded.cli._error_words import WithoutAdvice, in_users_file, in_words, is_sentence, warnings_said
from unbounded.cli._glance import Glance
from unbounded.cli._stop_signals import Stopped, StopSignals
from unbounded.cli._view import Event
from unbounded.detect._columns import VITALS
from unbounded.detect._readings import Readings, readings
from unbounded.detect._run import last_start
from unbounded.detect._training import Plan, has_checkpoint, steps_done

if TYPE_CHECKING:
    from unbounded.detect._training import End

BACKENDS = ("jax", "torch", "tensorflow")
ENDED, RAISED, SENTENCE = 0, 1, 2
BY_SIGNAL = {"SIGINT": 130, "SIGTERM": 143}


def run(
    source: str,
    directory: Path | None,
    plan: Plan,
    *,
    rate: float,
    show: str,
    report: bool,
    accept_changes: bool = False,
) -> int:
    """Train, and show it.

    Args:
        source: the source's name in the command.
        directory: the run's; ``None`` for one named by the source.
        plan: the parameters of training.
        rate: readings a second, for `machine:`.
        show: the kind of display.
        report: True to write a report.
        accept_changes: resume although the source has changed since the run began.

    Returns:
        The process's exit code.
    """
    try:
        shown = display(show)
    except (ValueError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return SENTENCE
    directory = directory or Path("runs") / name_of(source)
    try:
        with StopSignals() as signals, Ticker(shown), warnings_said(shown.say):
            session = Session(source, directory, plan, shown, signals, rate=rate, accept_changes=accept_changes)
            return session.run(report=report)
    except Stopped as stopped:
        # While it printed how training ended: all is saved, and a report can be written later.
        return BY_SIGNAL[stopped.name]
    finally:
        shown.close()


class Session:
    """One start of the command, from the source to the report.

    Args:
        source: the source's name in the command.
        directory: the run's.
        plan: the parameters of training.
        shown: the display.
        signals: the handlers that stop it.
        rate: readings a second, for `machine:`.
        accept_changes: see `run`.
    """

    def __init__(
        self,
        source: str,
        directory: Path,
        plan: Plan,
        shown: Display,
        signals: StopSignals,
        *,
        rate: float,
        accept_changes: bool,
    ) -> None:
        self._source, self._directory, self._plan, self._shown = source, directory, plan, shown
        self._signals, self._rate, self._accept_changes = signals, rate, accept_changes
        self._begun = False  # True once this process wrote something for a report

    def run(self, *, report: bool) -> int:
        """Train, tell how it ended, and write the report.

        Args:
            report: True to write one.

        Returns:
            The process's exit code.
        """
        say = self._shown.say
        code = RAISED
        try:
            try:
                end = self._train()
            finally:
                self._signals.deliver()  # if `fit` did not get as far as delivering it
            code = BY_SIGNAL.get(str(end.by), ENDED)
            if end.by is not None:
                say(self._ended(end))
        except Stopped as stopped:
            code = BY_SIGNAL[stopped.name]
            say(f"Stopped by {stopped.name}. {self._typed_again()}")
        except Exception as error:
            users = in_users_file(error, self._source)
            sentence = is_sentence(error) or (isinstance(error, OSError) and self._is_ours(error))
            if not users and not sentence:
                raise
            self._shown.close()
            if sentence:
                code = SENTENCE
                words = str(error)
                if isinstance(error, OSError) and error.strerror:
                    words = f"{self._directory} can't hold the run: {error.strerror}. Choose another one with --dir."
                print(in_words(words), file=sys.stderr)
            else:
                print(f"{users}\n{self._source} raised this error. {self._typed_again()}", file=sys.stderr)
        if report and self._begun:
            leave_report(self._directory, say)
        return code

    def _is_ours(self, error: OSError) -> bool:
        """True if the error is about the run's directory."""
        return str(error.filename or "").startswith(str(self._directory))

    def _train(self) -> End:
        from unbounded.detect._training import train

        shown, plan = self._shown, self._plan
        choose_backend()
        shown.show({"event": "opening", "source": self._source})
        known = last_start(self._directory) if has_checkpoint(self._directory) else None
        where = readings(
            self._source,
            rate=self._rate,
            known=known.columns if known else (),
            axis=known.axis if known else None,
        )
        where.remarks.listen(shown.say)
        self._directory.mkdir(parents=True, exist_ok=True)
        hello(shown, where, plan)
        with contextlib.ExitStack() as stack:
            if not isinstance(shown, PlainDisplay) and sys.stdout.isatty():
                stack.enter_context(chatter_aside(self._directory / "stderr.log"))
            stack.enter_context(contextlib.redirect_stderr(WithoutAdvice(sys.stderr)))
            glance = stack.enter_context(Glance(shown.show if where.columns == VITALS else None, self._rate))
            return train(
                where,
                self._directory,
                plan,
                tell=lambda event: self._tell(event, glance),
                accept_changes=self._accept_changes,
            )

    def _tell(self, event: Event, glance: Glance) -> None:
        say = self._shown.say
        if event["event"] == "loading":
            self._signals.hold()
        if event["event"] == "begin":
            self._begun = True
            glance.stop()
            self._signals.deliver()
            if event["step"]:
                say(f"Going on at step {event['step'] + 1:,}, {event['position']}.")
        if event["event"] == "done":
            self._begun = True
            more = f"--steps {event['step'] + 1_000} would go on"
            say(f"The run in {self._directory} has trained {event['step']:,} steps already; {more}.")
        if event["event"] == "skipped" and event["first"]:
            say(
                f"Reading {event['reading']:,} is left out: {event['column']} is {event['value']}. More such readings "
                "will be counted, and not named."
            )
        self._shown.show(event)

    def _ended(self, end: End) -> str:
        if end.by != "source" and not end.step:
            return f"Stopped by {end.by} before the first step."
        if end.by != "source":
            return f"Stopped by {end.by} after step {end.step:,}. Typed again, it goes on at step {end.step + 1:,}."
        words = f"{self._source} ended after {end.readings:,} readings; {end.step:,} steps were trained."
        if not end.step:
            words += f" The first step takes {self._plan.readings_before_a_step:,} readings or more."
        return words

    def _typed_again(self) -> str:
        done = steps_done(self._directory)
        return f"Typed again, it goes on at step {done + 1:,}." if done else "Typed again, it begins anew."


def hello(shown: Display, where: Readings, plan: Plan) -> None:
    """Tell what is about to be trained."""
    columns = [[column.name, column.unit] for column in where.columns]
    shown.show(
        {
            "event": "hello",
            "source": where.name,
            "columns": columns,
            "epoch": plan.epoch,
            "steps": plan.steps,
            "axis": where.axis,
        }
    )


def leave_report(directory: Path, say: Callable[[str], None]) -> None:
    """Write the report, or tell why that is impossible."""
    try:
        from unbounded.detect._report import write_report

        say(f"The report is in {write_report(directory)}")
    except OSError as error:
        say(f"The report could not be written: {error}")


@contextlib.contextmanager
def chatter_aside(path: Path) -> Iterator[None]:
    """Redirect what C libraries print to a file: it would disturb the live display.

    What Python prints to standard error is not redirected: rich prints it above the panel.

    Args:
        path: the file, which is appended to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def choose_backend() -> None:
    """Choose the smallest installed backend, unless one is set; and silence the frameworks' logs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "KERAS_BACKEND" in os.environ:
        return
    there = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not there:
        raise ModuleNotFoundError(
            "Training needs Keras and a backend, and none of JAX, PyTorch and TensorFlow is installed: "
            "pip install 'unbounded[demo]'."
        )
    os.environ["KERAS_BACKEND"] = there[0]


def name_of(source: str) -> str:
    """The name of the directory for a source: `machine`, or the function's.

    Args:
        source: the source's name in the command.

    Returns:
        Letters, digits and dashes.

    Example:
        >>> name_of("machine:"), name_of("lab/sensors.py:boiler")
        ('machine', 'sensors-boiler')
    """
    path, _, name = source.rpartition(":")
    parts = [Path(path).stem, name] if path else [name or source]
    text = "-".join(part for part in parts if part)
    return "".join(letter if letter.isalnum() else "-" for letter in text).strip("-") or f"run-{clock.time():.0f}"
