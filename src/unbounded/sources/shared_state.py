"""Objects with a state that a user's function returned more than once: who iterates over one, and whether it was moved.

Such an object has one state for all who iterate over it. Where the function makes a new one in each call, as it should,
nothing of this matters. Where it returns one object again and again (`lambda: data`), the iteration that began last
has it, an earlier one is told so when it asks for more, and one that can't be begun again is refused.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from unbounded.core.node import StreamError

# By the object's id: the object; who iterates over it; whether a state was loaded. What was collected is left out
# when the next one is noted: until then its entry matches no object.
_TAKEN: dict[int, tuple[weakref.ref[Any], object, bool]] = {}


def take(value: Any, owner: object, state: Any, who: str) -> None:
    """An iteration over an object begins, by `owner`; `state` is what it will be put back to, None for its beginning.

    Raises:
        StreamError: it was iterated over before, and its beginning is not known.
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
    """Raise StreamError where another iteration over the object has begun since `owner`'s."""
    known = _TAKEN.get(id(value))
    if known is not None and known[0]() is value and known[1] is not owner:
        raise StreamError(_sentence(value, who, "and another feed, or a look at the stream, has moved it"))


def _sentence(value: Any, who: str, what: str) -> str:
    kind = type(value).__name__
    return (
        f"{who} the same {kind} as in an earlier call, {what}: an object has one state for all who iterate over it. "
        f"Return a new one from each call: make it in the function, or copy.deepcopy(…) one that was not read."
    )
