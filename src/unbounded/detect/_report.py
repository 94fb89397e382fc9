"""The report of a run: one self-contained HTML file with plots.

All numbers come from what the run has recorded. Plots are SVG inside the page, which loads no other file.
"""

from __future__ import annotations

import html
import time as clock
from collections.abc import Sequence
from pathlib import Path

from unbounded.detect import _plots
from unbounded.detect._readings import Axis
from unbounded.detect._record import RecordedRun
from unbounded.detect._run import read_run

FILE = "report.html"
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
            f"There is no run in {directory} to report on. Start one there: unbounded train machine: --dir {directory}"
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
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=lead>{html.escape(_lead(run))}</p>",
        _facts(run),
    ]
    if run.alarms:
        parts += ["<h2>Alarms</h2>", _alarms(run)]
    shown = run.since_long_pause()
    if shown.readings > 1:
        left_out = run.readings - shown.readings
        before = f" The {left_out:,} readings before the last long pause are left out." if left_out else ""
        newest = "" if run.alarm_count == len(run.alarms) else f" The newest {len(run.alarms):,} alarms are drawn."
        parts += [
            _figure(
                "What was read",
                "Each column in its own unit, with all extremes; a vertical line where it raised an alarm. "
                f"Grey is time in which nothing was read.{before}{newest}",
                _plots.readings(shown),
            ),
            _figure(
                "How surprising it was",
                "A score of 3 is one reading in a thousand. Each reading is scored before the model is "
                "trained on it; above the dashed line, an alarm.",
                _plots.scores(shown),
            ),
        ]
    if run.epochs:
        parts.append(
            _figure(
                "What was learned",
                "Left, the mean squared error on each reading before the model was trained on it: what the figure at "
                "the top of the page sums up. In the middle, the loss in training, on windows that are trained on "
                f"some {max(1.0, run.uses):.0f} times each; it can be lower, and says less of what is to come. Both "
                "beside the error that “the next reading is the last one” makes on the same readings. Right, the "
                "share of its time in which the model waited for data.",
                _plots.epochs(run),
            )
        )
    if len(run.starts) > 1:
        parts += ["<h2>Starts</h2>", _starts(run)]
    count = "1 line" if run.damaged == 1 else f"{run.damaged:,} lines"
    damaged = f" {count} of its record could not be read." if run.damaged else ""
    parts.append(f"<footer>Made by unbounded, {_when(clock.time())}, from {run.readings:,} readings.{damaged}</footer>")
    return _document(title, "\n".join(parts))


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


def _facts(run: RecordedRun) -> str:
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
    cells = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in facts)
    return f"<div class=facts>{cells}</div>"


def _alarms(run: RecordedRun) -> str:
    rows = [
        (moment(alarm.time, run.axis), alarm.words, "a new record" if alarm.record else f"score {alarm.score:.1f}")
        for alarm in run.alarms[-SHOWN:]
    ]
    return _newest(len(rows), run.alarm_count, "alarms") + _table(("when", "what", "why"), rows)


def _starts(run: RecordedRun) -> str:
    rows = [(_when(start.time), f"step {start.step + 1:,}", start.position) for start in run.starts[-SHOWN:]]
    return _newest(len(rows), run.start_count, "starts") + _table(("when", "on at", "with"), rows)


def _newest(shown: int, count: int, what: str) -> str:
    return f"<p>The newest {shown:,} of {count:,} {what}.</p>" if shown < count else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _figure(heading: str, words: str, svg: str) -> str:
    return f"<h2>{heading}</h2><p>{words}</p><figure>{svg}</figure>"


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
    return _when(time) if axis == "date" else f"{time:,.6g} s"


def _when(seconds: float) -> str:
    try:
        return clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # no time that a calendar has
        return f"{seconds:,.6g} s"


def _span(seconds: float) -> str:
    if seconds < 120:
        figure = f"{seconds:.2g}" if 0 < seconds < 9.95 else f"{seconds:.0f}"
        return f"{figure} second{'' if figure == '1' else 's'}"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3_600:.1f} hours" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


_STYLE = """
:root{--ink:#1c2430;--soft:#5d6b7c;--line:#e3e8ee;--card:#fff;--page:#f5f7fa;--accent:#0b7285}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1040px;margin:0 auto;padding:48px 28px 64px}
h1{font-size:34px;line-height:1.2;letter-spacing:-.02em;margin:0 0 8px}
h2{font-size:20px;letter-spacing:-.01em;margin:48px 0 4px}
p{margin:0 0 14px;color:var(--soft);max-width:70ch}
p.lead{font-size:18px;color:var(--ink)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:28px 0 0}
.facts div{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.facts b{display:block;font-size:26px;line-height:1.2;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.facts span{color:var(--soft);font-size:13px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px}
figure svg{display:block;width:100%;height:auto}
table{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line);
  border-radius:12px;border-spacing:0;overflow:hidden;margin-top:12px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:9px 16px;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:500;font-size:13px}
footer{margin-top:48px;color:var(--soft);font-size:13px}
@media print{body{background:#fff}main{padding:0}figure,table{break-inside:avoid}}
"""


def _document(title: str, body: str) -> str:
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )
