"""`unbounded train`: readings in a terminal at once, and training as soon as the frameworks are loaded."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path

from unbounded.cli._display import Display, LiveDisplay, display
from unbounded.cli._view import Event
from unbounded.detect._columns import VITALS
from unbounded.detect._readings import Readings, SourceError, readings
from unbounded.detect._train import Plan

BACKENDS = ("jax", "torch", "tensorflow")


def run(source: str, directory: Path | None, plan: Plan, *, rate: float, show: str, report: bool) -> int:
    """Train, and show it.

    Args:
        source: as in the command.
        directory: the run's; ``None`` for one named after the source.
        plan: how to train.
        rate: readings a second, for `machine:`.
        show: which display.
        report: whether to leave a report.

    Returns:
        The process's exit code.
    """
    try:
        shown = display(show)
    except (ValueError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        choose_backend()
        where = readings(source, rate=rate)
        directory = directory or Path("runs") / name_of(source)
        hello(shown, where, plan)
        with contextlib.ExitStack() as stack:
            if isinstance(shown, LiveDisplay):
                stack.enter_context(chatter_aside(directory / "stderr.log"))
            glance = stack.enter_context(Glance(shown.show if where.columns == VITALS else None, rate))
            train_and_show(where, directory, plan, shown, glance)
        if report:
            leave_report(directory, shown)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not is_sentence(error):
            raise
        shown.close()
        print(error, file=sys.stderr)
        return 2
    finally:
        shown.close()
    return 0


def is_sentence(error: Exception) -> bool:
    """Whether an error was raised by this package's own code, to be read by whoever typed the command.

    Args:
        error: what was raised.

    Returns:
        False for what somebody's function, or a framework, stumbled over: there, the traceback is what helps.
    """
    if isinstance(error, SourceError | ModuleNotFoundError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("unbounded.")


def hello(shown: Display, where: Readings, plan: Plan) -> None:
    """Tell what is about to be trained."""
    columns = [[column.name, column.unit] for column in where.columns]
    shown.show({"event": "hello", "source": where.name, "columns": columns, "epoch": plan.epoch})


def train_and_show(where: Readings, directory: Path, plan: Plan, shown: Display, glance: Glance) -> None:
    """Train until the end."""
    from unbounded.detect._train import train

    def tell(event: Event) -> None:
        if event["event"] == "begin":
            glance.stop()
            if event["step"]:
                shown.say(f"Going on at step {event['step'] + 1:,}, {event['position']}.")
        if event["event"] == "done":
            more = f"--steps {event['step'] + 1_000} would go on"
            shown.say(f"The run in {directory} has trained {event['step']:,} steps already; {more}.")
        shown.show(event)

    train(where, directory, plan, tell=tell)


def leave_report(directory: Path, shown: Display) -> None:
    """Write the report, or say what it lacks."""
    try:
        from unbounded.detect._report import write_report

        shown.say(f"The report is in {write_report(directory)}")
    except (FileNotFoundError, ModuleNotFoundError) as error:
        shown.say(str(error))


@contextlib.contextmanager
def chatter_aside(path: Path) -> Iterator[None]:
    """Send what libraries written in C print about themselves into a file: it would tear the live display.

    What Python prints to standard error is not touched: rich puts it above the panel.

    Args:
        path: the file, which is added to.
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


class Glance:
    """The vitals, shown from the first second on, while the frameworks are still being loaded.

    What it reads is not trained on: the stream takes its own readings.
    """

    def __init__(self, show: Callable[[Event], None] | None, rate: float) -> None:
        self._show, self._pause = show, 1.0 / rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="glance", daemon=True)

    def _read(self) -> None:
        from unbounded.sources._vitals import read_vitals

        assert self._show is not None
        _, counters = read_vitals(None)
        while not self._stopped.wait(self._pause):
            rows, counters = read_vitals(counters)
            if len(rows["time"]):
                values = [float(rows[column.name][0]) for column in VITALS]
                self._show({"event": "reading", "values": values, "time": float(rows["time"][0])})

    def stop(self) -> None:
        """The stream's own readings have begun."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Glance:
        if self._show is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def choose_backend() -> None:
    """Take the lightest backend that is there, unless one was chosen; and keep frameworks from chattering."""
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
    """A directory's name for a source: `machine`, or the function's.

    Args:
        source: as in the command.

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
