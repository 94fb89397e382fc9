"""from_dataset over tf.data, with the row log behind it, and over Keras's PyDataset, whose items are batches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, installed
from unbounded.sources.datasets import tf_datasets
from unbounded.testing import assert_reads, assert_resumes

pytestmark = [pytest.mark.usefixtures("no_threads_left"), installed("tensorflow", "keras")]

N = 20


def _rows() -> Any:
    import tensorflow as tf

    columns = {"id": np.arange(N), "x": np.arange(N * 2.0).reshape(N, 2), "t": [f"é{i}" for i in range(N)]}
    return tf.data.Dataset.from_tensor_slices(columns)


def _ids(stream: ub.Stream, steps: int) -> list[int]:
    return [i for batch in first(stream, steps) for i in batch["id"].tolist()]


def test_rows_of_tf_data_come_pass_after_pass_with_strings_as_text() -> None:
    stream = ub.from_dataset(_rows()).batch(5)
    assert _ids(stream, 8) == [*range(N), *range(N)]
    (batch,) = first(stream, 1)
    assert batch["t"].tolist() == [f"é{i}" for i in range(5)]
    assert (batch["x"].shape, batch["x"].dtype) == ((5, 2), np.float64)
    assert stream.guarantee == "at_most_once"
    with ub.Feed(stream, epoch=ub.Epoch(passes=1)) as feed:
        assert sum(len(batch["id"]) for batch in feed) == N


@pytest.mark.parametrize("change", [lambda rows: rows, lambda rows: rows.batch(3), lambda rows: rows.repeat()])
def test_it_resumes_by_the_row_log(change: Callable[[Any], Any]) -> None:
    assert_resumes(ub.from_dataset(change(_rows())).batch(4), 8)


def test_batches_of_tf_data_are_batches_where_batch_is_the_last_step_or_one_says_so() -> None:
    for data in (_rows().batch(4), _rows().batch(4).prefetch(2), _rows().batch(4).cache().take(3)):
        assert [len(batch["id"]) for batch in first(ub.from_dataset(data), 2)] == [4, 4]
    mapped = _rows().batch(4).map(lambda row: {"id": row["id"] + 1})
    assert first(ub.from_dataset(mapped, batched=True), 1)[0]["id"].tolist() == [1, 2, 3, 4]
    assert first(ub.from_dataset(mapped), 1)[0]["id"].shape == (1, 4)


def test_a_data_set_that_reshuffles_is_refused_wherever_the_shuffle_stands() -> None:
    refusal = r"tf\.data data set with \.shuffle\(\).*ub\.from_dataset\(data\)\.shuffle\(10_000\).*reshuffle_each_iter"
    import tensorflow as tf

    for data in (
        _rows().shuffle(10),
        _rows().shuffle(10, seed=3).map(lambda row: row["id"]).batch(2),
        tf.data.Dataset.zip((_rows(), _rows().shuffle(10))),
    ):
        with pytest.raises(ValueError, match=refusal):
            ub.from_dataset(data)
    once = ub.from_dataset(_rows().shuffle(N, seed=3, reshuffle_each_iteration=False)).batch(N)
    one, other = (batch["id"].tolist() for batch in first(once, 2))
    assert one == other != sorted(one)
    assert sorted(one) == [*range(N)]


def test_ragged_and_sparse_tensors_are_errors_that_name_the_way() -> None:
    import tensorflow as tf

    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [1, 2]]))
    with pytest.raises(ub.RowsError, match=r"ragged tensor\. Pad it: \.to_tensor\(shape=…\)"):
        first(ub.from_dataset(ragged.batch(1)), 1)
    sparse = tf.data.Dataset.from_tensors(tf.sparse.from_dense([[1, 0]]))
    with pytest.raises(ub.RowsError, match=r"sparse tensor\. Write tf\.sparse\.to_dense\(x\)"):
        first(ub.from_dataset(sparse), 1)
    binary = tf.data.Dataset.from_tensors(tf.constant(b"\xff\xfe"))
    with pytest.raises(ub.RowsError, match=r"no text in UTF-8.*tf\.io\.decode_raw"):
        first(ub.from_dataset(binary), 1)


def test_tensors_as_items_of_a_sequence_become_arrays() -> None:
    import tensorflow as tf

    (batch,) = first(ub.from_dataset([(tf.constant([1.0, i]), tf.constant("a")) for i in range(4)]).batch(4), 1)
    assert sorted(batch[0][:, 1].tolist()) == [0, 1, 2, 3]
    assert batch[1].tolist() == ["a"] * 4


def test_shuffle_is_refused_with_the_stage_to_write() -> None:
    with pytest.raises(ValueError, match=r"was given a tf\.data\.Dataset.*\.shuffle\(10_000\)"):
        ub.from_dataset(_rows(), shuffle=True)


def test_an_empty_data_set_is_told_at_its_first_pass() -> None:
    with pytest.raises(ub.StreamError, match=r"from_dataset\(tf\.data\.Dataset\) ended without a row"):
        first(ub.from_dataset(_rows().take(0)).batch(2), 1)


@pytest.mark.parametrize(
    ("backend", "others", "hidden"),
    [("tensorflow", (), False), ("jax", (), True), (None, (), False), (None, ("torch",), True)],
)
def test_gpus_are_hidden_from_tensorflow_where_another_framework_trains(
    backend: str | None, others: tuple[str, ...], hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    import tensorflow as tf

    for name in ("jax", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in others:
        monkeypatch.setitem(sys.modules, name, os)  # any module: its presence counts
    if backend is None:
        monkeypatch.delitem(sys.modules, "keras", raising=False)
    else:
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    asked: list[Any] = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: asked.append(given))
    tf_datasets.leave_gpus()
    assert asked == ([([], "GPU")] if hidden else [])


def test_reading_goes_on_where_tensorflow_has_begun_and_no_longer_hides_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras
    import tensorflow as tf

    def begun(*given: Any) -> None:
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(tf.config, "set_visible_devices", begun)
    assert _ids(ub.from_dataset(_rows()).batch(5), 1) == [*range(5)]


# -- Keras's PyDataset -------------------------------------------------------------------------------------------------


def _py_dataset() -> Any:
    import keras

    class Pairs(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> Any:
            rows = 2 if i == 5 else 3
            return np.arange(i * 3, i * 3 + rows), keras.ops.ones((rows, 1))

    return Pairs()


def test_the_batches_of_a_py_dataset_come_in_a_new_order_in_each_pass() -> None:
    stream = ub.from_dataset(_py_dataset(), seed=1)
    batches = [batch[0].tolist() for batch in first(stream, 12)]
    assert sorted(i for batch in batches[:6] for i in batch) == [*range(17)]
    assert batches[:6] != batches[6:]
    assert_resumes(stream, 8)
    assert_resumes(stream.batch(4), 8)
    assert_reads(stream.sources[0].source)
    assert [len(batch[0]) for batch in first(ub.from_dataset(_py_dataset(), shuffle=False), 6)] == [3, 3, 3, 3, 3, 2]


def test_a_model_in_place_of_a_data_set_is_told() -> None:
    import keras

    with pytest.raises(TypeError, match=r"A model is trained on a stream: model\.fit"):
        ub.from_dataset(keras.Sequential([keras.layers.Dense(1)]))
