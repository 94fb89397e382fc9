"""The guard around calls of the user's functions, and what a signal handler may do while one runs.

A feed that waits inside a function of the user's (a generator that sleeps, a slow `map`) can't look whether it
is to stop. A signal handler may end such a wait by raising `Interrupted`, but only there: every node stays
consistent when a guarded call raises, whatever it raises and wherever within the call. Anywhere else a handler
sets flags and returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Interrupted(BaseException):
    """Raised by a signal handler where `interruptible()` is true, and nowhere else."""


class _Guard(threading.local):
    # One for each thread: handlers run in the main thread, and a worker that runs a function of the user's
    # must not make them believe that the main thread does.
    running = False


_guard = _Guard()


def interruptible() -> bool:
    """Whether this thread is in a guarded call of a function of the user's.

    >>> interruptible(), call(interruptible)
    (False, True)
    """
    return _guard.running


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
