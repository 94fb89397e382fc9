"""The subcommands `train`, `status`, `report`, `demo` and `simulate`; their code is in files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbounded.cli import _options

app = typer.Typer(
    name="unbounded",
    help="Training on data that never ends.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Show = Annotated[
    str, typer.Option("--display", help="live, plain (lines), json, or auto: live in a terminal, plain without one.")
]


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


SOURCE = """What is read:

machine: this computer's vitals;

FILES: a path, a directory, a glob in quotes or a URL, of CSV, JSON lines, Parquet or Arrow;

FILE.py:FUNCTION or MODULE:FUNCTION: a generator of dicts of columns, such as {'temperature': 21.5}, one reading or
several at a time. A column 'time' says when they were taken: in seconds, or as a datetime."""
EPOCH, FILES, RUN, ALARMS = "An epoch", "Files", "The run", "Alarms"


@app.command()
def train(
    source: Annotated[str, typer.Argument(help=SOURCE, metavar="SOURCE", show_default=False)],
    directory: Annotated[
        Path | None,
        typer.Option(
            "--run",
            callback=_options.local,
            help="Directory of the run; runs/NAME, if none is given.",
            rich_help_panel=RUN,
        ),
    ] = None,
    every: Annotated[
        str,
        typer.Option(
            help="Time or steps between two checkpoints: 5s, or 50 for steps. A kill (SIGKILL, a power cut) loses the "
            "training since the last one; of a generator without a parameter 'start', its readings too.",
            rich_help_panel=RUN,
        ),
    ] = "5s",
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on though the source is no longer what the run began with.",
            rich_help_panel=RUN,
        ),
    ] = False,
    keep_scores: Annotated[
        str,
        typer.Option(
            "--keep-scores",
            help="Size of scores.parquet from which its oldest parts are removed.",
            rich_help_panel=RUN,
        ),
    ] = "2GB",
    report: Annotated[bool, typer.Option(help="Leave report.html at the end.", rich_help_panel=RUN)] = True,
    show: Show = "auto",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps in an epoch; 50, if no measure is given.", rich_help_panel=EPOCH)
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows in an epoch, repeated ones too.", rich_help_panel=EPOCH)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds in an epoch.", rich_help_panel=EPOCH)
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="End after this epoch, counted over all starts of the run; for ever, if none is given.",
            rich_help_panel=EPOCH,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Columns of numbers to read; all, if none are given.", rich_help_panel=FILES),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of times: dates, seconds since 1970, or text as in ISO 8601. Found, if none is given: a "
            "column of dates, or one that is called time, timestamp, date, datetime or ts.",
            rich_help_panel=FILES,
        ),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Form of times as text, such as '%d.%m.%Y %H:%M'.", rich_help_panel=FILES),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of keys, such as machine: each key's readings are a series of their own.",
            rich_help_panel=FILES,
        ),
    ] = None,
    passes: Annotated[
        str, typer.Option(help="How often files are read: a number, or forever.", rich_help_panel=FILES)
    ] = "1",
    rate: Annotated[float, typer.Option(min=0.01, help="Readings a second, for machine:.")] = 10.0,
    window: Annotated[int, typer.Option(min=2, help="Readings in a window, from which the last is predicted.")] = 32,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows in a step: 32 of readings that are waited for, else 256.", show_default=False
        ),
    ] = None,
    reuse: Annotated[float, typer.Option(min=1.0, help="How often each window is trained on.")] = 16.0,
    warm_up: Annotated[
        int,
        typer.Option(min=16, help="Readings, of each key, before the first alarm may come.", rich_help_panel=ALARMS),
    ] = 300,
    false_alarms: Annotated[
        float,
        typer.Option(
            min=1e-12,
            max=0.09,
            help="How many readings may raise an alarm without a cause, as a share of all.",
            rich_help_panel=ALARMS,
        ),
    ] = 1e-4,
    on_alarm: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Shell command that is run for each alarm, with the alarm as JSON on its standard input, and in "
            "variables: UNBOUNDED_WORDS, _TIME, _KEY, _COLUMN, _CAUSE, _SCORE, _TAIL, _CHANGE, _ROW, _SOURCE, _RUN. "
            "Put it in single quotes, and the variables in double ones: --on-alarm 'notify-send \"$UNBOUNDED_WORDS\"'. "
            "One runs at a time, and is ended after 60 s. After a kill, alarms since the last checkpoint are told "
            "again.",
            rich_help_panel=ALARMS,
        ),
    ] = None,
) -> None:
    """Train an anomaly detector on readings, until they end or you stop it. Typed again, it goes on.

    NaN, None and text are no numbers: readings with one are left out, and counted. The run's directory has
    scores.parquet (row, time, key and score of each reading), alarms.csv, status.json and checkpoints.

    Exit codes: 0, the last epoch is trained, or the readings ended; 130, stopped by Ctrl-C (SIGINT), 143, by SIGTERM,
    and 129, by SIGHUP: a checkpoint and the report are left; 1, your function raised an error; 2, a sentence says what
    to change.
    """
    from unbounded.cli._train_command import run
    from unbounded.cli._train_options import TrainOptions
    from unbounded.detect._readings import Choice
    from unbounded.detect._training import Plan, epoch_of

    each, after = _options.every(every)
    plan = Plan(
        epoch=epoch_of(steps, rows, seconds),
        epochs=epochs,
        length=window,
        batch=batch,
        reuse=reuse,
        every=each,
        save_after=after,
        warm_up=warm_up,
        false_alarms=false_alarms,
        kept=_options.size(keep_scores),
    )
    options = TrainOptions(
        source,
        directory,
        plan,
        choice=Choice(_options.names(columns), time, time_format, by),
        passes=_options.passes(passes),
        rate=rate,
        show=show,
        report=report,
        accept_changes=accept_changes,
        on_alarm=on_alarm,
    )
    raise typer.Exit(run(options))


@app.command("status")
def status(
    directory: Annotated[Path, typer.Argument(callback=_options.local, help="A run's directory, such as runs/demo.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it again, once a second.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON: an object, with --follow one a line.")
    ] = False,
) -> None:
    """Show where a run is: position, rate, time to the epoch's end, starts, losses, checkpoint and alarms.

    It reads only, whether the run is going on or not.

    Exit codes: 0, it is shown; 2, there is no run in that directory; 130, stopped by Ctrl-C.
    """
    from unbounded.cli._status_command import show_status

    raise typer.Exit(show_status(directory, follow=follow, as_json=as_json))


@app.command("report")
def write(
    directory: Annotated[Path, typer.Argument(callback=_options.local, help="A run's directory, such as runs/demo.")],
) -> None:
    """Write report.html of a run, whether it has ended or is still going on.

    Exit codes: 0, it is written; 2, there is no run in that directory, or it can't be written to.
    """
    from unbounded.detect._report import write_report

    try:
        typer.echo(f"The report is in {write_report(directory)}")
    except (OSError, ModuleNotFoundError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--run", callback=_options.local, help="Where the run is kept.")] = Path(
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
    path: Annotated[Path, typer.Argument(callback=_options.local, help="The CSV file to write, such as plant.csv.")],
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
