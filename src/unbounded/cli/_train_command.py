"""`unbounded train`: shows readings at once, and trains as soon as the frameworks are imported."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unbounded.cli._display import Display, PlainDisplay, Ticker, display
from unbounded.cli._error_words import WithoutAdvice, in_users_file, in_words, is_sentence, warnings_said
from unbounded.cli._glance import Glance
from unbounded.cli._on_alarm import AlarmCommand
from unbounded.cli._stop_signals import Stopped, StopSignals
from unbounded.cli._train_options import TrainOptions
from unbounded.cli._view import Event
from unbounded.detect._columns import VITALS
from unbounded.detect._readings import Readings, SourceError, readings
from unbounded.detect._run import last_start
from unbounded.detect._training import Plan, has_checkpoint, steps_done

if TYPE_CHECKING:
    from unbounded.detect._training import End

BACKENDS = ("jax", "torch", "tensorflow")
ENDED, RAISED, SENTENCE = 0, 1, 2
FULL = (errno.ENOSPC, errno.EDQUOT)
BY_SIGNAL = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def run(options: TrainOptions) -> int:
    """Train, and show it.

    Args:
        options: what was typed.

    Returns:
        The process's exit code.
    """
    try:
        shown = display(options.show)
    except (ValueError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return SENTENCE
    try:
        with StopSignals() as signals, Ticker(shown), warnings_said(shown.say):
            return Session(options, shown, signals).run()
    except Stopped as stopped:
        # While it printed how training ended: all is saved, and a report can be written later.
        return BY_SIGNAL[stopped.name]
    finally:
        shown.close()


class Session:
    """One start of the command, from the source to the report.

    Args:
        options: what was typed.
        shown: the display.
        signals: the handlers that stop it.
    """

    def __init__(self, options: TrainOptions, shown: Display, signals: StopSignals) -> None:
        self._options, self._shown, self._signals = options, shown, signals
        self._source, self._directory, self._plan = options.source, options.directory, options.plan
        self._begun = False  # True once this process wrote something for a report
        self._live = True  # until the source is known
        self._alarms = AlarmCommand(options.on_alarm, options.source, options.directory, shown.say)

    def run(self) -> int:
        """Train, tell how it ended, and write the report.

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
            by = self._signals.name(end.by)
            code = BY_SIGNAL.get(str(by), ENDED)
            say(self._ended(end, by))
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
                    full = error.errno in FULL
                    todo = "Make room; typed again, it goes on" if full else "Choose another one with --run"
                    words = f"{self._directory} can't hold the run: {error.strerror}. {todo}."
                print(in_words(words), file=sys.stderr)
            else:
                print(f"{users}\n{self._source} raised this error. {self._typed_again()}", file=sys.stderr)
        if self._options.report and self._begun:
            leave_report(self._directory, say)
        return code

    def _is_ours(self, error: OSError) -> bool:
        """True if the error is about the run's directory."""
        return error.errno in FULL or str(error.filename or "").startswith(str(self._directory))

    def _train(self) -> End:
        from unbounded.detect._training import train

        shown, plan = self._shown, self._plan
        choose_backend()
        if self._directory.exists() and not self._directory.is_dir():
            raise SourceError(f"{self._directory} is a file: name a directory for the run, by --run.")
        shown.show({"event": "opening", "source": self._source})
        known = last_start(self._directory) if has_checkpoint(self._directory) else None
        where = readings(
            self._source,
            rate=self._options.rate,
            known=known.columns if known else (),
            axis=known.axis if known else None,
            choice=self._options.choice,
            passes=self._options.passes,
        )
        self._live = where.live
        where.remarks.listen(shown.say)
        self._directory.mkdir(parents=True, exist_ok=True)
        hello(shown, where, plan)
        with contextlib.ExitStack() as stack:
            if not isinstance(shown, PlainDisplay) and sys.stdout.isatty():
                stack.enter_context(chatter_aside(self._directory / "stderr.log"))
            stack.enter_context(contextlib.redirect_stderr(WithoutAdvice(sys.stderr)))
            stack.enter_context(self._alarms)
            glance = stack.enter_context(Glance(shown.show if where.columns == VITALS else None, self._options.rate))
            return train(
                where,
                self._directory,
                plan,
                tell=lambda event: self._tell(event, glance),
                accept_changes=self._options.accept_changes,
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
        if event["event"] == "say":
            say(event["words"])
            return
        if event["event"] == "alarm":
            self._alarms.add(event)
        if event["event"] == "skipped" and event["first"]:
            say(
                f"Reading {event['reading']:,} is left out: {event['column']} is {event['value']}. More such readings "
                "will be counted, and not named."
            )
        self._shown.show(event)

    def _ended(self, end: End, by: str | None) -> str:
        if by is None:
            words = f"Trained {end.step:,} steps"
            return f"{words}." if end.steps else f"{words} already: {self._plan.epochs:,} epochs. More --epochs go on."
        if by != "source" and not end.step:
            return f"Stopped by {by} before the first step."
        if by != "source":
            return f"Stopped by {by} after step {end.step:,}. Typed again, it goes on at step {end.step + 1:,}."
        if not end.steps and end.step:
            return f"{self._source} has nothing new after {end.readings:,} readings. {self._more_passes()}".rstrip()
        words = f"{self._source} ended after {end.readings:,} readings; {end.step:,} steps were trained."
        if not end.step:
            words += f" The first step takes {self._plan.readings_before_a_step:,} readings or more."
        return words

    def _more_passes(self) -> str:
        passes = self._options.passes
        return "" if self._live or passes is None else f"--passes {passes + 1} reads it again, and goes on."

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
            "epochs": plan.epochs,
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
        say(f"The report could not be written: {error.strerror or error}.")
    except ModuleNotFoundError as error:
        say(str(error))


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
