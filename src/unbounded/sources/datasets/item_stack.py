"""ItemStack: single items of a data set as rows, each copied as it comes, since a data set may reuse its memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.sources.datasets.tensors import ragged_way, to_array, to_numpy
from unbounded.sources.ragged_columns import RaggedNames

Put: TypeAlias = Callable[[int, Any], bool]

_HELD = 64  # tensors: so few stay in a core's cache


class _NotHeld(Exception):
    """Tensors that can't be kept to be copied together: the items are read again, and each is copied as it comes."""


class _ItemColumn:
    """One leaf of the items, as a column: an array of the rows; of text a list, since its width is not known."""

    def __init__(self, leaf: Array, path: str, is_tensor: bool) -> None:
        self.path = path
        self._is_tensor = is_tensor
        self.dtype, self.shape = leaf.dtype, leaf.shape
        self._is_text = leaf.dtype.kind == "U"
        # Numbers of Python whose array has this dtype: they need no array of their own.
        kinds = () if leaf.shape else (bool, int, float)
        self._number = next((kind for kind in kinds if np.dtype(kind) == leaf.dtype), None)
        self._out: Any = None
        self._held: _HeldTensors | None = None

    def begin(self, rows: int, holds_tensors: bool) -> Put:
        """New memory for so many rows; returns a function that copies the leaf of one item to a row, and returns False
        if it is not plainly of this column's form.

        Args:
            rows: the number of rows.
            holds_tensors: True to copy some tensors at a time: a call for each costs more than its copy.
        """
        dtype, shape, number = self.dtype, self.shape, self._number
        out: Any = [None] * rows if self._is_text else trees.empty((rows, *shape), dtype)
        self._out, self._held = out, None
        if dtype.hasobject:
            return self._put_row
        array = np.ndarray
        torch = sys.modules.get("torch")
        tensor = None if torch is None else torch.Tensor
        if holds_tensors and self._is_tensor:
            self._held = held = _HeldTensors(out, torch)
            return held.add

        def put(at: int, value: Any) -> bool:
            # The types come first: this is called for each leaf of each item.
            kind = type(value)
            if kind is tensor and not value.requires_grad:
                try:
                    value = value.numpy()  # a view
                except (TypeError, RuntimeError):  # on an accelerator, sparse, or of a dtype that NumPy lacks
                    return False
            elif kind is not array:
                if kind is not number:
                    return False
                out[at] = value
                return True
            if value.dtype != dtype or value.shape != shape:
                return False
            out[at] = value
            return True

        return put

    def _put_row(self, at: int, box: Any) -> bool:
        """Put a row of a ragged column, which comes in an array of shape ()."""
        self._out[at] = box[()]
        return True

    def put_other(self, at: int, value: Any, number: Any, name: str) -> None:
        """The same of any leaf, of the item `number` of a data set; raises RowsError if it does not fit."""
        what = f"Item {number:,} of {name}"
        # A list of numbers is an array.
        array = to_numpy(value, what, self.path) if isinstance(value, list) else to_array(value, what, self.path)
        if not isinstance(array, np.ndarray):
            raise self._differs(what, "a structure")
        if array.shape != self.shape:
            raise RowsError(
                f"{what}: {trees.name(self.path)} has the shape {array.shape}, and item 0 has {self.shape}. Expected "
                f"items of one shape. {ragged_way(self.path)} and .pad(length) or .batch(n, bucket=[…]). "
                "If each item is a batch of rows, write batched=True."
            )
        if self._is_text != (array.dtype.kind == "U") or not (
            self._is_text or array.dtype == self.dtype or np.can_cast(array.dtype, self.dtype, "safe")
        ):
            raise self._differs(what, str(array.dtype))
        self._out[at] = array

    def _differs(self, what: str, found: str) -> RowsError:
        return RowsError(
            f"{what}: {trees.name(self.path)} is {found}, and of item 0 it is {self.dtype}. Expected one dtype in all "
            "items: convert it in the data set."
        )

    def taken(self) -> Array:
        """The rows; raises _NotHeld where tensors can't be kept."""
        held, self._held = self._held, None
        if held is not None:
            held.copy()
        out, self._out = self._out, None  # the memory is the rows' alone
        return np.array(out, dtype=np.str_) if self._is_text else out


class _HeldTensors:
    """Some tensors of PyTorch at a time, which are copied to their rows together."""

    def __init__(self, out: Array, torch: Any) -> None:
        self._torch = torch
        self._kind = torch.Tensor
        self._out = torch.from_numpy(out)
        self._dtype, self._shape = self._out.dtype, self._out.shape[1:]
        self._tensors: list[Any] = []
        self._at = 0

    def add(self, at: int, value: Any) -> bool:
        if type(value) is not self._kind or value.dtype is not self._dtype:
            raise _NotHeld
        self._tensors.append(value)
        if len(self._tensors) == _HELD:
            self.copy()
        return True

    def copy(self) -> None:
        """Copy the tensors that are held.

        Raises:
            _NotHeld: they are not of one form; or two of them share their memory, so that a later one may have been
                written over an earlier one.
        """
        tensors, self._tensors = self._tensors, []
        if not tensors:
            return
        end = self._at + len(tensors)
        try:
            if tensors[0].shape != self._shape or len({tensor.data_ptr() for tensor in tensors}) < len(tensors):
                raise _NotHeld
            with self._torch.no_grad():
                self._torch.stack(tensors, out=self._out[self._at : end])
        except (TypeError, RuntimeError) as error:
            raise _NotHeld from error
        self._at = end


class ItemStack:
    """Makes rows of items that have the form of `first`.

    Args:
        first: item 0 of the data set.
        name: the data set's name in errors.
        ragged: the columns that have rows of several lengths.
    """

    def __init__(self, first: Any, name: str, ragged: RaggedNames | None = None) -> None:
        self._name = name
        self._ragged = ragged
        if self._ragged is not None:
            first = self._ragged.sample(first)
        self._first = to_numpy(first, f"Item 0 of {name}")
        leaves: list[Any] = []
        _add_leaves(self._first, first, leaves)
        self._columns = [
            _ItemColumn(np.asarray(leaf), path, f"{type(value).__module__}.{type(value).__name__}" == "torch.Tensor")
            for (path, leaf), value in zip(trees.leaves(self._first), leaves, strict=True)
        ]
        self._holds_tensors = True
        # The keys of items that are dicts, tuples or lists of leaves alone: these need no search.
        self._keys: list[Any] | None = None
        if type(self._first) in (dict, tuple, list) and len(self._columns) == len(self._first):
            parts = self._first.values() if isinstance(self._first, dict) else self._first
            if all(isinstance(part, np.ndarray) for part in parts):
                self._keys = list(self._first)
        if not self._columns:
            raise RowsError(f"Item 0 of {name} contains no array. Expected at least one array or number.")

    def rows(self, read: Callable[[], Iterable[Any]], numbers: Array) -> Tree:
        """The items as rows: a tree of arrays of shape [rows, …].

        Args:
            read: reads the items, as many as `numbers`. It is called a second time if tensors turn out to share memory.
            numbers: their numbers in the data set, for errors.
        """
        try:
            return self._rows(read(), numbers)
        except _NotHeld:
            self._holds_tensors = False
            return self._rows(read(), numbers)

    def _rows(self, items: Iterable[Any], numbers: Array) -> Tree:
        if self._ragged is not None:
            items = map(self._ragged.sample, items)
        columns = self._columns
        puts = [column.begin(len(numbers), self._holds_tensors) for column in columns]
        keys, kind, width = self._keys, type(self._first), len(columns)
        at = -1
        for at, item in enumerate(items):
            if at == len(numbers):
                break
            # Without a call for each item where its form is a common one.
            if keys is None or type(item) is not kind or len(item) != width:
                values = self._leaves(item, numbers[at])
            elif kind is dict:
                try:
                    values = [item[key] for key in keys]
                except KeyError:
                    values = self._leaves(item, numbers[at])
            else:
                values = item
            for column, put, value in zip(columns, puts, values, strict=True):
                if not put(at, value):
                    if value is None or isinstance(value, Mapping | tuple):
                        self._leaves(item, numbers[at])  # raises
                    column.put_other(at, value, numbers[at], self._name)
        if at + 1 != len(numbers):
            raise RowsError(f"{self._name} gave {at + 1} items, and was asked for {len(numbers)}.")
        filled = iter([column.taken() for column in columns])
        return trees.map_leaves(lambda _: next(filled), self._first)

    def _leaves(self, item: Any, number: Any) -> list[Any]:
        found: list[Any] = []
        if not _add_leaves(self._first, item, found):
            raise RowsError(
                f"Item {number:,} of {self._name} has another structure than item 0: "
                f"{_structure(item)} in place of {_structure(self._first)}. Expected the same in each item."
                + (" Items that a filter left out are None: use an iterable data set for it." if item is None else "")
            )
        return found


def _add_leaves(form: Tree, item: Any, found: list[Any]) -> bool:
    """Append the leaves of `item` at the places of the leaves of `form`; False if its structure is another."""
    if isinstance(form, np.ndarray):
        found.append(item)
        return not (item is None or isinstance(item, Mapping | tuple))
    if isinstance(form, dict):
        if not isinstance(item, Mapping) or len(item) != len(form):
            return False
        return all(key in item and _add_leaves(part, item[key], found) for key, part in form.items())
    if isinstance(form, tuple | list):
        if not isinstance(item, tuple | list) or len(item) != len(form):
            return False
        return all(_add_leaves(part, value, found) for part, value in zip(form, item, strict=True))
    return form is None and item is None


def _structure(item: Any) -> str:
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{key!r}: {_structure(part)}" for key, part in item.items()) + "}"
    if isinstance(item, tuple | list):
        return "(" + ", ".join(map(_structure, item)) + ")"
    return "None" if item is None else "…"
