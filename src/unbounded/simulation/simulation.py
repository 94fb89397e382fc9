"""Simulation: a machine whose threads, time, files and crashes a seed decides."""

from __future__ import annotations

import gc
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from unbounded.core.runtime import Event, Runtime, Thread
from unbounded.simulation.disk import Disk, Folder
from unbounded.simulation.primitives import SimulatedCondition, SimulatedEvent, SimulatedLock, SimulatedThread
from unbounded.simulation.scheduler import Killed, Scheduler
from unbounded.simulation.simulated_files import Faults, SimulatedFiles

# Process numbers of all simulations: a process recognises its own objects by them.
_processes = itertools.count(100_000_000)
_EPOCH = 1_700_000_000.0  # seconds since 1970 at which a simulation begins


class Simulation(Runtime):
    """A runtime under which a test runs a process, its crash, and the process after it, as a seed decides.

    Threads are real, and run one at a time. At each lock, wait, clock reading and file call the seed decides which runs
    next. Time advances when all wait. A deadlock is an AssertionError that tells which thread waits for what. Files are
    in memory, and outlive a process as `Faults` describes. Equal seeds give equal runs, call by call, as long as the
    code under test uses no other threads, locks or clocks.

    Args:
        seed: decides.
        faults: the probabilities of faults.
        lines: suffixes of module paths (`"core/prefetcher.py"`) in which each line is a switch, too, to find state that
            threads share without a lock. Slow.

    Example:
        >>> import numpy as np, unbounded as ub
        >>> simulation = Simulation(seed=7)
        >>> seen = []
        >>> def process():
        ...     stream = ub.from_arrays(np.arange(6), passes=1).map(lambda rows: rows * 2, workers=2).batch(3)
        ...     with ub.Feed(stream, runtime=simulation) as feed:
        ...         seen.extend(batch.tolist() for batch in feed.batches())
        >>> simulation.run(process)
        True
        >>> sorted(sum(seen, [])) == [0, 2, 4, 6, 8, 10]
        True
    """

    files: SimulatedFiles

    def __init__(self, seed: int, faults: Faults | None = None, *, lines: Sequence[str] = ()) -> None:
        self.seed = seed
        self.faults = Faults() if faults is None else faults
        self._rng = random.Random(seed)
        self._lines = tuple(lines)
        self._disk = Disk()
        self._locks: dict[int, SimulatedFiles] = {}
        self._numbers = itertools.count(1000)
        self._trace = 0
        self._running = False
        """True while a process runs."""
        self._failure: str | None = None
        self.was_power_cut = False
        """True if the last process was killed by a power cut."""
        self._begin(0.0, None)

    def _begin(self, now: float, kill_at: int | None) -> None:
        """A new process on the same machine."""
        self._process = next(_processes)
        self._locks.clear()
        self._scheduler: Scheduler = Scheduler(self._rng, now, kill_at)
        self.files = SimulatedFiles(
            self._disk, self._scheduler, self._rng, self.faults, self._locks, lambda: next(self._numbers)
        )
        self.process_lock = self.lock()

    # -- processes -----------------------------------------------------------------------------------------------------

    def run(self, process: Callable[[], object]) -> bool:
        """Run a process to its end; return False if it was killed. Only its files are left for the next one.

        Raises:
            AssertionError: a deadlock, threads that do not end, or an exception in one of them.
            Exception: raised by `process`.
        """
        if self._running:
            raise RuntimeError("A simulation runs one process at a time.")
        kills = self.faults.kills
        self._begin(self._scheduler.now + 1.0, 1 + int(self._rng.expovariate(1 / kills)) if kills else None)
        scheduler = self._scheduler
        self._running, self._failure = True, None
        # The garbage collector would free objects at other switches each time.
        collects = gc.isenabled()
        if self._lines:
            gc.collect()  # objects of earlier processes, whose finalizers would run lines of this one
        gc.disable()
        tracer, hook = sys.gettrace(), sys.unraisablehook
        # A generator in a killed process is closed with its frame: it must not continue there either.
        sys.unraisablehook = lambda one: None if isinstance(one.exc_value, Killed) else hook(one)
        killed = False
        try:
            scheduler.begin()
            self._settle()
            process()
        except Killed:
            killed = True
        finally:
            sys.settrace(tracer)
            sys.unraisablehook = hook
            killed = killed or scheduler.dead
            scheduler.end()
            self._trace = (self._trace * 31 + scheduler.trace * 7 + scheduler.switches) & 0xFFFF_FFFF_FFFF_FFFF
            self._running = False
            if collects:
                gc.enable()
        if scheduler.failure is not None:
            raise scheduler.failure
        if self._failure is not None:
            raise AssertionError(self._failure)
        self.was_power_cut = killed and self._rng.random() < self.faults.power_cuts
        if self.was_power_cut:
            self.cut_power()
        return not killed

    def cut_power(self) -> None:
        """Lose any part of what was written and not synced. Called between two processes."""
        self._disk.crash(self._rng)

    def remove(self, path: Path) -> None:
        """Remove a file or a directory, as another program does: at once, without a fault."""
        self._disk.remove(path)

    def copy(self, old: Path, new: Path) -> None:
        """Copy a directory, as another program does: at once, without a fault."""
        self._disk.copy(old, new)

    def names(self, path: Path) -> list[str]:
        """The names in a directory, in order; empty if it does not exist."""
        found = self._disk.find(path)
        return sorted(found.names) if isinstance(found, Folder) else []

    def kill(self) -> None:
        """Kill the process, from one of its threads."""
        self._scheduler.kill()

    @property
    def trace(self) -> str:
        """A checksum of the schedule: which thread ran at each switch, and when. Equal seeds give equal traces."""
        return f"{self._trace:016x}"

    @property
    def switches(self) -> int:
        """The number of switches of the current or the last process."""
        return self._scheduler.switches

    def switch(self) -> None:
        """A switch, for functions of a test."""
        self._scheduler.switch("its turn")

    def sleep(self, seconds: float) -> None:
        """Let time pass, in the calling thread."""
        self._scheduler.sleep(seconds)

    def _settle(self) -> None:
        if self._lines:
            sys.settrace(self._on_call)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        # Not while a module is imported: that happens once, not in each simulation.
        return self._on_line if code.co_filename.endswith(self._lines) and code.co_name != "<module>" else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and not self._scheduler.dead:
            self._scheduler.switch("its turn")
        return self._on_line

    def _failed(self, name: str, error: BaseException) -> None:
        if self._failure is None:
            self._failure = f"The thread {name} raised {type(error).__name__}: {error}"

    # -- the runtime ---------------------------------------------------------------------------------------------------

    def time(self) -> float:
        return _EPOCH + self.monotonic()

    def monotonic(self) -> float:
        return self._scheduler.look()

    def wait(self, event: Event, timeout: float | None) -> bool:
        return event.wait(timeout)

    def lock(self) -> Any:
        return SimulatedLock(self._scheduler)

    def rlock(self) -> Any:
        return SimulatedLock(self._scheduler, reentrant=True)

    def condition(self, lock: Any) -> Any:
        return SimulatedCondition(self._scheduler, lock)

    def event(self) -> Event:
        return SimulatedEvent(self._scheduler)

    def thread(self, target: Callable[[], object], name: str) -> Thread:
        return SimulatedThread(self._scheduler, target, name, self._failed, self._settle)

    def detach(self, target: Callable[[], object]) -> None:
        if self._running:
            self.thread(target, "detached").start()

    def give_way(self) -> None:
        """No-op: the seed decides which thread runs."""

    def ident(self) -> int:
        task = self._scheduler.task()
        return 0 if task is None else task.number + 1

    def process(self) -> int:
        return self._process

    def unique(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"
