"""Measuring several sides in turns, and saying what came out.

A side is a function that handles n batches and returns the seconds that they took. All sides take turns in
short slices, in a new order each round, so that a slow second of the machine falls on one slice and not on
one side. A ratio is taken within each round; its median over the rounds is held against a target. Beside the
time that passed stands the processor's, over all threads of the process: on a busy machine it is the steadier.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple


class Took(NamedTuple):
    """Seconds: those that passed, and those that the processor worked, over all threads of this process."""

    passed: float
    worked: float

    @classmethod
    def now(cls) -> Took:
        """The time, to take differences of."""
        return cls(perf_counter(), process_time())

    def since(self, begin: Took) -> Took:
        """The time from `begin` to this."""
        return Took(self.passed - begin.passed, self.worked - begin.worked)


@dataclass(frozen=True)
class Side:
    """One way to do the work: `run(n)` handles n batches and returns the seconds that they took.

    `multiple` is what n must be a multiple of; `least` is the smallest n that is fair to this side (one that
    prepares batches between its turns must be asked for many more than it can have prepared).
    """

    name: str
    run: Callable[[int], Took]
    multiple: int = 1
    least: int = 1


@dataclass(frozen=True)
class Spread:
    """Minimum, median and quartiles of one figure over the rounds."""

    least: float
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(min(values), low, median, high)


@dataclass(frozen=True)
class Timings:
    """Microseconds a batch, for each side one value a round; the same index is the same round for all.

    `micros` are those that passed, `worked` those of the processor.
    """

    title: str
    micros: Mapping[str, Sequence[float]]
    worked: Mapping[str, Sequence[float]]

    def spread(self, side: str) -> Spread:
        """How long a batch of `side` takes, in microseconds."""
        return Spread.of(self.micros[side])

    def ratio(self, side: str, over: str) -> Spread:
        """How many times as long as `over` this `side` takes, round by round."""
        return _ratio(self.micros, side, over)

    def worked_ratio(self, side: str, over: str) -> Spread:
        """How many times the processor's time of `over` this `side` takes, round by round."""
        return _ratio(self.worked, side, over)

    def fastest(self, sides: Sequence[str]) -> str:
        """Of these sides, the one with the smallest median."""
        return min(sides, key=lambda side: self.spread(side).median)

    def markdown(self, base: str) -> str:
        """A table of all sides, the fastest first; ratios to `base` within rounds, and of the minima."""
        names = ["side", "min µs", "median µs", "quartiles", f"× {base}", "× of minima", "CPU µs", "× CPU"]
        lines = [f"### {self.title}", "", f"| {' | '.join(names)} |", "|---" + "|--:" * 7 + "|"]
        for name in sorted(self.micros, key=lambda side: self.spread(side).median):
            s, least = self.spread(name), self.spread(base).least
            times = f"{s.least:,.1f} | {s.median:,.1f} | {s.low:,.1f}–{s.high:,.1f}"
            ratios = f"{self.ratio(name, base).median:.2f} | {s.least / least:.2f}"
            worked = f"{Spread.of(self.worked[name]).median:,.1f} | {self.worked_ratio(name, base).median:.2f}"
            lines.append(f"| {name} | {times} | {ratios} | {worked} |")
        return "\n".join(lines)


@dataclass(frozen=True)
class Check:
    """A figure and the limit that it has to keep: a lower one where `at_least`, else an upper one."""

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "×"
    spread: tuple[float, float] | None = None
    note: str = ""

    @classmethod
    def of(cls, what: str, spread: Spread, limit: float, *, at_least: bool = False, note: str = "") -> Check:
        """The check of a ratio that was taken round by round: its median counts."""
        return cls(what, spread.median, limit, at_least, "×", (spread.low, spread.high), note)

    @property
    def met(self) -> bool:
        """Whether the figure keeps its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> str:
        """One line of the table of verdicts."""
        quartiles = f" ({_short(self.spread[0])}–{_short(self.spread[1])})" if self.spread else ""
        target = f"{'≥' if self.at_least else '≤'} {_short(self.limit)}{self.unit}"
        verdict = "met" if self.met else "**missed**"
        value = f"{_short(self.value)}{self.unit}{quartiles}"
        return f"| {self.what} | {value} | {target} | {verdict} | {self.note} |"


BEGIN, END = "<!-- what `make bench` printed: begin -->", "<!-- end -->"


@dataclass
class Report:
    """What a benchmark found: tables (each with the side that its ratios refer to), verdicts, remarks."""

    tables: list[tuple[Timings, str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Append all that another report holds."""
        self.tables += other.tables
        self.checks += other.checks
        self.remarks += other.remarks

    def markdown(self) -> str:
        """The whole report, verdicts first."""
        parts = [self.verdicts()] if self.checks else []
        parts += [timings.markdown(base) for timings, base in self.tables]
        if self.remarks:
            parts.append(self._remarks())
        return "\n\n".join(parts)

    def verdicts(self) -> str:
        """The table of all figures beside their targets."""
        head = ["| figure | measured (quartiles) | target | verdict | note |", "|---|--:|--:|---|---|"]
        return "\n".join(head + [check.row() for check in self.checks])

    def _remarks(self) -> str:
        return "\n".join(f"- {remark}" for remark in self.remarks)

    def write_into(self, page: Path) -> None:
        """Put the verdicts, and what they were measured on, in the place of those in a page of the docs."""
        text = page.read_text()
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        has = machine()
        versions = ", ".join(f"{name} {version}" for name, version in dict(has["versions"]).items())  # type: ignore[call-overload]
        where = f"{has['cores']} cores, {has['system']}, Python {has['python']}, {versions}."
        inner = "\n\n".join(part for part in ("Measured on " + where, self.verdicts(), self._remarks()) if part)
        page.write_text(f"{before}{BEGIN}\n\n{inner}\n\n{END}{after}")

    def save(self, path: Path) -> None:
        """Write the figures as JSON, so that `load` gives this report back."""
        tables = [asdict(timings) | {"base": base} for timings, base in self.tables]
        checks = [asdict(check) | {"met": check.met} for check in self.checks]
        whole = {"machine": machine(), "tables": tables, "checks": checks, "remarks": self.remarks}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what `save` wrote."""
        whole = json.loads(path.read_text())
        tables = [(Timings(t["title"], t["micros"], t["worked"]), t["base"]) for t in whole["tables"]]
        checks = []
        for plain in whole["checks"]:
            del plain["met"]
            plain["spread"] = tuple(plain["spread"]) if plain["spread"] else None
            checks.append(Check(**plain))
        return cls(tables, checks, whole["remarks"])


def timed(work: Callable[[int], object]) -> Callable[[int], Took]:
    """Turn a function that handles n batches into one that says how many seconds that took."""

    def run(n: int) -> Took:
        begin = Took.now()
        work(n)
        return Took.now().since(begin)

    return run


def measure(
    title: str, sides: Sequence[Side], *, rounds: int, slice_seconds: float, warm: float = 0.0, seed: int = 0
) -> Timings:
    """Let all sides take turns, `rounds` times, for at least `slice_seconds` each time.

    A side that fails is an error: a peer that silently drops out would make us look better than we are.
    Before each turn a side runs `warm` times its slice untimed: what it touched long ago has left the caches.
    """
    counts = [_count_for(side, slice_seconds) for side in sides]
    micros: dict[str, list[float]] = {side.name: [] for side in sides}
    worked: dict[str, list[float]] = {side.name: [] for side in sides}
    turns = random.Random(seed)
    gc.collect()
    gc.freeze()  # else each collection walks over all that three frameworks have imported
    for _ in range(rounds):
        for i in turns.sample(range(len(sides)), len(sides)):
            gc.collect()
            if warm:
                sides[i].run(max(1, int(counts[i] * warm)))
            took = sides[i].run(counts[i])
            micros[sides[i].name].append(took.passed / counts[i] * 1e6)
            worked[sides[i].name].append(took.worked / counts[i] * 1e6)
    gc.unfreeze()
    return Timings(title, micros, worked)


def _count_for(side: Side, seconds: float) -> int:
    """How many batches fill a slice of this side; finding out also warms the side up."""
    n = max(side.least, side.multiple)
    n += -n % side.multiple
    side.run(n)
    while (took := side.run(n).passed) < seconds:
        n = max(n + 1, min(n * 8, int(n * seconds / max(took, 1e-9) * 1.2)))
        n += -n % side.multiple
    return n


def _ratio(values: Mapping[str, Sequence[float]], side: str, over: str) -> Spread:
    return Spread.of([a / b for a, b in zip(values[side], values[over], strict=True)])


def machine() -> dict[str, object]:
    """What the figures were measured on, for the reader who compares them with others."""
    versions = {}
    for name in ("numpy", "keras", "jax", "torch", "tensorflow-cpu", "tensorflow", "grain", "pyarrow"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "versions": versions,
    }


def _short(value: float) -> str:
    """The three figures that matter, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
