"""Plant: simulated sensors with faults whose times are known, to try a detector on.

A sensor has a daily and a weekly cycle, noise, and bursts that are usual for it; a fault is a spike, a burst far beyond
the usual ones, a level shift, a drift, or a stuck sensor. All of it is decided by a seed.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

DAY = 86_400.0
START = datetime.datetime(2024, 1, 1)  # a Monday
NAMES = ("temperature", "pressure", "flow", "power", "vibration", "level", "speed", "requests")
KINDS = ("spike", "burst", "shift", "drift", "stuck")
QUIET = 0.2  # the fraction of the time, at the beginning, without a fault
APART = 10.0  # days between two faults of a sensor, about
NUMBERS = 20_000_000  # the most that are held in memory


@dataclass(frozen=True)
class Fault:
    """One fault: its first and last reading, the sensor, and its kind, one of `KINDS`."""

    first: int
    last: int
    sensor: int
    kind: str


@dataclass(frozen=True)
class Plant:
    """Simulated readings and their faults.

    Args:
        names: the sensors.
        every: seconds between two readings.
        values: the readings, [rows, sensors].
        faults: in order of their beginning.
    """

    names: tuple[str, ...]
    every: float
    values: np.ndarray
    faults: tuple[Fault, ...]

    def moment(self, row: int) -> str:
        """The time of a reading, as `2024-01-31 23:59:00`.

        Args:
            row: its number.
        """
        moment = START + datetime.timedelta(seconds=row * self.every)
        return moment.isoformat(sep=" ", timespec="seconds" if self.every % 1 == 0 else "microseconds")

    def lines(self) -> Iterator[str]:
        """The readings as lines of a CSV file, with its header."""
        yield ",".join(("time", *self.names)) + "\n"
        for row, values in enumerate(self.values):
            yield self.moment(row) + "," + ",".join(f"{value:.6g}" for value in values) + "\n"

    def fault_lines(self) -> Iterator[str]:
        """The faults as lines of a CSV file, with its header."""
        yield "start,end,column,kind\n"
        for fault in self.faults:
            start, end = self.moment(fault.first), self.moment(fault.last)
            yield f"{start},{end},{self.names[fault.sensor]},{fault.kind}\n"


def plant(sensors: int = 8, days: float = 30.0, every: float = 60.0, seed: int = 0) -> Plant:
    """Simulate a plant.

    Args:
        sensors: their number, at least 1.
        days: the length, more than 0.
        every: seconds between two readings, more than 0.
        seed: decides everything, 0 or more.

    Returns:
        Its readings and faults. A sensor's do not depend on the number of sensors.

    Raises:
        ValueError: a number is out of its range, or there would be fewer than 100 readings or more than 20 million
            numbers.

    Example:
        >>> made = plant(sensors=2, days=3, every=600)
        >>> made.names, made.values.shape
        (('temperature', 'pressure'), (432, 2))
    """
    if sensors < 1 or not 0 < days < np.inf or not 0 < every < np.inf or seed < 0:
        raise ValueError(
            f"A plant of {sensors} sensors, {days:g} days, a reading every {every:g} seconds and seed {seed} can't be "
            "simulated: expected at least 1 sensor, more than 0 days and seconds, and a seed of 0 or more."
        )
    rows = int(days * DAY / every)
    if rows < 100:
        raise ValueError(
            f"{days:g} days with a reading every {every:g} seconds are {rows} readings, and at least 100 are expected: "
            "give more days, or fewer seconds."
        )
    if rows * sensors > NUMBERS:
        raise ValueError(
            f"{sensors} sensors with a reading every {every:g} seconds for {days:g} days are {rows * sensors:,} "
            f"numbers, and at most {NUMBERS:,} are simulated: give fewer days or sensors, or more seconds."
        )
    names = tuple(NAMES[i % 8] + (f"_{i // 8 + 1}" if i >= 8 else "") for i in range(sensors))
    values, faults = np.empty((rows, sensors)), []
    for sensor in range(sensors):
        rng = np.random.default_rng([seed, sensor])
        values[:, sensor], its = _sensor(rng, rows, every, sensor)
        faults += its
    faults.sort(key=lambda fault: (fault.first, fault.sensor))
    return Plant(names, every, values, tuple(faults))


def _sensor(rng: np.random.Generator, rows: int, every: float, sensor: int) -> tuple[np.ndarray, list[Fault]]:
    """The readings of one sensor, and its faults."""
    time = every * np.arange(rows)
    day, week = 2 * np.pi * time / DAY, time // DAY % 7
    unit = rng.uniform(0.5, 5.0)
    phase = rng.uniform(0, 2 * np.pi)
    value = rng.uniform(0.5, 4.0) * (np.sin(day + phase) + 0.3 * np.sin(2 * day + 2 * phase))
    value -= rng.uniform(0.0, 2.0) * (week >= 5)
    value += 0.4 * rng.normal(size=rows)
    usual = rng.uniform(1.5, 3.0)
    for at in np.flatnonzero(rng.random(rows) < 2.0 * every / DAY):
        value[at : at + _readings(rng, 300, 1_800, every)] += usual * rng.uniform(0.5, 1.0)
    spread = float(np.std(value))
    faults = []
    count = max(1, round((1 - QUIET) * rows * every / DAY / APART))
    slots = np.linspace(QUIET * rows, rows, count + 1)
    for begin, end in itertools.pairwise(slots):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        first = int(rng.uniform(begin, begin + 0.6 * (end - begin)))
        longest = max(1, int(end) - first - 1)
        part = slice(first, first + min(longest, _duration(rng, kind, every)))
        length = len(value[part])
        sign = rng.choice([-1.0, 1.0])
        if kind == "stuck":
            value[part] = value[first]
        elif kind == "drift":
            value[part] += sign * np.linspace(0.0, 6.0 * spread, length)
        else:
            size = {"spike": 8.0, "burst": 5.0, "shift": 4.0}[kind] * rng.uniform(1.0, 1.5) * spread
            value[part] += sign * size if kind != "burst" else size * rng.uniform(0.6, 1.0, length)
        faults.append(Fault(first, first + length - 1, sensor, kind))
    return 10 * unit * (1 + sensor % 3) + unit * value, faults


def _readings(rng: np.random.Generator, shortest: float, longest: float, every: float) -> int:
    """A number of readings within a range of seconds."""
    return max(1, round(rng.uniform(shortest, longest) / every))


def _duration(rng: np.random.Generator, kind: str, every: float) -> int:
    shortest, longest = {
        "spike": (60, 180),
        "burst": (1_800, 7_200),
        "shift": (0.5 * DAY, DAY),
        "drift": (DAY, 3 * DAY),
        "stuck": (0.25 * DAY, DAY),
    }[kind]
    return _readings(rng, shortest, longest, every)
