"""Cursors: composed of the cursors of a node's inputs and its own part, and converted to plain data and back.

A running stream is a tree of nodes. The cursor of a source is a dict that the source defines. The cursor of any other
node is `{"inputs": [a cursor for each input], "own": {…}}`; a node without an own part passes on its only input's
cursor. While a stream runs, a cursor may contain references to immutable arrays and
named tuples. `state_dict` contains it as plain data that JSON can hold, with arrays as text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from unbounded.core.packing import from_json, pack, unpack

Cursor: TypeAlias = Mapping[str, Any]
"""The address of a point in a running stream: small plain data, immutable once taken."""


def compose(inputs: Iterable[Cursor], own: Mapping[str, Any]) -> Cursor:
    """The cursor of a node that has an own part."""
    return {"inputs": list(inputs), "own": own}


def input_cursors(cursor: Cursor) -> Sequence[Cursor]:
    """The cursors of the inputs; an empty sequence for the cursor of a source."""
    inputs: Sequence[Cursor] = cursor.get("inputs", ())
    return inputs


def own_part(cursor: Cursor) -> Mapping[str, Any]:
    """The node's own part; for a source, the whole cursor."""
    own: Mapping[str, Any] = cursor["own"] if "inputs" in cursor else cursor
    return own


def leaf_cursors(cursor: Cursor) -> list[Cursor]:
    """The cursors of the sources, in the order of the tree's leaves."""
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
    """The inverse of `to_plain`, except that named tuples become tuples."""
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
