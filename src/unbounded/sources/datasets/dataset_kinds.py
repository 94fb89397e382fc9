"""The kinds of data sets that `from_dataset` reads, and the advice for objects that are none.

A library's classes are known by the names of their modules, so that none is imported to find out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from unbounded.core import check
from unbounded.sources.arrow_arrays import as_dtypes
from unbounded.sources.datasets import row_access
from unbounded.sources.datasets.indexed_dataset import IndexedDataset
from unbounded.sources.datasets.iterable_kinds import comes_from, iterated_dataset_of
from unbounded.sources.datasets.iterated_dataset import IteratedDataset
from unbounded.sources.datasets.row_access import Batches, Dtypes, Items, RowAccess
from unbounded.sources.ragged_columns import RAGGED, as_names

_TABLES: tuple[tuple[str, str, Callable[[Any, str, Dtypes], RowAccess]], ...] = (
    ("datasets.arrow_dataset", "Dataset", row_access.hugging_face),
    ("pandas", "DataFrame", row_access.pandas_frame),
    ("pandas", "Series", row_access.pandas_frame),
    ("polars", "DataFrame", row_access.polars_frame),
    ("polars", "Series", row_access.polars_frame),
    ("pyarrow.lib", "Table", row_access.arrow_table),
)


def name_of_kind(dataset: Any) -> str:
    """The data set's name in messages, without what it contains."""
    return type(dataset).__name__


def random_access(dataset: Any, batched: bool | None, dtypes: Dtypes, ragged: tuple[Any, ...] = ()) -> RowAccess | None:
    """Random access to a data set; None if it has none. `ragged` are its columns with rows of several lengths."""
    name = name_of_kind(dataset)
    for module, kind, opened in _TABLES:
        if comes_from(dataset, module, kind):
            refuse_empty(len(dataset), name)
            return opened(dataset, name, {**dtypes, **dict.fromkeys(ragged, RAGGED)})
    if dtypes:
        raise ValueError(
            f"from_dataset(dtypes=…) was given beside a {name}. It is for tables: frames of pandas and polars, Tables "
            "of pyarrow, and Datasets of Hugging Face. For any other, .map() converts columns."
        )
    is_array = all(hasattr(dataset, attribute) for attribute in ("shape", "dtype", "ndim", "__getitem__"))
    if not is_array and not _has_items(dataset):
        return None
    count = dataset.shape[0] if is_array and dataset.ndim else _length(dataset, name)  # zarr's arrays have no `len`
    refuse_empty(count, name)
    implied = comes_from(dataset, "keras", "PyDataset") or type(dataset).__name__ == "BatchMapDataset"  # Grain's
    if implied if batched is None else batched:
        return Batches(dataset, name, count)
    if ragged and is_array:
        raise ValueError(f"from_dataset(ragged={list(ragged)!r}) was given a {name}, an array without columns.")
    if type(dataset).__name__ == "TensorDataset" and type(dataset).__module__.startswith("torch."):
        return row_access.tensors(dataset, name)
    if is_array:
        return row_access.array_like(dataset, name, count)
    return Items(dataset, name, count, ragged)


def source_of(
    dataset: Any,
    shuffle: bool | None,
    seed: int,
    passes: int | None,
    batched: bool | None,
    dtypes: Mapping[str, Any] | None = None,
    ragged: Any = None,
) -> IndexedDataset | IteratedDataset:
    """The source that reads a data set; see `unbounded.from_dataset`.

    Raises:
        TypeError: it is no data set, or an argument has another type.
        ValueError: it is empty, or can't be shuffled so.
    """
    for name, value in (("shuffle", shuffle), ("batched", batched)):
        if value is not None:
            check.yes_or_no(value, f"from_dataset({name}={value!r})", "None stands for what the data set implies.")
    seed = check.seed(seed, "from_dataset(seed=n)")
    if passes is not None:
        check.positive(passes, "from_dataset(passes=n)")
    refuse_others(dataset)
    names = as_names(ragged, "from_dataset")
    access = random_access(dataset, batched, as_dtypes(dtypes, "from_dataset"), names)
    if access is not None:
        if batched and not is_batched(access):
            raise ValueError(f"from_dataset(batched=True): the items of a {access.name} are rows.")
        return IndexedDataset(access, shuffle is not False, seed, passes, is_batched(access))
    source = iterated_dataset_of(dataset, seed, passes, batched, names)
    if shuffle:
        raise ValueError(
            f"from_dataset(shuffle=True) was given a {source.kind}, which has no random access: expected len(data) and "
            "data[i]. Shuffle in the stream, within a buffer of rows: .shuffle(10_000), before .batch(n)."
        )
    return source


def is_batched(access: RowAccess) -> bool:
    """True if its items are batches."""
    return isinstance(access, Batches)


def _has_items(dataset: Any) -> bool:
    if comes_from(dataset, "torch.utils.data", "IterableDataset"):
        return False  # it inherits an `[i]` that raises
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _length(dataset: Any, name: str) -> int:
    try:
        count = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            f"from_dataset() was given a {name} without a length: {error}. Expected len(dataset), the number of its "
            "items; or give an iterable data set, of which the rows are kept in the row log."
        ) from error
    if count >= 1 << 62:
        raise ValueError(
            f"from_dataset() was given a {name} without an end. Leave out its .repeat(): from_dataset repeats it, in "
            "a new order in each pass."
        )
    return count


def refuse_empty(count: int, name: str) -> None:
    """Raise ValueError for a data set without items."""
    if count == 0:
        raise ValueError(f"from_dataset() was given an empty {name}. Expected at least one item: nothing to repeat.")


def refuse_others(dataset: Any) -> None:
    """Raise TypeError, with advice, for an object that is no data set."""
    given = f"the class {dataset.__name__}" if inspect.isclass(dataset) else f"a {type(dataset).__name__}"
    advice = _advice(dataset)
    if advice:
        raise TypeError(f"from_dataset() was given {given} in place of a data set. {advice}")


def _advice(dataset: Any) -> str:
    if inspect.isclass(dataset):
        return f"Give an instance: {dataset.__name__}(…)."
    if isinstance(dataset, str | bytes) or hasattr(dataset, "__fspath__"):
        return (
            "Rows of files are ub.from_files(path): Parquet, CSV, JSON lines, Arrow IPC, tar shards and TFRecord. Open "
            "another file first, with the library that reads it, such as h5py.File(path)[name]."
        )
    if type(dataset).__module__.startswith("unbounded."):
        return (
            "It has its rows already: its methods are the stages, and ub.mix puts several together."
            if hasattr(dataset, "head")
            else "A feed is fed from a stream: give the data set that the stream was made of."
        )
    if inspect.isgenerator(dataset) or inspect.isroutine(dataset):
        return (
            "Rows that a function yields are ub.from_generator(fn), or ub.from_samples(fn) where it yields one at a "
            "time: give the function itself."
        )
    if any(each.__name__ in ("Model", "Layer", "Module") for each in type(dataset).__mro__):
        return "A model is trained on a stream: model.fit(ub.keras.Feed(stream, epoch=ub.Epoch(steps=1000)))."
    if comes_from(dataset, "polars", "LazyFrame"):
        return "It has no rows yet: give .collect()."
    if comes_from(dataset, "datasets", "DatasetDict") or comes_from(dataset, "datasets", "IterableDatasetDict"):
        return f"It has several: choose one, such as data[{next(iter(dataset), 'train')!r}]."
    if comes_from(dataset, "h5py", "Group"):
        return "It contains data sets: give one of them, such as file['x']."
    if isinstance(dataset, dict | tuple):
        return "Columns of arrays are rows of ub.from_arrays((x, y)), or ub.from_arrays({'x': x, 'y': y})."
    if isinstance(dataset, set | frozenset | int | float | complex | np.generic) or dataset is None:
        return "Expected an object with len and [i], or one that is iterated over, such as a data loader."
    tensors = (("torch", "Tensor"), ("jaxlib", "ArrayImpl"), ("tensorflow", "Tensor"))
    if any(comes_from(dataset, package, kind) for package, kind in tensors) or getattr(dataset, "shape", None) == ():
        return "An array's rows are ub.from_arrays(x)."
    return ""
