"""Known incomplete states are refused by name; complete ones are restored exactly."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torchdata.nodes as nodes
from torch.utils.data import IterableDataset, RandomSampler, SubsetRandomSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import unbounded as ub
from helpers import Counter
from unbounded.testing import assert_resumes

pytestmark = [
    pytest.mark.usefixtures("no_threads_left"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning:torch"),
]


class Squares(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, i: int) -> int:
        return i**2


class Again(IterableDataset[int]):
    """Without a state, by a generator function."""

    def __iter__(self) -> Iterator[int]:
        yield from range(400)


class AgainByRange(IterableDataset[int]):
    """Without a state, by an iterator of Python's."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(400))


class Stateful(IterableDataset[int]):
    def __init__(self) -> None:
        self.i = 0

    def __iter__(self) -> Stateful:
        return self

    def __next__(self) -> int:
        if self.i >= 400:
            raise StopIteration
        self.i += 1
        return self.i - 1

    def state_dict(self) -> dict[str, int]:
        return {"i": self.i}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.i = state["i"]


def loader(data: Any, **given: Any) -> Any:
    return StatefulDataLoader(data, batch_size=4, collate_fn=np.array, **given)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def root(source: Any) -> Any:
    return nodes.Loader(nodes.Mapper(nodes.Batcher(source, 4), np.array))


@pytest.mark.parametrize(
    "made",
    [
        lambda: loader(Squares()),
        lambda: loader(Squares(), shuffle=True, generator=seeded()),
        lambda: loader(Squares(), sampler=SubsetRandomSampler(range(400), generator=seeded())),
        lambda: loader(Stateful()),
        lambda: root(nodes.IterableWrapper(range(400))),
        lambda: root(nodes.SamplerWrapper(RandomSampler(range(400), generator=seeded()))),
        lambda: nodes.Loader(
            nodes.Prefetcher(nodes.Mapper(nodes.Batcher(nodes.IterableWrapper(range(400)), 4), np.array), 3)
        ),
    ],
)
def test_a_loader_is_put_back_exactly_with_a_state_at_every_step(made: Callable[[], Any]) -> None:
    assert_resumes(ub.from_generator(lambda: made()).batch(3), 15)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (lambda: loader(Squares(), shuffle=True), "StatefulDataLoader with shuffle=True and no generator"),
        (lambda: loader(Squares(), sampler=RandomSampler(range(9))), "loader with a RandomSampler without generator"),
        (lambda: root(nodes.SamplerWrapper(RandomSampler(range(9)))), "loader with a RandomSampler without generator"),
        (lambda: loader(Again()), "StatefulDataLoader over an IterableDataset without state_dict"),
        (
            lambda: ub.Feed(ub.from_arrays(np.arange(8)).batch(2), epoch=ub.Epoch(seconds=5)),
            "feed whose epochs have no length",
        ),
    ],
)
def test_a_state_that_is_known_not_to_lead_back_is_refused_with_what_to_write(
    made: Callable[[], Any], what: str
) -> None:
    given = made()
    with pytest.raises(TypeError, match=f"which returned an? {what}.*can't be trusted: .*") as error:
        ub.Feed(ub.from_generator(lambda: given).batch(2))
    assert "Give " in str(error.value)
    if isinstance(given, ub.Feed):
        given.close()


def test_what_is_known_once_the_loader_has_begun_is_refused_at_the_first_row() -> None:
    with (
        ub.Feed(ub.from_generator(lambda: loader(AgainByRange())).batch(2)) as feed,
        pytest.raises(TypeError, match="skips too many rows"),
    ):
        next(feed.batches())


def test_a_state_dict_that_wants_to_be_told_how_far_it_came_is_refused() -> None:
    class Streaming(Counter):
        def state_dict(self, num_samples: int, from_beginning: bool = True) -> Any:  # type: ignore[override]
            return {"i": num_samples}

    with pytest.raises(TypeError, match=r"whose state_dict\(\) requires num_samples: .* Write a class around it"):
        ub.Feed(ub.from_generator(lambda: Streaming()).batch(2))


@pytest.mark.parametrize("rng", [np.random.default_rng(1), random.Random(1)])
def test_a_state_that_refers_to_a_generator_of_random_numbers_is_refused_at_the_first_state(rng: Any) -> None:
    class Drawn(Counter):
        def state_dict(self) -> Any:
            return {"rng": rng}

    with (
        ub.Feed(ub.from_generator(Drawn).batch(2)) as feed,
        pytest.raises(
            TypeError, match=r"state_dict\(\) can't be saved: its \['rng'\] is of type .*bit_generator.state"
        ),
    ):
        for _ in itertools.islice(feed.batches(), 4):
            pass


class Loader:
    """An iterable that takes a state for the iterator that it makes next, as data loaders do."""

    def __init__(self) -> None:
        self.at = self.begin = 0

    def __iter__(self) -> Iterator[Any]:
        self.at, self.begin = self.begin, 0
        while True:
            self.at += 3
            yield np.arange(self.at - 3, self.at)

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin = state["at"]


class Reset(Counter):
    """An iterator that `iter` begins anew."""

    def __iter__(self) -> Counter:
        self.i = 0
        return self


@pytest.mark.parametrize("made", [Loader, Reset])
def test_a_state_is_loaded_before_an_iterable_is_iterated_over_and_after_an_iterator_was_begun(made: Any) -> None:
    assert_resumes(ub.from_generator(made).batch(4), 12)


def test_one_object_that_two_feeds_read_is_told_to_the_one_that_began_first() -> None:
    data = Loader()
    stream = ub.from_generator(lambda: data).batch(3)
    with ub.Feed(stream) as first, ub.Feed(stream) as second:
        batches = first.batches()
        assert next(batches).tolist() == [0, 1, 2]
        assert next(second.batches()).tolist() == [0, 1, 2]
        with pytest.raises(ub.StreamError, match="the same Loader as in an earlier call, and another feed"):
            for _ in itertools.islice(batches, 10):
                pass


def test_one_iterator_that_was_read_is_not_taken_for_its_beginning() -> None:
    counter = Counter()
    stream = ub.from_generator(lambda: counter).batch(3)
    with ub.Feed(stream) as feed:
        next(feed.batches())
    with (
        ub.Feed(stream) as feed,
        pytest.raises(ub.StreamError, match=r"the same Counter .*can't be begun again: .*copy\.deepcopy"),
    ):
        next(feed.batches())
    untouched = Counter()
    stream = ub.from_generator(lambda: copy.deepcopy(untouched)).batch(3)
    assert_resumes(stream, 4)


def test_one_iterator_goes_on_by_its_state_in_the_feed_that_has_it() -> None:
    counter = Counter()
    stream = ub.from_generator(lambda: counter).batch(3)
    with ub.Feed(stream) as feed:
        for _ in itertools.islice(feed.batches(), 3):
            feed.trained()
        state = feed.state_dict()
        next(feed.batches())
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        assert next(feed.batches()).tolist() == [9, 10, 11]


@pytest.mark.parametrize("given", [Loader(), [1, 2, 3], np.zeros(3)])
def test_an_object_in_place_of_a_function_is_refused_with_the_function_to_write(given: Any) -> None:
    with pytest.raises(TypeError, match=rf"was given a {type(given).__name__} itself.*lambda: {type(given).__name__}"):
        ub.from_generator(given)


def test_the_shuffle_of_hugging_face_is_refused_wherever_it_stands() -> None:
    datasets = pytest.importorskip(
        "datasets", reason="runs where `datasets` is installed; it brings pyarrow and pandas"
    )

    def rows() -> Any:
        return datasets.Dataset.from_dict({"i": list(range(200))}).to_iterable_dataset(num_shards=2)

    mixed = datasets.interleave_datasets
    for shuffled in (
        lambda: rows().shuffle(seed=1, buffer_size=20),
        lambda: rows().shuffle(seed=1, buffer_size=20).map(lambda row: row).take(100),
        lambda: mixed([rows(), rows().shuffle(seed=1, buffer_size=20)]),
    ):
        with pytest.raises(TypeError, match=r"IterableDataset with \.shuffle\(\).*its shuffle buffer.*Leave out"):
            ub.Feed(ub.from_samples(lambda shuffled=shuffled: shuffled()).batch(4))
    for exact in (
        rows,
        lambda: rows().shuffle(seed=1, buffer_size=1),  # the order of the shards alone
        lambda: rows().filter(lambda row: row["i"] % 3 == 0).repeat(None),
        lambda: mixed([rows(), rows()], probabilities=[0.3, 0.7], seed=1),
    ):
        assert_resumes(ub.from_samples(lambda exact=exact: exact()).batch(4), 12)


def test_hugging_faces_shuffle_is_known_by_its_class_where_it_is_not_installed() -> None:
    part = type("BufferShuffledExamplesIterable", (), {"__module__": "datasets.iterable_dataset", "buffer_size": 100})
    whole = type("IterableDataset", (Counter,), {"__module__": "datasets.iterable_dataset"})
    data = whole()
    data._ex_iterable = part()
    with pytest.raises(TypeError, match=r"IterableDataset with \.shuffle\(\)"):
        ub.Feed(ub.from_samples(lambda: data).batch(4))
