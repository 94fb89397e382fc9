"""Scheduler: runs real threads one at a time, in an order that a seed decides.

Each thread of a simulated process is a task. A task runs until it reaches a switch: a lock, a wait, the clock, or a
file call. There the seed decides which task runs next. Simulated time advances when all tasks wait.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_MOST_SWITCHES = 2_000_000
_MOST_SECONDS = 1e6


class Killed(BaseException):
    """Ends the threads of a simulated process that was killed, at their next switch."""


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False)
class Task:
    """A thread of a simulated process.

    Args:
        number: in the order of starts.
        name: for messages.
        weight: how often it is chosen, relative to others.
    """

    number: int
    name: str
    weight: float = 1.0
    baton: threading.Lock = field(default_factory=_taken)  # released when the task may run
    is_ready: Callable[[], bool] | None = None  # None: it can run
    until: float | None = None  # the time at which it can run in any case
    waits_for: str = ""
    done: bool = False
    thread: threading.Thread | None = None  # None for the main task, which runs in the test's thread


class Scheduler:
    """The tasks of one simulated process, from its start to its end.

    Args:
        rng: decides; equal states give equal schedules.
        now: the time at which the process starts.
        kill_at: the number of the switch at which it is killed; None for never.
    """

    def __init__(self, rng: random.Random, now: float, kill_at: int | None) -> None:
        self._rng = rng
        # Some schedules switch often and some rarely; in some, one thread is almost starved.
        self._staying = rng.choice((0.0, 0.5, 0.95))
        self._weights = rng.choice(((1.0,), (1.0, 1.0, 0.02), (1.0, 30.0)))
        self._tick = rng.choice((1e-6, 1e-4, 2e-3))
        self._kill_at = kill_at
        self._here = threading.local()
        self._tasks: list[Task] = []
        self._started = 0
        self.main = self.add("main")
        self.now = now
        self.switches = 0
        self.trace = 0
        """A checksum of the schedule."""
        self.dead = False
        self.failure: AssertionError | None = None
        self.power_cut = False

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def add(self, name: str) -> Task:
        """A task that may run from now on; its thread must first wait for its baton."""
        task = Task(self._started, name, self._rng.choice(self._weights))
        self._started += 1
        self._tasks.append(task)
        return task

    def enter(self, task: Task) -> None:
        """The calling thread becomes the task's; returns when the task may run.

        Raises:
            Killed: it never will.
        """
        self._here.task = task
        task.baton.acquire()
        if self.dead:
            raise Killed

    def leave(self, task: Task) -> None:
        """The task's thread ends, and another task runs."""
        task.done = True
        self._tasks.remove(task)
        if not self.dead:
            try:
                self._choose().baton.release()
                return
            except Killed:
                pass
        # The process was killed: its main thread ends the others one by one, and may have begun.
        if self.main.baton.locked():
            self.main.baton.release()

    def task(self) -> Task | None:
        """The task of the calling thread; None for any other thread."""
        task: Task | None = getattr(self._here, "task", None)
        return task

    def begin(self) -> None:
        """The calling thread becomes the main task's."""
        self._here.task = self.main

    def end(self) -> None:
        """The main thread ends, then all others, one after the other, so that no two run at once."""
        self.dead = True
        for task in [task for task in self._tasks if task is not self.main]:
            task.baton.release()
            assert task.thread is not None
            task.thread.join(10)
            if task.thread.is_alive():
                raise AssertionError(f"{task.name} goes on though its process was killed: it waits for something real.")
        self._here.task = None

    # -- switches ------------------------------------------------------------------------------------------------------

    def switch(self, what: str) -> None:
        """A point at which another task may run.

        Raises:
            Killed: the process is killed here, or was.
        """
        task = self.task()
        if task is None:
            return
        if self.dead:
            raise Killed
        self._count()
        if len(self._tasks) > 1 and self._rng.random() >= self._staying:
            task.waits_for = what
            self._pass_on(task)

    def wait(self, what: str, is_ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Run other tasks until `is_ready()`, for `seconds` at most; return whether it is ready.

        Raises:
            Killed: the process is killed here, or was.
        """
        task = self.task()
        if task is None:
            if not is_ready():
                if self.dead:
                    raise Killed  # files of a killed process are closed by the next one
                raise AssertionError(f"A thread that is none of the simulation's would wait for ever: for {what}.")
            return True
        if self.dead:
            raise Killed
        self._count()
        task.waits_for, task.is_ready = what, is_ready
        task.until = None if seconds is None else self.now + max(0.0, seconds)
        try:
            self._pass_on(task)
        finally:
            task.is_ready, task.until = None, None
        return is_ready()

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass."""
        self.wait(f"{seconds:g} s to pass", lambda: False, seconds)

    def look(self) -> float:
        """The time. In a killed process it advances, so that waits end."""
        if self.dead:
            self.now += 1.0
        else:
            self.switch("the time")
        return self.now

    def _count(self) -> None:
        self.switches += 1
        self.now += self._tick
        if self._kill_at is not None and self.switches >= self._kill_at:
            self.kill()
        if self.switches > _MOST_SWITCHES or self.now > _MOST_SECONDS:
            self._fail(f"No end after {self.switches:,} switches and {self.now:,.0f} seconds of its time")

    def _pass_on(self, task: Task) -> None:
        chosen = self._choose()
        if chosen is not task:
            chosen.baton.release()
            task.baton.acquire()
            if self.dead:
                raise Killed

    def _choose(self) -> Task:
        while True:
            ready = [
                task
                for task in self._tasks
                if task.is_ready is None or task.is_ready() or (task.until is not None and task.until <= self.now)
            ]
            if len(ready) == 1:
                chosen = ready[0]
            elif ready:
                chosen = self._rng.choices(ready, [task.weight for task in ready])[0]
            else:
                untils = [task.until for task in self._tasks if task.until is not None]
                if not untils:
                    self._fail("Each thread waits for another")
                self.now = min(untils)
                continue
            state = chosen.number + 1 + round(self.now * 1e6)
            self.trace = (self.trace * 1_000_003 ^ state) & 0xFFFF_FFFF_FFFF_FFFF
            return chosen

    # -- the end -------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the process here: no thread of it continues.

        Raises:
            Killed: always.
        """
        self.dead = True
        raise Killed

    def _fail(self, what: str) -> None:
        waiting = "; ".join(
            f"{task.name} ({task.number}) waits for {task.waits_for or 'its turn'}" for task in self._tasks
        )
        self.failure = AssertionError(f"{what}: {waiting}.")
        self.kill()
