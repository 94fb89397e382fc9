"""Ragged columns: rows of several lengths, as arrays of Python objects that are arrays of one dtype, or bytes.

They travel through a stream as other columns do, since an array of objects is cut, gathered and joined as any other.
What differs is here: their size, their copies, and their bytes, from which they are read back without running code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_LENGTH = np.dtype("<i8")
_SAMPLE = 32  # rows from which the size of a row is estimated


class NotRagged(TypeError):
    """An array of objects has rows that are neither arrays of one dtype nor bytes; the message says which."""


def is_ragged(leaf: Any) -> bool:
    """True if a leaf is an array of objects, of which the first is an array or bytes."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype != object or not leaf.size:
        return False
    first = leaf.flat[0]
    return isinstance(first, bytes) or (isinstance(first, np.ndarray) and not first.dtype.hasobject)


def column_of(rows: Sequence[Any]) -> Array:
    """An array of objects that contains `rows`."""
    out = np.empty(len(rows), object)
    for i, row in enumerate(rows):  # an assignment of the list would stack rows of one length
        out[i] = row
    return out


def copied(leaf: Array) -> Array:
    """A copy of a column with copies of its rows, which can't be written to; of other objects the references alone."""
    out = leaf.copy()
    if is_ragged(leaf):
        flat = out.reshape(-1)
        for i, row in enumerate(flat):
            if isinstance(row, np.ndarray):
                flat[i] = locked(row.copy())
    return out


def locked(row: Array) -> Array:
    """The same row, made read-only: rows are shared by all blocks that contain them."""
    row.flags.writeable = False
    return row


def read_only(leaf: Array) -> Array:
    """The column with rows that can't be written to: views of those that can be."""
    if not is_ragged(leaf) or not any(isinstance(row, np.ndarray) and row.flags.writeable for row in leaf.flat):
        return leaf
    rows = [locked(row.view()) if isinstance(row, np.ndarray) else row for row in leaf.flat]
    return column_of(rows).reshape(leaf.shape)


def nbytes(leaf: Array) -> int:
    """The bytes of a leaf; of a ragged one with those of its rows."""
    if leaf.dtype != object:
        return leaf.nbytes
    return leaf.nbytes + _content(leaf.reshape(-1))


def _content(rows: Array) -> int:
    # A place of a larger table of rows may be empty: None.
    return sum(len(row) if type(row) is bytes else getattr(row, "nbytes", 0) for row in rows)


def row_nbytes(leaf: Array) -> int:
    """The bytes of one row of a leaf; of a ragged one a mean over some rows."""
    size: int = leaf.dtype.itemsize * math.prod(leaf.shape[1:])
    if leaf.dtype != object or not len(leaf):
        return size
    some = leaf[:: max(1, len(leaf) // _SAMPLE)]
    return size + _content(some.reshape(-1)) // len(some)


def boxed(row: Any) -> Array:
    """An array of shape () that contains a row: as a sample, it becomes a row of a ragged column."""
    box = np.empty((), object)
    box[()] = row
    return box


def has_values(leaf: Array) -> bool:
    """True if a row of a ragged column is not empty."""
    return any(map(len, leaf.reshape(-1)))


def form(leaf: Array) -> tuple[Any, tuple[int, ...]]:
    """The dtype of the rows of a ragged column, or `bytes`, and the shape of their values.

    Raises:
        NotRagged: rows differ in more than their length, or are other objects.
    """
    rows = leaf.reshape(-1)
    # An empty row fits all: an empty list has no dtype.
    first = next((row for row in rows if not isinstance(row, bytes | np.ndarray) or len(row)), rows[0])
    if isinstance(first, bytes):
        for row in rows:
            if type(row) is not bytes:
                raise NotRagged(f"has bytes in one row, and a {type(row).__name__} in another")
        return bytes, ()
    if not isinstance(first, np.ndarray) or first.dtype.hasobject or not first.ndim:
        raise NotRagged(f"has Python objects such as {first!r:.60}")
    dtype, shape = first.dtype, first.shape[1:]
    dimensions = first.ndim
    for row in rows:
        # Most columns have rows of one dimension that share their dtype object: a shape costs as much as all else.
        if type(row) is np.ndarray and row.dtype is dtype and row.ndim == dimensions == 1:
            continue
        if type(row) is not np.ndarray or row.dtype != dtype or row.shape[1:] != shape:
            _refuse(first, row)
    if dtype.isbuiltin == 2:
        raise NotRagged(f"has rows of {dtype}, which is no dtype of NumPy's")
    return np.dtype(dtype.kind) if dtype.kind in "US" else dtype, shape


def values_and_lengths(leaf: Array) -> tuple[Array | bytes, Array]:
    """The rows one after the other, and the length of each.

    Raises:
        NotRagged: a row is of another kind, dtype or shape than the first.
    """
    kind, _ = form(leaf)
    rows = leaf.reshape(-1).tolist()
    lengths = np.fromiter(map(len, rows), _LENGTH, len(rows))
    return b"".join(rows) if kind is bytes else _joined(rows), lengths


def _joined(rows: list[Array]) -> Array:
    """The values of rows, of the dtype of those that are not empty."""
    return np.concatenate([row for row in rows if len(row)] or rows[:1])


def _refuse(first: Array, row: Any) -> None:
    """Raise NotRagged unless both are text, whose width is no property of rows, or the second is empty."""
    if not isinstance(row, np.ndarray) or not row.ndim:
        raise NotRagged(f"has an array in one row, and {row!r:.60} in another")
    if not len(row):
        return
    if row.dtype != first.dtype and not (row.dtype.kind == first.dtype.kind and row.dtype.kind in "US"):
        raise NotRagged(f"has rows of {first.dtype} and of {row.dtype}")
    if row.shape[1:] != first.shape[1:]:
        raise NotRagged(f"has rows of shape {first.shape} and of {row.shape}, of which more than the length differs")


def encoded(leaf: Array) -> list[bytes | memoryview]:
    """A ragged column as bytes, in parts: the length of a header, the header, lengths, values.

    Raises:
        NotRagged: as for `values_and_lengths`.
    """
    values, lengths = values_and_lengths(leaf)
    head: dict[str, Any] = {"shape": list(leaf.shape)}
    if isinstance(values, np.ndarray):
        head |= {"dtype": np.lib.format.dtype_to_descr(values.dtype), "row": list(values.shape[1:])}
        body = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data if values.size else b""
    else:
        body = values
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    size = np.array([len(text)], _LENGTH).tobytes()
    return [part for part in (size, text, lengths.tobytes(), body) if len(part)]


def decoded(data: bytes | memoryview) -> tuple[Array, int]:
    """The column that begins a buffer, whose rows are read-only, and the number of its bytes."""
    (size,) = np.frombuffer(data, _LENGTH, 1)
    at = 8 + int(size)
    head = json.loads(bytes(data[8:at]))
    count = math.prod(head["shape"])
    lengths = np.frombuffer(data, _LENGTH, count, at)
    at += lengths.nbytes
    ends = np.cumsum(lengths).tolist()
    total = ends[-1] if ends else 0
    if "dtype" not in head:
        whole = bytes(data[at : at + total])
        return _cut(whole, ends).reshape(head["shape"]), at + total
    descr = head["dtype"]
    dtype = np.dtype(descr) if isinstance(descr, str) else np.lib.format.descr_to_dtype(_fields(descr))
    row = math.prod(head["row"])
    nbytes = total * row * dtype.itemsize
    # A copy: the rows would keep all of the buffer, such as the whole segment of a log.
    values = np.frombuffer(bytes(data[at : at + nbytes]), dtype) if nbytes else np.zeros(total * row, dtype)
    return cut(values.reshape(total, *head["row"]), lengths).reshape(head["shape"]), at + nbytes


def _fields(descr: Any) -> Any:
    """The description of a structured dtype, of which JSON has made lists."""
    return [tuple(tuple(part) if i == 2 else part for i, part in enumerate(field)) for field in descr]


def cut(values: Array, lengths: Array) -> Array:
    """A ragged column of consecutive rows of `values`: read-only views."""
    values = values.view()
    values.flags.writeable = False
    return _cut(values, np.cumsum(lengths).tolist())


def _cut(values: Any, ends: list[int]) -> Array:
    return column_of([values[begin:end] for begin, end in zip([0, *ends], ends, strict=False)])


def padded(leaf: Array, length: int, value: Any) -> tuple[Array, Array]:
    """A ragged column of arrays as an array of shape (rows, length, …), and the lengths that rows had, int64.

    Longer rows are cut; behind shorter ones is `value`, or empty text.
    """
    dtype, shape = form(leaf)
    lengths = np.fromiter(map(len, leaf), np.int64, len(leaf))
    short = [row[:length] for row in leaf] if (lengths > length).any() else leaf.tolist()
    values = _joined(short)
    out = np.empty((len(leaf), length, *shape), values.dtype)
    out[...] = "" if dtype.kind in "US" else value
    out[np.arange(length) < lengths[:, None]] = values
    return out, lengths


def unified(leaf: Array, empty: Array | None = None) -> Array:
    """The column with empty rows of the dtype and shape of the others: `empty`, or that of the first row with values.

    What makes no list of values, such as `np.array([])`, has float64. Joined with others in one block and alone in
    another, such a row would give a column two dtypes.
    """
    if not is_ragged(leaf) or isinstance(leaf.flat[0], bytes):
        return leaf
    rows = leaf.reshape(-1).tolist()
    if not all(isinstance(row, np.ndarray) for row in rows):  # other objects, which a loop of one's own may want
        return leaf
    if empty is None:
        first = next((row for row in rows if len(row)), None)
        if first is None:
            return leaf
        empty = first[:0]
    if all(len(row) or (row.dtype == empty.dtype and row.shape == empty.shape) for row in rows):
        return leaf
    empty = locked(empty.copy())
    return column_of([row if len(row) else empty for row in rows]).reshape(leaf.shape)


def columns_of(rows: Any) -> dict[Any, Any]:
    """By name, an empty row of each ragged column of a dict of columns."""
    if not isinstance(rows, dict):
        return {}
    return {name: leaf.flat[0][:0] for name, leaf in rows.items() if is_ragged(leaf)}


def box_columns(sample: Any, columns: dict[Any, Any]) -> Any:
    """A sample in which these columns, which were ragged, stay so: their rows are in arrays of shape ()."""
    if not columns or not isinstance(sample, dict):
        return sample
    return {name: _as_box(value, columns[name]) if name in columns else value for name, value in sample.items()}


def _as_box(value: Any, empty: Any) -> Any:
    if isinstance(value, bytes):
        return boxed(value)
    if isinstance(value, (list, tuple)) and not value:
        return boxed(empty)
    array = np.asarray(value)
    return boxed(locked(array.copy())) if array.ndim and not array.dtype.hasobject else value
