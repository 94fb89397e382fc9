"""The identity of a function: short checksums of its code and of the constants that it reads.

The fingerprint of a stream contains it for each user function, so that a run is not resumed with a function that
computes other rows. What counts:

- Code: of the function, and of each function and class that it reaches by name. Functions of Python, of installed
  packages and of this package count by name only; their package's version tells the rest.
- Values: defaults, closures, global variables, and attributes of modules and objects that the code reads, if they are
  numbers, strings, bytes, tuples, lists, dicts, sets, arrays (NumPy, JAX, PyTorch), dates, enums or patterns.

What does not count:

- State: variables and attributes that these functions assign (`global`, `nonlocal`, an attribute outside of `__init__`)
  or change in place (`made.append(…)`, `cache[key] = …`). It differs from one start to the next. A list, dict or set
  that other code changes counts with the content that it had when it was first read in this process.
- Absolute paths and URLs that are read as values: a run and its data may be moved.
- The content of any other object (a model, an open file, a random generator). It counts by type, and `Stream.describe`
  names it.

The identity is computed once, when a stream is first opened. It does not depend on the process: not on addresses, on
the order of sets, or on where files are.
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
    """A function's name for messages."""
    if isinstance(fn, functools.partial):
        return name_of(fn.func)
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).rsplit("<locals>.", 1)[-1]


def identity_of(fn: Callable[..., Any], *, values: bool = True) -> dict[str, Any]:
    """The identity of a function as plain data, equal in every process.

    Args:
        fn: the function.
        values: True to include the constants that it reads; False for its code and the code that it reaches only.

    Returns:
        `function`: its name. `code`: a checksum of its code; None if it can't be read. `reads`: a checksum of each
        constant, function and class that it reads, if there are any. `python`: the Python version, since bytecode
        differs between versions.

    The functions that it reaches are read, never called.

    >>> identity_of(abs) == identity_of(abs), identity_of(abs) == identity_of(len)
    (True, False)
    """
    code, reads, _ = _examined(fn, values)
    identity = {"function": name_of(fn), "code": code, "python": _python()}
    return {**identity, "reads": reads} if reads else identity


def is_function(identity: Any) -> bool:
    """True if plain data is a result of `identity_of`."""
    return isinstance(identity, dict) and identity.keys() >= {"function", "code", "python"}


def comparable(identity: Any) -> Any:
    """Plain data that contains identities, without their Python versions: equal if one can resume the position of the
    other."""
    if is_function(identity):
        return {**identity, "python": None}
    if isinstance(identity, dict):
        return {str(name): comparable(item) for name, item in identity.items()}
    if isinstance(identity, list | tuple):
        return [comparable(item) for item in identity]
    return identity


def change(was: Any, now: dict[str, Any]) -> str | None:
    """The difference between two identities of functions with the same name, in words; None if there is none.

    Raises:
        CannotCompare: the code differs, and so does the Python version that compiled it.
    """
    if not is_function(was):  # older checkpoints have the name only
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
    """Two identities can't be compared; the argument names the version that computed the older one."""


def not_compared(fn: Callable[..., Any]) -> list[str]:
    """The objects that a function reads and that count by type only, such as "model (Sequential)"."""
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
    except Exception as error:  # attributes of arbitrary objects may raise anything: the run must not end by it
        return None, {}, [f"all of it ({type(error).__name__})"]
    return code, reads, before.opaque


@cache
def _python() -> str:
    optimized = " -O" if sys.flags.optimize else ""  # -O compiles without assertions
    return f"{platform.python_implementation()} {platform.python_version()}{optimized}".removeprefix("CPython ")
