"""Copies: copies of arrays and tensors in reused memory, since each page of new memory costs a page fault."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_SMALL = 1 << 16  # bytes: smaller arrays come from the heap, whose pages are mapped already


class Copies:
    """The copies of one moment.

    Args:
        former: copies that are not needed any more: their memory is reused for these. Memory that these do not need is
            freed with the next copies.

    Example:
        >>> weights = np.zeros(100_000)
        >>> first = Copies()
        >>> copy = first.of_array(weights)
        >>> weights += 1
        >>> float(copy.max())
        0.0
        >>> np.shares_memory(Copies(first).of_array(weights), copy)
        True
    """

    def __init__(self, former: Copies | None = None) -> None:
        self._used: list[Array] = []
        self._free: dict[int, list[Array]] = {}
        if former is not None:
            # Taken from `former`, so that no third object gets the same memory.
            used, former._used, former._free = former._used, [], {}
            for room in used:
                self._free.setdefault(room.nbytes, []).append(room)

    def of_array(self, array: Array) -> Array:
        """A copy of an array."""
        if type(array) is not np.ndarray or not _worth_it(array.nbytes) or not array.flags.c_contiguous:
            return np.array(array, subok=True)
        if array.dtype.hasobject:
            return np.array(array)
        copy = self._room(array.nbytes).view(array.dtype).reshape(array.shape)
        np.copyto(copy, array)
        return copy

    def of_tensor(self, tensor: Any, torch: Any) -> Any:
        """A copy of a PyTorch tensor in the computer's memory; `torch` is the package."""
        tensor = tensor.detach()
        plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided and not tensor.is_quantized
        if not plain or not tensor.is_contiguous() or not _worth_it(math.prod(tensor.shape) * tensor.itemsize):
            # `cpu()` copies from a device. A copy on the device would be faster, but may not fit into its memory.
            return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()
        room = torch.from_numpy(self._room(math.prod(tensor.shape) * tensor.itemsize))
        # Blocking, also from another device: the copy is complete when it returns.
        return room.view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def _room(self, size: int) -> Array:
        """Bytes that no other copy uses."""
        free = self._free.get(size)
        room: Array = free.pop() if free else np.empty(size, np.uint8)
        self._used.append(room)
        return room


def _worth_it(size: int) -> bool:
    return size >= _SMALL
