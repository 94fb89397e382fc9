"""Cursors as plain data: what `state_dict` gives, and back.

While a stream runs, a cursor may refer to arrays and named tuples that nobody changes. As plain data it is what JSON
can hold; arrays, where there are any, stand beside it as text.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from unbounded.core.packing import from_json, pack, unpack


def to_plain(value: Any) -> Any:
    """`value` as dicts with string keys, lists, numbers, strings and None."""
    structure, arrays = pack(value, name="The stream's state")
    if not arrays:
        return structure
    return {"$packed": [structure, [_text(array) for array in arrays]]}


def from_plain(value: Any) -> Any:
    """What `to_plain` was given; named tuples come back as tuples."""
    if isinstance(value, dict) and "$packed" in value:
        structure, texts = value["$packed"]
        return unpack(structure, [_array(text) for text in texts])
    return from_json(value)


def _text(array: np.ndarray[Any, Any]) -> list[Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return [array.dtype.str, list(array.shape), data]


def _array(text: list[Any]) -> np.ndarray[Any, Any]:
    dtype, shape, data = text
    return np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape)
