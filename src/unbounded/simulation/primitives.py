"""Locks, conditions, events and threads of a simulated process: like those of `threading`, each call a switch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from unbounded.simulation.scheduler import Killed, Scheduler, Task


def made_at() -> str:
    """The place in the code under test where an object is made: its name in messages."""
    frame = sys._getframe(2)
    while frame.f_back is not None and "/simulation/" in frame.f_code.co_filename.replace("\\", "/"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"


class SimulatedLock:
    """As `threading.Lock`, or as `threading.RLock` if `reentrant`."""

    def __init__(self, scheduler: Scheduler, *, reentrant: bool = False) -> None:
        self._scheduler = scheduler
        self._reentrant = reentrant
        self._place = made_at()
        self._holder: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock."""
        scheduler = self._scheduler
        scheduler.switch(self._what())
        task = scheduler.task()
        if self._depth and not (self._reentrant and self._holder is task):
            if not blocking:
                return False
            if not scheduler.wait(self._what(), self._is_free, None if timeout < 0 else timeout):
                return False
        self._holder = task
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock. Not a switch: the next one of this thread will do."""
        if not self._depth:
            if self._scheduler.dead:
                return
            raise RuntimeError("release of a lock that is not held")
        self._depth -= 1
        if not self._depth:
            self._holder = None

    def locked(self) -> bool:
        """True if it is held."""
        return self._depth > 0

    def let_go(self) -> int:
        """Release it completely; return how often it was held."""
        depth, self._depth, self._holder = self._depth, 0, None
        return depth

    def take_up(self, depth: int) -> None:
        """Acquire it as often as `let_go` returned."""
        self.acquire()
        self._depth = depth

    def _is_free(self) -> bool:
        return not self._depth

    def _what(self) -> str:
        return f"the lock of {self._place}" + (f", which {self._holder.name} holds" if self._holder else "")

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


class _Waiter:
    """One call of a condition's `wait`."""

    notified = False


class SimulatedCondition:
    """As `threading.Condition`."""

    def __init__(self, scheduler: Scheduler, lock: SimulatedLock) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._place = made_at()
        self._waiting: list[_Waiter] = []
        self.acquire, self.release = lock.acquire, lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is notified."""
        if not self._lock.locked():
            raise RuntimeError("wait on a condition whose lock is not held")
        waiter = _Waiter()
        self._waiting.append(waiter)
        depth = self._lock.let_go()
        try:
            self._scheduler.wait(f"the condition of {self._place}", lambda: waiter.notified, timeout)
        finally:
            if not waiter.notified:
                self._waiting.remove(waiter)
            self._lock.take_up(depth)
        return waiter.notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until it is notified and `predicate()` is true."""
        end = None if timeout is None else self._scheduler.now + timeout
        while not (result := predicate()):
            left = None if end is None else end - self._scheduler.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake n waiting threads."""
        for waiter in self._waiting[:n]:
            waiter.notified = True
        del self._waiting[:n]

    def notify_all(self) -> None:
        """Wake all waiting threads."""
        self.notify(len(self._waiting))


class SimulatedEvent:
    """As `threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._place = made_at()
        self._is_set = False

    def is_set(self) -> bool:
        """True if it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all waiting threads."""
        if self._scheduler.task() is not None or not self._scheduler.dead:
            self._scheduler.switch("its turn")
            self._is_set = True

    def clear(self) -> None:
        """Clear it: later waits wait for the next `set`."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        if self._is_set:
            self._scheduler.switch("its turn")
            return True
        return self._scheduler.wait(f"the event of {self._place}", self.is_set, timeout)


class SimulatedThread:
    """As `threading.Thread`.

    Args:
        scheduler: of its process.
        target: the function to run.
        name: for messages.
        failed: called with an exception that `target` raised.
        settled: called in the thread before `target`.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        target: Callable[[], object],
        name: str,
        failed: Callable[[str, BaseException], None],
        settled: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._target: Callable[[], object] | None = target
        self.name = name
        self._failed = failed
        self._settled = settled
        self._task: Task | None = None

    @property
    def ident(self) -> int | None:
        """Its id."""
        return None if self._task is None else self._task.number + 1

    def start(self) -> None:
        """Start it; it runs when the scheduler chooses it."""
        if self._task is not None:
            raise RuntimeError("threads can only be started once")
        if self._scheduler.task() is None and self._scheduler.dead:
            return  # the garbage collector finalizes objects of a killed process
        self._scheduler.switch(f"{self.name} to start")
        self._task = self._scheduler.add(self.name)
        self._task.thread = threading.Thread(target=self._run, args=(self._task,), daemon=True)
        self._task.thread.start()
        self._scheduler.switch("its turn")

    def _run(self, task: Task) -> None:
        target, self._target = self._target, None
        assert target is not None
        try:
            self._scheduler.enter(task)
            self._settled()
            target()
        except Killed:
            pass
        except BaseException as error:
            self._failed(self.name, error)
        finally:
            sys.settrace(None)
            del target  # free its objects now, while no other thread runs
            self._scheduler.leave(task)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        if self._task is None:
            raise RuntimeError("cannot join thread before it is started")
        self._scheduler.wait(f"{self.name} to end", lambda: not self.is_alive(), timeout)

    def is_alive(self) -> bool:
        """True if it was started and has not ended."""
        return self._task is not None and not self._task.done and not self._scheduler.dead
