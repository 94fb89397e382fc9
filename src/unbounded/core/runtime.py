"""Runtime: the one object through which the core uses threads, locks, clocks, random ids and files.

Tests replace it: by a clock that they move, a disk that fails, or a scheduler that decides by a seed which thread runs
next. No other module of the core uses `threading`, `time`, `uuid` or `os` directly.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from unbounded.core.files import Files

_LOWER = 10  # steps of nice: a tenth of the time of a thread of the usual priority


class Event(Protocol):
    """As `threading.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Thread(Protocol):
    """As `threading.Thread`, always a daemon: the process does not wait for it when it exits."""

    @property
    def ident(self) -> int | None: ...
    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Runtime:
    """The operating system's threads, locks, clocks and files."""

    files: Files = Files()
    every_state = False
    """True to make sources take their iterator's state at each position: a test of states that may be incomplete."""

    process_lock: Any = threading.Lock()
    """Guards state shared by all threads of the process, such as which directories it has locked."""

    def time(self) -> float:
        """Seconds since 1970, for arrival times."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps, for durations."""
        return time.perf_counter()

    def wait(self, event: Event, timeout: float | None) -> bool:
        """Wait until the event is set, `timeout` seconds of this runtime's clock at most; return whether it is set."""
        return event.wait(timeout)

    # Locks are those of `threading` without a wrapper: they are taken for each block, so they must be cheap.

    def lock(self) -> Any:
        """As `threading.Lock()`."""
        return threading.Lock()

    def rlock(self) -> Any:
        """As `threading.RLock()`."""
        return threading.RLock()

    def condition(self, lock: Any) -> Any:
        """As `threading.Condition(lock)`."""
        return threading.Condition(lock)

    def event(self) -> Event:
        """As `threading.Event()`."""
        return threading.Event()

    def thread(self, target: Callable[[], object], name: str) -> Thread:
        """A thread, not started yet."""
        return threading.Thread(target=target, name=name, daemon=True)

    def detach(self, target: Callable[[], object]) -> None:
        """Run `target` in a new thread that nobody joins.

        Safe to call from a finalizer: `threading.Thread.start` takes a lock of the `threading` module, which the thread
        that the garbage collector interrupted may hold.
        """
        _thread.start_new_thread(target, ())

    def ident(self) -> int:
        """The id of the calling thread."""
        return threading.get_ident()

    def give_way(self) -> None:
        """Lower the priority of the calling thread for as long as it lives, where the system has one for each thread:
        it gets what other threads leave of the processors."""
        if sys.platform == "linux":
            thread = threading.get_native_id()
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _LOWER)

    def process(self) -> int:
        """The id of this process; it differs after a fork."""
        return os.getpid()

    def unique(self) -> str:
        """32 random hexadecimal digits."""
        return uuid.uuid4().hex


SYSTEM = Runtime()
