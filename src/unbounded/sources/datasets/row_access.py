"""Random access to the rows of data sets: by lists of rows at once where the library has that, else item by item."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from unbounded.core import row_spec, trees
from unbounded.core.node import StreamError
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.sources.arrow_arrays import check_dtypes
from unbounded.sources.datasets.chunked_rows import ChunkedRows
from unbounded.sources.datasets.item_stack import ItemStack
from unbounded.sources.datasets.table_columns import TableColumns
from unbounded.sources.datasets.tensors import stacked, to_array, to_numpy
from unbounded.sources.ragged_columns import RAGGED, RaggedNames, as_column

_LOOKED_AT = 64  # items that are read for the dtype of a ragged column, while their rows are empty
_DENSE = 16  # a range of an array in a file is read whole where at least one row in so many is wanted
_MOST_BYTES = 1 << 26  # and where it is no larger

_HERE = "from_dataset"

Dtypes: TypeAlias = Mapping[str, str]
"""By column of a table, the dtype to which it is converted; "ragged" for one whose rows have several lengths."""

Fetch: TypeAlias = Callable[[Array], Tree]
"""Takes an array of numbers, and returns these rows, in this order, in memory that nobody else writes to."""


class RowAccess(Protocol):
    """Random access to a data set.

    `name` is its name in errors. `count` is the number of its items, each of which is a row, or a batch of rows.
    `first` are the rows of item 0. `repeatable` is True if an item has the same values each time that it is read, and
    `at_once` if many items are read by one call of a library.
    """

    @property
    def name(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def first(self) -> Tree: ...
    @property
    def repeatable(self) -> bool: ...
    @property
    def at_once(self) -> bool: ...
    def open(self) -> Fetch:
        """What one reader fetches rows with."""


class Items:
    """A data set whose items are rows, read by `__getitems__` where it has that, else by `[i]`."""

    at_once = False

    def __init__(self, dataset: Any, name: str, count: int, ragged: tuple[Any, ...] = ()) -> None:
        self.name, self.count = name, count
        self.repeatable = type(dataset) in (list, range)  # the items of others may be computed
        self._dataset = dataset
        self._item = _read_item(dataset, 0, name)
        self._ragged: RaggedNames | None = None
        if ragged:
            more = (_read_item(dataset, at, name) for at in range(1, min(count, _LOOKED_AT)))
            self._ragged = RaggedNames(ragged, _HERE).look(itertools.chain([self._item], more))
        self.first = self._stack().rows(lambda: [self._item], np.zeros(1, np.int64))

    def _stack(self) -> ItemStack:
        return ItemStack(self._item, self.name, self._ragged)

    def open(self) -> Fetch:
        stack, dataset, name = self._stack(), self._dataset, self.name
        many = getattr(dataset, "__getitems__", None)
        if many is None:
            return lambda index: stack.rows(lambda: _read_items(dataset, index.tolist(), name), index)

        def read(numbers: list[int]) -> Any:
            with _ItemErrors(name, numbers):
                return many(numbers)

        return lambda index: stack.rows(lambda: read(index.tolist()), index)


class Batches:
    """A data set whose items are batches: trees of rows."""

    repeatable = at_once = False

    def __init__(self, dataset: Any, name: str, count: int) -> None:
        self.name, self.count = name, count
        self._dataset = dataset
        self.first = self._batch(0)
        self._spec = row_spec.spec(self.first)

    def open(self) -> Fetch:
        return lambda index: trees.join([self._checked(at) for at in index.tolist()])

    def _checked(self, at: int) -> Tree:
        batch = self._batch(at)
        row_spec.check_same(self._spec, batch, f"Batch {at:,} of {self.name}")
        return batch

    def _batch(self, at: int) -> Tree:
        what = f"Batch {at:,} of {self.name}"
        batch = trees.map_leaves(trees.copied, to_numpy(_read_item(self._dataset, at, self.name), what))
        if not trees.count_checked(batch, what):
            raise RowsError(f"{what} has no rows. Expected at least one.")
        return batch


class TableRows:
    """Data that gives many rows at once, with the same values each time.

    Args:
        name: its name in errors.
        count: the number of its rows.
        fetch: takes an array of numbers and returns these rows.
        repeatable: False if what it gives is computed by a function of the user.
    """

    at_once = True

    def __init__(self, name: str, count: int, fetch: Fetch, *, repeatable: bool = True) -> None:
        self.name, self.count, self.repeatable = name, count, repeatable
        self._fetch = fetch
        self.first = fetch(np.zeros(1, np.int64))
        trees.count_checked(self.first, f"Row 0 of {name}")

    def open(self) -> Fetch:
        spec = row_spec.spec(self.first)

        def fetch(index: Array) -> Tree:
            with _ItemErrors(self.name, index):
                rows = self._fetch(index)
            if not row_spec.fits(spec, rows):
                row_spec.check_same(spec, rows, f"Rows of {self.name}")
            return rows

        return fetch


class _ItemErrors:
    """A block that tells which items an error of the data set concerns.

    An OSError would count as transient, and a missing or broken file would be tried again for ever: only those of
    connections may pass.
    """

    def __init__(self, name: str, numbers: Any) -> None:
        self._name, self._numbers = name, numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *given: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, ConnectionError | TimeoutError | RowsError):
            return
        numbers = [int(number) for number in self._numbers[:4]]
        items = f"item {numbers[0]:,}" if len(self._numbers) == 1 else f"items {', '.join(map(str, numbers))}, …"
        if isinstance(error, OSError):
            raise StreamError(f"{self._name} raised {type(error).__name__} for {items}: {error}") from error
        error.add_note(f"raised by {self._name} for {items}")


def _read_items(dataset: Any, numbers: list[int], name: str) -> Iterator[Any]:
    at = numbers[0]
    try:
        for at in numbers:
            yield dataset[at]
    except Exception as error:
        with _ItemErrors(name, [at]):
            raise error


def _read_item(dataset: Any, at: int, name: str) -> Any:
    try:
        return dataset[at]
    except Exception as error:
        with _ItemErrors(name, [at]):
            raise error


# -- tables ------------------------------------------------------------------------------------------------------------


def array_like(dataset: Any, name: str, count: int) -> TableRows:
    """An array in memory or in a file: a NumPy array or memmap, an h5py data set, a zarr array."""
    row_bytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])

    def fetch(index: Array) -> Tree:
        first, last = int(index[0]), int(index[-1])
        if last - first == len(index) - 1 and bool((np.diff(index) == 1).all()):
            rows = to_array(dataset[first : last + 1], f"Rows of {name}")
            return trees.copied(rows) if isinstance(dataset, np.ndarray) else rows
        if isinstance(dataset, np.ndarray):
            return to_array(trees.gather(dataset, index), f"Rows of {name}")
        first, last = int(index.min()), int(index.max())
        if last - first < _DENSE * len(index) and (last - first) * row_bytes <= _MOST_BYTES:
            # A range is read much faster than single rows are, of which h5py looks up each.
            return trees.gather(to_array(dataset[first : last + 1], f"Rows of {name}"), index - first)
        # Rows in ascending order: h5py takes no other, and zarr reads each chunk once.
        order = np.argsort(index)
        rows = to_array(dataset[index[order]], f"Rows of {name}")
        out = trees.empty(rows.shape, rows.dtype)
        out[order] = rows
        return out

    return TableRows(name, count, fetch)


def tensors(dataset: Any, name: str) -> TableRows:
    """A TensorDataset of torch: its tensors are indexed at once."""
    views = tuple(to_array(tensor, name, f"[{at}]") for at, tensor in enumerate(dataset.tensors))
    return TableRows(name, len(dataset), lambda index: trees.gather(views, index))


def pandas_frame(frame: Any, name: str, dtypes: Dtypes) -> TableRows:
    """A pandas DataFrame, or a Series."""
    columns = TableColumns(name, dtypes)
    if hasattr(frame, "to_frame"):
        check_dtypes(dtypes, (), _HERE)
        return TableRows(name, len(frame), lambda at: columns.of_pandas(frame.iloc[at].to_frame("x"), at)["x"])
    _refuse_doubles(frame.columns, name)
    check_dtypes(dtypes, list(map(str, frame.columns)), _HERE)
    columns.look(frame)
    return TableRows(name, len(frame), lambda index: columns.of_pandas(frame.iloc[index], index))


def polars_frame(frame: Any, name: str, dtypes: Dtypes) -> TableRows:
    """A polars DataFrame, or a Series."""
    columns = TableColumns(name, dtypes)
    if hasattr(frame, "to_frame"):
        check_dtypes(dtypes, (), _HERE)
        return TableRows(name, len(frame), lambda index: columns.of_polars(frame[index].to_frame("x"), index)["x"])
    check_dtypes(dtypes, frame.columns, _HERE)
    return TableRows(name, len(frame), lambda index: columns.of_polars(frame[index], index))


def arrow_table(table: Any, name: str, dtypes: Dtypes) -> TableRows:
    """A pyarrow Table."""
    _refuse_doubles(table.column_names, name)
    check_dtypes(dtypes, table.column_names, _HERE)
    return TableRows(name, len(table), ChunkedRows(table, TableColumns(name, dtypes)).columns)


def hugging_face(dataset: Any, name: str, dtypes: Dtypes) -> TableRows:
    """A Dataset of Hugging Face, in the format that it has, else with the dtypes of its columns."""
    form = dataset.format
    what = f"Rows of {name}"

    def formatted(data: Any, index: Array) -> dict[str, Any]:
        return {
            key: as_column(value, f"{what}: column {key!r}")
            if dtypes.get(key) == RAGGED
            else stacked(value, what, f"[{key!r}]")
            if isinstance(value, list)
            else to_array(value, what, f"[{key!r}]")
            for key, value in data[index.tolist()].items()
        }

    if form["type"] not in (None, "python", "arrow", "pandas", "polars"):
        others = {key: dtype for key, dtype in dtypes.items() if dtype != RAGGED}
        check_dtypes(others, (), f"{_HERE}: the data set has a format of its own, which gives the dtypes. {_HERE}")
        exact = form["type"] != "custom"
        return TableRows(name, len(dataset), lambda index: formatted(dataset, index), repeatable=exact)
    # Its NumPy format decodes images and audio, and makes every float float32: Arrow has the other columns.
    columns = form["columns"]
    decoded = [column for column in columns if _is_decoded(dataset.features[column])]
    plain = [column for column in columns if column not in decoded]
    check_dtypes(dtypes, plain, _HERE)
    in_arrow = _in_arrow(dataset, plain, TableColumns(name, dtypes))
    in_numpy = dataset.with_format("numpy", columns=decoded)

    def fetch(index: Array) -> Tree:
        rows = in_arrow(index) if plain else {}
        if decoded:
            rows = {**rows, **formatted(in_numpy, index)}
        return {column: rows[column] for column in columns}

    return TableRows(name, len(dataset), fetch)


def _in_arrow(dataset: Any, columns: list[str], arrays: TableColumns) -> Fetch:
    """Columns of a Dataset of Hugging Face, taken from its Arrow table: by `dataset[index]`, each row becomes a table
    of its own first."""
    table, mapped = dataset.data.table, vars(dataset).get("_indices")
    if not columns or "_indices" not in vars(dataset):
        in_arrow = dataset.with_format("arrow", columns=columns)
        return lambda index: arrays.of_arrow(in_arrow[index], index)
    chunked = ChunkedRows(table.select(columns), arrays)
    if mapped is None:
        return chunked.columns
    # After shuffle() or select(), the rows are those of the table at these places.
    places = ChunkedRows(mapped.table, arrays)
    place = mapped.table.column_names[0]
    return lambda index: chunked.columns(places.columns(index)[place].astype(np.int64))


def _is_decoded(feature: Any) -> bool:
    if isinstance(feature, dict):
        return any(map(_is_decoded, feature.values()))
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return hasattr(feature, "decode_example") or (inner is not None and _is_decoded(inner))


def _refuse_doubles(names: Any, table: str) -> None:
    columns = [str(name) for name in names]
    double = sorted({name for name in columns if columns.count(name) > 1})
    if double:
        raise RowsError(f"{table} has several columns named {double[0]!r}. Expected each name once: rename them.")
