"""Runtime: the one object through which the core has threads, locks, the time, random ids and files.

A test puts another in its place: a clock that it moves, a disk that fails, a scheduler that decides by a seed which
thread runs next. Nothing in the core uses the modules behind it (`threading`, `time`, `uuid`, `os`) itself.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from unbounded.core.files import Files


class Event(Protocol):
    """As `threading.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


class Thread(Protocol):
    """As `threading.Thread`; the process does not wait for it at its end."""

    @property
    def ident(self) -> int | None: ...
    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


class Runtime:
    """The machine's own threads, locks, time and files."""

    files: Files = Files()
    every_state = False
    """Whether a source takes its iterator's state for each position: for tests of states that may lack something."""

    process_lock: Any = threading.Lock()
    """Guards what all threads of this process share, whatever they are at work on: which directories it has locked."""

    def time(self) -> float:
        """Seconds since 1970: for when rows arrived."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump: for how long something took."""
        return time.perf_counter()

    def wait(self, event: Event, timeout: float | None) -> bool:
        """Until the event is set, `timeout` seconds of this runtime's time at most; says whether it is."""
        return event.wait(timeout)

    # The locks and the rest are those of `threading`, without a wrapper: what is locked for each block must be cheap

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
        """A thread that is not started yet."""
        return threading.Thread(target=target, name=name, daemon=True)

    def detach(self, target: Callable[[], object]) -> None:
        """Have something done in a thread of its own, of which nobody hears again.

        May be called where the collector runs: `threading.Thread.start` takes a lock of `threading`'s, which the
        thread that the collector has interrupted may hold.
        """
        _thread.start_new_thread(target, ())

    def ident(self) -> int:
        """The number of the thread that asks."""
        return threading.get_ident()

    def process(self) -> int:
        """The number of this process: another one after a fork."""
        return os.getpid()

    def unique(self) -> str:
        """32 hexadecimal digits that nobody else gets."""
        return uuid.uuid4().hex


SYSTEM = Runtime()
