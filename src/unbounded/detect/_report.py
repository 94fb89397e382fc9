"""The report of a run: one self-contained HTML file with plots, made with Jinja2 from `report.html.jinja`.

All numbers come from what the run has recorded. Plots are SVG inside the page, which loads no other file.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unbounded.detect import _plots
from unbounded.detect._readings import Axis
from unbounded.detect._record import RecordedRun
from unbounded.detect._run import read_run

FILE = "report.html"
TEMPLATE = "report.html.jinja"
SHOWN = 50  # rows of a table


def write_report(directory: Path, *, title: str | None = None) -> Path:
    """Write `report.html` into a run's directory.

    Args:
        directory: where the run wrote `run.jsonl`.
        title: what stands at the top; the source's name, if none is given.

    Returns:
        The file.

    Raises:
        FileNotFoundError: no run has written there.
    """
    run = read_run(directory)
    if not run.starts:
        raise FileNotFoundError(
            f"There is no run in {directory} to report on. Start one there: unbounded train machine: --run {directory}"
        )
    path = directory / FILE
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(page(run, title=title or _title(run)), encoding="utf-8")
    unfinished.replace(path)
    return path


def page(run: RecordedRun, *, title: str) -> str:
    """A run as a page.

    Args:
        run: what to show.
        title: what stands at the top.

    Returns:
        A whole HTML document.

    Raises:
        ModuleNotFoundError: Jinja2 is not installed.
    """
    try:
        import jinja2
        import markupsafe  # Jinja2's own requirement
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The report is made with Jinja2, which is not installed: pip install 'unbounded[demo]'.", name=error.name
        ) from None
    # What comes from data (names, keys, text of alarms) is escaped by the template. The plots escape their own.
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    ).from_string((Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8"))
    count = "1 line" if run.damaged == 1 else f"{run.damaged:,} lines"
    damaged = f" {count} of its record could not be read." if run.damaged else ""
    return template.render(
        title=title,
        lead=_lead(run),
        facts=_facts(run),
        alarms=_alarms(run),
        figures=[(figure | {"svg": markupsafe.Markup(figure["svg"])}) for figure in _figures(run)],
        starts=_starts(run),
        footer=f"Made by unbounded, {_when(clock.time())}, from {run.readings:,} readings.{damaged}",
    )


def _figures(run: RecordedRun) -> list[dict[str, str]]:
    """The plots, with their headings and what they show."""
    figures = []
    shown = run.since_long_pause()
    if shown.readings > 1:
        left_out = run.readings - shown.readings
        before = f" The {left_out:,} readings before the last long pause are left out." if left_out else ""
        before += " The readings of all keys are drawn together." if run.starts[-1].keyed else ""
        newest = "" if run.alarm_count == len(run.alarms) else f" The newest {len(run.alarms):,} alarms are drawn."
        figures += [
            {
                "heading": "What was read",
                "words": "Each column in its own unit, with all extremes; a vertical line where it raised an alarm. "
                f"Grey is time in which nothing was read.{before}{newest}",
                "svg": _plots.readings(shown),
            },
            {
                "heading": "How surprising it was",
                "words": "A score of 3 is one reading in a thousand. Each reading is scored before the model is "
                "trained on it; above the dashed line, an alarm.",
                "svg": _plots.scores(shown),
            },
        ]
    if run.epochs:
        figures.append(
            {
                "heading": "What was learned",
                "words": "Left, the mean squared error on each reading before the model was trained on it: what the "
                "figure at the top of the page sums up. In the middle, the loss in training, on windows that are "
                f"trained on some {max(1.0, run.uses):.0f} times each; it can be lower, and says less of what is to "
                "come. Both beside the error that “the next reading is the last one” makes on the same readings. "
                "Right, the share of its time in which the model waited for data.",
                "svg": _plots.epochs(run),
            }
        )
    return figures


def _title(run: RecordedRun) -> str:
    source = run.starts[-1].source
    return "This computer’s vitals" if source == "machine:" else source


def _lead(run: RecordedRun) -> str:
    if not run.readings:
        return "Nothing has been scored yet." + _skipped(run)
    columns = f"{len(run.columns):,} column{'' if len(run.columns) == 1 else 's'}"
    read = f"{run.readings:,} readings of {columns}"
    if run.axis != "row":
        read += f" in {_span(float(run.bins.end.max() - run.bins.begin.min()))}"
    better = run.better_by()
    if better is None:
        return f"{read}.{_skipped(run)}"
    lately, newest = run.better_by(max(1, run.readings // 4)), ""
    if lately is not None and f"{lately:.0%}" != f"{better:.0%}":
        newest = f"; of the newest quarter of them, {compared(lately)}"
    return (
        f"{read}. Before it was trained on them, the model’s predictions of them were {compared(better)}"
        f"{newest}.{_skipped(run)}"
    )


def compared(better: float) -> str:
    """How a model's error compares with that of persistence, in words.

    Args:
        better: the share of persistence's error that it saved; negative where its own is larger.

    Returns:
        Such as ``35% better than “the next reading is the last one”``.
    """
    than = "“the next reading is the last one”"
    if better < -1:
        return f"{1 - better:,.1f} times as far off as {than}"
    return f"{abs(better):.0%} {'better' if better >= 0 else 'worse'} than {than}"


def _skipped(run: RecordedRun) -> str:
    """What was left out, in a sentence."""
    skipped = run.trained.skipped
    if not skipped:
        return ""
    most = sorted(skipped.items(), key=lambda item: -item[1])
    names = ", ".join(f"{name} in {count:,}" for name, count in most[:5]) + (", …" if len(most) > 5 else "")
    total = sum(skipped.values())
    return f" {total:,} more {'was' if total == 1 else 'were'} left out, since a column held no number: {names}."


def _facts(run: RecordedRun) -> list[tuple[str, str]]:
    facts = [
        ("step" if run.trained.step == 1 else "steps", f"{run.trained.step:,}"),
        ("readings", f"{run.readings:,}"),
        ("alarm" if run.alarm_count == 1 else "alarms", f"{run.alarm_count:,}"),
        ("uses a reading", f"{run.uses:.1f}"),
        ("rows trained twice", f"{run.rows_trained_twice():,}"),
        ("readings missed", f"{run.trained.missed:,}"),
    ]
    if run.trained.skipped:
        facts.append(("readings left out", f"{sum(run.trained.skipped.values()):,}"))
    return facts


def _alarms(run: RecordedRun) -> dict[str, Any]:
    keyed = any(alarm.key for alarm in run.alarms)
    rows = [
        (
            moment(alarm.time, run.axis),
            *((alarm.key,) if keyed else ()),
            alarm.words,
            alarm.cause,
            f"score {alarm.score:.1f}",
        )
        for alarm in run.alarms[-SHOWN:]
    ]
    head = ("when", *(("key",) if keyed else ()), "what", "cause", "how rare")
    return {"what": "alarms", "head": head, "rows": rows, "count": run.alarm_count}


def _starts(run: RecordedRun) -> dict[str, Any]:
    rows = [(_when(start.time), f"step {start.step + 1:,}", start.position) for start in run.starts[-SHOWN:]]
    return {"what": "starts", "head": ("when", "on at", "with"), "rows": rows, "count": run.start_count}


def moment(time: float, axis: Axis) -> str:
    """When something was, as the run tells time.

    Args:
        time: on the run's axis.
        axis: what that is.

    Returns:
        Such as ``2026-01-31 10:31:22``, ``12.5 s`` or ``row 1,234``.
    """
    if axis == "row":
        return f"row {time:,.0f}"
    if axis == "seconds":
        return f"{time:,.6g} s"
    return _when(time, clock.gmtime if axis == "utc" else clock.localtime)


def _when(seconds: float, zone: Callable[[float], clock.struct_time] = clock.localtime) -> str:
    try:
        return clock.strftime("%Y-%m-%d %H:%M:%S", zone(seconds))
    except (OverflowError, ValueError, OSError):  # no time that a calendar has
        return f"{seconds:,.6g} s"


def _span(seconds: float) -> str:
    if seconds < 120:
        figure = f"{seconds:.2g}" if 0 < seconds < 9.95 else f"{seconds:.0f}"
        return f"{figure} second{'' if figure == '1' else 's'}"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3_600:.1f} hours" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
