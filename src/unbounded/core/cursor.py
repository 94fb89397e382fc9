"""Cursors: how they are put together of a node's inputs' and its own part, and as plain data.

A stream at work is a tree of nodes. The cursor of a source is a dict of its own. That of any other node is
`{"inputs": [a cursor for each input], "own": {…}}`, or, where it keeps nothing of its own, its only input's. What the
arrival log holds has the same form. While a stream runs, a cursor may refer to arrays and named tuples that nobody
changes. As plain data, in `state_dict`, it is what JSON can hold; arrays, where there are any, stand beside it as text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from unbounded.core.packing import from_json, pack, unpack

Cursor: TypeAlias = Mapping[str, Any]
"""The address of a point in a running stream: small plain data, which nobody changes once it was taken."""


def compose(inputs: Iterable[Cursor], own: Mapping[str, Any]) -> Cursor:
    """The cursor of a node with something of its own."""
    return {"inputs": list(inputs), "own": own}


def input_cursors(cursor: Cursor) -> Sequence[Cursor]:
    """The part of each input; none in the cursor of a source."""
    inputs: Sequence[Cursor] = cursor.get("inputs", ())
    return inputs


def own_part(cursor: Cursor) -> Mapping[str, Any]:
    """The node's own part: all of it in the cursor of a source."""
    own: Mapping[str, Any] = cursor["own"] if "inputs" in cursor else cursor
    return own


def leaf_cursors(cursor: Cursor) -> list[Cursor]:
    """The sources' own parts, in the order of the tree's leaves."""
    if "inputs" not in cursor:
        return [cursor]
    return [leaf for each in cursor["inputs"] for leaf in leaf_cursors(each)]


def with_leaves(cursor: Cursor, leaves: Iterable[Cursor]) -> Cursor:
    """The same with other parts of the sources, in the order of `leaf_cursors`."""
    following = iter(leaves)

    def each(cursor: Cursor) -> Cursor:
        return compose(map(each, cursor["inputs"]), cursor["own"]) if "inputs" in cursor else next(following)

    return each(cursor)


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
    # A copy: PyTorch makes no tensor of memory that can't be written to.
    return np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape).copy()
