"""The plots of the report, each an SVG for a page."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from unbounded.detect import _svg
from unbounded.detect._columns import Column
from unbounded.detect._record import Bins, RecordedAlarm, RecordedRun
from unbounded.detect._svg import INK, SOFT, Plane

BLUE, TEAL, RED, AMBER, GREY = "#2f6fde", "#0b8a7a", "#d6336c", "#e8890c", "#e9edf2"
WIDTH, LEFT, RIGHT = 1_000.0, 150.0, 16.0
POINTS = 50_000  # over all columns: some 25 bytes each
LETTER = 6.8  # the approximate width of a letter
MANY = 12  # with more columns than this, each is drawn lower


def readings(run: RecordedRun) -> str:
    """Each column over time, with its alarms and the pauses in which nothing was read.

    Args:
        run: at least two readings.

    Returns:
        An SVG.
    """
    columns = run.columns
    height, gap = (58.0, 20.0) if len(columns) <= MANY else (30.0, 12.0)
    bins = coalesced(run, max(100, min(900, POINTS // len(columns))))
    x0, x1 = _ends(run)
    many = len(columns) > MANY
    above = 18.0 if many else 8.0
    total = above + len(columns) * (height + gap) + 36
    whole = Plane(LEFT, above, WIDTH - LEFT - RIGHT, len(columns) * (height + gap), x0, x1, 0, 1)
    parts = [*_pauses(whole, run), *_svg.x_axis(whole, run.axis, above=many)]
    alarms: dict[str, list[RecordedAlarm]] = {}
    for alarm in run.alarms:
        alarms.setdefault(alarm.column, []).append(alarm)
    middle, low, high = _with_holes(run, bins)
    for index, column in enumerate(columns):
        size, unit = _unit(column, high[:, index])
        lowest, highest = low[:, index] / size, high[:, index] / size
        top = above + 4 + index * (height + gap)
        plane = Plane(LEFT, top, whole.width, height, x0, x1, *_limits(lowest, highest))
        parts += _svg.y_axis(plane, 2 if height > 40 else 1)
        parts.append(_svg.area(plane.x(middle), plane.y(lowest), plane.y(highest), BLUE))
        parts += _name(column, unit, top + height / 2)
        parts += _lines(plane, alarms.get(column.name, ()))
    return _svg.drawing(WIDTH, total, parts)


def scores(run: RecordedRun) -> str:
    """The score over time with its threshold, and the alarms with their columns.

    Args:
        run: at least two readings.

    Returns:
        An SVG.
    """
    bins = coalesced(run, 900)
    threshold = run.starts[-1].threshold
    top = max(2.2 * threshold, 1.25 * float(np.nanmax(bins.score, initial=0.0)))
    plane = Plane(LEFT, 10, WIDTH - LEFT - RIGHT, 210, *_ends(run), 0.0, top)
    middle, _, high = _with_holes(run, bins, of_score=True)
    parts = [*_pauses(plane, run), *_svg.y_axis(plane, 4), *_svg.x_axis(plane, run.axis)]
    zero = np.where(np.isfinite(high[:, 0]), 0.0, np.nan)
    parts.append(_svg.area(plane.x(middle), plane.y(zero), plane.y(high[:, 0]), TEAL, opacity=0.18))
    across = np.array([plane.x0, plane.x1])
    parts.append(_svg.line(plane.x(across), plane.y(np.full(2, threshold)), SOFT, dashes="5 4"))
    parts.append(_svg.text(plane.left - 6, float(plane.y(threshold)) + 3.5, "alarm", anchor="end", size=10, color=INK))
    parts.append(_svg.text(8, plane.top + plane.height / 2, "score", color=INK, size=12.5, bold=True))
    for alarm in run.alarms:
        x, y = float(plane.x(alarm.time)), float(plane.y(max(alarm.score, threshold)))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{RED}"/>')
    words = [(alarm.time, alarm.words, 0.94 - 0.10 * (number % 3)) for number, alarm in enumerate(run.alarms)]
    parts += _labels(plane, words, each=24)
    return _svg.drawing(WIDTH, plane.bottom + 36, parts)


def epochs(run: RecordedRun) -> str:
    """Each epoch's error on readings before training on them, its loss, and its waits.

    Args:
        run: at least one epoch.

    Returns:
        An SVG.
    """
    number = np.array([(epoch.first + epoch.last_epoch) / 2 for epoch in run.epochs])
    judged = np.array([epoch.judged for epoch in run.epochs], dtype=float)
    ahead = [np.array([getattr(e, name) for e in run.epochs]) / np.where(judged, judged, np.nan) for name in _ERRORS]
    logs = [np.array([e.logs.get(name, np.nan) for e in run.epochs], dtype=float) for name in ("loss", "persistence")]
    waits = np.array([epoch.logs.get("waiting", np.nan) for epoch in run.epochs], dtype=float) * 100
    parts = []
    titles = ("error before training on a reading", "loss in training on it", "waiting for data, %")
    for place, (title, series) in enumerate(zip(titles, (ahead, logs, [waits]), strict=True)):
        left = 52.0 + place * 330
        limits, log = ((0.0, 100.0), False) if place == 2 else _error_limits(series)
        x0, x1 = float(number[0]) - 0.5, float(number[-1]) + 0.5
        plane = Plane(left, 52, 268, 180, x0, x1, *limits, log=log)
        parts += [*_svg.y_axis(plane, 4), *_svg.x_axis(plane, "epoch")]
        parts.append(_svg.text(left - 40, 16, title + (" (log scale)" if log else ""), color=INK, size=12.5, bold=True))
        if place == 2:
            parts.append(_svg.area(plane.x(number), plane.y(np.zeros(len(waits))), plane.y(waits), TEAL))
            continue
        model, last = series
        parts.append(_svg.line(plane.x(number), plane.y(last), AMBER, width=1.8))
        parts.append(_svg.line(plane.x(number), plane.y(model), BLUE, width=1.8))
        parts.append(_svg.text(left, 36, "● the model", color=BLUE))
        parts.append(_svg.text(left + 84, 36, "● “the last one again”", color=AMBER))
    return _svg.drawing(WIDTH, 272, parts)


_ERRORS = ("error", "last")


def coalesced(run: RecordedRun, most: int) -> Bins:
    """The run's bins, with neighbours joined until there are as many as a plot can show.

    Args:
        run: the run.
        most: the approximate number of bins.

    Returns:
        Bins that keep all extremes; none spans a long pause.
    """
    bins = run.bins
    if len(bins) <= most:
        return bins
    size = max(1, -(-int(bins.count.sum()) // most))
    ends = np.array([end for _, end in run.pauses])
    group = (bins.first // size) + (1 << 40) * np.searchsorted(np.sort(ends), bins.begin, side="right")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(group) != 0]))
    return Bins(
        first=bins.first[starts],
        count=np.add.reduceat(bins.count, starts),
        begin=bins.begin[starts],
        end=bins.end[np.concatenate([starts[1:] - 1, [len(bins) - 1]])],
        low=np.fmin.reduceat(bins.low, starts),
        high=np.fmax.reduceat(bins.high, starts),
        score=np.fmax.reduceat(bins.score, starts),
        error=np.add.reduceat(bins.error, starts),
        last=np.add.reduceat(bins.last, starts),
    )


def _with_holes(run: RecordedRun, bins: Bins, *, of_score: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins' means and extremes, with NaN at each long pause, so that no line bridges it."""
    low, high = (bins.score[:, None], bins.score[:, None]) if of_score else (bins.low, bins.high)
    middle = (bins.begin + bins.end) / 2
    ends = np.sort([end for _, end in run.pauses])
    # Nor does a line run back where the source's clock was set back.
    back = np.flatnonzero(np.diff(bins.begin) < 0) + 1
    after = np.flatnonzero(np.isin(bins.begin, np.round(ends, 6)))
    holes = np.unique(np.concatenate([back, after]))
    holes = holes[(holes > 0) & (holes < len(bins))]
    return tuple(np.insert(array, holes, np.nan, axis=0) for array in (middle, low, high))  # type: ignore[return-value]


def _ends(run: RecordedRun) -> tuple[float, float]:
    low, high = float(run.bins.begin.min()), float(run.bins.end.max())
    room = 0.01 * (high - low) or 0.5
    return low - room, high + room


def _pauses(plane: Plane, run: RecordedRun) -> list[str]:
    """Grey where nothing was read."""
    parts = []
    for begin, end in run.pauses:
        left, right = float(plane.x(max(begin, plane.x0))), float(plane.x(min(end, plane.x1)))
        if right - left > 1:
            parts.append(_svg.rectangle(left, plane.top, right - left, plane.height, GREY))
    return parts


def _lines(plane: Plane, alarms: Sequence[RecordedAlarm]) -> list[str]:
    """A line for each alarm of a column, and words for those that have room."""
    at = sorted({round(float(plane.x(alarm.time)), 0) for alarm in alarms})
    data = "".join(f"M{x:.0f} {plane.top:.1f}V{plane.bottom:.1f}" for x in at)
    parts = [f'<path d="{data}" stroke="{RED}" stroke-width="1.2"/>'] if data else []
    words = [(alarm.time, alarm.words.removeprefix(alarm.column).strip(), 0.86) for alarm in alarms]
    return parts + _labels(plane, words, each=8)


def _labels(plane: Plane, words: Sequence[tuple[float, str, float]], *, each: int) -> list[str]:
    """Texts at moments, the newest first, as far as they do not overlap."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for time, label, height in reversed(words):
        x, y = float(plane.x(time)), plane.top + plane.height * (1 - height)
        late = x > plane.left + 0.75 * plane.width
        left = x - 5 - LETTER * len(label) if late else x + 5
        right = left + LETTER * len(label)
        if len(parts) >= each or any(abs(y - b) < 12 and left < r and right > a for a, r, b in taken):
            continue
        taken.append((left, right, y))
        anchor = "end" if late else "start"
        parts.append(_svg.text(x + (-5 if late else 5), y + 4, label, color=RED, anchor=anchor, bold=True))
    return parts


def _name(column: Column, unit: str, y: float) -> list[str]:
    """A column's name beside its plot, cut if it is long; a tooltip has all of it."""
    name = column.name if len(column.name) <= 15 else column.name[:14] + "…"
    parts = [_svg.text(8, y + (0 if unit else 4), name, color=INK, size=12.5, bold=True)]
    if name != column.name:
        title = html.escape(column.name)
        parts[0] = parts[0].replace("</text>", f"<title>{title}</title></text>")
    return [*parts, _svg.text(8, y + 14, unit, size=10.5)] if unit else parts


def _unit(column: Column, values: np.ndarray) -> tuple[float, str]:
    """The divisor for a column's readings, and their unit after it."""
    if not column.bursts:
        return 1.0, column.unit
    highest = float(np.nanmax(np.abs(values), initial=0.0))
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if highest >= size:
            return size, prefix + column.unit
    return 1.0, column.unit


def _limits(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    bottom, top = float(np.nanmin(low, initial=np.inf)), float(np.nanmax(high, initial=-np.inf))
    if not (np.isfinite(bottom) and np.isfinite(top)) or bottom == top == 0:
        return 0.0, 1.0
    room = 0.08 * (top - bottom) or 0.1 * abs(top)
    return bottom - room, top + room


def _error_limits(series: Sequence[np.ndarray]) -> tuple[tuple[float, float], bool]:
    """Limits from zero, or logarithmic if few epochs are far above the others."""
    known = np.concatenate(series)
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return (0.0, 1.0), False
    low, high = float(known.min()), float(known.max())
    if high > 20 * float(np.median(known)):
        return (low / 1.3, high * 1.3), True
    return (0.0, 1.15 * high), False
