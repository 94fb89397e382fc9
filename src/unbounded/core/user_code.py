"""The guard around calls of user functions, inside which a signal handler may raise.

A feed that waits inside a user function (a generator that sleeps, a slow `map`) can't check whether it is to stop. A
signal handler may end such a wait by raising `Interrupted`, under two conditions. The thread is in a guarded call:
every node stays consistent when a guarded call raises any exception at any line. And the call is inside a
`CatchInterrupt` block, which expects the exception. Anywhere else a handler sets a flag and returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Interrupted(BaseException):
    """Raised by signal handlers if `can_interrupt()` is true, and nowhere else."""


class _Guard(threading.local):
    # For each thread: handlers run in the main thread, and a worker inside a user function must not make a handler
    # believe that the main thread is.
    running = False
    caught = False


_guard = _Guard()


class CatchInterrupt:
    """A block that `Interrupted` may end: it catches the exception, and the program continues after the block.

    >>> with CatchInterrupt():
    ...     call(can_interrupt)
    True
    """

    def __enter__(self) -> None:
        self._before = _guard.caught
        _guard.caught = True

    def __exit__(self, kind: type[BaseException] | None, *given: object) -> bool:
        _guard.caught = self._before
        return kind is not None and issubclass(kind, Interrupted)


def can_interrupt() -> bool:
    """True if this thread is inside a guarded call of a user function, and inside a `CatchInterrupt` block.

    >>> can_interrupt(), call(can_interrupt)
    (False, False)
    """
    return _guard.running and _guard.caught


def call(fn: Callable[..., Any], *args: Any, **given: Any) -> Any:
    """Call `fn(*args, **given)` under the guard."""
    before = _guard.running
    try:
        try:
            _guard.running = True
            return fn(*args, **given)
        finally:
            _guard.running = before
    finally:
        # Again: a handler may have raised before the line above took effect.
        _guard.running = before
