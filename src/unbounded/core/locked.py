"""Locks that an exception can't leave held, wherever it comes.

In the main thread a signal handler may raise between any two lines, Python's own for SIGINT among them. A `with`
statement releases its lock whatever is raised inside it, but not what is raised between its last line and the
release. So the statements that a lock guards stand in a method, and the lock is taken and released around the
call, on one line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class _HasLock(Protocol):
    _lock: Any


S = TypeVar("S", bound=_HasLock)


def locked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that runs with its object's `_lock` (a plain lock: its release is one instruction) held."""

    @functools.wraps(method)
    def with_lock(self: S, *args: P.args, **given: P.kwargs) -> R:
        with self._lock: return method(self, *args, **given)  # fmt: skip  # noqa: E701

    return cast(Callable[Concatenate[S, P], R], with_lock)
