"""The sources of data sets that are iterated over: those with a state, and those without.

The object that the user gave is never iterated over itself where it has one state for all: each pass of each reader has
a copy of it, which begins where the user left it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from unbounded.sources.datasets import tf_datasets, torch_loaders
from unbounded.sources.datasets.iterated_dataset import Iterated, IteratedByGrain, IteratedByState, IteratedDataset
from unbounded.sources.untrusted_states import refuse_untrusted

_BATCHES_OF_GRAIN = ("BatchIterDataset", "BatchMapDataset")


def comes_from(value: Any, module: str, name: str) -> bool:
    """True if the class of `value`, or a base of it, is the class `name` of a module, or of a package's modules."""
    return any(
        each.__name__ == name and (each.__module__ + ".").startswith(module + ".") for each in type(value).__mro__
    )


def iterated_dataset_of(
    dataset: Any, seed: int, passes: int | None, batched: bool | None, ragged: tuple[Any, ...] = ()
) -> IteratedDataset:
    """The source of a data set without random access.

    Raises:
        TypeError: it can't be iterated over, or its state is known to be incomplete.
        ValueError: it reshuffles, or would fork this process.
    """
    kind = type(dataset).__name__
    is_loader = comes_from(dataset, "torch.utils.data", "DataLoader")
    is_tensorflow = comes_from(dataset, "tensorflow", "DatasetV2")
    if is_loader:
        torch_loaders.refuse_forks(dataset)
    if is_tensorflow:
        tf_datasets.refuse_reshuffling(dataset)
        kind = "tf.data.Dataset"
    begin, state = _beginning(dataset, kind, seed, is_loader, is_tensorflow)
    if batched is None:
        batched = _gives_batches(dataset, is_loader, is_tensorflow)
    if batched and ragged:
        raise ValueError(
            f"from_dataset(ragged={list(ragged)!r}) was given a {kind} of batches, whose rows have one length. Give "
            "the data set of single items, and write .batch(n, bucket=[…]) or .pad(length)."
        )
    return IteratedDataset(begin, passes, single=not batched, ragged=ragged, kind=kind, state=state)


def _gives_batches(dataset: Any, is_loader: bool, is_tensorflow: bool) -> bool:
    if is_loader:
        return dataset.batch_sampler is not None or dataset.batch_size is not None
    if is_tensorflow:
        return tf_datasets.gives_batches(dataset)
    return type(dataset).__name__ in _BATCHES_OF_GRAIN


def _beginning(
    dataset: Any, kind: str, seed: int, is_loader: bool, is_tensorflow: bool
) -> tuple[Callable[..., Any], bool]:
    """A function that begins pass `number`, and whether what it returns has a state."""
    if hasattr(dataset, "state_dict") and hasattr(dataset, "load_state_dict") and isinstance(dataset, Iterable):
        refuse_untrusted(dataset, "from_dataset() was given")
        # A copy of now: the user may go on to read the object itself.
        template = _copied(dataset, kind, seed, 0, is_loader)
        return lambda number: IteratedByState(_copied(template, kind, seed, number, is_loader), kind), True
    is_iterator = isinstance(dataset, Iterator)
    if is_iterator and hasattr(dataset, "get_state") and hasattr(dataset, "set_state"):
        begin: Any = dataset.get_state()
        readers: list[Any] = []
        return lambda number: IteratedByGrain(dataset, kind, begin, readers), True
    if type(dataset).__module__.startswith("grain.") and isinstance(dataset, Iterable):
        return lambda number: IteratedByGrain(dataset, kind, None, []), True
    if is_loader:
        return lambda number: Iterated(torch_loaders.own_copy(dataset, seed, number), kind), False
    if is_tensorflow:
        return lambda number: Iterated(dataset, kind, lambda: _begin_tensorflow(dataset)), False
    if is_iterator or not isinstance(dataset, Iterable):
        raise TypeError(
            f"from_dataset() was given a {kind}. Expected a data set: an object with len and [i], a data loader, or "
            "one that can be iterated over again and again. Rows that a function yields are ub.from_generator(fn), or "
            "ub.from_samples(fn) where it yields one at a time."
        )
    return lambda number: Iterated(dataset, kind), False


def _begin_tensorflow(dataset: Any) -> Iterator[Any]:
    tf_datasets.leave_gpus()
    return iter(dataset)


def _copied(dataset: Any, kind: str, seed: int, number: int, is_loader: bool) -> Any:
    """A copy of a data set with a state, for pass `number`."""
    if is_loader and vars(dataset).get("_iterator") is not None:
        raise ValueError(
            f"from_dataset() was given a {kind} that is being read. Give one that was just made: each feed begins at "
            "its beginning, or at its own state."
        )
    try:
        if is_loader:
            return torch_loaders.own_copy(dataset, seed, number)
        return copy.deepcopy(dataset, {id(part): part for part in torch_loaders.shared_parts(dataset)})
    except Exception as error:
        raise TypeError(
            f"from_dataset() was given a {kind} that can't be copied ({type(error).__name__}: {error}), and each feed "
            "needs one of its own, since it has one state for all who read it. Give a function that makes one: "
            "ub.from_samples(lambda: make()), or ub.from_generator where it yields batches."
        ) from error
