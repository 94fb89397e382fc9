"""The command's words: `train`, `report` and `demo`. What they do is in the files beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="unbounded",
    help="Training on data that never ends.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

Show = Annotated[
    str, typer.Option("--display", help="live, plain (lines), json, or auto: live in a terminal, plain without one.")
]


@app.callback()
def unbounded() -> None:
    """Training on data that never ends."""


@app.command()
def train(
    source: Annotated[
        str,
        typer.Argument(
            help="machine: (this computer's vitals), or FILE.py:FUNCTION (a generator of dicts of columns)."
        ),
    ],
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where the run is kept; runs/NAME, if none is given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="End after this step, counted over all runs; never, if none is given.")
    ] = None,
    epoch: Annotated[int, typer.Option(min=1, help="Steps in an epoch.")] = 50,
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 1,
    rate: Annotated[float, typer.Option(min=0.01, help="Readings a second, for machine:.")] = 10.0,
    warm_up: Annotated[int, typer.Option(min=16, help="Readings before the first alarm may come.")] = 300,
    false_alarms: Annotated[
        float, typer.Option(help="How many readings may raise an alarm without a cause, as a share of all.")
    ] = 1e-4,
    report: Annotated[bool, typer.Option(help="Leave report.html at the end.")] = True,
    show: Show = "auto",
) -> None:
    """Train an anomaly detector on a stream of readings: for ever, or until you stop it. Typed again, it goes on."""
    from unbounded.cli._train import run
    from unbounded.detect._train import Plan

    plan = Plan(steps=steps, epoch=epoch, every=every, warm_up=warm_up, false_alarms=false_alarms)
    raise typer.Exit(run(source, directory, plan, rate=rate, show=show, report=report))


@app.command("report")
def write(
    directory: Annotated[Path, typer.Argument(help="A run's directory, such as runs/demo.")],
) -> None:
    """Write report.html of a run, whether it has ended or is still going on."""
    from unbounded.detect._report import write_report

    try:
        typer.echo(f"The report is in {write_report(directory)}")
    except (FileNotFoundError, ModuleNotFoundError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where the run is kept.")] = Path("runs/demo"),
    warm_up: Annotated[float, typer.Option(min=5.0, help="Seconds of training before the core is loaded.")] = 60.0,
    after: Annotated[float, typer.Option(min=1.0, help="Seconds of training after the kill.")] = 25.0,
    show: Show = "auto",
) -> None:
    """Train on this computer's own vitals, load a core, see the alarm, kill the trainer, and see it go on."""
    from unbounded.cli._demo import Demo

    raise typer.Exit(Demo(directory, warm_up=warm_up, after=after, show=show).run())
