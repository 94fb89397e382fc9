"""from_dataset over PyTorch's data sets and loaders: by index, by a state, or with the row log behind them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, first_ids, installed, table
from unbounded.testing import assert_reads, assert_resumes

torch = pytest.importorskip("torch")
from torch.utils.data import (  # noqa: E402
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

pytestmark = [pytest.mark.usefixtures("no_threads_left"), pytest.mark.filterwarnings("ignore:.*:UserWarning:torch")]


class Squares(Dataset[Any]):
    """Rows of tensors, numbers and text."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> Any:
        return {"id": i, "x": torch.full((2,), float(i), requires_grad=True), "t": "a" * (i % 3)}


class Endless(IterableDataset[Any]):
    """Rows without a state, in passes of 20."""

    def __iter__(self) -> Iterator[Any]:
        for i in range(20):
            yield {"id": torch.tensor(i), "x": torch.full((2,), float(i))}


class AgainByRange(IterableDataset[Any]):
    """Rows without a state, by an iterator of Python's."""

    def __iter__(self) -> Iterator[Any]:
        return iter(range(20))


def pairs() -> TensorDataset:
    return TensorDataset(torch.arange(40), torch.arange(40.0) * 2)


def seeded() -> Any:
    return torch.Generator().manual_seed(7)


def stateful(data: Any, **given: Any) -> Any:
    pytest.importorskip("torchdata")
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(data, **{"batch_size": 4, **given})


# -- by index ----------------------------------------------------------------------------------------------------------


def test_a_map_style_data_set_comes_in_the_order_of_from_arrays() -> None:
    stream = ub.from_dataset(Squares(), seed=3).batch(8)
    assert first_ids(stream, 15) == first_ids(table(40, seed=3).batch(8), 15)
    (batch,) = first(ub.from_dataset(Squares(), shuffle=False).batch(4), 1)
    assert batch["x"].tolist() == [[i, i] for i in range(4)]
    assert (batch["x"].dtype, batch["t"].tolist()) == (np.float32, ["", "a", "aa", ""])
    assert_resumes(stream, 9)
    assert_reads(stream.sources[0].source)


def test_a_tensor_data_set_is_indexed_at_once_and_exact_in_its_values() -> None:
    stream = ub.from_dataset(pairs(), seed=3).batch(8)
    assert [i for batch in first(stream, 5) for i in batch[0].tolist()] == first_ids(table(40, seed=3).batch(8), 5)
    assert all((batch[1] == batch[0] * 2).all() for batch in first(stream, 5))
    assert "as its items" not in stream.describe()
    assert_resumes(stream, 9)


def test_a_subset_is_asked_for_several_items_at_once() -> None:
    assert sorted(first_ids(ub.from_dataset(Subset(Squares(), range(5, 15))).batch(5), 2)) == [*range(5, 15)]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (lambda: torch.eye(2).to_sparse(), r"sparse tensor .*\.to_dense\(\)"),
        (
            lambda: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)], layout=torch.jagged),
            r"nested tensor.*to_padded_tensor",
        ),
        (lambda: torch.zeros(2, dtype=torch.bfloat16), r"tensor of bfloat16.*\.float\(\)"),
    ],
)
def test_tensors_without_an_array_are_errors_that_name_the_way(item: Any, message: str) -> None:
    with pytest.raises(ub.RowsError, match=rf"Item 0 of list: the array is a {message}"):
        ub.from_dataset([item()])


def test_tensors_of_a_subclass_and_parameters_become_arrays() -> None:
    class Image(torch.Tensor):  # as those of torchvision
        pass

    for make in (lambda x: x.as_subclass(Image), torch.nn.Parameter):
        rows = [make(torch.full((2,), float(i))) for i in range(4)]
        (batch,) = first(ub.from_dataset(rows, shuffle=False).batch(4), 1)
        assert batch.tolist() == [[i, i] for i in range(4)]


def test_a_complex_tensor_that_is_conjugated_as_a_view_is_copied() -> None:
    rows = [torch.tensor([1 + 2j]).conj(), torch.tensor([3 - 1j])]
    (batch,) = first(ub.from_dataset(rows, shuffle=False).batch(2), 1)
    assert batch.tolist() == [[1 - 2j], [3 - 1j]]


def test_tensors_that_share_their_memory_are_copied_before_the_next_item_is_read() -> None:
    class Reused(Dataset[Any]):
        memory = torch.zeros(3)
        label = torch.tensor(7)
        read = 0

        def __len__(self) -> int:
            return 40

        def __getitem__(self, i: int) -> Any:
            self.read += 1
            self.memory[:] = i
            return self.memory, self.label, i

    class ReusedMany(Reused):
        def __getitems__(self, numbers: list[int]) -> list[Any]:
            return [(torch.full((3,), float(i)), self.label, i) for i in numbers]

    for data in (Reused(), ReusedMany()):
        for batch in first(ub.from_dataset(data).batch(20), 4):
            assert (batch[0] == batch[2][:, None]).all()
            assert batch[1].tolist() == [7] * 20
    assert data.read == 1  # item 0 alone, where several are read at once


def test_tensors_of_another_form_than_those_of_item_0_are_told_by_their_number() -> None:
    def rows(*items: Any) -> Any:
        return first(ub.from_dataset([*items], shuffle=False).batch(3), 1)

    with pytest.raises(ub.RowsError, match=r"Item 2 of list: the array has the shape \(3,\), and item 0 has \(2,\)"):
        rows(torch.zeros(2), torch.ones(2), torch.zeros(3))
    with pytest.raises(ub.RowsError, match="Item 1 of list: the array is float64, and of item 0 it is float32"):
        rows(torch.zeros(2), torch.ones(2, dtype=torch.float64), torch.zeros(2))
    (batch,) = rows(torch.zeros(2), np.ones(2, np.float32), torch.full((2,), 2.0, requires_grad=True))
    assert batch.tolist() == [[0, 0], [1, 1], [2, 2]]
    (batch,) = rows(np.zeros(2, np.float32), torch.ones(2), torch.full((2,), 2.0, requires_grad=True))
    assert batch.tolist() == [[0, 0], [1, 1], [2, 2]]


# -- by a state --------------------------------------------------------------------------------------------------------


@installed("torchdata")
@pytest.mark.parametrize("given", [{}, {"shuffle": True, "generator": seeded()}, {"batch_size": None}])
def test_a_stateful_loader_resumes_with_a_state_at_every_step(given: dict[str, Any]) -> None:
    stream = ub.from_dataset(stateful(Squares(), **given), passes=3)
    assert stream.guarantee == "exact"
    assert_resumes(stream.batch(7), 14)
    assert_reads(stream.sources[0].source)


@installed("torchdata")
def test_each_pass_of_a_stateful_loader_that_shuffles_has_another_order_and_each_feed_the_same() -> None:
    loader = stateful(pairs(), shuffle=True, generator=seeded())
    stream = ub.from_dataset(loader).batch(40)
    passes = [batch[0].tolist() for batch in first(stream, 3)]
    assert all(sorted(order) == [*range(40)] for order in passes)
    assert len({tuple(order) for order in passes}) == 3
    assert [batch[0].tolist() for batch in first(stream, 3)] == passes
    assert next(iter(loader))[0].tolist() == passes[0][:4]  # the loader itself was not read


@installed("torchdata")
def test_two_resumes_in_a_row_of_a_stateful_loader_give_each_row_once(tmp_path: Path) -> None:
    stream = ub.from_dataset(stateful(pairs(), shuffle=True, generator=seeded())).batch(3)
    expected = [batch[0].tolist() for batch in first(stream, 30)]
    seen: list[list[int]] = []
    for _ in range(6):
        with ub.Feed(stream) as feed:
            feed.load(tmp_path)
            for batch in itertools.islice(feed.batches(), 5):
                feed.trained()
                seen.append(batch[0].tolist())
            feed.save(tmp_path)
    assert seen == expected


@installed("torchdata")
def test_states_that_are_known_to_be_incomplete_are_refused() -> None:
    with pytest.raises(TypeError, match=r"\(\) was given a StatefulDataLoader with shuffle=True and no gen"):
        ub.from_dataset(stateful(Squares(), shuffle=True))
    with pytest.raises(TypeError, match="StatefulDataLoader over an IterableDataset without state_dict"):
        ub.from_dataset(stateful(Endless()))
    with pytest.raises(TypeError, match="skips too many rows"):  # known once it has begun
        first(ub.from_dataset(stateful(AgainByRange())).batch(2), 1)
    loader = stateful(Squares())
    next(iter(loader))
    with pytest.raises(ValueError, match="StatefulDataLoader that is being read"):
        ub.from_dataset(loader)


# -- with neither ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(Squares(), batch_size=4),
        lambda: DataLoader(Squares(), batch_size=4, shuffle=True),
        lambda: DataLoader(Squares(), batch_size=None),
        Endless,
        lambda: DataLoader(Endless(), batch_size=3),
    ],
)
def test_a_loader_without_a_state_has_the_row_log_behind_it(make: Any) -> None:
    stream = ub.from_dataset(make(), passes=2).batch(7)
    assert stream.guarantee == "at_most_once"
    assert "exact from the row log on" in stream.describe()
    assert_resumes(stream, 8)
    with ub.Feed(ub.from_dataset(make()).batch(7), epoch=ub.Epoch(passes=1)) as feed:
        seen = [i for batch in feed for i in batch["id"].tolist()]
        assert len(set(seen)) == 40 if len(seen) > 30 else 20


def test_rows_that_were_read_of_a_loader_are_trained_on_once_over_restarts(tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        with ub.Feed(ub.from_dataset(DataLoader(Squares(), batch_size=4)).batch(5)) as feed:
            feed.load(tmp_path)
            for batch in itertools.islice(feed.batches(), 3):
                feed.trained()
                seen += batch["id"].tolist()
            feed.save(tmp_path)
    assert seen[:16] == [*range(16)]


def test_a_batch_of_a_loader_stays_a_batch_where_the_stream_has_none() -> None:
    assert [batch[0].tolist() for batch in first(ub.from_dataset(DataLoader(pairs(), batch_size=16)), 4)] == [
        [*range(16)],
        [*range(16, 32)],
        [*range(32, 40)],
        [*range(16)],
    ]


def test_a_batch_that_is_meant_as_one_row_says_so() -> None:
    (batch,) = first(ub.from_dataset(DataLoader(pairs(), batch_size=4), batched=False).batch(3), 1)
    assert batch[0].shape == (3, 4)


def test_each_pass_of_a_loader_that_shuffles_has_another_order() -> None:
    for given in ({}, {"generator": seeded()}, {"sampler": RandomSampler(pairs()), "shuffle": None}):
        batches = first(ub.from_dataset(DataLoader(pairs(), **{"batch_size": 40, "shuffle": True, **given})), 3)
        assert len({tuple(batch[0].tolist()) for batch in batches}) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(pairs(), batch_size=4, shuffle=True),
        lambda: DataLoader(pairs(), batch_size=4, sampler=RandomSampler(pairs())),
        pytest.param(lambda: stateful(pairs()), marks=installed("torchdata")),
        pairs,
        Squares,
        Endless,
    ],
)
def test_reading_draws_nothing_from_the_generator_that_dropout_uses(make: Any) -> None:
    data = make()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first(ub.from_dataset(data).batch(8), 12)
    assert torch.rand(3).tolist() == expected.tolist()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX forks")
def test_a_loader_that_would_fork_this_process_is_refused_and_one_that_spawns_is_not() -> None:
    refusal = r"num_workers=2, which forks .*Use num_workers=0 and \.prefetch\(4\).*multiprocessing_context=\"spawn\""
    for given in ({"multiprocessing_context": "fork"}, {}):
        if not given and torch.multiprocessing.get_all_start_methods()[0] != "fork":
            continue
        with pytest.raises(ValueError, match=refusal):
            ub.from_dataset(DataLoader(pairs(), batch_size=4, num_workers=2, **given))
    ub.from_dataset(DataLoader(pairs(), batch_size=4, num_workers=2, multiprocessing_context="spawn"))
    assert torch.multiprocessing.get_start_method(allow_none=True) in (None, "fork", "spawn", "forkserver")


def test_what_has_no_random_access_is_not_shuffled_and_says_what_to_write() -> None:
    for data in (DataLoader(pairs(), batch_size=4), Endless()):
        with pytest.raises(ValueError, match=r"from_dataset\(shuffle=True\).*no random access.*\.shuffle\(10_000\)"):
            ub.from_dataset(data, shuffle=True)
    shuffled = first_ids(ub.from_dataset(Endless()).shuffle(20).batch(5), 4)
    assert sorted(shuffled) == [*range(20)] != shuffled


def test_a_pass_without_a_row_is_an_error_and_no_endless_loop() -> None:
    class Nothing(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    for data in (Nothing(), DataLoader(Nothing(), batch_size=2)):
        with pytest.raises(ub.StreamError, match=r"from_dataset\(\w+\) ended without a row"):
            first(ub.from_dataset(data).batch(2), 1)


def test_a_broken_file_ends_the_run_and_the_pass_is_not_begun_again() -> None:
    class Broken(IterableDataset[Any]):
        begun = 0

        def __iter__(self) -> Iterator[Any]:
            self.begun += 1
            yield 1
            raise FileNotFoundError("shard-3.tar")

    data = Broken()
    with pytest.raises(ub.StreamError, match=r"Broken raised FileNotFoundError: shard-3\.tar"):
        first(ub.from_dataset(data).batch(2), 1)
    assert data.begun == 1


def test_from_arrays_given_a_loader_or_a_data_set_names_from_dataset() -> None:
    for data in (DataLoader(pairs()), Squares(), Endless()):
        with pytest.raises(TypeError, match=r"rows of a data set are ub\.from_dataset\(dataset\)"):
            ub.from_arrays(data)
