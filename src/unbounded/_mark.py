"""Marks as plain data: what `state_dict` and checkpoints hold, and back.

While a stream runs, a mark may refer to arrays and named tuples that nobody changes. Saved, it is what JSON
can hold.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_plain(value: Any) -> Any:
    """`value` as dicts with string keys, lists, numbers, strings and None."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: to_plain(inner) for key, inner in value.items()}
        return {"$items": [[to_plain(key), to_plain(inner)] for key, inner in value.items()]}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {"$tuple": [to_plain(inner) for inner in value]}
    if isinstance(value, (list, tuple)):
        return [to_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("A stream's state holds an array of Python objects, which can't be saved as plain data.")
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {"$array": [value.dtype.str, list(value.shape), data]}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"A stream's state holds {type(value).__name__} {value!r}, which is no plain data. Expected dicts, "
        "lists, numbers, "
        "strings, bytes and NumPy arrays: check what the iterator's state_dict() returns."
    )


def from_plain(value: Any) -> Any:
    """What `to_plain` was given; named tuples come back as lists."""
    if isinstance(value, dict):
        if "$items" in value:
            return {_key(from_plain(key)): from_plain(inner) for key, inner in value["$items"]}
        if "$tuple" in value:
            return tuple(from_plain(inner) for inner in value["$tuple"])
        if "$array" in value:
            dtype, shape, data = value["$array"]
            return np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape)
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        return {key: from_plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_plain(inner) for inner in value]
    return value


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
