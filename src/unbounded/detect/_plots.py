"""The plots of the report, each an SVG that can stand in a page.

matplotlib is imported here and nowhere else, and used without pyplot: nothing global is touched, and no
window is looked for.
"""

from __future__ import annotations

import datetime
import io
from typing import Any

import numpy as np

from unbounded.detect._run import Run

INK, SOFT, LINE = "#1c2430", "#5d6b7c", "#e3e8ee"
BLUE, TEAL, RED, AMBER, GREY = "#2f6fde", "#0b8a7a", "#d6336c", "#e8890c", "#eef1f5"
WIDTH = 10.0
POINTS = 1_500


def readings(run: Run) -> str:
    """Each column over time, with its alarms and the times in which nothing was read.

    Args:
        run: at least two readings.

    Returns:
        An SVG.
    """
    count = len(run.columns)
    figure = _figure(0.6 + 1.05 * count)
    axes = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for index, (axis, column) in enumerate(zip(axes, run.columns, strict=True)):
        values, unit = run.values[:, index], column.unit
        if column.bursts:
            size, prefix = _prefix(values)
            values, unit = values / size, prefix + unit
        time, low, high = _envelope(run.time, values)
        axis.fill_between(_dates(time), low, high, color=BLUE, alpha=0.18, linewidth=0)
        axis.plot(_dates(time), (low + high) / 2, color=BLUE, linewidth=1.0)
        _plain(axis)
        axis.set_ylabel(
            f"{column.name}\n{unit}" if unit else column.name,
            rotation=0, ha="right", va="center", color=INK, fontsize=9, labelpad=8,
        )  # fmt: skip
        axis.yaxis.set_major_locator(_locator(3))
        axis.set_ylim(*_limits(values))
        for alarm in run.alarms:
            if alarm.column == column.name:
                axis.axvline(_dates(alarm.time), color=RED, linewidth=1.2)
                _mark(axis, alarm.time, alarm.words.removeprefix(column.name).strip(), run)
    figure.align_ylabels(axes)
    axes[0].set_xlim(*_ends(run))
    _pauses(axes, run)
    return _svg(figure, axes, dates=_is_dated(run))


def scores(run: Run) -> str:
    """The score over time with its threshold, and the alarms with their columns.

    Args:
        run: at least two readings.

    Returns:
        An SVG.
    """
    figure = _figure(3.0)
    axis = figure.subplots()
    time, _, high = _envelope(run.time, run.score)
    axis.fill_between(_dates(time), 0, high, color=TEAL, alpha=0.15, linewidth=0)
    axis.plot(_dates(time), high, color=TEAL, linewidth=1.0)
    threshold = run.starts[-1].threshold
    axis.axhline(threshold, color=SOFT, linewidth=1.0, linestyle=(0, (4, 3)))
    top = max(2.2 * threshold, float(np.nanmax(run.score, initial=0.0)) * 1.25)
    _plain(axis)
    axis.set_ylim(0, top)
    axis.set_ylabel("score", color=INK, fontsize=9)
    for number, alarm in enumerate(run.alarms):
        axis.axvline(_dates(alarm.time), color=RED, linewidth=0.8, alpha=0.6)
        axis.plot([_dates(alarm.time)], [max(alarm.score, threshold)], "o", color=RED, markersize=5)
        # Alarms that follow one another at once stand on three lines in turn.
        _mark(axis, alarm.time, alarm.words, run, 0.93 - 0.11 * (number % 3))
    # As in the plot above it, also where the first readings have no score.
    axis.set_xlim(*_ends(run))
    _pauses([axis], run)
    return _svg(figure, [axis], dates=_is_dated(run))


def epochs(run: Run) -> str:
    """Each epoch's loss beside persistence's, and the share of its time in which the model waited.

    Args:
        run: at least one epoch.

    Returns:
        An SVG.
    """
    figure = _figure(3.0)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    number = np.array([epoch.epoch for epoch in run.epochs])
    logs = {
        name: np.array([epoch.logs.get(name, np.nan) for epoch in run.epochs])
        for name in ("loss", "persistence", "waiting")
    }
    left.plot(number, logs["persistence"], "o-", color=AMBER, markersize=3.5, label="“the last one again”")
    left.plot(number, logs["loss"], "o-", color=BLUE, markersize=3.5, label="the model")
    left.fill_between(
        number, logs["loss"], logs["persistence"],
        where=logs["loss"] < logs["persistence"], color=BLUE, alpha=0.10, linewidth=0, interpolate=True,
    )  # fmt: skip
    left.set_ylim(0, 1.15 * max(1e-12, float(np.nanmax([*logs["loss"], *logs["persistence"], 0.0]))))
    left.set_ylabel("loss", color=INK, fontsize=9)
    left.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    right.bar(number, 100 * logs["waiting"], color=TEAL, alpha=0.75, width=0.8)
    right.set_ylim(0, 100)
    right.set_ylabel("waiting, %", color=INK, fontsize=9)
    for axis in (left, right):
        _plain(axis)
        axis.set_xlabel("epoch", color=SOFT, fontsize=9)
        axis.xaxis.set_major_locator(_locator(8, integer=True))
    return _svg(figure, [], dates=False)


def _figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The report's plots are drawn with matplotlib, which is not installed: pip install 'unbounded[demo]'."
        ) from error
    return Figure(figsize=(WIDTH, height), layout="constrained")


def _locator(count: int, integer: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=integer, min_n_ticks=1 if integer else 2)


def _plain(axis: Any) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(LINE)
    axis.grid(axis="y", color=LINE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=SOFT, labelsize=8, length=0)
    axis.set_facecolor("none")


def _mark(axis: Any, time: float, words: str, run: Run, height: float = 0.86) -> None:
    """Words beside a line, on the side on which there is room."""
    from matplotlib.transforms import blended_transform_factory

    late = time > run.time[0] + 0.75 * (run.time[-1] - run.time[0])
    axis.annotate(
        words, (_dates(time), height), xytext=(-5 if late else 5, 0), textcoords="offset points",
        xycoords=blended_transform_factory(axis.transData, axis.transAxes),
        color=RED, fontsize=8.5, fontweight="bold", va="center", ha="right" if late else "left",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}, annotation_clip=False,
    )  # fmt: skip


def _pauses(axes: Any, run: Run) -> None:
    """Shade the times in which nothing was read: ten times as long as usual between two readings, or more."""
    apart = np.diff(run.time)
    for at in np.flatnonzero(apart > 10 * max(float(np.median(apart)), 1e-9)):
        for axis in axes:
            axis.axvspan(*_dates(run.time[at : at + 2]), color=GREY, linewidth=0, zorder=0.5)


def _envelope(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest and the highest of each stretch, so that a plot of millions shows what one of few would."""
    stretch = -(-len(time) // POINTS)
    # A pause is a hole in the line, not a bridge.
    apart = np.diff(time)
    holes = np.flatnonzero(apart > 10 * max(float(np.median(apart)), 1e-9)) + 1
    middle = np.concatenate([time, (time[holes - 1] + time[holes]) / 2])
    order = np.argsort(middle, kind="stable")
    values = np.concatenate([values, np.full(len(holes), np.nan)])[order]
    time = middle[order]
    if stretch == 1:
        return time, values, values
    starts = np.arange(0, len(time), stretch)
    return time[starts], np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.nanmin(values, initial=np.inf)), float(np.nanmax(values, initial=-np.inf))
    if not (np.isfinite(low) and np.isfinite(high)):
        return 0.0, 1.0
    if low == high == 0:
        return 0.0, 1.0
    room = 0.08 * (high - low) or 0.1 * abs(high)
    return low - room, high + room


def _ends(run: Run) -> tuple[float, float]:
    first, last = (float(end) for end in _dates(run.time[[0, -1]]))
    room = 0.01 * (last - first)
    return first - room, last + room


def _prefix(values: np.ndarray) -> tuple[float, str]:
    highest = float(np.nanmax(np.abs(values), initial=0.0))
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if highest >= size:
            return size, prefix
    return 1.0, ""


def _is_dated(run: Run) -> bool:
    """Whether the times are times; a source that gives none has its readings numbered."""
    return bool(len(run.time) and run.time[0] > 1e8)


def _dates(seconds: Any) -> Any:
    """Seconds since 1970 as the local time that a plot can write; small numbers are no dates, and stay."""
    seconds = np.asarray(seconds, dtype=np.float64)
    zone = datetime.datetime.now().astimezone().utcoffset() or datetime.timedelta()
    return np.where(seconds > 1e8, (seconds + zone.total_seconds()) / 86_400.0, seconds)


def _svg(figure: Any, axes: Any, *, dates: bool) -> str:
    from matplotlib import dates as mdates
    from matplotlib import rc_context

    if dates:
        locator = mdates.AutoDateLocator(minticks=4, maxticks=9)
        axes[-1].xaxis.set_major_locator(locator)
        axes[-1].xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator, show_offset=False))
    out = io.StringIO()
    # Text stays text, in the page's own font; no date, so that the same run gives the same page.
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "unbounded"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
