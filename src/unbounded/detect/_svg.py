"""SVG elements: an axis, a line, an area, a text."""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

INK, SOFT, LINE = "#1c2430", "#5d6b7c", "#e3e8ee"
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600 * hours for hours in (1, 2, 3, 6, 12)),
    *(86_400 * days for days in (1, 2, 7, 14, 28, 91, 182, 365, 730, 1_825, 3_650)),
)


@dataclass(frozen=True)
class Plane:
    """A rectangle of the drawing, and the data range of its edges.

    Args:
        left: in drawing units, as `top`, `width` and `height`.
        top: see `left`.
        width: see `left`.
        height: see `left`.
        x0: the x value at the left edge.
        x1: the x value at the right edge.
        y0: the y value at the lower edge.
        y1: the y value at the upper edge.
        log: whether y is drawn by its logarithm.
    """

    left: float
    top: float
    width: float
    height: float
    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False

    def x(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie from left to right."""
        span = self.x1 - self.x0
        return np.asarray(self.left + self.width * (np.asarray(values, dtype=float) - self.x0) / (span or 1.0))

    def y(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie from top to bottom; those beyond an edge lie on it."""
        values, low, high = np.asarray(values, dtype=float), self.y0, self.y1
        if self.log:
            values, low, high = np.log(np.maximum(values, low)), math.log(low), math.log(high)
        share = (values - low) / ((high - low) or 1.0)
        return np.asarray(self.top + self.height * (1.0 - np.clip(share, 0.0, 1.0)))

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width


def line(x: np.ndarray, y: np.ndarray, color: str, *, width: float = 1.2, dashes: str = "") -> str:
    """A line through points; where one is not finite, it has a hole. A point alone is a dot."""
    data = "".join(_points(x[part], y[part]) + ("h.01" if part.stop - part.start == 1 else "") for part in _parts(x, y))
    more = f' stroke-dasharray="{dashes}"' if dashes else ""
    round_ = ' stroke-linecap="round" stroke-linejoin="round"'
    return f'<path d="{data}" fill="none" stroke="{color}" stroke-width="{width}"{round_}{more}/>' if data else ""


def area(x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str, *, opacity: float = 0.25) -> str:
    """What lies between two lines, with its outline; where one is not finite, it has a hole."""
    alone, between = "", ""
    for part in _parts(x, low + high):
        if np.array_equal(low[part], high[part]):
            alone += _points(x[part], high[part]) + ("h.01" if part.stop - part.start == 1 else "")
        else:
            there_and_back = np.concatenate([high[part], low[part][::-1]])
            between += _points(np.concatenate([x[part], x[part][::-1]]), there_and_back) + "Z"
    style = f'stroke="{color}" stroke-width="1" stroke-linejoin="round" stroke-linecap="round"'
    return (f'<path d="{between}" fill="{color}" fill-opacity="{opacity}" {style}/>' if between else "") + (
        f'<path d="{alone}" fill="none" {style}/>' if alone else ""
    )


def _parts(x: np.ndarray, y: np.ndarray) -> list[slice]:
    """The parts without a hole."""
    known = np.concatenate([[False], np.isfinite(x) & np.isfinite(y), [False]])
    edges = np.flatnonzero(known[1:] != known[:-1])
    return [slice(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)).replace(".0", "")


def rectangle(left: float, top: float, width: float, height: float, color: str, *, opacity: float = 1.0) -> str:
    """A filled rectangle."""
    place = f'x="{left:.1f}" y="{top:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{color}"' + (f' fill-opacity="{opacity}"/>' if opacity < 1 else "/>")


def text(
    x: float, y: float, words: str, *, color: str = SOFT, size: float = 11, anchor: str = "start", bold: bool = False
) -> str:
    """Words; white behind the letters keeps them readable on lines."""
    weight = ' font-weight="600"' if bold else ""
    halo = ' stroke="#fff" stroke-width="3" stroke-opacity=".8" paint-order="stroke"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="{color}"{weight}{halo}>{html.escape(words)}</text>'


def drawing(width: float, height: float, parts: Sequence[str]) -> str:
    """A whole SVG.

    Args:
        width: in drawing units.
        height: in drawing units.
        parts: what is drawn, the lowest first.

    Returns:
        The element, to stand in a page.
    """
    font = 'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica Neue,Arial,sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {font}>'
    return head + "\n".join(part for part in parts if part) + "</svg>"


def x_axis(plane: Plane, kind: str, *, above: bool = False) -> list[str]:
    """Ticks below a plane: moments of the local time or of UTC, seconds, or numbers.
    Args:
        plane: whose lower edge it is.
        kind: "date", "utc", "seconds", or what the numbers are, such as "row".
        above: whether to write them above the plane as well, as beside a long one.

    Returns:
        Parts of a drawing.
    """
    parts = []
    zone = datetime.UTC if kind == "utc" else None
    found = _moments(plane.x0, plane.x1, zone) if kind in ("date", "utc") else None
    ticks, name = found if found is not None else (_plain_ticks(plane.x0, plane.x1, kind), kind)
    for value, label in ticks:
        x = float(plane.x(value))
        if plane.left + 12 <= x <= plane.right - 12:
            parts.append(text(x, plane.bottom + 15, label, anchor="middle", size=10.5))
            if above:
                parts.append(text(x, plane.top - 6, label, anchor="middle", size=10.5))
    parts.append(text(plane.right, plane.bottom + 30, name, anchor="end", size=10.5))
    return parts


def y_axis(plane: Plane, count: int = 3, unit: str = "") -> list[str]:
    """Ticks beside a plane, with lines across it.

    Args:
        plane: whose left edge it is.
        count: how many there are, about.
        unit: is written behind the numbers.

    Returns:
        Parts of a drawing.
    """
    ticks = decades(plane.y0, plane.y1) if plane.log else nice(plane.y0, plane.y1, count)
    while not plane.log and len(ticks) < 2 and count < 8:  # one number says nothing of the scale
        count += 1
        ticks = nice(plane.y0, plane.y1, count)
    if len(ticks) > 2 and plane.height / len(ticks) < 14:
        ticks = [ticks[0], ticks[-1]]
    parts = []
    for value in ticks:
        y = float(plane.y(value))
        parts.append(f'<path d="M{plane.left:.1f} {y:.1f}H{plane.right:.1f}" stroke="{LINE}" stroke-width="1"/>')
        parts.append(text(plane.left - 6, y + 3.5, number(value) + unit, anchor="end", size=10))
    return parts


def nice(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two others.

    Example:
        >>> nice(0.0, 9.7, 3)
        [0.0, 5.0]
        >>> nice(18.2, 21.9, 4)
        [19.0, 20.0, 21.0]
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return [low] if math.isfinite(low) else []
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((unit * n for n in (1, 2, 5) if unit * n >= rough * 0.999), unit * 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) if abs(step) < 1e6 else n * step for n in range(first, min(last, first + 50) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers, and thrice these where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**n for n in powers if low <= 10.0**n <= high]
    if len(ticks) < 2:
        ticks = sorted(10.0**n * k for n in powers for k in (1, 2, 5) if low <= 10.0**n * k <= high)
    return ticks[:: -(-len(ticks) // 6)] if ticks else []


def number(value: float) -> str:
    """A tick's number, short.

    Example:
        >>> number(1_500_000.0), number(0.25), number(20.0)
        ('1.5M', '0.25', '20')
    """
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if prefix == 'k' else size):.6g}{prefix}"
    return f"{value:.6g}"


def _plain_ticks(low: float, high: float, kind: str) -> list[tuple[float, str]]:
    ticks = nice(low, high, 7)
    if kind != "seconds":
        ticks = [tick for tick in ticks if tick == round(tick)]
    return [(tick, f"{tick:,.6g}" if kind == "seconds" else f"{tick:,.0f}") for tick in ticks]


def _moments(
    low: float, high: float, zone: datetime.tzinfo | None = None
) -> tuple[list[tuple[float, str]], str] | None:
    """Round moments of a zone (None: the local one), and the day; None where these are no times of a calendar."""
    try:
        begin = datetime.datetime.fromtimestamp(low, zone)
        begin = begin if zone else begin.astimezone()
        datetime.datetime.fromtimestamp(high, zone)
    except (OverflowError, ValueError, OSError):
        return None
    ahead = (begin.utcoffset() or datetime.timedelta()).total_seconds()
    span = max(high - low, 1e-6)
    if span < 7:
        step = next(s for s in (0.001, 0.01, 0.1, 0.2, 0.5, 1.0) if s >= span / 8 or s == 1.0)
    else:
        step = next((s for s in _STEPS if s >= span / 7), _STEPS[-1])
    forms = ((86_400 * 91, "%b %-d, %Y"), (86_400, "%b %-d"), (60, "%H:%M"), (0, "%H:%M:%S"))
    form = next(form for least, form in forms if step >= least)
    ticks = []
    for n in range(math.ceil((low + ahead) / step), math.floor((high + ahead) / step) + 1):
        moment = datetime.datetime.fromtimestamp(n * step - ahead, zone)
        label = moment.strftime(form) + (f"{moment.microsecond / 1e6:.3f}"[1:].rstrip("0") if step < 1 else "")
        if step < 86_400 and moment.time() == datetime.time():
            label = moment.strftime("%b %-d")
        ticks.append((n * step - ahead, label))
    return ticks, begin.strftime("%A, %b %-d, %Y")
