"""Conversion of what data sets yield to trees of NumPy arrays: tensors, numbers, text, lists of numbers.

The library of a value is known by its class's module, so that no library is imported to find out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree

_NUMBERS = (bool, int, float, complex, np.generic)
_PLAIN = (*_NUMBERS, str)


def to_numpy(value: Any, what: str, path: str = "") -> Tree:
    """A tree of NumPy arrays, which may be views of the value's memory.

    A list of numbers or of text is an array; other lists, tuples and dicts are structure. Text is an array of `U`.

    Args:
        value: what a data set yields.
        what: the value in words, for errors, such as "Item 3 of Squares".
        path: its place in the whole value.

    Raises:
        RowsError: a ragged or sparse tensor, lists of unequal lengths, or bytes.
        TypeError: an object that has no array.
    """
    if isinstance(value, Mapping):  # also such as the outputs of tokenizers
        return {key: to_numpy(part, what, f"{path}[{key!r}]") for key, part in value.items()}
    if isinstance(value, list) and _is_plain(value):
        return _listed(value, what, path)
    if isinstance(value, tuple | list):
        parts = [to_numpy(part, what, f"{path}[{i}]") for i, part in enumerate(value)]
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return tuple(parts) if isinstance(value, tuple) else parts
    return None if value is None else to_array(value, what, path)


def to_array(value: Any, what: str, path: str = "") -> Array:
    """One leaf as a NumPy array; see `to_numpy`."""
    if isinstance(value, np.ndarray) and value.shape == () and isinstance(value[()], np.ndarray | bytes):
        return value  # a row of a ragged column
    if isinstance(value, np.ndarray):
        return _text(trees.unmasked(value), what, path) if value.dtype.kind in "OT" else trees.unmasked(value)
    if isinstance(value, _PLAIN) and not isinstance(value, np.bytes_):
        return np.asarray(value)
    library = type(value).__module__.partition(".")[0]
    # Also subclasses of tensors, such as the images of torchvision.
    if any(each.__name__ == "Tensor" and each.__module__ == "torch" for each in type(value).__mro__):
        return _from_torch(value, what, path)
    if library == "tensorflow":
        return _from_tensorflow(value, what, path)
    if library == "scipy" and hasattr(value, "toarray"):
        raise RowsError(f"{what}: {trees.name(path)} is a sparse {type(value).__name__}. Write .toarray() first.")
    if isinstance(value, bytes | np.bytes_):
        raise RowsError(
            f"{what}: {trees.name(path)} is bytes, which have no fixed length. Decode them first: .decode() for text, "
            f"np.frombuffer(…) for numbers, or an image reader. {ragged_way(path)} to keep them as bytes."
        )
    if hasattr(value, "__dlpack__") and library != "jax":
        try:
            return np.asarray(np.from_dlpack(value))
        except (BufferError, RuntimeError, TypeError, ValueError):
            pass  # such as one on an accelerator
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        array = np.asarray(value)
        return _text(array, what, path) if array.dtype.kind in "OT" else array
    raise TypeError(
        f"{what}: {trees.name(path)} is a {type(value).__name__}. Expected arrays, tensors, numbers or text, and "
        "tuples, lists and dicts of them: convert it in the data set."
    )


def _is_plain(value: list[Any]) -> bool:
    return bool(value) and all(
        _is_plain(part) if isinstance(part, list) else isinstance(part, _PLAIN) for part in value
    )


def _listed(value: list[Any], what: str, path: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ragged(what, path) from None
    if array.dtype.kind in "USO" and not _is_text(value):
        raise RowsError(f"{what}: {trees.name(path)} is a list of numbers and text. Expected one kind in an array.")
    return array


def _is_text(value: Any) -> bool:
    return all(map(_is_text, value)) if isinstance(value, list) else isinstance(value, str)


def ragged(what: str, path: str) -> RowsError:
    """The error for rows of unequal lengths in one leaf."""
    return RowsError(
        f"{what}: {trees.name(path)} is ragged: its parts have unequal lengths. Expected rows of one shape. "
        f"{ragged_way(path)}, for .pad(length) or .batch(n, bucket=[…]) in the stream."
    )


def ragged_way(path: str) -> str:
    """What to write for rows of several lengths in a column."""
    name = path[1:-1] if path.count("[") == 1 else ""
    return f"Write from_dataset(…, ragged=[{name}])" if name else "Give items that are dicts, and write ragged=['name']"


def _text(array: Array, what: str, path: str) -> Array:
    """An array of text as `U`, and of arrays as one array. Libraries give text as objects, TensorFlow as bytes in
    UTF-8."""
    flat = array.ravel().tolist()
    if all(type(part) is str for part in flat):
        return np.array(flat, dtype=np.str_).reshape(array.shape)
    if all(type(part) is bytes for part in flat):
        return np.array([_decoded(part, what, path) for part in flat], dtype=np.str_).reshape(array.shape)
    if all(isinstance(part, np.ndarray | list) or hasattr(part, "__array__") for part in flat):
        return stacked(flat, what, path)
    if any(part is None or (isinstance(part, float) and part != part) for part in flat):
        raise missing(what, path)
    raise RowsError(
        f"{what}: {trees.name(path)} has objects such as {next(p for p in flat if type(p) is not str)!r:.60}. Expected "
        "numbers or text alone: convert them in the data set."
    )


def stacked(parts: list[Any], what: str, path: str) -> Array:
    """One array of parts of one shape, each an array, a tensor, a number or a list of numbers."""
    converted = [to_numpy(part, what, path) for part in parts]
    if any(part is None for part in converted):
        raise missing(what, path)
    if any(not isinstance(part, np.ndarray) for part in converted):
        raise RowsError(f"{what}: {trees.name(path)} is a structure in a list. Expected arrays, numbers or text.")
    if len({part.shape for part in converted}) > 1:
        raise ragged(what, path)
    return np.stack(converted)


def missing(what: str, path: str) -> RowsError:
    """The error for missing values in a leaf that can't hold NaN."""
    return RowsError(
        f"{what}: {trees.name(path)} has missing values, which whole numbers, truth values, dates and text can't hold. "
        "Fill them in, or drop these rows, in the data set; a column of floats would have NaN."
    )


def _decoded(part: bytes, what: str, path: str) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise RowsError(
            f"{what}: {trees.name(path)} has bytes that are no text in UTF-8. Decode them in the data set: "
            "tf.io.decode_raw for numbers, tf.io.decode_image for images."
        ) from None


def _from_torch(value: Any, what: str, path: str) -> Array:
    if getattr(value, "is_nested", False):
        raise RowsError(
            f"{what}: {trees.name(path)} is a nested tensor, which is ragged. Pad it: "
            "torch.nested.to_padded_tensor(x, 0.0)."
        )
    if str(value.layout) != "torch.strided":
        raise RowsError(
            f"{what}: {trees.name(path)} is a sparse tensor ({value.layout}). Write .to_dense() in the data set."
        )
    tensor = value.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()  # NumPy has no memory of accelerators: a copy
    try:
        array: Array = tensor.numpy()
    except (TypeError, RuntimeError):  # bfloat16 and float8, which NumPy lacks; a conjugate view
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype.startswith("complex"):
            return tensor.resolve_conj().resolve_neg().numpy()  # type: ignore[no-any-return]
        raise RowsError(
            f"{what}: {trees.name(path)} is a tensor of {dtype}, which NumPy does not have. Write .float() in the data "
            "set; the model may convert it back."
        ) from None
    return array


def _from_tensorflow(value: Any, what: str, path: str) -> Array:
    kind = type(value).__name__
    if kind.startswith("Ragged"):
        raise RowsError(
            f"{what}: {trees.name(path)} is a ragged tensor. Pad it: .to_tensor(shape=…) in the data set's map()."
        )
    if kind.startswith(("Sparse", "IndexedSlices")):
        raise RowsError(
            f"{what}: {trees.name(path)} is a sparse tensor. Write tf.sparse.to_dense(x) in the data set's map()."
        )
    if not hasattr(value, "numpy"):
        raise TypeError(f"{what}: {trees.name(path)} is a {kind}, which has no values yet. Expected an eager tensor.")
    array = value.numpy()
    if isinstance(array, bytes):
        return np.array(_decoded(array, what, path))
    array = np.asarray(array)
    return _text(array, what, path) if array.dtype.kind == "O" else array
