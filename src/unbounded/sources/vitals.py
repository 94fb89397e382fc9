"""One reading of this computer's vitals: CPU, memory, load, and disk and network rates.

The operating system's counters only grow, so a rate is the difference of two readings of the counters. When to read is
left to the source (`machine`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

COLUMNS: MappingProxyType[str, str] = MappingProxyType(
    {
        "cpu": "%",
        "memory": "%",
        "load": "",
        "disk_read": "B/s",
        "disk_write": "B/s",
        "net_in": "B/s",
        "net_out": "B/s",
    }
)
"""The columns of a reading besides ``time``, in order, with their units."""


@dataclass(frozen=True, slots=True)
class SystemCounters:
    """The operating system's counters at one moment.

    ``time`` is in seconds of the clock that was passed in; ``cpu_busy`` and ``cpu_all`` are seconds summed over all
    cores; the disk and network counters are bytes.
    """

    time: float
    cpu_busy: float
    cpu_all: float
    disk_read: int
    disk_written: int
    net_received: int
    net_sent: int


def read_counters(now: float) -> SystemCounters:
    """Read the counters once.

    Args:
        now: the time to put into them, in seconds.

    Returns:
        The counters. On a machine without disk or network counters (some containers), these are zero.

    Raises:
        ModuleNotFoundError: psutil is not installed.

    Example:
        >>> read_counters(now=0.0).time
        0.0
    """
    psutil = _psutil()
    times = psutil.cpu_times()
    # On Linux, `user` and `nice` include the guests' time: adding it would count it twice.
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
    return SystemCounters(
        time=now,
        cpu_busy=every - idle,
        cpu_all=every,
        disk_read=disk.read_bytes if disk else 0,
        disk_written=disk.write_bytes if disk else 0,
        net_received=net.bytes_recv if net else 0,
        net_sent=net.bytes_sent if net else 0,
    )


def read_vitals(
    previous: SystemCounters | None, clock: Callable[[], float] = time.time
) -> tuple[dict[str, np.ndarray], SystemCounters]:
    """Read this computer's vitals once.

    Args:
        previous: the counters from the reading before this one; ``None`` at the first.
        clock: returns the time in seconds, for the ``time`` column.

    Returns:
        The reading, and the counters to pass to the next call. The reading is a row of columns, each of shape [1]:
        ``time`` (float64, seconds of the clock), then float32: ``cpu`` (% of all cores since the last reading),
        ``memory`` (% in use), ``load`` (the mean number of running and waiting processes over the last minute),
        ``disk_read``, ``disk_write``, ``net_in`` and ``net_out`` (bytes a second since the last reading). The first
        reading, and one whose clock has not advanced, has columns of shape [0], since a rate needs two times.

    Raises:
        ModuleNotFoundError: psutil is not installed.

    Example:
        >>> seconds = iter([0.0, 0.1])
        >>> nothing, counters = read_vitals(None, clock=lambda: next(seconds))
        >>> reading, counters = read_vitals(counters, clock=lambda: next(seconds))
        >>> len(nothing["cpu"]), len(reading["cpu"]), float(reading["time"][0])
        (0, 1, 0.1)
    """
    now = read_counters(clock())
    if previous is None or now.time <= previous.time:
        # A clock that was set back gives no rate; the next reading is relative to the new counters.
        return _row(None), now
    psutil = _psutil()
    seconds = now.time - previous.time
    cores = now.cpu_all - previous.cpu_all
    return _row(
        [
            now.time,
            100.0 * _share(now.cpu_busy - previous.cpu_busy, cores),
            psutil.virtual_memory().percent,
            _load(psutil),
            max(0, now.disk_read - previous.disk_read) / seconds,
            max(0, now.disk_written - previous.disk_written) / seconds,
            max(0, now.net_received - previous.net_received) / seconds,
            max(0, now.net_sent - previous.net_sent) / seconds,
        ]
    ), now


def _row(values: list[float] | None) -> dict[str, np.ndarray]:
    names = ["time", *COLUMNS]
    cells = [[]] * len(names) if values is None else [[value] for value in values]
    return {
        name: np.asarray(cell, dtype=np.float64 if name == "time" else np.float32)
        for name, cell in zip(names, cells, strict=True)
    }


def _share(part: float, whole: float) -> float:
    # The kernel counts in ticks of 10 ms and corrects itself: over a short time a difference may be 0 or negative.
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def _load(psutil: Any) -> float:
    # The system call if there is one: psutil's substitute on Windows starts a thread.
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else psutil.getloadavg()[0]


def _psutil() -> Any:
    try:
        import psutil
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "This computer's vitals are read with psutil, which is not installed: pip install 'unbounded[machine]'."
        ) from error
    return psutil
