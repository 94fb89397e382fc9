"""Columns of rows by name, for stages of tables: found, checked, and put back in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Array, RowsError, Tree


def check_name(name: Any, what: str) -> None:
    """Raise TypeError unless `name` can be the name of a column."""
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise TypeError(f"{what} was given {name!r}. Expected the name of one column.")


def column_of(rows: Tree, name: Any, what: str) -> Array:
    """The column of that name.

    Raises:
        RowsError: the rows have none, or it is a structure; the message begins with `what`.
    """
    if not isinstance(rows, dict) or name not in rows:
        raise RowsError(
            f"{what} was given rows without that column. Expected a dict of columns with it; the rows have "
            f"{trees.columns(rows)}."
        )
    column = rows[name]
    if not isinstance(column, np.ndarray):
        raise RowsError(f"{what}: the column is a {type(column).__name__} of several arrays. Expected one array.")
    return column


def decoded(column: Array, what: str) -> Array:
    """A column of bytes as text.

    Raises:
        RowsError: they are not UTF-8; the message begins with `what`.
    """
    try:
        return np.char.decode(column, "utf-8")
    except UnicodeDecodeError as error:
        raise RowsError(
            f"{what} was given bytes that are no text in UTF-8: {error.object[:40]!r}. Expected text: .map() can "
            'decode them, such as np.char.decode(column, "latin-1").'
        ) from None


def with_columns(rows: Tree, changed: Mapping[Any, Array]) -> Tree:
    """The same rows with other values in some of their columns."""
    return {name: changed.get(name, column) for name, column in rows.items()} if changed else rows
