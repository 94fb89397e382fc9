"""Arrays that users give: lists of plain numbers are converted, and other objects raise an error with advice."""

from __future__ import annotations

from typing import Any

import numpy as np

from unbounded.core.trees import RowsError, Tree

_WITH_DATA_SETS = ("datasets", "grain", "keras", "tensorflow", "torch", "torchdata")
_PLAIN = (bool, int, float, complex, str, bytes, np.generic)


def as_arrays(tree: Tree, what: str, path: str = "") -> Tree:
    """The tree with lists of plain numbers or strings converted to arrays; other leaves unchanged.

    Args:
        tree: the user's argument.
        what: the constructor that was called, for errors.

    Raises:
        RowsError: lists of unequal lengths.
        TypeError: a leaf is not an array.
    """
    if isinstance(tree, dict):
        return {key: as_arrays(value, what, f"{path}[{key!r}]") for key, value in tree.items()}
    if isinstance(tree, list) and _is_plain(tree):
        try:
            return np.asarray(tree)
        except ValueError:
            raise RowsError(
                f"{what} was given a list {_at(path)}whose parts have unequal lengths. Expected rows of one shape: "
                "ub.ragged(rows) makes a column of rows of several lengths, for .pad(length) later; or give each "
                "column as an array of its own in a tuple."
            ) from None
    if isinstance(tree, (tuple, list)):
        parts = [as_arrays(value, what, f"{path}[{index}]") for index, value in enumerate(tree)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if tree is not None and not isinstance(tree, np.ndarray):
        _check(tree, what, path)
    return tree


def _is_plain(value: Any) -> bool:
    return all(_is_plain(part) if isinstance(part, list) else isinstance(part, _PLAIN) for part in value) and bool(
        value
    )


def _at(path: str) -> str:
    return f"at {path} " if path else ""


def _check(leaf: Any, what: str, path: str) -> None:
    name = type(leaf).__name__
    if isinstance(leaf, (str, bytes)) or hasattr(leaf, "__fspath__"):
        raise TypeError(
            f"{what} was given {leaf!r} {_at(path)}in place of an array. A file's arrays have to be opened first: "
            "np.load(path, mmap_mode='r') reads them where they lie."
        )
    if hasattr(leaf, "columns") and hasattr(leaf, "dtypes") and np.asarray(leaf).dtype.hasobject:
        raise TypeError(
            f"{what} was given a {name} {_at(path)}whose columns have several dtypes, and as one array it would be of "
            "Python objects. Its rows, with a dtype for each column, are ub.from_dataset(frame)."
        )
    ours = type(leaf).__module__.startswith("unbounded.")  # a stream or a feed: say only that it is not an array
    if not ours and any(hasattr(leaf, attribute) for attribute in ("__array__", "__array_interface__", "__dlpack__")):
        return
    if hasattr(leaf, "tensors"):
        raise TypeError(
            f"{what} was given a {name} {_at(path)}in place of arrays. Give those that it holds: "
            "ub.from_arrays(dataset.tensors)."
        )
    if callable(leaf) or hasattr(leaf, "__next__"):
        raise TypeError(
            f"{what} was given a {name} {_at(path)}in place of an array. Rows that a function makes are "
            "ub.from_generator(fn), or ub.from_samples(fn) where it yields one at a time."
        )
    is_sequence = hasattr(leaf, "__getitem__") and hasattr(leaf, "__len__")
    modules = {each.__module__.partition(".")[0] for each in type(leaf).__mro__}
    of_library = hasattr(leaf, "__iter__") and not modules.isdisjoint(_WITH_DATA_SETS)
    if of_library or (is_sequence and not isinstance(leaf, (memoryview, bytearray, range))):
        raise TypeError(
            f"{what} was given a {name} {_at(path)}in place of an array. The rows of a data set are "
            "ub.from_dataset(dataset); its items may have several columns."
        )
    if hasattr(leaf, "_stages") or hasattr(leaf, "counters"):
        raise TypeError(f"{what} was given a {name} {_at(path)}in place of an array. It has its rows already.")
