"""`unbounded simulate`: writes the readings of a simulated plant, and the times of its faults beside them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from unbounded.detect._plant import plant

WRITTEN, SENTENCE = 0, 2
UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3_600.0}


def simulate(path: Path, *, sensors: int, days: float, every: str, seed: int, force: bool) -> int:
    """Write the files, and print a line about each; or a sentence about what to change.

    Args:
        path: the CSV file of the readings; that of the faults has `.faults` before its suffix.
        sensors: the number of sensors.
        days: the length.
        every: the time between readings, such as `60s`.
        seed: decides the readings.
        force: True to replace files that exist.

    Returns:
        The process's exit code.
    """
    try:
        _simulate(path, sensors, days, every, seed, force)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return SENTENCE
    return WRITTEN


def _simulate(path: Path, sensors: int, days: float, every: str, seed: int, force: bool) -> None:
    if path.suffix != ".csv":
        raise ValueError(f"{path} does not end with .csv, as a file of readings does: give a name such as plant.csv.")
    beside = path.with_suffix(".faults.csv")
    for one in (path, beside):
        if one.exists() and not force:
            raise ValueError(f"{one} exists, and is not overwritten: give another name, or --force to replace it.")
    made = plant(sensors, days, _seconds(every), seed)
    _write(path, made.lines())
    _write(beside, made.fault_lines())
    print(
        f"{len(made.values):,} readings of {sensors} sensors are in {path}, and {len(made.faults)} faults in {beside}"
    )


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+)(s|min|h|)", text)
    try:
        number = float(found.group(1)) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or number <= 0:
        raise ValueError(f"{text!r} is no time between readings: expected seconds, minutes or hours, as 60s, 5min, 1h.")
    return number * UNITS[found.group(2)]


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write a file under another name first, so that no interruption leaves half of it."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is no directory: make it, or give another path.")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
