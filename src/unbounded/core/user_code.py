"""The guard around calls of the user's functions, and where a signal handler may end such a call.

A feed that waits inside a function of the user's (a generator that sleeps, a slow `map`) can't look whether it
is to stop. A signal handler may end such a wait by raising `Interrupted`, but only where two things hold: the
thread is in a guarded call, since every node stays consistent when a guarded call raises, whatever it raises and
wherever within the call; and the call was made within a `CatchInterrupt` block, which expects the exception.
Anywhere else a handler sets flags and returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Interrupted(BaseException):
    """Raised by a signal handler where `can_interrupt()` is true, and nowhere else."""


class _Guard(threading.local):
    # One for each thread: handlers run in the main thread, and a worker that runs a function of the user's
    # must not make them believe that the main thread does.
    running = False
    caught = False


_guard = _Guard()


class CatchInterrupt:
    """A block that `Interrupted` may end: the exception goes no further, and what follows the block runs.

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
    """Whether this thread is in a guarded call of a function of the user's, and in a block that catches `Interrupted`.

    >>> can_interrupt(), call(can_interrupt)
    (False, False)
    """
    return _guard.running and _guard.caught


def call(fn: Callable[..., Any], *args: Any, **given: Any) -> Any:
    """`fn(*args, **given)` under the guard."""
    before = _guard.running
    try:
        try:
            _guard.running = True
            return fn(*args, **given)
        finally:
            _guard.running = before
    finally:
        # Once more: a handler may have raised at the line above, in place of it.
        _guard.running = before
