"""from_dataset over objects with `len` and `[i]`: each item once in each pass, in our order, copied as it comes."""

from __future__ import annotations

import itertools
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, first_ids, installed, table
from unbounded.core import trees
from unbounded.testing import assert_reads, assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Squares:
    """Items that are computed: dicts of a number, an array and text."""

    def __init__(self, n: int = 40) -> None:
        self.n = n
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return {"id": i, "x": np.full(2, i**2, np.float32), "t": "a" * (i % 3)}


class Many(Squares):
    """The same, with several items at once."""

    def __init__(self, n: int = 40) -> None:
        super().__init__(n)
        self.asked: list[list[int]] = []

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        self.asked.append(numbers)
        return [self[i] for i in numbers]


class Pairs:
    """Items that are batches, the last one shorter."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        return np.arange(i * 4, i * 4 + (3 if i == 9 else 4)), [np.zeros(3 if i == 9 else 4, np.float32)]


@pytest.mark.parametrize("data", [Squares(), Many(), [{"id": i} for i in range(40)]])
def test_each_item_comes_once_in_each_pass_in_the_order_of_from_arrays(data: Any) -> None:
    stream = ub.from_dataset(data, seed=3).batch(8)
    assert first_ids(stream, 15) == first_ids(table(40, seed=3).batch(8), 15)
    assert first_ids(ub.from_dataset(data, shuffle=False).batch(8), 7) == [*range(40), *range(16)]
    assert stream.rows_per_pass == 40


@pytest.mark.parametrize("data", [Squares(), Many(), [{"id": i} for i in range(40)], range(40), np.arange(40)])
@pytest.mark.parametrize("given", [{}, {"shuffle": False, "passes": 2}])
def test_it_resumes_at_every_step_and_keeps_the_protocol(data: Any, given: dict[str, Any]) -> None:
    assert_resumes(ub.from_dataset(data, **given).batch(7), 9)
    assert_reads(ub.from_dataset(data, **given).sources[0].source)


def test_without_batch_its_own_blocks_are_the_batches_and_resume() -> None:
    assert_resumes(ub.from_dataset(Squares(300)), 4)


def test_a_batch_far_away_is_read_at_once_and_no_item_before_it() -> None:
    data = Squares(1000)
    stream = ub.from_dataset(data, seed=5).batch(10)
    batch = stream.batch_at(10**9)
    assert stream.rows_at(10**9).tolist() == batch["id"].tolist()
    assert data.read[:11] == [0, *batch["id"].tolist()]  # item 0 when it was described
    step = stream.step_of(17)
    assert 17 in stream.batch_at(step)["id"]


def test_several_items_are_asked_for_at_once_where_the_data_set_has_that() -> None:
    data = Many()
    first(ub.from_dataset(data, shuffle=False).batch(8), 1)
    assert data.asked[0] == [*range(8)]
    assert all(type(number) is int for number in data.asked[0])


def test_an_item_in_memory_that_is_used_again_is_copied_before_the_next_one_is_read() -> None:
    class Reused(Squares):
        memory = np.zeros(3)

        def __getitem__(self, i: int) -> Any:
            self.memory[:] = i
            return {"id": i, "x": self.memory}

    for given in ({}, {"batched": None}):
        (batch,) = first(ub.from_dataset(Reused(), **given).batch(20), 1)
        assert (batch["x"] == batch["id"][:, None]).all()

    class ReusedBatch(Pairs):
        memory = np.zeros(4)

        def __getitem__(self, i: int) -> Any:
            self.memory[:] = i
            return self.memory

    (batch,) = first(ub.from_dataset(ReusedBatch(), batched=True, shuffle=False).batch(40), 1)
    assert batch.tolist() == np.repeat(np.arange(10), 4).tolist()


def test_numbers_text_lists_and_nested_items_become_columns() -> None:
    rows = [(i, [float(i), 1.0], {"t": f"row {i}"}, np.float32(i), None) for i in range(9)]
    (batch,) = first(ub.from_dataset(rows, shuffle=False).batch(9), 1)
    assert batch[0].tolist() == [*range(9)]
    assert batch[1].shape == (9, 2)
    assert batch[2]["t"].tolist() == [f"row {i}" for i in range(9)]
    assert batch[3].dtype == np.float32
    assert batch[4] is None


def test_whole_numbers_are_taken_for_floats_where_item_0_has_a_float_and_not_the_reverse() -> None:
    (batch,) = first(ub.from_dataset([0.5, 1, 2], shuffle=False).batch(3), 1)
    assert batch.tolist() == [0.5, 1.0, 2.0]
    with pytest.raises(ub.RowsError, match="Item 2 of list: the array is float64, and of item 0 it is int64"):
        first(ub.from_dataset([0, 1, 2.5], shuffle=False).batch(3), 1)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [np.zeros(2), np.zeros(3)],
            r"Item 1 of list: .* shape \(3,\), and item 0 has \(2,\).*pad.*batched=True",
        ),
        ([{"a": 1}, {"b": 1}], r"Item 1 of list has another structure than item 0: .*'b'.*'a'"),
        ([{"a": 1}, None], "Item 1 of list has another structure than item 0: None .*filter"),
        ([1, "a"], "Item 1 of list: the array is <U1, and of item 0 it is int64"),
        ([[[1], [1, 2]]], "Item 0 of list: the array is ragged"),
        ([{"a": b"\0"}], r"Item 0 of list: leaf \['a'\] is bytes.*\.decode\(\)"),
        ([object()], "Item 0 of list: the array is a object. Expected arrays, tensors, numbers or text"),
    ],
)
def test_items_that_are_no_rows_of_one_form_are_told_by_their_number(items: list[Any], message: str) -> None:
    with pytest.raises((ub.RowsError, TypeError), match=message):
        first(ub.from_dataset(items, shuffle=False).batch(2), 1)


def test_an_error_of_an_item_tells_its_number_and_a_broken_file_ends_the_run() -> None:
    class Broken(Squares):
        error: Exception = ValueError("no")

        def __getitem__(self, i: int) -> Any:
            if i == 7:
                raise self.error
            return i

    with pytest.raises(ValueError, match="no") as raised:
        first(ub.from_dataset(Broken(), shuffle=False).batch(8), 1)
    assert raised.value.__notes__ == ["raised by Broken for item 7"]
    Broken.error = FileNotFoundError("picture.png")
    with pytest.raises(ub.StreamError, match=r"Broken raised FileNotFoundError for item 7: picture\.png"):
        first(ub.from_dataset(Broken(), shuffle=False).batch(4), 2)


def test_items_that_are_batches_come_in_an_order_of_batches_and_resume() -> None:
    stream = ub.from_dataset(Pairs(), batched=True, seed=1)
    batches = first(stream, 20)
    assert sorted(batch[0][0] for batch in batches[:10]) == [*range(0, 40, 4)]
    assert [batch[0][0] for batch in batches[:10]] != [batch[0][0] for batch in batches[10:]]
    assert_resumes(stream, 12)
    assert_resumes(stream.batch(3), 30)
    assert_reads(stream.sources[0].source)
    with ub.Feed(stream.batch(13), epoch=ub.Epoch(passes=1)) as feed:
        assert sorted(i for batch in feed for i in batch[0].tolist()) == [*range(39)]
    with pytest.raises(ub.CannotTell, match="whole batches"):
        stream.batch(3).batch_at(5)


def test_what_is_promised_says_that_values_are_the_items_own() -> None:
    computed = ub.from_dataset(Squares()).batch(4)
    assert computed.guarantee == "exact"
    assert "exact in order; the values are as its items give them" in computed.describe()
    assert "as its items" not in ub.from_dataset([1, 2, 3]).batch(4).describe()
    assert "sample" not in computed.sources[0].identity()


def test_a_data_set_with_other_rows_is_not_resumed() -> None:
    def changed(rows: Any) -> str:
        return ub.from_dataset(rows).batch(2).fingerprint

    assert changed([1, 2, 3]) == changed([1, 2, 3]) != changed([1, 2, 4])
    assert changed(Squares(4)) == changed(Squares(4)) != changed(Squares(5))
    assert changed([1, 2]) != changed([1.0, 2.0])


def test_slow_items_are_read_few_at_a_time_and_quick_ones_many() -> None:
    clock = ub.testing.Clock(0.0)

    class Timed(Many):
        seconds = 0.0

        def __getitem__(self, i: int) -> Any:
            clock.advance(self.seconds)
            return super().__getitem__(i)

    def sizes(seconds: float) -> list[int]:
        data = Timed(10_000)
        reader = ub.from_dataset(data).sources[0].source.open(ub.Opening(batch_rows=8, runtime=clock))
        data.seconds = seconds
        return [reader.read(0.0).count for _ in range(6)]  # type: ignore[union-attr]

    assert sizes(0.0) == [8, 16, 32, 64, 128, 256]
    assert sizes(1.0) == [8] * 6
    assert sizes(0.001) == [8, 8, 8, 8, 8, 8]
    assert sizes(0.0001) == [8, 16, 32, 64, 64, 64]


def test_text_that_is_longer_than_that_of_item_0_is_read_in_blocks_of_bounded_size() -> None:
    rows = ["short", *["long" * 12_500] * 300]  # 200 KB a row in an array
    stream = ub.from_dataset(rows, shuffle=False)
    reader = stream.sources[0].source.open(ub.Opening(batch_rows=4, runtime=ub.testing.Clock(0.0)))
    counts = [reader.read(0.0).count for _ in range(8)]  # type: ignore[union-attr]
    assert max(counts) <= 2 * trees.BLOCK_BYTES // 200_000
    assert_resumes(stream.batch(8), 3)


def test_items_that_are_mappings_of_another_class_are_dicts() -> None:
    rows = [UserDict({"id": i, "x": [float(i), 1.0]}) for i in range(8)]
    (batch,) = first(ub.from_dataset(rows, shuffle=False).batch(8), 1)
    assert type(batch) is dict
    assert batch["x"].tolist() == [[i, 1.0] for i in range(8)]


def test_a_connection_that_fails_for_a_moment_is_tried_again_at_the_same_row() -> None:
    class Remote(Squares):
        failed = False

        def __getitem__(self, i: int) -> Any:
            if i == 9 and not self.failed:
                self.failed = True
                raise ConnectionResetError("the peer")
            return super().__getitem__(i)

    with ub.Feed(ub.from_dataset(Remote(), shuffle=False).batch(8)) as feed:
        seen = [i for batch in itertools.islice(feed.batches(), 5) for i in batch["id"].tolist()]
        assert seen == [*range(40)]
        assert feed.stats.retries == 1


def test_it_is_mixed_joined_and_looked_up_as_arrays_are() -> None:
    mixed = ub.mix({"a": ub.from_dataset(Squares(), seed=1), "b": ub.from_dataset(Many(30), seed=2)}).batch(8)
    assert_resumes(mixed, 8)
    step = mixed.step_of(17, source="a", after=50)
    assert 17 in mixed.rows_at(step, source="a")
    assert_resumes(ub.from_dataset(Squares()).shuffle(10).windows(3).batch(4), 8)


def test_passes_over_which_a_filter_keeps_nothing_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Iterated:
        def __iter__(self) -> Iterator[Any]:
            return iter(range(5))

    monkeypatch.setattr("unbounded.waiting.LONG", 1e-6)
    for data, given in ((Pairs(), {"batched": True}), (Squares(), {}), (Iterated(), {})):
        with pytest.raises(ub.StreamError, match="passes over the rows have ended without a batch"):
            first(ub.from_dataset(data, **given).filter(lambda rows: np.zeros(trees.count(rows), bool)).batch(2), 1)


@installed("jax")
def test_arrays_of_jax_become_numpys() -> None:
    import jax.numpy as jnp

    rows = [(jnp.array([1.0, i]), jnp.array(i)) for i in range(6)]
    (batch,) = first(ub.from_dataset(rows, shuffle=False).batch(6), 1)
    assert (batch[0].dtype, batch[0][:, 1].tolist(), batch[1].tolist()) == (np.float32, [*range(6)], [*range(6)])
    with pytest.raises(TypeError, match=r"ArrayImpl .*ub\.from_arrays\(x\)"):
        ub.from_dataset(jnp.zeros(3))
