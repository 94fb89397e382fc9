"""Iterators of other libraries whose state is known to be incomplete.

`assert_resumes` and `assert_reads` detect an incomplete state, since they take a state at every step. Known ones are
refused by name, before the first row. Each entry of the table was observed with the version that it names;
`tests/test_untrusted_states.py` tests the real libraries if they are installed.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

from unbounded.core import check
from unbounded.core.cursor import to_plain


class Untrusted(NamedTuple):
    """A kind of object whose state is incomplete.

    Args:
        module: the module of its class, or the package of that module.
        class_name: the class or a base class.
        applies: True if an object is of this kind.
        what: the object in words.
        why: what its state lacks.
        advice: what to write instead.
    """

    module: str
    class_name: str
    applies: Callable[[Any], bool]
    what: str
    why: str
    advice: str


def _keeps_state(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _begins_anew(loader: Any) -> bool:
    """True if a loader's data set restarts a generator function, without a state."""
    data = getattr(loader, "dataset", None)
    return not _keeps_state(data) and inspect.isgeneratorfunction(getattr(type(data), "__iter__", None))


def _is_unseeded(sampler: Any) -> bool:
    return getattr(sampler, "generator", 0) is None


def _shuffles_unseeded(loader: Any) -> bool:
    """True for shuffle=True without a generator: the sampler then uses a random seed."""
    sampler = getattr(loader, "sampler", None)
    is_theirs = type(sampler).__module__.startswith("torchdata.") and type(sampler).__name__ == "RandomSampler"
    return is_theirs and getattr(loader, "generator", None) is None


_SKIPS = (
    "a StatefulDataLoader over an IterableDataset without state_dict() and load_state_dict()",
    "it reads the data set again from its beginning to the place where it was, and at the second resume in a row it "
    "skips too many rows (torchdata 0.11)",
    "Give the data set both methods; or give the data set's own rows, ub.from_samples(lambda: iter(data)), which are "
    "kept in the row log.",
)
_UNSEEDED = (
    "its rows come in another order each time that it is begun, since nobody has seeded its generator",
    "Give it generator=torch.Generator().manual_seed(0), made in the function; or leave shuffling to the stream: "
    ".shuffle(10_000).",
)

TABLE = (
    Untrusted(
        "datasets.iterable_dataset",
        "BufferShuffledExamplesIterable",
        lambda part: getattr(part, "buffer_size", 2) > 1,
        "an IterableDataset with .shuffle()",
        "its state does not hold the rows in its shuffle buffer, which come again or never after a resume "
        "(datasets 5.2)",
        "Leave out its .shuffle(), and shuffle in the stream: ub.from_dataset(data).shuffle(10_000).",
    ),
    Untrusted("torchdata.stateful_dataloader", "StatefulDataLoader", _begins_anew, *_SKIPS),
    Untrusted(
        "torch.utils.data._utils.fetch",
        "_IterableDatasetFetcher",
        lambda part: not _keeps_state(part.dataset) and not _keeps_state(part.dataset_iter),
        *_SKIPS,
    ),
    Untrusted(
        "torchdata.stateful_dataloader",
        "StatefulDataLoader",
        _shuffles_unseeded,
        "a StatefulDataLoader with shuffle=True and no generator",
        *_UNSEEDED,
    ),
    *(
        Untrusted(
            "torch.utils.data.sampler", name, _is_unseeded, f"a loader with a {name} without generator", *_UNSEEDED
        )
        for name in ("RandomSampler", "SubsetRandomSampler", "WeightedRandomSampler")
    ),
    Untrusted(
        "unbounded.feed",
        "Feed",
        lambda feed: feed.length is None,
        "a feed whose epochs have no length",
        "the batch that was read last is not confirmed when it is taken, and comes again",
        "Give the stream itself: its stages follow one another, and ub.mix puts several together.",
    ),
)

_MOST_PARTS, _MOST_INSIDE = 10_000, 1_000  # limits of the search: in all, and in one list or dict


def refuse_untrusted(value: Any, who: str) -> None:
    """Raise TypeError for an object whose state is known to be incomplete, or whose `state_dict` needs arguments.

    Args:
        value: an object with `state_dict` and `load_state_dict`.
        who: the beginning of the message, such as "from_samples() called data(), which returned".
    """
    for part in _parts(value):
        names = {(each.__module__, each.__qualname__) for each in type(part).__mro__}
        for entry in TABLE:
            if any(name == entry.class_name and _is_in(module, entry.module) for module, name in names) and (
                entry.applies(part)
            ):
                raise TypeError(f"{who} {entry.what}. Its state can't be trusted: {entry.why}. {entry.advice}")
    required = check.required(value.state_dict)
    if required:
        raise TypeError(
            f"{who} a {type(value).__name__}, whose state_dict() requires {', '.join(required)}: it does not count its "
            "rows itself. Expected state_dict() without arguments, and load_state_dict(state). Write a class around "
            "it that counts; or yield from it in a generator function, whose rows are kept in the row log."
        )


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _parts(value: Any) -> list[Any]:
    """The object, and the library objects that it consists of."""
    packages = {entry.module.partition(".")[0] for entry in TABLE} | {"accelerate"}

    def is_known(part: Any) -> bool:
        return type(part).__module__.partition(".")[0] in packages

    # A user's own iterator is responsible for its state, whatever it contains.
    found: list[Any] = [value] if is_known(value) else []
    seen, todo = {id(value)}, deque(found)
    while todo and len(seen) < _MOST_PARTS:
        part = todo.popleft()
        inside: Iterable[Any] = vars(part).values() if hasattr(part, "__dict__") else ()
        if isinstance(part, dict):
            inside = part.values()
        elif isinstance(part, list | tuple):
            inside = part
        for each in list(islice(inside, _MOST_INSIDE)):
            known = is_known(each)
            if id(each) not in seen and (known or isinstance(each, dict | list | tuple)):
                seen.add(id(each))
                todo.append(each)
                found += [each] if known else []
    return found


def refuse_unsavable(state: Any, who: str) -> None:
    """Raise TypeError for a state that can't be saved, such as one that contains a random generator."""
    try:
        to_plain(state)
    except TypeError as error:
        what = str(error).removeprefix("The stream's state").partition(", which can't be saved")[0]
        raise TypeError(
            f"{who} an iterator whose state_dict() can't be saved: its {what}. Expected plain data: dicts, lists, "
            "numbers, texts and arrays; of a generator of random numbers its own state, such as "
            "rng.bit_generator.state (NumPy), rng.getstate() (random) or generator.get_state() (PyTorch)."
        ) from error
