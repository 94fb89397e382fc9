"""The subcommands `train`, `report`, `demo` and `simulate`, and their options; their code is in files beside this."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="unbounded",
    help="Training on data that never ends.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Show = Annotated[
    str, typer.Option("--display", help="live, plain (lines), json, or auto: live in a terminal, plain without one.")
]


def _local(directory: Path | None) -> Path | None:
    """A run's directory: a path, not a URL."""
    # `Path` has removed one of two slashes. A single letter is a Windows drive.
    if directory is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(directory)):
        raise typer.BadParameter(
            f"{str(directory)!r} is a URL, and a path on a local or mounted file system is expected: give one such as "
            "'runs/first'."
        )
    return directory


def _version(asked: bool) -> None:
    if asked:
        from unbounded import __version__

        typer.echo(f"unbounded {__version__}")
        raise typer.Exit


@app.callback()
def unbounded(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Write the version, and end.")
    ] = False,
) -> None:
    """Training on data that never ends."""


def _every(text: str) -> tuple[int | None, float]:
    """Steps, or seconds, between two checkpoints."""
    number, seconds = (text[:-1], True) if text.endswith("s") else (text, False)
    try:
        value = float(number) if seconds else int(number)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(
            f"{text!r} is neither a time nor a number of steps: expected seconds such as 5s, or steps such as 50."
        )
    return (None, float(value)) if seconds else (int(value), 0.0)


@app.command()
def train(
    source: Annotated[
        str,
        typer.Argument(
            help="machine: (this computer's vitals), or FILE.py:FUNCTION: a generator of dicts of columns, such as "
            "{'temperature': 21.5}, one reading or several at a time. A column 'time' says when they were taken: in "
            "seconds, or as a datetime. NaN, None and text are no numbers: such readings are left out, and counted."
        ),
    ],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", callback=_local, help="Where the run is kept; runs/NAME, if none is given."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="End after this step, counted over all runs; never, if none is given.")
    ] = None,
    epoch: Annotated[int, typer.Option(min=1, help="Steps in an epoch.")] = 50,
    every: Annotated[
        str,
        typer.Option(
            help="Time or steps between two checkpoints: 5s, or 50 for steps. A kill (SIGKILL, a power cut) loses the "
            "training since the last one; of a generator without a parameter 'start', its readings too."
        ),
    ] = "5s",
    rate: Annotated[float, typer.Option(min=0.01, help="Readings a second, for machine:.")] = 10.0,
    warm_up: Annotated[int, typer.Option(min=16, help="Readings before the first alarm may come.")] = 300,
    false_alarms: Annotated[
        float, typer.Option(help="How many readings may raise an alarm without a cause, as a share of all.")
    ] = 1e-4,
    report: Annotated[bool, typer.Option(help="Leave report.html at the end.")] = True,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Go on though the source is no longer what the run began with."),
    ] = False,
    show: Show = "auto",
) -> None:
    """Train an anomaly detector on a stream of readings: for ever, or until you stop it. Typed again, it goes on.

    Exit codes: 0, the last step is trained, or the generator ended; 130, stopped by Ctrl-C (SIGINT), and 143, by
    SIGTERM: a checkpoint and the report are left; 1, your function raised an error; 2, a sentence says what to change.
    """
    from unbounded.cli._train_command import run
    from unbounded.detect._training import Plan

    each, seconds = _every(every)
    plan = Plan(steps=steps, epoch=epoch, every=each, save_after=seconds, warm_up=warm_up, false_alarms=false_alarms)
    changes = accept_changes
    raise typer.Exit(run(source, directory, plan, rate=rate, show=show, report=report, accept_changes=changes))


@app.command("report")
def write(
    directory: Annotated[Path, typer.Argument(callback=_local, help="A run's directory, such as runs/demo.")],
) -> None:
    """Write report.html of a run, whether it has ended or is still going on.

    Exit codes: 0, it is written; 1, there is no run in that directory, or it can't be written to.
    """
    from unbounded.detect._report import write_report

    try:
        typer.echo(f"The report is in {write_report(directory)}")
    except OSError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", callback=_local, help="Where the run is kept.")] = Path(
        "runs/demo"
    ),
    warm_up: Annotated[float, typer.Option(min=5.0, help="Seconds of training before the core is loaded.")] = 60.0,
    after: Annotated[float, typer.Option(min=1.0, help="Seconds of training after the kill.")] = 25.0,
    show: Show = "auto",
) -> None:
    """Train on this computer's own vitals, load a core, see the alarm, kill the trainer, and see it go on.

    Exit codes: 0, it was shown to its end; 130, stopped by Ctrl-C; 1, the trainer ended by itself.
    """
    from unbounded.cli._demo import Demo

    raise typer.Exit(Demo(directory, warm_up=warm_up, after=after, show=show).run())


@app.command()
def simulate(
    path: Annotated[Path, typer.Argument(callback=_local, help="The CSV file to write, such as plant.csv.")],
    sensors: Annotated[int, typer.Option(help="The number of sensors.")] = 8,
    days: Annotated[float, typer.Option(help="The length, in days.")] = 30.0,
    every: Annotated[str, typer.Option(help="The time between readings: 60s, 5min, 1h.")] = "60s",
    seed: Annotated[int, typer.Option(help="Decides the readings: the same seed, the same file.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write readings of a simulated plant, and its faults' times in plant.faults.csv beside them.

    Sensors have a daily and a weekly cycle, noise and bursts; the faults are spikes, bursts, shifts, drifts and stuck
    sensors. Exit codes: 0, the files are written; 2, a sentence says what to change.
    """
    from unbounded.cli._simulate import simulate as write_plant

    raise typer.Exit(write_plant(path, sensors=sensors, days=days, every=every, seed=seed, force=force))
