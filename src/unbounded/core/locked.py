"""A decorator that holds an object's lock during a method, and releases it whenever an exception comes.

In the main thread a signal handler may raise between any two bytecode instructions; Python's default handler of SIGINT
does. A `with` statement releases its lock if its body raises, but not if the handler raises between the last line of
the body and the release. So the statements that a lock guards are a method, and the lock is taken and released around
the call, on one line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import CO_VARARGS, CO_VARKEYWORDS
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class _HasLock(Protocol):
    _lock: Any


S = TypeVar("S", bound=_HasLock)


def locked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Hold the object's `_lock` during the method. It must be a plain lock: releasing one is a single instruction."""

    code = method.__code__
    if code.co_argcount == 1 and not (code.co_kwonlyargcount or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS)):
        # The same without collecting arguments: some methods are called for each row.
        @functools.wraps(method)
        def alone(self: S) -> R:
            with self._lock: return method(self)  # type: ignore[call-arg]  # fmt: skip  # noqa: E701

        return cast(Callable[Concatenate[S, P], R], alone)

    @functools.wraps(method)
    def with_lock(self: S, *args: P.args, **given: P.kwargs) -> R:
        with self._lock: return method(self, *args, **given)  # fmt: skip  # noqa: E701

    return cast(Callable[Concatenate[S, P], R], with_lock)
