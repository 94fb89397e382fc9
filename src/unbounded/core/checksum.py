"""Short checksums of plain data and arrays, equal in every process."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from unbounded.core.leaf import to_array

_MOST_BYTES = 1 << 24  # of larger arrays, _MANY evenly spaced values are hashed
_MANY = 1 << 16
_MOST_ITEMS = 1 << 12  # of larger containers, _SAMPLE evenly spaced items are hashed
_SAMPLE = 64


def checksum(*parts: Any) -> str:
    """The checksum of strings, numbers and other checksums, in tuples and lists."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def plain_checksum(value: Any, of: Callable[[Any], str]) -> str | None:
    """The checksum of plain data; None for arrays and any other object.

    Args:
        value: a number, string, bytes, container, date, dtype or regular expression.
        of: returns the checksum of an item of a container.
    """
    kind = type(value)
    if isinstance(value, np.dtype | range | slice) or kind.__module__ in ("datetime", "decimal", "fractions"):
        return checksum(kind.__name__, repr(value))
    if kind.__module__ == "re" and hasattr(value, "pattern"):
        return checksum("pattern", repr(value.pattern), value.flags)
    if kind.__module__ in ("operator", "_operator"):  # such as itemgetter
        return checksum("operator", repr(value))
    if isinstance(value, np.generic):
        return checksum("scalar", value.dtype.str, repr(value.tolist()))
    if isinstance(value, str | bytes | bytearray | int | float):
        return checksum(kind.__qualname__, repr(value))
    if isinstance(value, Mapping) and (kind is dict or isinstance(value, dict | MappingProxyType)):
        pairs = [(of(key), of(item)) for key, item in _sampled(list(value.items()))]
        return checksum("dict", len(value), sorted(pairs))
    if isinstance(value, list | tuple | deque):
        return checksum(kind.__name__, len(value), [of(item) for item in _sampled(value)])
    if isinstance(value, set | frozenset):
        few = value if len(value) <= _MOST_ITEMS else ()  # a set has no order: samples would differ between processes
        return checksum("set", len(value), sorted(of(item) for item in few))
    return None


def array_checksum(value: Any, of: Callable[[Any], str]) -> str | None:
    """The checksum of an array (NumPy, JAX, PyTorch); None for other objects and for tensors that require gradients."""
    if type(value).__module__.partition(".")[0] == "torch" and getattr(value, "requires_grad", False):
        return None  # its values change during training
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return checksum("objects", value.shape, [of(item) for item in _sampled(value.ravel().tolist())])
    try:
        array, note = to_array(value, "")
    except TypeError:
        return None
    if array.nbytes > _MOST_BYTES:
        array = array.reshape(-1)[np.linspace(0, array.size - 1, _MANY).astype(np.int64)]
    content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()
    return checksum("array", np.shape(value), array.dtype.str, sorted(note.items()), content)


def _sampled(items: Sequence[Any]) -> Sequence[Any]:
    if len(items) <= _MOST_ITEMS:
        return items
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, _SAMPLE).astype(np.int64))]
