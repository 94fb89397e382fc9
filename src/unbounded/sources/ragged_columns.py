"""Ragged columns of sources: rows of several lengths that a user gives, and columns that a user has named as ragged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.ragged import NotRagged, boxed, column_of, form, locked
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.core.words import checked

RAGGED = "ragged"
"""In place of a dtype: a column of rows of several lengths."""

_PLAIN = (bool, int, float, complex, str, np.generic)


@checked("ub.ragged(rows)")
def ragged(rows: Iterable[Any]) -> Array:
    """Rows of several lengths as one column: for `from_arrays`, or for what a generator or `map` returns.

    Such a column passes all stages. A batch for training needs rows of one length: `.pad(length)`, or
    `.batch(n, bucket=[32, 64, 128])`. Rows of bytes, such as encoded images, become arrays by `.images(column, size)`
    or a `map`.

    Args:
        rows: arrays of shape (length, …), or lists of numbers or text, that share their dtype and all dimensions but
            the first; or bytes. They are copied.

    Returns:
        An array of shape (rows,) of dtype object, of arrays that can't be written to, or of bytes.

    Raises:
        RowsError: the rows differ in more than their length.

    >>> import numpy as np, unbounded as ub
    >>> tokens = ub.ragged([[5, 3], [7], [1, 2, 3]])
    >>> stream = ub.from_arrays({"id": np.arange(3), "tokens": tokens}, shuffle=False).pad(4, lengths="length")
    >>> batch = stream.batch(3).peek()
    >>> batch["tokens"]
    array([[5, 3, 0, 0],
           [7, 0, 0, 0],
           [1, 2, 3, 0]])
    >>> batch["length"]
    array([2, 1, 3])
    """
    return as_column(rows, "ub.ragged()")


def as_column(rows: Iterable[Any], what: str) -> Array:
    """Rows as a ragged column; raises RowsError, with a message that begins with `what`, if they are none."""
    if isinstance(rows, (str, bytes, dict)) or not isinstance(rows, Iterable):
        raise RowsError(f"{what} was given a {type(rows).__name__}. Expected a list of rows: arrays, lists or bytes.")
    column = column_of([as_row(row, what) for row in rows])
    if len(column):
        check_column(column, what)
    return column


def as_row(value: Any, what: str) -> Array | bytes:
    """A row of a ragged column: a copy that can't be written to."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    try:
        if isinstance(value, (list, tuple)):
            # Without a dtype of its own: joined with others, truth values take theirs.
            array = np.array(value) if value else np.empty(0, np.bool_)
        else:
            array = np.asarray(trees.unmasked(value)).copy(order="C")
    except ValueError:
        array = np.empty((), object)
    if not array.ndim or array.dtype.hasobject:
        raise RowsError(
            f"{what}: a row of a ragged column is {value!r:.60}. Expected an array of shape (length, …), a list of "
            "numbers or of text, or bytes."
        )
    return locked(array)


def check_column(column: Array, what: str) -> None:
    """Raise RowsError if the rows of a column differ in more than their length."""
    try:
        form(column)
    except NotRagged as error:
        raise RowsError(
            f"{what}: a ragged column {error}. Expected rows that differ in their length alone: give all of them one "
            "dtype, such as np.asarray(row, 'int64')."
        ) from None


class RaggedNames:
    """The columns that a user has named as ragged, in rows or items that are dicts or tuples.

    Args:
        names: a name or a position, or a list of these.
        word: the constructor, for errors.
    """

    def __init__(self, names: Any, word: str) -> None:
        several = (names,) if isinstance(names, (str, int)) else tuple(names)
        if not several or not all(isinstance(name, (str, int)) for name in several):
            raise TypeError(f"{word}(ragged={names!r}): expected the name of a column, or a list of names.")
        self.names = several
        self._word = word
        self._empty: dict[Any, Array] = {}  # an empty row of the dtype of the others: an empty list has none

    def sample(self, sample: Tree) -> Tree:
        """A sample, in which each of these columns is an array of shape () that contains its row."""
        parts = sample if isinstance(sample, dict) else dict(enumerate(sample)) if isinstance(sample, tuple) else {}
        missing = [name for name in self.names if name not in parts]
        if missing:
            raise RowsError(
                f"{self._word}(ragged={list(self.names)!r}) was given samples without {missing[0]!r}. Expected the "
                f"names of columns of a dict, or positions in a tuple; there is {trees.columns(sample)}."
            )
        found = {name: self._boxed(name, part) if name in self.names else part for name, part in parts.items()}
        return found if isinstance(sample, dict) else tuple(found.values())

    def _boxed(self, name: Any, value: Any) -> Array:
        row = as_row(value, f"{self._word}()")
        if isinstance(row, np.ndarray):
            if len(row):
                self._empty.setdefault(name, locked(row[:0].copy()))
            else:
                row = self._empty.get(name, row)
        return boxed(row)

    def look(self, samples: Iterable[Tree]) -> RaggedNames:
        """Look at some samples for the dtype of empty rows, and return self."""
        for sample in samples:
            self.sample(sample)
            if len(self._empty) == len(self.names):
                break
        return self


def as_names(names: Any, word: str) -> tuple[Any, ...]:
    """The argument `ragged` of a constructor as a tuple."""
    return () if names is None else RaggedNames(names, word).names
