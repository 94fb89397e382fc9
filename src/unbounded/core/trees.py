"""Rows: trees of NumPy arrays that share their first dimension.

A tree is an array, or a tuple, list or dict of trees; None stands for an absent part, as in `(x, None, sample_weight)`.
This module has the operations on trees: leaves, counting, slicing, joining, allocating and checking. Checks that rows
stay the same from block to block are in `row_spec`, the search for non-finite values in `finite_rows`, and the wrapper
in which rows move through a stream in `block`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unbounded.core import ragged

Tree: TypeAlias = Any
"""An array, or a tuple, list or dict of trees."""

Array: TypeAlias = NDArray[Any]


class RowsError(ValueError):
    """Rows have a form that a stream can't carry; the message says what was given and what was expected.

    >>> import numpy as np, unbounded as ub
    >>> try:
    ...     ub.from_arrays((np.zeros(3), np.zeros(4)))
    ... except ub.RowsError as error:
    ...     print(type(error).__name__)
    RowsError
    """


def map_leaves(fn: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply `fn` to each leaf (and to the leaves of `others` at the same place), keeping the structure."""
    # A fast path for a single array: for streams of single rows, this function takes much of the whole time.
    if type(tree) is np.ndarray:
        return fn(tree, *others)
    if isinstance(tree, dict):
        if not others:
            return {k: map_leaves(fn, v) for k, v in tree.items()}
        return {k: map_leaves(fn, v, *(o[k] for o in others)) for k, v in tree.items()}
    if isinstance(tree, tuple):
        parts = [map_leaves(fn, *group) for group in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    if isinstance(tree, list):
        return [map_leaves(fn, *group) for group in zip(tree, *others, strict=True)]
    return None if tree is None else fn(tree, *others)


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its path, such as `['x'][0]`, in the order of the structure."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, (tuple, list)):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    elif tree is not None:
        yield path, tree


def arrays(tree: Tree) -> list[Any]:
    """The leaves in the same order, without their paths: faster than `leaves`."""
    if type(tree) is np.ndarray:
        return [tree]
    found: list[Any] = list(tree.values()) if type(tree) is dict else list(tree) if type(tree) is tuple else [tree]
    for leaf in found:
        if type(leaf) is not np.ndarray:
            found = []
            _add_arrays(tree, found)
            break
    return found


def _add_arrays(tree: Tree, found: list[Any]) -> None:
    if isinstance(tree, (dict, tuple, list)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            if type(part) is np.ndarray:
                found.append(part)
            else:
                _add_arrays(part, found)
    elif tree is not None:
        found.append(tree)


def name(path: str) -> str:
    """A leaf's path for messages."""
    return f"leaf {path}" if path else "the array"


def columns(rows: Tree) -> str:
    """The names of the columns of rows, for messages."""
    if isinstance(rows, dict):
        return ", ".join(map(repr, rows))
    return f"positions 0 to {len(rows) - 1}" if isinstance(rows, (tuple, list)) else "no columns: they are one array"


def as_rows(tree: Tree, what: str) -> Tree:
    """`tree` with every leaf converted to an array; all arrays share a first dimension of at least 1.

    Raises RowsError, with a message that begins with `what`, for anything else.
    """
    rows = map_leaves(_as_array, tree)
    count_checked(rows, what)
    return rows


def _as_array(leaf: Any) -> Array:
    # Subclasses such as np.memmap are kept: converting one would read the whole file.
    return unmasked(leaf) if isinstance(leaf, np.ndarray) else np.asarray(leaf)


def unmasked(leaf: Any) -> Any:
    """The leaf; raises RowsError for an array of `numpy.ma` with masked values, which would come as if there were no
    mask."""
    if type(leaf) is np.ndarray or not isinstance(leaf, np.ma.MaskedArray):
        return leaf
    if np.ma.is_masked(leaf):
        raise RowsError(
            f"An array of shape {leaf.shape} has {int(np.ma.getmaskarray(leaf).sum()):,} masked values (numpy.ma), and "
            "a mask does not travel with rows: they would be trained on. Expected plain arrays. Write "
            ".filled(np.nan), with Feed(on_nan='skip'), or another value that says so."
        )
    return leaf.data


def length(rows: Tree) -> int | None:
    """The number of rows; None where some leaf is no array of as many."""
    lengths = [len(leaf) if isinstance(leaf, np.ndarray) and leaf.ndim else -1 for leaf in arrays(rows)]
    return lengths[0] if lengths and lengths[0] >= 0 and lengths.count(lengths[0]) == len(lengths) else None


def count_checked(rows: Tree, what: str) -> int:
    """The number of rows; raises RowsError if the leaves differ."""
    found = length(rows)
    if found is not None:
        return found
    first: tuple[str, int] | None = None  # an error is certain: find the leaf to name
    for path, leaf in leaves(rows):
        if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:
            raise RowsError(
                f"{what}: {name(path)} has no rows (it is {_kind(leaf)}). Expected arrays whose first dimension "
                "is the row: give one row as an array of length 1, or use ub.from_samples for a function that "
                "yields single samples."
                + (" A list is a tree of arrays: rows are np.array([…])." if _in_list(rows, leaf) else "")
            )
        if first is None:
            first = (path, len(leaf))
        elif len(leaf) != first[1]:
            raise RowsError(
                f"{what}: {name(first[0])} has {first[1]:,} rows and {name(path)} has {len(leaf):,}. Expected the "
                "same first dimension in each: check how they were read, or cut the longer one."
            )
    if first is None:
        raise RowsError(f"{what}: it contains no array. Expected at least one array of rows.")
    return first[1]


def _in_list(rows: Tree, leaf: Any) -> bool:
    """Whether a leaf is a part of a list, as where a list of numbers is meant as an array."""
    if isinstance(rows, dict):
        return any(_in_list(part, leaf) for part in rows.values())
    if not isinstance(rows, (tuple, list)):
        return False
    return any(_in_list(part, leaf) or (part is leaf and isinstance(rows, list)) for part in rows)


def _kind(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray):
        return f"a single value of dtype {leaf.dtype}"
    return f"a {type(leaf).__name__}"


def count(rows: Tree) -> int:
    """The number of rows, for rows that were checked before."""
    return len(rows) if isinstance(rows, np.ndarray) else len(next(leaf for _, leaf in leaves(rows)))


def cut(rows: Tree, start: int, stop: int) -> Tree:
    """The rows from `start` up to `stop`: views."""
    return map_leaves(lambda leaf: leaf[start:stop], rows)


ALIGNMENT = 64
"""Bytes. JAX on CPU uses an array in place if its address is a multiple of this, and copies any other."""


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Uninitialised memory for rows, aligned to `ALIGNMENT` bytes.

    The receiver may read it at any later time (JAX does, in its own thread), so it is filled once and never reused.
    """
    if dtype.hasobject:
        return np.empty(shape, dtype)
    room = np.empty(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, room, -room.__array_interface__["data"][0] % ALIGNMENT)


def read_only(rows: Tree) -> Tree:
    """Views of the same memory that can't be written to."""
    return map_leaves(_read_only, rows)


def _read_only(leaf: Array) -> Array:
    if leaf.dtype == object:
        leaf = ragged.read_only(leaf)
    if not leaf.flags.writeable:
        return leaf
    view = leaf.view()
    view.flags.writeable = False
    return view


def is_writable(rows: Tree) -> bool:
    """True if some leaf can be written to."""
    return any(leaf.flags.writeable for _, leaf in leaves(rows))


_SMALL = 1 << 14  # bytes: JAX copies smaller arrays faster than aligned memory is allocated


def copied(leaf: Any) -> Array:
    """A copy of a leaf in new memory, aligned as by `empty` if the leaf is large."""
    array = leaf if type(leaf) is np.ndarray else np.asarray(unmasked(leaf))
    if array.dtype == object:
        return ragged.copied(array)
    if array.nbytes < _SMALL or array.dtype.hasobject:
        return array.copy() if array is leaf else np.array(leaf, order="C")
    out = empty(array.shape, array.dtype)
    out[...] = array
    return out


def gather(rows: Tree, index: Array) -> Tree:
    """The rows at `index` (an integer array of any shape, or a mask), copied into memory of their own (see `empty`).

    Indices must be in range: they are not checked.
    """
    if index.dtype == bool:
        index = np.flatnonzero(index)
    return map_leaves(lambda leaf: _take(leaf, index), rows)


def _take(leaf: Array, index: Array) -> Array:
    if type(leaf) not in _PLAIN:
        return leaf.take(index, axis=0)
    out = empty((*index.shape, *leaf.shape[1:]), leaf.dtype)
    if leaf.flags.c_contiguous and leaf.flags.aligned:
        # mode="clip": with mode="raise", NumPy buffers `out`, to leave it unchanged after an error.
        leaf.take(index, axis=0, out=out, mode="clip")
    else:
        out[...] = leaf[index]  # for non-contiguous leaves, `take` would copy all rows first
    return out


_PLAIN = (np.ndarray, np.memmap)
"""Leaves of other classes (such as masked arrays) are indexed by their own `__getitem__`."""


def join(parts: Sequence[Tree]) -> Tree:
    """The rows of all parts, one after the other; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    return map_leaves(_concatenate, *parts)


def _concatenate(*parts: Array) -> Array:
    if any(type(part) not in _PLAIN for part in parts):
        return np.concatenate(parts)
    dtypes = {part.dtype for part in parts}  # several where text has several widths
    # np.result_type would make another byte order the machine's own.
    dtype = dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes)
    out = empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype)
    return np.concatenate(parts, out=out)


def cut_all(rows: Tree, size: int) -> list[Tree]:
    """Cut rows into pieces of `size` rows each (their number must be a multiple of it), as views.

    Reshaping each leaf and iterating over it is several times faster than slicing piece by piece.
    """
    if isinstance(rows, dict):
        keys = list(rows)
        return [dict(zip(keys, values, strict=True)) for values in zip(*_cut_parts(rows.values(), size), strict=False)]
    if isinstance(rows, tuple):
        pieces = list(zip(*_cut_parts(rows, size), strict=False))
        return [type(rows)(*p) for p in pieces] if hasattr(rows, "_fields") else pieces
    if isinstance(rows, list):
        return [list(values) for values in zip(*_cut_parts(rows, size), strict=False)]
    if rows.flags.c_contiguous:
        return list(rows.reshape((-1, size, *rows.shape[1:])))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _cut_parts(parts: Iterable[Tree], size: int) -> list[Iterable[Tree]]:
    # A part without arrays is the same in each piece.
    return [itertools.repeat(part) if next(leaves(part), None) is None else cut_all(part, size) for part in parts]


def row_bytes(rows: Tree) -> int:
    """The bytes of one row, over all leaves."""
    return sum(map(ragged.row_nbytes, arrays(rows)))


def nbytes(rows: Tree) -> int:
    """The bytes of rows, over all leaves."""
    return sum(map(ragged.nbytes, arrays(rows)))


BLOCK_BYTES = 1 << 21
BLOCK_ROWS = 1 << 15


def block_rows(row_bytes: int, batch: int) -> int:
    """The number of rows for one block, in whole batches: large enough to make the cost for each block small, and small
    enough to stay in a cache."""
    rows = min(BLOCK_ROWS, BLOCK_BYTES // max(1, row_bytes))
    return max(1, rows // batch) * batch
