"""What tells one function from another: its code, and the constants that it reads, as short checksums.

A stream's fingerprint holds this for each function that it was given, so that a run is not gone on with by a function
that makes other rows. The rule of what is a constant:

- Code: of the function, and of each function and class that it reaches by name, unless that is part of Python or of an
  installed package: such a one counts by its name, since its package's version says the rest. This package's own
  functions count by their name, too.
- Values: defaults, closures, global variables, attributes of modules and objects that the code reads: numbers, text,
  bytes, tuples, lists, dicts, sets, NumPy, JAX and PyTorch arrays, dates, enums, patterns.
- State is left out: what one of these functions assigns (`global`, `nonlocal`, an attribute outside of `__init__`) or
  changes in place (`made.append(…)`, `cache[key] = …`), since it differs from one start to the next. A list, dict or
  set that others change counts as it was when it was first read in a process.
- Absolute paths and URLs that are read as values are left out: a run and its data may be moved.
- Anything else (a model, an open file, a generator of random numbers) counts by its type, and is named by
  `Stream.describe`.

All of it is taken once, when a stream is first put to work. Nothing depends on the process: no address, no order of a
set, no place of a file.
"""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from unbounded.core.object_walk import Memory, Walk

_MOST_WALKS = 8


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name as messages have it."""
    if isinstance(fn, functools.partial):
        return name_of(fn.func)
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).rsplit("<locals>.", 1)[-1]


def identity_of(fn: Callable[..., Any], *, values: bool = True) -> dict[str, Any]:
    """A function as plain data that is equal for the same function in another process.

    Args:
        fn: the function.
        values: whether the constants that it reads count; else its code alone does, and that of what it reaches.

    Returns:
        `function`: its name. `code`: a checksum of what it computes; None where it can't be had. `reads`: a checksum
        of each constant, function and class that it reads, where there are any. `python`: what compiled it, since
        bytecode differs from one version to another.

    What the function reads is looked at, and none of it is called.

    >>> identity_of(abs) == identity_of(abs), identity_of(abs) == identity_of(len)
    (True, False)
    """
    code, reads, _ = _examined(fn, values)
    identity = {"function": name_of(fn), "code": code, "python": _python()}
    return {**identity, "reads": reads} if reads else identity


def is_function(identity: Any) -> bool:
    """Whether plain data is what `identity_of` gave."""
    return isinstance(identity, dict) and identity.keys() >= {"function", "code", "python"}


def comparable(identity: Any) -> Any:
    """Plain data with functions in it, without what compiled them: equal where a position of the one is one of the
    other."""
    if is_function(identity):
        return {**identity, "python": None}
    if isinstance(identity, dict):
        return {str(name): comparable(item) for name, item in identity.items()}
    if isinstance(identity, list | tuple):
        return [comparable(item) for item in identity]
    return identity


def change(was: Any, now: dict[str, Any]) -> str | None:
    """What differs between two functions of one name, by what `identity_of` gave; None for nothing.

    Raises:
        CannotCompare: the code differs, and so does the Python that compiled it.
    """
    if not is_function(was):  # an older version noted the name alone
        raise CannotCompare("another version of unbounded")
    if was["code"] is None or now["code"] is None:
        return None
    before, after = was.get("reads", {}), now.get("reads", {})
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if was["code"] == now["code"]:
        return f"what it reads as {', '.join(names)}" if names else None
    if was["python"] != now["python"]:
        raise CannotCompare(f"Python {was['python']}")
    return f"its code, and what it reads as {', '.join(names)}" if names else "its code"


class CannotCompare(Exception):
    """Whether a function has changed can't be told: the argument names what described it."""


def not_compared(fn: Callable[..., Any]) -> list[str]:
    """What a function reads and `identity_of` knows by its type alone: such as "model (Sequential)"."""
    return _examined(fn, True)[2]


def _examined(fn: Callable[..., Any], values: bool) -> tuple[str | None, dict[str, str], list[str]]:
    memory = Memory(values)
    walk = Walk(memory, frozenset(), frozenset())
    try:
        for _ in range(_MOST_WALKS):
            code, reads = walk.top(fn)
            before, walk = walk, Walk(memory, frozenset(walk.changing), frozenset(walk.attributes))
            if before.changing <= before.state and before.attributes <= before.known:
                break
    except Exception as error:  # whatever a stranger's object raises when it is looked at: a run must not end by that
        return None, {}, [f"all of it ({type(error).__name__})"]
    return code, reads, before.opaque


@cache
def _python() -> str:
    optimized = " -O" if sys.flags.optimize else ""  # which leaves assertions out
    return f"{platform.python_implementation()} {platform.python_version()}{optimized}".removeprefix("CPython ")
