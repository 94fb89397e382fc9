"""Detection of stateful objects that a user's function returns more than once.

Such an object has one state for all that iterate over it. That does not matter if the function makes a new object in
each call, as it should. If it returns the same object again (`lambda: data`), the iteration that began last owns it, an
earlier one gets an error at its next row, and an object that can't be restarted is refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from unbounded.core.node import StreamError

# By id: (the object, the iteration that owns it, whether a state was loaded). Entries of collected objects are removed
# when the next one is added; until then they match no object.
_TAKEN: dict[int, tuple[weakref.ref[Any], object, bool]] = {}


def take(value: Any, owner: object, state: Any, who: str) -> None:
    """Iteration `owner` over an object begins; `state` will be loaded into it, None means its beginning.

    Raises:
        StreamError: it was iterated over before, and can't be restarted.
    """
    known = _TAKEN.get(id(value))
    loaded = state is not None
    if known is not None and known[0]() is value:
        loaded = loaded or known[2]
        if state is None and (loaded or isinstance(value, Iterator)):
            raise StreamError(_sentence(value, who, "and it can't be begun again"))
    for key in [key for key, (ref, _, _) in list(_TAKEN.items()) if ref() is None]:
        _TAKEN.pop(key, None)
    try:
        _TAKEN[id(value)] = weakref.ref(value), owner, loaded
    except TypeError:  # such as one with __slots__
        _TAKEN.pop(id(value), None)


def check_own(value: Any, owner: object, who: str) -> None:
    """Raise StreamError if another iteration over the object has begun since `owner`'s."""
    known = _TAKEN.get(id(value))
    if known is not None and known[0]() is value and known[1] is not owner:
        raise StreamError(_sentence(value, who, "and another feed, or a look at the stream, has moved it"))


def _sentence(value: Any, who: str, what: str) -> str:
    kind = type(value).__name__
    return (
        f"{who} the same {kind} as in an earlier call, {what}: an object has one state for all who iterate over it. "
        f"Return a new one from each call: make it in the function, or copy.deepcopy(…) one that was not read."
    )
