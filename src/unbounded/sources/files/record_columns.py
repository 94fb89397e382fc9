"""RecordColumns: the arrays of records that are read one by one, as from TFRecord files and tar shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.core import ragged
from unbounded.core.trees import Array, RowsError
from unbounded.sources.arrow_arrays import check_dtypes
from unbounded.sources.files.arrow_columns import Wanted
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import check_wanted
from unbounded.sources.ragged_columns import RAGGED


class RecordColumns:
    """The columns of all files: those of the first record of the first file.

    Args:
        record: the first record: texts, bytes, or arrays of one shape for each name; scalars are arrays of shape ().
        file: the first file.
        wanted: the columns that the user asked for.
    """

    def __init__(self, record: Mapping[str, Any], file: FoundFile, wanted: Wanted) -> None:
        self.names: list[str] = list(record if wanted.names is None else wanted.names)
        """The names, in the order of rows."""
        check_wanted(self.names, list(record), file)
        check_dtypes(wanted.dtypes, self.names, "from_files")
        self._is_chosen = wanted.names is not None
        self._ragged = {name for name, dtype in wanted.dtypes.items() if dtype == RAGGED}
        self._casts = {name: dtype for name, dtype in wanted.dtypes.items() if name not in self._ragged}
        self._forms = {name: self._form(name, record[name]) for name in self.names}

    def described(self) -> dict[str, str]:
        """The types in words, after conversion."""
        words = {}
        for name, (kind, shape) in self._forms.items():
            words[name] = self._casts.get(name, kind) + (str(list(shape)) if shape else "")
        return words

    def check(self, record: Mapping[str, Any], what: str) -> None:
        """Raise RowsError if a record, `what` in messages, has other columns than the first one."""
        for name in self.names:
            if name not in record:
                raise RowsError(
                    f"{what} lacks {name!r}. Expected {', '.join(map(repr, self.names))} in each: columns=[…] "
                    "leaves out what some lack."
                )
            form = self._form(name, record[name])
            if form != self._forms[name]:
                raise RowsError(
                    f"{what} has {name!r} as {_words(form)}, and the first one has it as {_words(self._forms[name])}. "
                    f"Rows have one form. If only their lengths differ, write ragged=[{name!r}]; or leave it out by "
                    "columns=[…]."
                )
        if not self._is_chosen and len(record) > len(self.names):
            other = next(name for name in record if name not in self._forms)
            raise RowsError(
                f"{what} has {other!r}, which the first record lacks. Expected the same in each: "
                f"columns={self.names!r} reads those of the first one."
            )

    def _form(self, name: str, value: Any) -> tuple[str, tuple[int, ...]]:
        """The form of a value; of a ragged column without the length."""
        kind, shape = _form(value)
        return (kind, (-1, *shape[1:])) if name in self._ragged and shape else (kind, shape)

    def rows(self, records: Sequence[Mapping[str, Any]], what: str) -> dict[str, Array]:
        """The columns of records, which were checked, as arrays of shape (rows, …); `what` names them in messages."""
        rows = {}
        for name in self.names:
            kind, shape = self._forms[name]
            values = [record[name] for record in records]
            if name in self._ragged:
                array: Array = ragged.column_of([v if isinstance(v, bytes) else ragged.locked(v) for v in values])
            elif kind == "bytes":
                array = np.empty(len(values), object)
                array[:] = values
            elif kind == "str":
                array = np.array(values) if values else np.empty(0, "U1")
            else:
                array = np.stack(values) if values else np.empty((0, *shape), kind)
            rows[name] = self._converted(name, array, what)
        return rows

    def _converted(self, name: str, array: Array, what: str) -> Array:
        to = self._casts.get(name)
        if to is None:
            return array
        try:
            if array.dtype == object and to == "str":
                return np.array([value.decode() for value in array]) if len(array) else np.empty(0, "U1")
            return array.astype(to)
        except ValueError as error:
            raise RowsError(f"{what}: {name!r} is {array.dtype}, and is not converted to {to}: {error}.") from None


def _form(value: Any) -> tuple[str, tuple[int, ...]]:
    if isinstance(value, (str, bytes)):
        return type(value).__name__, ()
    return str(value.dtype), value.shape


def _words(form: tuple[str, tuple[int, ...]]) -> str:
    kind, shape = form
    return f"{kind} of shape {shape}" if shape else kind
