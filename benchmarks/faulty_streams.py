"""Simulated streams with labelled faults, of the kinds that monitoring meets, for the benchmark of the detector.

Each kind is a function of a random generator that returns times, values and the labelled windows. As in the Numenta
Anomaly Benchmark, the windows of a stream cover a tenth of it together, each centred on its fault, and no fault lies in
the first fifth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DAY = 86_400.0
START = 1_393_632_000.0  # a Saturday


@dataclass(frozen=True)
class FaultyStream:
    """A stream: times in seconds, [rows]; values, [rows]; and the labelled windows, (first row, last row) each."""

    kind: str
    time: np.ndarray
    value: np.ndarray
    windows: tuple[tuple[int, int], ...]


def corpus(seeds: range) -> list[FaultyStream]:
    """One stream of each kind for each seed."""
    return [make(kind, seed) for seed in seeds for kind in KINDS]


def make(kind: str, seed: int) -> FaultyStream:
    """The stream of a kind that a seed decides."""
    rng = np.random.default_rng([seed, *kind.encode()])
    time, value, faults = KINDS[kind](rng)
    half = int(0.05 * len(time) / max(1, len(faults)))
    windows = tuple((max(0, at - half), min(len(time) - 1, at + half)) for at in sorted(faults))
    return FaultyStream(kind, time, value, windows)


Made = tuple[np.ndarray, np.ndarray, list[int]]


def _times(rows: int, every: float, start: float = START) -> np.ndarray:
    return start + every * np.arange(rows)


def _places(rng: np.random.Generator, rows: int, faults: int) -> list[int]:
    """Rows of faults, far from each other, after the first fifth."""
    slots = np.linspace(0.2 * rows, 0.97 * rows, faults + 1)
    return [int(rng.uniform(a + 0.15 * (b - a), b - 0.3 * (b - a))) for a, b in itertools.pairwise(slots)]


def _hour(time: np.ndarray) -> np.ndarray:
    return (time % DAY) / 3600.0


def _bump(time: np.ndarray, centre: float, width: float) -> np.ndarray:
    away = (_hour(time) - centre + 12) % 24 - 12
    return np.exp(-0.5 * (away / width) ** 2)


def _weekday(time: np.ndarray) -> np.ndarray:
    return (time // DAY + 3) % 7  # 0: Monday


def _walk(rng: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """A process that returns to its mean, of unit variance."""
    keep = 1.0 - 1.0 / memory
    noise = rng.normal(size=rows) * np.sqrt(1 - keep * keep)
    out = np.empty(rows)
    last = rng.normal()
    for i, one in enumerate(noise.tolist()):
        last = keep * last + one
        out[i] = last
    return out


def bursty_counts(rng: np.random.Generator) -> Made:
    """Mentions of a company, every five minutes: over-dispersed, with a daily cycle and bursts of heavy-tailed size."""
    rows = 9_000
    time = _times(rows, 300.0)
    rate = rng.choice([3.0, 15.0, 60.0, 300.0]) * (0.15 + _bump(time, rng.uniform(12, 20), 4.0))
    rate = rate * np.where(_weekday(time) >= 5, 0.7, 1.0) * np.exp(0.25 * _walk(rng, rows, 100))
    base = rate.mean()
    for at in np.flatnonzero(rng.random(rows) < 0.004):
        length = int(rng.integers(2, 30))
        burst = base * (rng.pareto(1.8) + 0.3) * np.exp(-np.arange(length) / max(1.0, length / 4))
        rate[at : at + length] += burst[: rows - at]
    faults = _places(rng, rows, int(rng.integers(2, 5)))
    for at in faults:
        what = rng.choice(["burst", "burst", "raised", "silence"])
        length = int(rng.integers(20, 150))
        if what == "burst":
            burst = rate.max() * rng.uniform(1.3, 3.0) * np.exp(-np.arange(length) / (length / 4))
            rate[at : at + length] += burst[: rows - at]
        elif what == "raised":
            rate[at : at + length] *= rng.uniform(4, 8)
        else:
            rate[at : at + 2 * length] *= 0.02
    shape = rng.choice([2.0, 6.0])
    value = rng.poisson(rate * rng.gamma(shape, 1 / shape, rows)).astype(float)
    return time, value, faults


def cpu(rng: np.random.Generator) -> Made:
    """CPU of a server in per cent: levels that change now and then, and spikes of known size."""
    rows = 4_032
    time = _times(rows, 300.0)
    level = rng.uniform(5, 50)
    value = level + rng.uniform(0.3, 3) * rng.normal(size=rows) + rng.uniform(0, 2) * _walk(rng, rows, 60)
    spike = rng.uniform(3, 15)
    for at in np.flatnonzero(rng.random(rows) < rng.choice([0.0, 0.004, 0.02])):
        value[at : at + int(rng.integers(1, 4))] += spike * rng.uniform(0.5, 1.2)
    faults = _places(rng, rows, int(rng.integers(1, 3)))
    for at in faults:
        what = rng.choice(["up", "down", "spike", "ramp", "noise"])
        size = rng.uniform(12, 35)
        if what == "up":
            value[at:] += size
        elif what == "down":
            value[at : at + int(rng.integers(50, 400))] -= min(size, 0.8 * level)
        elif what == "spike":
            value[at : at + int(rng.integers(1, 6))] += 2 * size
        elif what == "ramp":
            value[at : at + 200] += np.linspace(0, size, 200)[: rows - at]
        else:
            value[at : at + 150] += size / 2 * rng.normal(size=len(value[at : at + 150]))
    return time, np.clip(value, 0, 100), faults


def network(rng: np.random.Generator) -> Made:
    """Bytes a second of a server: small traffic, jobs at fixed intervals, and bursts over orders of magnitude."""
    rows = 4_032
    time = _times(rows, 300.0)
    value = rng.gamma(2.0, 1.0, rows) * 10 ** rng.uniform(3, 5)
    every = int(rng.choice([12, 36, 144, 288]))
    job = np.median(value) * rng.uniform(10, 100)
    for at in range(int(rng.integers(0, every)), rows, every):
        at += int(rng.integers(-1, 2))
        value[max(0, at) : at + int(rng.integers(1, 4))] += job * rng.lognormal(0, 0.2)
    faults = _places(rng, rows, int(rng.integers(1, 4)))
    for at in faults:
        length = int(rng.integers(1, 40))
        value[at : at + length] += job * rng.uniform(3, 10)
    return time, value, faults


def clicks(rng: np.random.Generator) -> Made:
    """A price or a rate of clicks, hourly: a skewed value with a weak daily cycle and lone spikes."""
    rows = 1_600
    time = _times(rows, 3600.0)
    value = np.exp(rng.uniform(0.1, 0.3) * rng.normal(size=rows) + 0.15 * _walk(rng, rows, 48))
    value *= 1 + rng.uniform(0, 0.4) * _bump(time, 18, 4)
    for at in np.flatnonzero(rng.random(rows) < rng.choice([0.0, 0.005, 0.01])):
        value[at] *= rng.uniform(1.5, 3.0)
    faults = _places(rng, rows, int(rng.integers(1, 4)))
    for at in faults:
        what = rng.choice(["spike", "raised", "zero"])
        length = 1 if what == "spike" else int(rng.integers(6, 40))
        value[at : at + length] *= {"spike": rng.uniform(5, 12), "raised": rng.uniform(1.8, 3), "zero": 0.05}[what]
    return time, value * rng.uniform(0.05, 5), faults


def traffic(rng: np.random.Generator) -> Made:
    """Travel time or occupancy of a road, at irregular times with gaps: rush hours, and congestion now and then."""
    rows = 2_500
    steps = rng.choice([300.0, 600.0, 900.0], size=rows, p=[0.7, 0.2, 0.1])
    steps[rng.random(rows) < 0.01] += rng.uniform(1, 8) * 3600
    time = START + np.cumsum(steps)
    rush = (_bump(time, 8, 1.0) + 1.2 * _bump(time, 17, 1.3)) * np.where(_weekday(time) >= 5, 0.2, 1.0)
    value = (1 + rush * rng.uniform(0.5, 2)) * np.exp(0.12 * rng.normal(size=rows) + 0.1 * _walk(rng, rows, 20))
    for at in np.flatnonzero(rng.random(rows) < 0.003):
        value[at : at + int(rng.integers(2, 8))] *= rng.uniform(1.3, 2.2)
    faults = _places(rng, rows, int(rng.integers(1, 4)))
    for at in faults:
        length = int(rng.integers(8, 50))
        value[at : at + length] *= rng.choice([0.1, rng.uniform(2.5, 5)])
    return time, value * rng.uniform(5, 100), faults


def slow_season(rng: np.random.Generator) -> Made:
    """Temperature of a room or a machine, over months: a slow season wider than its faults, with days and weeks."""
    hourly = rng.random() < 0.5
    rows, every = (7_000, 3600.0) if hourly else (12_000, 300.0)
    time = _times(rows, every)
    day = DAY / every
    season = 4.0 * np.sin(2 * np.pi * np.arange(rows) / (rows * rng.uniform(0.4, 1.2)) + rng.uniform(0, 6))
    value = season + rng.uniform(0.5, 1.5) * np.sin(2 * np.pi * _hour(time) / 24) + 0.4 * rng.normal(size=rows)
    value += 1.0 * _walk(rng, rows, day) + np.where(_weekday(time) >= 5, rng.uniform(0, 1), 0.0)
    faults = _places(rng, rows, int(rng.integers(2, 5)))
    for at in faults:
        length = int(rng.uniform(0.7, 2.0) * day)
        what = rng.choice(["shift", "shift", "drop", "noise", "stuck"])
        part = slice(at, at + length)
        if what == "shift":
            value[part] += rng.choice([-1, 1]) * rng.uniform(2, 5)
        elif what == "drop":
            value[at : at + int(day / 3)] -= rng.uniform(4, 9)
        elif what == "noise":
            value[part] += rng.uniform(1, 2.5) * rng.normal(size=len(value[part]))
        else:
            value[part] = value[at]
    return time, 70 + 2 * value, faults


def demand(rng: np.random.Generator) -> Made:
    """Passengers every half hour: a strong cycle of days and weeks; holidays and storms are the faults."""
    rows = 6_000
    time = _times(rows, 1800.0)
    weekend = _weekday(time) >= 5
    shape = 0.25 + _bump(time, 8.5, 2) * np.where(weekend, 0.3, 1) + _bump(time, 19, 3.5) + _bump(time, 0, 2) * weekend
    factor = 1 + 0.05 * rng.normal(size=rows) + 0.05 * _walk(rng, rows, 96)
    faults = _places(rng, rows, int(rng.integers(3, 6)))
    for at in faults:
        what = rng.choice(["holiday", "storm", "event"])
        if what == "holiday":
            factor[at : at + 48] *= 0.6
        elif what == "storm":
            factor[at : at + 36] *= 0.2
        else:
            factor[at : at + 10] *= 1.7
    return time, np.round(15_000 * shape * factor), faults


def square_wave(rng: np.random.Generator) -> Made:
    """A daily square wave; a day is flat, higher, lower, or noisier."""
    rows = 4_032
    time = _times(rows, 300.0)
    on = (_hour(time) > 9) & (_hour(time) < 18)
    noise = rng.choice([0.2, 1.0, 3.0])
    low, high = 20.0, rng.uniform(50, 90)
    value = np.where(on, high, low)
    days = [int(rng.integers(5, 13))] if rng.random() < 0.7 else []
    faults = []
    for day in days:
        part = (time >= START + day * DAY) & (time < START + (day + 1) * DAY) & on
        value[part] = {"flat": low, "higher": high + 35, "lower": 0.5 * (low + high), "below": low - 18}[
            str(rng.choice(["flat", "higher", "lower", "below"]))
        ]
        faults.append(int(np.flatnonzero(part).mean()))
    return time, value + noise * rng.normal(size=rows), faults


def spikes(rng: np.random.Generator) -> Made:
    """Spikes over a flat line, at random or twice a day; for a day there are more, or higher ones, or none."""
    rows = 4_032
    time = _times(rows, 300.0)
    chance, regular = rng.uniform(0.01, 0.04), rng.random() < 0.4
    hit = np.arange(rows) % 144 < 3 if regular else rng.random(rows) < chance
    value = 20 + rng.choice([0.0, 0.5, 2.0]) * rng.normal(size=rows) + np.where(hit, rng.uniform(30, 60, rows), 0)
    (at,) = _places(rng, rows, 1)
    part = slice(at, at + 200)
    what = str(rng.choice(["more", "higher", "none"] if regular else ["more", "higher"]))
    if what == "more":
        value[part] = np.where(rng.random(200) < 0.25, 20 + rng.uniform(30, 60, 200), value[part])
    elif what == "higher":
        value[part] = 20 + 2.2 * (value[part] - 20)
    else:
        value[at : at + 300] = 20
    return time, value, [at + 60]


def latency(rng: np.random.Generator) -> Made:
    """Response times, heavy-tailed, every five minutes; they rise for some hours, or one is far longer than any."""
    rows = 4_032
    time = _times(rows, 300.0)
    value = 40 + 5 * rng.gamma(1.0, 1.0, rows) + np.where(rng.random(rows) < 0.005, rng.pareto(2.5, rows) * 15, 0)
    faults = _places(rng, rows, int(rng.integers(1, 4)))
    for at in faults:
        if rng.random() < 0.5:
            value[at] = value.max() * rng.uniform(1.3, 2.5)
        else:
            length = int(rng.integers(15, 60))
            value[at : at + length] += rng.uniform(15, 40) * rng.random(length)
    return time, value, faults


def idle(rng: np.random.Generator) -> Made:
    """Use that comes in sessions, with nothing between; a session of another kind is the fault."""
    rows = 4_500
    time = _times(rows, 300.0)
    value = np.zeros(rows)
    busy = (_bump(time, 14, 4) > 0.4) & (_weekday(time) < 5)
    for at in np.flatnonzero(busy & (rng.random(rows) < 0.06)):
        value[at : at + int(rng.integers(1, 6))] = rng.gamma(3, 0.3)
    faults = _places(rng, rows, int(rng.integers(1, 3)))
    for at in faults:
        length = int(rng.integers(10, 80))
        value[at : at + length] = rng.uniform(1.2, 4) * rng.gamma(30, 1 / 30, length)
    return time, value, faults


def quiet(rng: np.random.Generator) -> Made:
    """Nothing is wrong: a flat line, noise, a smooth or a noisy wave, steps of work, or a slow drift."""
    rows = 4_032
    time = _times(rows, 300.0)
    what = str(rng.choice(["flat", "noise", "wave", "square", "drift", "walk"]))
    noise = rng.normal(size=rows)
    value = {
        "flat": np.full(rows, 45.0),
        "noise": 20 + 3 * noise,
        "wave": 50 + 30 * np.sin(2 * np.pi * _hour(time) / 24) + rng.choice([0.0, 0.5, 2.0]) * noise,
        "square": np.where((_hour(time) > 9) & (_hour(time) < 18), 80.0, 20.0) + rng.choice([0.0, 1.0]) * noise,
        "drift": 20 + 0.004 * np.arange(rows) + noise,
        "walk": 50 + 5 * _walk(rng, rows, 500) + 0.5 * noise,
    }[what]
    return time, value, []


KINDS: dict[str, Callable[[np.random.Generator], Made]] = {
    one.__name__: one
    for one in (
        bursty_counts,
        cpu,
        network,
        clicks,
        traffic,
        slow_season,
        demand,
        square_wave,
        spikes,
        latency,
        idle,
        quiet,
    )
}
