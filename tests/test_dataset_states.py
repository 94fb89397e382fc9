"""from_dataset over data sets with a state: Hugging Face's IterableDataset and Grain, with a state at every step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, first, first_ids, installed
from unbounded.testing import assert_reads, assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")

N = 16


def _resumed(stream: ub.Stream, directory: Path, runs: int, steps: int) -> list[Any]:
    """The batches of so many runs, each of which goes on where the one before it was saved."""
    seen: list[Any] = []
    for _ in range(runs):
        with ub.Feed(stream) as feed:
            feed.load(directory)
            for batch in itertools.islice(feed.batches(), steps):
                feed.trained()
                seen.append(batch)
            feed.save(directory)
    return seen


# -- Hugging Face ------------------------------------------------------------------------------------------------------


def _hugging_face(shards: int = 3) -> Any:
    import datasets

    columns = {"id": [*range(N)], "v": [[i / 2, 1.0] for i in range(N)], "t": ["a" * (i % 4) for i in range(N)]}
    return datasets.Dataset.from_dict(columns).to_iterable_dataset(num_shards=shards)


def _generated() -> Any:
    import datasets

    return datasets.IterableDataset.from_generator(_made, gen_kwargs={"shards": [0, 1, 2]})


def _made(shards: list[int]) -> Iterator[Any]:
    for shard in shards:
        for i in range(5):
            yield {"id": shard * 5 + i}


@pytest.mark.slow
@installed("datasets")
@pytest.mark.parametrize(
    "make",
    [
        _hugging_face,
        _generated,
        lambda: _hugging_face().with_format("torch"),
        lambda: _hugging_face().with_format("numpy"),
        lambda: _hugging_face().filter(lambda row: row["id"] % 3 == 0).map(lambda row: {"n": row["id"] * 2}),
        lambda: _hugging_face().shuffle(seed=1, buffer_size=1),
    ],
)
def test_an_iterable_data_set_of_hugging_face_resumes_with_a_state_at_every_step(make: Callable[[], Any]) -> None:
    stream = ub.from_dataset(make())
    assert stream.guarantee == "exact"
    assert_resumes(stream.batch(5), 8)
    assert_reads(ub.from_dataset(make(), passes=2).sources[0].source)


@installed("datasets")
def test_rows_of_hugging_face_are_read_pass_after_pass_and_two_resumes_in_a_row_lose_none(tmp_path: Path) -> None:
    stream = ub.from_dataset(_hugging_face()).batch(4)
    assert first_ids(stream, 8) == [*range(N), *range(N)]
    seen = [i for batch in _resumed(stream, tmp_path, runs=4, steps=2) for i in batch["id"].tolist()]
    assert seen == [*range(N), *range(N)]
    (batch,) = first(stream, 1)
    assert (batch["v"].tolist(), batch["t"].tolist()) == ([[i / 2, 1.0] for i in range(4)], ["", "a", "aa", "aaa"])


@installed("datasets")
def test_the_data_set_itself_is_not_moved_and_two_feeds_read_it_apart() -> None:
    data = _hugging_face()
    stream = ub.from_dataset(data).batch(4)
    with ub.Feed(stream) as one, ub.Feed(stream) as other:
        ones, others = one.batches(), other.batches()
        assert next(ones)["id"].tolist() == next(others)["id"].tolist() == [0, 1, 2, 3]
        assert next(ones)["id"].tolist() == next(others)["id"].tolist() == [4, 5, 6, 7]
    assert next(iter(data))["id"] == 0


@installed("datasets")
def test_a_shuffle_buffer_of_hugging_face_is_refused_with_what_to_write() -> None:
    for data in (_hugging_face().shuffle(seed=1, buffer_size=20), _hugging_face().shuffle(seed=1).take(9)):
        with pytest.raises(
            TypeError,
            match=r"\(\) was given an IterableDataset with \.shuffle\(\).*ub\.from_dataset\(data\)\.shuffle",
        ):
            ub.from_dataset(data)
    shuffled = first_ids(ub.from_dataset(_hugging_face()).shuffle(N).batch(8), 4)
    assert sorted(shuffled[:N]) == sorted(shuffled[N:]) == [*range(N)]
    assert shuffled[:N] != shuffled[N:]


@installed("datasets")
def test_a_ragged_row_of_hugging_face_is_told() -> None:
    import datasets

    data = datasets.Dataset.from_dict({"v": [[1.0], [1.0, 2.0]]}).to_iterable_dataset()
    with pytest.raises(ub.RowsError, match=r"from_dataset\(IterableDataset\): leaf \['v'\] has rows of shape .* pad"):
        first(ub.from_dataset(data).batch(2), 1)


# -- Grain -------------------------------------------------------------------------------------------------------------


def _grain(n: int = N) -> Any:
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(np.arange(n))


def _iterated(data: Any) -> Any:
    import grain

    # Each iterator begins threads that read ahead: a few are enough here.
    return data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))


def _grain_loader() -> Any:
    grain = pytest.importorskip("grain")
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    sampler = grain.samplers.IndexSampler(N, shuffle=True, seed=1, num_epochs=1)
    return grain.DataLoader(data_source=[*range(N)], sampler=sampler, worker_count=0, read_options=options)


@pytest.mark.slow
@installed("grain")
@pytest.mark.parametrize(
    "make",
    [
        lambda: _iterated(_grain().shuffle(seed=2)),
        lambda: _iterated(_grain().filter(lambda i: i % 3 != 0)),
        lambda: _iterated(_grain()).batch(3),
        lambda: _iterated(_grain()).map(lambda i: {"id": i, "t": str(i)}),
        lambda: iter(_iterated(_grain())),
        _grain_loader,
        lambda: iter(_grain_loader()),
    ],
)
def test_a_data_set_or_iterator_of_grain_resumes_with_a_state_at_every_step(make: Callable[[], Any]) -> None:
    stream = ub.from_dataset(make())
    assert stream.guarantee == "exact"
    assert_resumes(stream.batch(5), 8)
    assert_reads(ub.from_dataset(make(), passes=2).sources[0].source)


@installed("grain")
def test_two_resumes_in_a_row_of_grain_lose_no_row(tmp_path: Path) -> None:
    stream = ub.from_dataset(_iterated(_grain())).batch(4)
    assert [i for batch in _resumed(stream, tmp_path, 4, 2) for i in batch.tolist()] == [*range(N), *range(N)]


@installed("grain")
def test_an_iterator_of_grain_that_was_read_begins_where_it_is() -> None:
    iterator = iter(_iterated(_grain()))
    assert next(iterator) == 0
    stream = ub.from_dataset(iterator).batch(3)
    assert first(stream, 1)[0].tolist() == [1, 2, 3]
    assert first(stream, 1)[0].tolist() == [1, 2, 3]
    # The one that begins a pass takes the iterator: the other hears of it, once it has handed on what it had read.
    told = pytest.raises(ub.StreamError, match="another feed, or a look at the stream, has moved it")
    with ub.Feed(stream) as one, ub.Feed(stream) as other, told:
        for _ in zip(one.batches(), other.batches(), strict=False):
            pass


@installed("grain")
def test_a_map_data_set_of_grain_has_random_access() -> None:
    stream = ub.from_dataset(_grain(), seed=3).batch(8)
    assert first_ids(stream, 5) == first_ids(ub.from_arrays(np.arange(N), seed=3).batch(8), 5)
    assert_resumes(stream, 9)
    batches = first(ub.from_dataset(_grain().batch(4), shuffle=False), 2)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match=r"without an end\. Leave out its \.repeat\(\)"):
        ub.from_dataset(_grain().repeat())
    with pytest.raises(ub.RowsError, match=r"another structure than item 0: None .*filter left out are None"):
        first(ub.from_dataset(_grain().filter(lambda i: i % 2 == 0)).batch(8), 1)


# -- any other ---------------------------------------------------------------------------------------------------------


def test_an_iterable_of_ones_own_with_a_state_resumes_from_it() -> None:
    class Rows(Counter):
        rows = 1

        def __next__(self) -> Any:
            if self.i >= N:
                raise StopIteration
            return super().__next__()[0]

    stream = ub.from_dataset(Rows()).batch(7)
    assert first_ids(stream, 3) == [*range(N), *range(5)]
    assert_resumes(stream, 14)
    batches = ub.from_dataset(Counter(), batched=True)
    assert [batch.tolist() for batch in first(batches, 2)] == [[0, 1, 2], [3, 4, 5]]
    assert_resumes(batches, 6)


def test_a_connection_that_fails_for_a_moment_is_tried_again_from_the_state_and_a_missing_file_is_not() -> None:
    errors: list[OSError] = [ConnectionResetError("the peer"), FileNotFoundError("shard-3")]

    class Remote(Counter):
        def __next__(self) -> Any:
            if self.i in (6, 12) and len(errors) > (self.i == 6):
                raise errors.pop(0)
            return super().__next__()

    stream = ub.from_dataset(Remote(), batched=True).batch(3)
    with ub.Feed(stream) as feed:
        batches = feed.batches()
        assert [next(batches).tolist() for _ in range(4)] == [[i, i + 1, i + 2] for i in range(0, 12, 3)]
        with pytest.raises(ub.StreamError, match="Remote raised FileNotFoundError: shard-3"):
            next(batches)
        assert feed.stats.retries == 1


def test_what_is_read_of_the_object_afterwards_does_not_move_the_stream() -> None:
    counter = Counter()
    next(counter)
    stream = ub.from_dataset(counter, batched=True).batch(3)
    next(counter)
    assert [batch.tolist() for batch in first(stream, 2)] == [[3, 4, 5], [6, 7, 8]]


def test_what_can_not_be_copied_is_refused_with_a_function_to_write() -> None:
    class Locked(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.generator = (i for i in range(3))

    with pytest.raises(TypeError, match=r"a Locked that can't be copied .*ub\.from_samples\(lambda: make\(\)\)"):
        ub.from_dataset(Locked())
