"""A tree of arrays and plain data as one `.npz` file, and back, with each leaf of the type that it had.

The arrays are the file's members `0`, `1`, …; a member `tree.json` says where each belongs. Nothing is
pickled, so loading runs no code.
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
    """A tree as `pack` takes it apart: JSON, and the arrays that it refers to by number."""

    structure: JSON
    arrays: list[Array]


class NoSuchPart(LookupError):
    """A tree has no such part; the text says which, and what is there."""


def write_tree(file: BinaryIO, tree: Tree, *, name: str = "state") -> None:
    """Write a tree as an `.npz` file.

    Args:
        file: open for writing bytes; it need not be able to seek.
        tree: nested dicts, lists and tuples. Leaves are arrays of NumPy, JAX or PyTorch, NumPy scalars,
            `int` of any size, `float`, `bool`, `str`, `bytes` and `None`. A named tuple comes back as a
            plain one: for an optimizer's state in JAX, `jax.tree.unflatten(jax.tree.structure(state),
            jax.tree.leaves(read))`.
        name: what the tree is called in errors.

    Raises:
        TypeError: a leaf is none of these, or an array of Python objects; the sentence says where it is.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> write_tree(file, {"weights": np.ones(3), "step": 412})
        >>> read_tree(io.BytesIO(file.getvalue()))
        {'weights': array([1., 1., 1.]), 'step': 412}
    """
    write_packed(file, *pack(tree, name=name))


def read_tree(file: BinaryIO, *, only: Sequence[tuple[str, ...]] | None = None) -> Tree:
    """Read what `write_tree` wrote; arrays of JAX and PyTorch come back as such.

    Args:
        file: open for reading bytes; it need not be able to seek.
        only: where the parts to read stand, as keys that lead into nested dicts; None reads all. The arrays of other
            parts are not read.

    Raises:
        NoSuchPart: there is no such part.
        Malformed: it is no such file.
        ImportError: a leaf needs JAX, PyTorch or `ml_dtypes`, and it isn't there.
    """
    return Unread(npz.NpzReader(file), only=only).tree()


class Unread:
    """A tree whose bytes are read, and not looked at yet: they may have to be compared with a checksum first.

    Args:
        reader: at the beginning of a file that `write_tree` wrote.
        only: as `read_tree` has it.

    Raises:
        NoSuchPart: there is no such part.
        Malformed: it is no such file.
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
        """The tree."""
        return _decode(self._structure, {str(index): array for index, array in self._arrays.items()})


def _numbers(structure: JSON) -> set[int]:
    """Of an encoded tree, the numbers of its arrays."""
    if isinstance(structure, list):
        return set().union(*map(_numbers, structure))
    if not isinstance(structure, dict):
        return set()
    tag = next(iter(structure), "")
    if tag == "$array":
        return {structure[tag]}
    # Of tags, those that hold other values; numbers and texts hold none.
    return set().union(*map(_numbers, structure.values())) if not tag.startswith("$") else _numbers(structure[tag])


def _parts(structure: JSON, only: Sequence[tuple[str, ...]]) -> JSON:
    """Of an encoded tree of dicts, the parts at some paths, where they stood."""
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
    """A tree as JSON and the arrays that it refers to by number; nothing is copied that need not be."""
    arrays: list[Array] = []
    return Packed(_encode(tree, name, arrays), arrays)


def pack_owned(tree: Tree, *, name: str = "state", copies: Copies | None = None) -> Packed:
    """`pack` of a tree as it is now, to be written later: what may change until then is copied.

    Args:
        tree: as `write_tree` takes it.
        name: what it is called in errors.
        copies: what the copies are to be some of; None where no others follow them.

    Example:
        >>> weights = np.ones(3)
        >>> packed = pack_owned({"w": weights})
        >>> weights += 1
        >>> unpack(*packed)
        {'w': array([1., 1., 1.])}
    """
    return pack(owned(tree, Copies() if copies is None else copies), name=name)


def owned(tree: Tree, copies: Copies) -> Tree:
    """A tree as it is now, of which `pack`, called at once, makes what no later change reaches."""
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
    """Plain data as strict JSON; what JSON lacks (NaN, tuples, huge integers) is tagged.

    Raises:
        TypeError: an array, or anything else that isn't plain; the sentence says where it is.

    Example:
        >>> to_json({"loss": float("nan"), "shape": (2, 3)})
        {'loss': {'$float': 'nan'}, 'shape': {'$tuple': [2, 3]}}
    """
    return _encode(data, name, None)


def from_json(data: JSON) -> Tree:
    """What `to_json` was given."""
    return _decode(data, {})


def non_finite(tree: Tree, *, name: str = "state") -> str | None:
    """Where the first NaN or infinity in a tree is, or None.

    Args:
        tree: as `write_tree` takes it.
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
    if isinstance(value, np.generic):  # before float and str: numpy.float64 and numpy.str_ are such, too
        return {"$scalar": _encode_scalar(value, path)}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        # Beyond 53 bits other readers of JSON round, and beyond 4,300 digits Python refuses.
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
        # An empty text has no bytes, which frombuffer refuses.
        return np.frombuffer(base64.b64decode(text), dtype)[0] if dtype.itemsize else dtype.type()
    if tag == "$array":
        return from_array(arrays[str(value)], data)
    raise ValueError(f"The tag {tag!r} is unknown to this version of unbounded.")
