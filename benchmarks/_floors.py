"""The floor under `fit`: adapters that hand out one constant batch, as each backend takes it fastest.

JAX takes NumPy as it is, and on the CPU without a copy where it lies on a boundary of 64 bytes. Torch wants
tensors, in any iterable. TensorFlow takes tensors from a plain iterator when it is asked for one step at a
time (making a tensor out of NumPy for each step costs 1.3 times that); for several at once it must have a
tf.data, in whose C++ the loop then runs, and which is faster without its default optimisations (a prefetch and
autotuning threads that a constant has no use for).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import numpy as np
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from numpy.typing import NDArray

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


class Constant(DataAdapter):  # type: ignore[misc]
    """Hands out what `make()` returns, whatever the backend that asks: it never ends."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make

    def get_numpy_iterator(self) -> Iterable[Any]:
        """The batches."""
        return self._make()

    get_jax_iterator = get_torch_dataloader = get_tf_dataset = get_numpy_iterator
    num_batches = batch_size = has_partial_batch = partial_batch_size = None


def floors(backend: str, batch: Batch, steps_per_execution: int) -> dict[str, Constant]:
    """Adapters by name. The first is the floor; the others show what another kind of constant costs."""
    if backend == "jax":
        import jax

        aligned = tuple(_aligned(part) for part in batch)
        placed = jax.device_put(batch)
        return {
            "floor: NumPy": Constant(lambda: repeat(aligned)),
            "on the device": Constant(lambda: repeat(placed)),
        }
    if backend == "torch":
        import torch

        tensors = tuple(torch.from_numpy(part) for part in batch)
        return {"floor: tensors": Constant(lambda: repeat(tensors))}
    return _tensorflow_floors(batch, steps_per_execution)


def _aligned(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy that begins at a multiple of 64 bytes: where NumPy's own would begin is a matter of luck."""
    room = np.empty(array.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def _tensorflow_floors(batch: Batch, steps_per_execution: int) -> dict[str, Constant]:
    """Tensors for single steps; for several at once, a tf.data without its default optimisations."""
    import tensorflow as tf

    tensors = tuple(tf.constant(part) for part in batch)
    plain = tf.data.Options()
    plain.autotune.enabled = False
    plain.experimental_optimization.apply_default_optimizations = False
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    by_hand = Constant(lambda: repeat(tensors))
    bare = Constant(lambda: dataset.with_options(plain))
    if steps_per_execution == 1:
        return {"floor: tensors": by_hand, "bare tf.data": bare}
    return {"floor: bare tf.data": bare, "tensors": by_hand}
