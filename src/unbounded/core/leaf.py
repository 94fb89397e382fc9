"""One leaf of a saved state: converted to a NumPy array that a `.npy` file can hold, with a note of its type, and back.

JAX and PyTorch are never imported here: a leaf can only be theirs if the program has imported them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from unbounded.core import ragged
from unbounded.core.copies import Array, Copies
from unbounded.core.warn import warn

__all__ = [
    "Array",
    "Note",
    "foreign_dtype",
    "foreign_name",
    "from_array",
    "has_non_finite",
    "in_main_memory",
    "own",
    "start_copying",
    "to_array",
]

Note: TypeAlias = dict[str, Any]


def to_array(value: Any, path: str) -> tuple[Array, Note]:
    """A leaf as an array of a dtype that NumPy can write, and the note that `from_array` needs.

    Args:
        value: an array (NumPy, JAX, PyTorch) or bytes.
        path: the leaf's path in the tree, for errors.

    Raises:
        TypeError: the leaf has another type, or holds Python objects.
    """
    note: Note = {}
    try:
        if isinstance(value, bytes):
            array: Array = np.frombuffer(value, np.uint8)
            note["as"] = "bytes"
        elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            array = np.asarray(value)
        elif (jax := sys.modules.get("jax")) is not None and isinstance(value, jax.Array):
            array = _from_jax(value, jax, note)
        elif (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
            array = _from_torch(value, torch, note)
        else:
            raise TypeError(
                f"{path} is of type {type(value).__name__}, which can't be saved; leaves are arrays (NumPy, "
                "JAX, PyTorch), int, float, bool, str, bytes and None, in dicts, lists and tuples."
            )
    except TypeError:
        raise
    except Exception as error:  # any framework error: such as a deleted array, or one that is sharded over processes
        raise TypeError(f"{path} could not be read as an array: {error}") from error
    if ragged.is_ragged(array):
        try:
            return np.frombuffer(b"".join(ragged.encoded(array)), np.uint8), {"as": "ragged"}
        except ragged.NotRagged as error:
            raise TypeError(f"{path} can't be saved: it {error}.") from None
    if array.dtype.hasobject:
        raise TypeError(
            f"{path} is an array of Python objects (dtype {array.dtype}), which can't be saved so that "
            "loading runs no code; give it a dtype of numbers or of text ('U')."
        )
    if name := foreign_name(array.dtype, path):
        note["dtype"] = name
        array = array.view(f"u{array.dtype.itemsize}")
    return array, note


def start_copying(value: Any) -> None:
    """Start the copy of a leaf from an accelerator, so that many copies overlap; no-op for other leaves."""
    if (jax := sys.modules.get("jax")) is not None and isinstance(value, jax.Array) and not value.is_deleted():
        value.copy_to_host_async()


def in_main_memory(value: Any) -> bool:
    """True if a JAX array is in the computer's memory, not on an accelerator."""
    return all(device.platform == "cpu" for device in value.devices())


def own(value: Any, copies: Copies) -> Any:
    """A leaf with its values of now: a copy, one of `copies`, unless nobody can write to it.

    A JAX array is returned as it is: it is immutable, but the memory of an accelerator may be donated to the next step.
    It is safe once `to_array` has read it. On a CPU, `to_array` takes a view, which keeps JAX from donating the memory.
    """
    if isinstance(value, np.ndarray):
        return copies.of_array(value)
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        return copies.of_tensor(value, torch)
    return value


def from_array(array: Array, note: Mapping[str, Any]) -> Any:
    """The leaf that `to_array` was given, of the same type; tensors are on the CPU.

    Raises:
        ImportError: it needs JAX, PyTorch or `ml_dtypes`, which is not installed.
        ValueError: the note is of a newer version of unbounded.
    """
    if "dtype" in note:
        array = array.view(foreign_dtype(note["dtype"]))
    kind = note.get("as")
    if kind is None:
        return array
    if kind == "bytes":
        return array.tobytes()
    if kind == "ragged":
        return ragged.decoded(array.tobytes())[0]
    if kind == "jax":
        return _to_jax(array, note)
    if kind == "torch":
        return _to_torch(array, note["kind"])
    raise ValueError(f"The kind of array {kind!r} is unknown to this version of unbounded.")


def foreign_name(dtype: np.dtype[Any], path: str) -> str | None:
    """The name of a dtype that NumPy would write as raw bytes (bfloat16, float8, int4); None for NumPy's own dtypes."""
    if dtype.isbuiltin != 2:
        return None
    try:
        if foreign_dtype(dtype.name) == dtype:
            return dtype.name
    except (ImportError, ValueError):
        pass
    raise TypeError(f"{path} has the dtype {dtype}, which is neither NumPy's nor one of ml_dtypes.")


def foreign_dtype(name: str) -> np.dtype[Any]:
    """The dtype with a name from `foreign_name`."""
    import ml_dtypes

    found = getattr(ml_dtypes, name, None)
    if not (isinstance(found, type) and issubclass(found, np.generic)):
        version = ml_dtypes.__version__
        raise ValueError(f"The dtype {name!r} is unknown to ml_dtypes {version}; a newer one may know it.")
    return np.dtype(found)


def has_non_finite(leaf: Any) -> bool:
    """True if a leaf has a NaN or an infinity. Its sum may overflow: call this under `np.errstate`."""
    if isinstance(leaf, float):
        return not math.isfinite(leaf)
    if (torch := sys.modules.get("torch")) is not None and isinstance(leaf, torch.Tensor):
        return not bool(torch.isfinite(leaf).all())
    if (jax := sys.modules.get("jax")) is not None and isinstance(leaf, jax.Array):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # can't be read as an array
            return False
        leaf = np.asarray(leaf)
    if not isinstance(leaf, np.ndarray | np.generic):
        return False
    leaf = np.asarray(leaf)
    if leaf.dtype.names is not None:
        return any(has_non_finite(leaf[field]) for field in leaf.dtype.names)
    # A finite sum proves that all terms are finite, in one pass without an allocation. Otherwise check each value.
    if leaf.dtype.kind == "f" and math.isfinite(leaf.sum()):
        return False
    return (leaf.dtype.kind in "fc" or leaf.dtype.isbuiltin == 2) and not bool(np.isfinite(leaf).all())


def _from_jax(value: Any, jax: Any, note: Note) -> Array:
    note["as"] = "jax"
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        note["key"] = str(jax.random.key_impl(value))
        value = jax.random.key_data(value)
    elif value.weak_type:  # weak types take part in JAX's dtype promotion
        note["weak"] = True
    return np.asarray(value)


def _to_jax(array: Array, note: Mapping[str, Any]) -> Any:
    import jax

    if "key" in note:
        return jax.random.wrap_key_data(array, impl=note["key"])
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise ValueError(
            f"A JAX array of {array.dtype} was saved, which JAX holds only with 64-bit types on: "
            "call jax.config.update('jax_enable_x64', True) first, as the run that saved it did."
        )
    value = jax.numpy.asarray(array)
    return _weakly(value) if note.get("weak") else value


def _weakly(value: Any) -> Any:
    """A weakly typed JAX array, such as `jnp.full((3,), 1.0)` makes."""
    try:
        # JAX has no public function for this. If the private one is gone, warn that the dtype may change.
        from jax._src.lax.lax import _convert_element_type
    except ImportError:
        warn(
            f"A JAX array of {value.dtype} was weakly typed when it was saved, and can't be made so by this "
            "JAX: what is computed from it and arrays of other dtypes may get another dtype."
        )
        return value
    return _convert_element_type(value, weak_type=True)


def _from_torch(value: Any, torch: Any, note: Note) -> Array:
    note["as"] = "torch"
    if value.layout is not torch.strided or value.is_quantized:
        raise ValueError("it is sparse or quantized; make it a dense tensor.")
    value = value.detach().cpu().resolve_conj().resolve_neg()
    note["kind"] = str(value.dtype).removeprefix("torch.")
    try:
        array: Array = value.numpy()
    except TypeError:  # bfloat16 and float8: NumPy has no such dtypes
        array = value.contiguous().view({1: torch.uint8, 2: torch.int16}[value.dtype.itemsize]).numpy()
    return array


def _to_torch(array: Array, kind: str) -> Any:
    import torch

    dtype = getattr(torch, kind, None)
    if not isinstance(dtype, torch.dtype):
        version = torch.__version__
        raise ValueError(f"The dtype {kind!r} is unknown to torch {version}; a newer one may know it.")
    tensor = torch.from_numpy(array)
    return tensor if tensor.dtype == dtype else tensor.view(dtype)
