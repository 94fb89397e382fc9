"""A tree of arrays and plain data as one `.npz` file, and back, with the type of each leaf preserved.

The arrays are the file's members `0`, `1`, …; the member `tree.json` has the structure. Nothing is pickled: loading a
file runs no code.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np

from unbounded.core import npz
from unbounded.core.copies import Copies
from unbounded.core.leaf import (
    Array,
    foreign_dtype,
    foreign_name,
    from_array,
    has_non_finite,
    own,
    start_copying,
    to_array,
)

# Nested dicts, lists and tuples of arrays (NumPy, JAX, PyTorch), NumPy scalars, int, float, bool, str,
# bytes, None.
Tree: TypeAlias = Any
# What `json` reads and writes.
JSON: TypeAlias = Any


class Packed(NamedTuple):
    """A tree as JSON, and the arrays that the JSON refers to by number."""

    structure: JSON
    arrays: list[Array]


class NoSuchPart(LookupError):
    """A requested part is missing from a tree; the message names it and the parts that exist."""


def write_tree(file: BinaryIO, tree: Tree, *, name: str = "state") -> None:
    """Write a tree as an `.npz` file.

    Args:
        file: open for writing bytes; it need not be seekable.
        tree: nested dicts, lists and tuples. Leaves are arrays of NumPy, JAX or PyTorch, NumPy scalars,
            `int` of any size, `float`, `bool`, `str`, `bytes` and `None`. A named tuple comes back as a
            plain one: for an optimizer's state in JAX, `jax.tree.unflatten(jax.tree.structure(state),
            jax.tree.leaves(read))`.
        name: what the tree is called in errors.

    Raises:
        TypeError: a leaf has another type, or is an array of Python objects; the message names its path.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> write_tree(file, {"weights": np.ones(3), "step": 412})
        >>> read_tree(io.BytesIO(file.getvalue()))
        {'weights': array([1., 1., 1.]), 'step': 412}
    """
    write_packed(file, *pack(tree, name=name))


def read_tree(file: BinaryIO, *, only: Sequence[tuple[str, ...]] | None = None) -> Tree:
    """Read a tree that `write_tree` wrote; JAX and PyTorch arrays have their types again.

    Args:
        file: open for reading bytes; it need not be seekable.
        only: the parts to read, each as the keys that lead to it through nested dicts; None for all. Arrays of other
            parts are skipped.

    Raises:
        NoSuchPart: a part in `only` is missing.
        Malformed: the file was not written by `write_tree`.
        ImportError: a leaf needs JAX, PyTorch or `ml_dtypes`, which is not installed.
    """
    return Unread(npz.NpzReader(file), only=only).tree()


class Unread:
    """A tree whose bytes are read but not decoded: the caller verifies their checksum before it calls `tree`.

    Args:
        reader: at the beginning of a file that `write_tree` wrote.
        only: as for `read_tree`.

    Raises:
        NoSuchPart: a part in `only` is missing.
        Malformed: the file was not written by `write_tree`.
    """

    def __init__(self, reader: npz.NpzReader, *, only: Sequence[tuple[str, ...]] | None = None) -> None:
        self._structure: JSON = None
        self._arrays: dict[int, Array] = {}

        def choose(text: str) -> set[int]:
            whole = json.loads(text)
            self._structure = whole if only is None else _parts(whole, only)
            return _numbers(self._structure)

        _, self._arrays = npz.read(reader, choose)

    def tree(self) -> Tree:
        """The decoded tree."""
        return _decode(self._structure, {str(index): array for index, array in self._arrays.items()})


def _numbers(structure: JSON) -> set[int]:
    """The numbers of the arrays in an encoded tree."""
    if isinstance(structure, list):
        return set().union(*map(_numbers, structure))
    if not isinstance(structure, dict):
        return set()
    tag = next(iter(structure), "")
    if tag == "$array":
        return {structure[tag]}
    # Of a tag, its content if that is encoded too; numbers and strings contain no arrays.
    return set().union(*map(_numbers, structure.values())) if not tag.startswith("$") else _numbers(structure[tag])


def _parts(structure: JSON, only: Sequence[tuple[str, ...]]) -> JSON:
    """The parts of an encoded tree of dicts at some paths, with the dicts around them."""
    kept: JSON = {}
    for path in only:
        here, there = structure, kept
        for depth, key in enumerate(path):
            if not isinstance(here, dict) or key not in here or key.startswith("$"):
                held = ", ".join(map(repr, here)) if isinstance(here, dict) else "no dict of names"
                raise NoSuchPart(f"no part {path[: depth + 1]!r}; there is {held}")
            here = here[key]
            if depth + 1 == len(path):
                there[key] = here
            else:
                there = there.setdefault(key, {})
    return kept


def pack(tree: Tree, *, name: str = "state") -> Packed:
    """A tree as JSON and arrays, without copying where possible."""
    arrays: list[Array] = []
    return Packed(_encode(tree, name, arrays), arrays)


def pack_owned(tree: Tree, *, name: str = "state", copies: Copies | None = None) -> Packed:
    """Like `pack`, for a tree that is written later: leaves that may change in the meantime are copied.

    Args:
        tree: as for `write_tree`.
        name: the tree's name in errors.
        copies: makes the copies, in memory of earlier ones; None for copies in new memory.

    Example:
        >>> weights = np.ones(3)
        >>> packed = pack_owned({"w": weights})
        >>> weights += 1
        >>> unpack(*packed)
        {'w': array([1., 1., 1.])}
    """
    return pack(owned(tree, Copies() if copies is None else copies), name=name)


def owned(tree: Tree, copies: Copies) -> Tree:
    """A copy of a tree that later changes do not reach, provided that `pack` is called on it at once (see
    `leaf.own`)."""
    for _, leaf in _leaves(tree, ""):
        start_copying(leaf)
    return _owned(tree, copies)


def _owned(tree: Tree, copies: Copies) -> Tree:
    if isinstance(tree, Mapping):
        return {key: _owned(item, copies) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_owned(item, copies) for item in tree]
    if isinstance(tree, tuple):
        return tuple(_owned(item, copies) for item in tree)
    return own(tree, copies)


def unpack(structure: JSON, arrays: Sequence[Array]) -> Tree:
    """The tree that `pack` was given."""
    return _decode(structure, {str(index): array for index, array in enumerate(arrays)})


def write_packed(file: BinaryIO, structure: JSON, arrays: list[Array]) -> None:
    """Write what `pack` returned as an `.npz` file."""
    npz.write(file, json.dumps(structure, allow_nan=False, separators=(",", ":")), arrays)


def to_json(data: Tree, *, name: str = "info") -> JSON:
    """Plain data as strict JSON; values that JSON lacks (NaN, tuples, huge integers) are tagged.

    Raises:
        TypeError: a value is an array or another object; the message names its path.

    Example:
        >>> to_json({"loss": float("nan"), "shape": (2, 3)})
        {'loss': {'$float': 'nan'}, 'shape': {'$tuple': [2, 3]}}
    """
    return _encode(data, name, None)


def from_json(data: JSON) -> Tree:
    """What `to_json` was given."""
    return _decode(data, {})


def non_finite(tree: Tree, *, name: str = "state") -> str | None:
    """The path of the first NaN or infinity in a tree, or None.

    Args:
        tree: as for `write_tree`.
        name: what the tree is called in the answer.

    Example:
        >>> non_finite({"w": np.ones(3), "b": [np.zeros(2), np.array([1.0, np.inf])]})
        "state['b'][1]"
    """
    with np.errstate(all="ignore"):
        return next((path for path, leaf in _leaves(tree, name) if has_non_finite(leaf)), None)


def _leaves(tree: Tree, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, item in tree.items():
            yield from _leaves(item, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for i, item in enumerate(tree):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, tree


def _encode(value: Any, path: str, arrays: list[Array] | None) -> JSON:
    if isinstance(value, np.generic):  # first: numpy.float64 is a float, and numpy.str_ a str
        return {"$scalar": _encode_scalar(value, path)}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        # Other JSON readers round beyond 53 bits, and Python refuses to parse more than 4,300 digits.
        return int(value) if value.bit_length() <= 53 else {"$int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _encode(item, f"{path}[{key!r}]", arrays) for key, item in value.items()}
        pairs = []
        for key, item in value.items():
            plain = _encode(key, f"The key {key!r} of {path}", None)
            pairs.append([plain, _encode(item, f"{path}[{key!r}]", arrays)])
        return {"$dict": pairs}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{path}[{i}]", arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if arrays is None:
        raise TypeError(
            f"{path} is of type {type(value).__name__}; only plain data can be kept here (dict, list, tuple, "
            "int, float, bool, str, None)."
        )
    array, note = to_array(value, path)
    arrays.append(array)
    return {"$array": len(arrays) - 1, **note}


def _encode_scalar(value: np.generic, path: str) -> list[str]:
    dtype = value.dtype
    if dtype.hasobject or dtype.type is np.void:
        raise TypeError(f"{path} is a NumPy scalar of dtype {dtype}, which can't be saved; make it an array.")
    text = base64.b64encode(value.tobytes()).decode("ascii")
    return [foreign_name(dtype, path) or dtype.str, text]


def _decode(data: JSON, arrays: Mapping[str, Array]) -> Any:
    if isinstance(data, list):
        return [_decode(item, arrays) for item in data]
    if not isinstance(data, dict):
        return data
    tag = next(iter(data), "")
    if not tag.startswith("$"):
        return {key: _decode(item, arrays) for key, item in data.items()}
    value = data[tag]
    if tag == "$int":
        return int(value, 16)
    if tag == "$float":
        return float(value)
    if tag == "$tuple":
        return tuple(_decode(item, arrays) for item in value)
    if tag == "$dict":
        return {_decode(key, arrays): _decode(item, arrays) for key, item in value}
    if tag == "$scalar":
        kind, text = value
        dtype = np.dtype(kind) if kind[0] in "<>|" else foreign_dtype(kind)
        # A string dtype of size 0 has no bytes, which frombuffer refuses.
        return np.frombuffer(base64.b64decode(text), dtype)[0] if dtype.itemsize else dtype.type()
    if tag == "$array":
        return from_array(arrays[str(value)], data)
    raise ValueError(f"The tag {tag!r} is unknown to this version of unbounded.")
