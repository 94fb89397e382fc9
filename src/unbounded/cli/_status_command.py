"""`unbounded status`: where a run is, read from its directory, whether a process trains it or not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unbounded as ub
from unbounded.cli._view import duration
from unbounded.detect._status_file import read_status
from unbounded.detect._training import CHECKPOINTS

EVERY = 1.0  # seconds
SHOWN, MISSING = 0, 2
INTERRUPTED = 130


def show_status(
    directory: Path,
    *,
    follow: bool = False,
    as_json: bool = False,
    pause: Callable[[float], None] = clock.sleep,
) -> int:
    """Print where a run is.

    Args:
        directory: the run's.
        follow: print it again each second.
        as_json: print an object, and with `follow` one a line.
        pause: waits for some seconds.

    Returns:
        The process's exit code.
    """
    if read_status(directory) is None:
        there = "no run in" if directory.is_dir() else "no directory"
        print(f"There is {there} {directory}. A run is begun by: unbounded train SOURCE --run DIR", file=sys.stderr)
        return MISSING
    try:
        if follow and not as_json and sys.stdout.isatty() and importlib.util.find_spec("rich"):
            _stay(directory, pause)
        while True:
            status = status_of(directory)
            print(json.dumps(status, indent=None if follow else 1) if as_json else in_lines(status), flush=True)
            if not follow:
                return SHOWN
            if not as_json:
                print(flush=True)
            pause(EVERY)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads the output any more. The interpreter would try to flush the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SHOWN


def _stay(directory: Path, pause: Callable[[float], None]) -> None:
    """Show it in its place in the terminal, until Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    with Live(Text(in_lines(status_of(directory))), auto_refresh=False) as live:
        while True:
            pause(EVERY)
            live.update(Text(in_lines(status_of(directory))), refresh=True)


def status_of(directory: Path) -> dict[str, Any]:
    """Where a run is, as plain data.

    Args:
        directory: the run's.

    Returns:
        What the run wrote last, whether a process trains it (``running``), its directory, and its newest checkpoint.
    """
    status = {"run": str(directory), **(read_status(directory) or {})}
    folder = directory / CHECKPOINTS
    status["running"] = is_written(folder)
    saved = max(ub.saved_steps(folder), default=None) if folder.is_dir() else None
    status["checkpoint_step"], status["checkpoint_time"] = saved, None
    if saved is not None:
        times = [path.stat().st_mtime for path in folder.glob(f"step-{saved:012d}*") if path.is_dir()]
        status["checkpoint_time"] = max(times, default=None)
    if not status["running"]:
        # Figures of a moment that is over.
        status["epoch_seconds_left"] = status["readings_a_second"] = None
    return status


def is_written(folder: Path) -> bool | None:
    """True if a process holds the lock of a directory of checkpoints, which is not taken here.

    Args:
        folder: the directory.

    Returns:
        None where the system does not tell.
    """
    try:
        import fcntl
        import struct
    except ImportError:  # Windows
        return None
    try:
        with (folder / ".lock").open("rb") as file:
            # struct flock: type, whence, start, length and process; on macOS and the BSDs in another order.
            linux = sys.platform.startswith("linux")
            form, values = ("hhqqi4x", (fcntl.F_WRLCK, 0, 0, 0, 0)) if linux else ("qqihh", (0, 0, 0, fcntl.F_WRLCK, 0))
            # A write lock may be asked about, though not taken, of a file that is open for reading.
            found = struct.unpack(form, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(form, *values)))
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return bool(found[0 if linux else 3] != fcntl.F_UNLCK)


def in_lines(status: dict[str, Any]) -> str:
    """A status as lines of text.

    Args:
        status: from `status_of`.

    Returns:
        A line for each figure.
    """
    now = clock.time()
    state = status.get("state")
    if status["running"]:
        doing = "running" if state == "training" else "starting"
        if (quiet := now - status.get("written", now)) > 10:
            doing += f", no step for {duration(quiet)}"
    elif status["running"] is None:
        doing = f"last written {duration(now - status.get('written', now))} ago"
    else:
        doing = "not running" + (", ended" if state == "ended" else ", killed" if state == "training" else "")
    lines = [("run", f"{status['run']}: {doing}"), ("source", str(status.get("source", "?")))]
    if "scored" in status:
        lines.append(("position", f"{status['scored']:,} readings scored{_where(status)}"))
        if status["readings_a_second"] is not None:
            lines.append(("rate", f"{status['readings_a_second']:,.4g} readings a second"))
        left = status["epoch_seconds_left"]
        to_end = f", {duration(left)} to its end" if left is not None else ""
        lines.append(("epoch", f"{status['epoch']:,}, {status['share_of_epoch']:.0%} of it{to_end}"))
        lines.append(("steps", f"{status['steps']:,} of {status['rows_trained']:,} rows"))
        lost = {name: status[key] for name, key in _LOST if status.get(key)}
        lines.append(("lost rows", ", ".join(f"{count:,} {name}" for name, count in lost.items()) or "none"))
    lines.append(("restarts", f"{max(0, status.get('starts', 1) - 1):,}"))
    if status["checkpoint_step"] is None:
        lines.append(("checkpoint", "none yet"))
    else:
        age = "" if status["checkpoint_time"] is None else f", {duration(now - status['checkpoint_time'])} ago"
        lines.append(("checkpoint", f"step {status['checkpoint_step']:,}{age}"))
    last = status.get("last_alarm")
    key = f"{last['key']}: " if last and last["key"] else ""
    newest = f"; the newest at {_to_seconds(last['time'])}: {key}{last['words']}" if last else ""
    lines.append(("alarms", f"{status.get('alarms', 0):,}{newest}"))
    return "\n".join(f"{name:<11} {words}" for name, words in lines)


def _where(status: dict[str, Any]) -> str:
    """The newest reading that was scored."""
    if "row" not in status:
        return ""
    # Readings that can't be counted from a beginning have the microseconds of the clock as their numbers.
    counted = status["row"] < CLOCK
    time = "" if status["time"] == str(status["row"]) else _to_seconds(status["time"])
    words = ", ".join([*([f"row {status['row']:,}"] if counted else []), *([time] if time else [])])
    return f" ({words})" if words else ""


def _to_seconds(time: str) -> str:
    """A written time without fractions of a second."""
    return re.sub(r"(:\d\d)\.\d+", r"\1", time)


CLOCK = 10**14
_LOST = (("not read in time", "missed"), ("dropped", "dropped"), ("without a number, left out", "left_out"))
