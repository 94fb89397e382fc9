"""Column: the name, the unit and the smallest notable change of a column of readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Column:
    """A column of readings.

    Args:
        name: the column's name.
        unit: the unit, written after a number; ``""`` for none. ``"%"`` and ``"B/s"`` have their own formats.
        least: the smallest change, in this unit, that may raise an alarm.
        bursts: True for values over many orders of magnitude, such as rates of bytes: the model then sees their
            logarithm.

    Example:
        >>> Column("cpu", "%").change(61.7)
        'cpu +62 points'
        >>> Column("net_in", "B/s").change(3_400_000.0)
        'net_in +3.4 MB/s'
    """

    name: str
    unit: str = ""
    least: float = 0.0
    bursts: bool = False

    def reading(self, value: float) -> str:
        """A reading with its unit.

        Args:
            value: in this column's unit.

        Returns:
            Such as ``12 %``, ``3.4 MB/s`` or ``71.2``.
        """
        if self.unit == "%":
            return f"{_short(value)} %"
        return _with_prefix(value) + "B/s" if self.unit == "B/s" else f"{value:.4g} {self.unit}".rstrip()

    def change(self, by: float) -> str:
        """A change with its sign and unit, after the column's name.

        Args:
            by: the difference of two readings, in this column's unit.

        Returns:
            Such as ``cpu +62 points``: a change of a percentage is in points.
        """
        sign = "+" if by >= 0 else "−"
        size = abs(by)
        if self.unit == "%":
            return f"{self.name} {sign}{_short(size)} points"
        return f"{self.name} {sign}{self.reading(size)}"


VITALS = (
    Column("cpu", "%", least=10.0),
    Column("memory", "%", least=2.0),
    Column("load", least=1.0),
    Column("disk_read", "B/s", least=1e7, bursts=True),
    Column("disk_write", "B/s", least=1e7, bursts=True),
    Column("net_in", "B/s", least=1e6, bursts=True),
    Column("net_out", "B/s", least=1e6, bursts=True),
)
"""The columns of ``ub.from_machine()`` besides ``time``, in order."""


def scaled(columns: Sequence[Column], values: np.ndarray) -> np.ndarray:
    """Readings on the scale of the model: bursts by their logarithm.

    Args:
        columns: the columns.
        values: readings in their own units, [..., columns].

    Returns:
        [..., columns], float32; a column of bursts as log(1 + value), with its sign.

    Example:
        >>> scaled([Column("cpu", "%"), Column("net_in", bursts=True)], np.array([[50.0, 0.0]])).tolist()
        [[50.0, 0.0]]
    """
    bursts = np.array([column.bursts for column in columns])
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are left out
        return np.where(bursts, np.copysign(np.log1p(np.abs(values)), values), values).astype(np.float32)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 9.95 or value == 0 else f"{value:.1f}"


def _with_prefix(value: float) -> str:
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.0f} "
