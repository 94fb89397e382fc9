"""Keras and tables: what is no number is refused before the first step, and `adapt` takes a part of a stream."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from helpers import installed

pytestmark = [
    pytest.mark.usefixtures("no_threads_left"),
    pytest.mark.filterwarnings(km.KERAS_NOISE),
    pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning"),
]


def _takes_iterables() -> bool:
    """True if `adapt` of this Keras takes what can be iterated over, for which it asks TensorFlow on every backend."""
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        return False
    return "__iter__" in inspect.getsource(keras.layers.Normalization.adapt)


TAKES_ITERABLES = _takes_iterables()

N = 16
TEXT = np.array(["hall", "attic"] * (N // 2))
KINDS: dict[str, tuple[Any, str]] = {
    "room": (TEXT, r"is text \(<U5\).*\.encode\('room', vocabulary=\[…\]\) or \.encode\('room', hash=1000\)"),
    "at": (np.arange(N).astype("M8[s]"), r"is times \(datetime64\[s\]\).*\.columns\(x=…, y=…\): \.time\('at'\) before"),
    "took": (np.arange(N).astype("m8[s]"), r"is durations \(timedelta64\[s\]\).*\.map\(fn\)"),
    "raw": (np.array([1.5, None] * (N // 2), object), r"is Python objects \(object\).*\.map\(fn\)"),
}


def model() -> Any:
    made = keras.Sequential([keras.layers.Dense(1)])
    made.compile(optimizer="sgd", loss="mse")
    return made


def rows() -> dict[str, Any]:
    return {"x": np.ones((N, 2), np.float32), "y": np.zeros(N, np.float32), **{k: v for k, (v, _) in KINDS.items()}}


def feed(stream: ub.Stream) -> Any:
    return ub.keras.Feed(stream.batch(4), ub.Epoch(steps=2))


@pytest.mark.parametrize("role", ["fit", "evaluate", "predict", "validation"])
@pytest.mark.parametrize("column", list(KINDS))
def test_a_column_that_is_no_number_is_named_before_the_first_step(column: str, role: str) -> None:
    stream = ub.from_arrays(rows()).columns(x={"a": "x", "b": column}, y="y")
    words = rf"{role} was given batches in which the column '{column}' {KINDS[column][1]}"
    made = model()
    with feed(stream) as given, feed(ub.from_arrays(rows()).columns(x="x", y="y")) as good:
        call = getattr(made, role, made.fit)
        args: Any = {"x": good, "validation_data": given} if role == "validation" else {"x": given}
        with pytest.raises(ub.RowsError, match=words):
            call(**args, verbose=0)
        assert given.steps == 0


def test_the_column_has_its_name_wherever_it_is_in_the_batch() -> None:
    source = ub.from_arrays(rows())
    for stream, words in (
        (source.columns(x="room", y="y"), "the column 'room' is text"),
        (source.columns(x="x", y="room").shuffle(4), "the column 'room' is text"),
        (source.columns(x=["x", "room"]), "the column 'room' is text"),
        (source.map(lambda r: {"x": r["x"], "room": r["room"]}), "the column 'room' is text"),
        # What a function makes of columns has no name of theirs.
        (source.columns(x="room", y="y").map(lambda r: r), r"leaf \[0\] is text"),
    ):
        with feed(stream) as given, pytest.raises(ub.RowsError, match=f"predict was given batches in which {words}"):
            model().predict(given, verbose=0)


def test_numbers_and_bools_of_any_kind_pass() -> None:
    for column in (np.arange(N, dtype=np.uint8), np.arange(N) > 3, np.arange(N, dtype=np.int64)):
        stream = ub.from_arrays({"x": column[:, None], "y": np.zeros(N)}).columns(x="x", y="y")
        with feed(stream) as given:
            model().fit(given, verbose=0)
            assert given.steps == 2


@pytest.mark.skipif(km.BACKEND != "tensorflow", reason="Keras has text on no other backend")
def test_text_reaches_a_model_that_takes_it_on_tensorflow_alone() -> None:
    lookup = keras.layers.StringLookup(vocabulary=["hall", "attic"])
    inputs = keras.Input((1,), dtype="string")
    outputs = keras.layers.Dense(1)(keras.layers.Embedding(3, 2)(lookup(inputs))[:, 0])
    made = keras.Model(inputs, outputs)
    made.compile(optimizer="sgd", loss="mse")
    stream = ub.from_arrays({"room": TEXT[:, None], "y": np.zeros(N)}).columns(x="room", y="y")
    with feed(stream) as given:
        made.fit(given, verbose=0)
        assert given.steps == 2


@installed("pyarrow", "fsspec")
def test_a_table_with_text_times_and_gaps_is_trained_on(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 60
    at = (np.datetime64("2026-01-01", "s") + np.arange(count) * 60).astype(str).tolist()
    values = [None if i % 7 == 3 else float(i) for i in range(count)]
    table = {"at": at, "machine": ["a", "b", None] * (count // 3), "temp": values, "count": [None, 1, 2] * (count // 3)}
    pq.write_table(pa.table(table), tmp_path / "t.parquet", row_group_size=25)
    stream = (
        ub.from_files(tmp_path / "t.parquet", dtypes={"count": "float32"})
        .time("at")
        .drop_missing("machine")
        .fill({"temp": "last", "count": 0.0}, by="machine")
        .drop_missing("temp")
        .encode("machine", ["a", "b"])
        .windows(4, by="machine", max_gap="5min")
        .map(
            lambda r: {
                "x": np.stack([r["temp"], r["count"]], axis=2),
                "m": r["machine"][:, :1].astype("int32"),
                "y": r["temp"][:, -1],
            }
        )
        .columns(x={"x": "x", "m": "m"}, y="y")
    )
    series, machine = keras.Input((4, 2), name="x"), keras.Input((1,), name="m", dtype="int32")
    joined = keras.layers.Concatenate()(
        [keras.layers.Flatten()(series), keras.layers.Flatten()(keras.layers.Embedding(3, 2)(machine))]
    )
    made = keras.Model({"x": series, "m": machine}, keras.layers.Dense(1)(joined))
    made.compile(optimizer="adam", loss="mse")
    with feed(stream) as given:
        made.fit(given, epochs=2, verbose=0)
        assert given.steps == 4
        assert given.stats.left_out > 0
        assert given.stats.age is not None


# -- adapt -------------------------------------------------------------------------------------------------------------


def adapted(layer: Any, stream: ub.Stream) -> Any:
    """The layer, adapted to a part of a stream."""
    layer.adapt(stream if TAKES_ITERABLES else stream.read())
    return layer


def numbers() -> ub.Stream:
    x = np.random.default_rng(0).normal(5, 3, (500, 2))
    return ub.from_arrays({"x": x, "room": np.array(["a", "b", "c", "a", "a"] * 100), "n": np.arange(500) % 7})


@pytest.mark.parametrize("batched", [False, True])
def test_normalization_adapts_to_a_part_of_a_stream(batched: bool) -> None:
    stream = numbers().columns("x").take(300)
    if batched:
        stream = stream.batch(64)
    layer = adapted(keras.layers.Normalization(), stream)
    x = stream.read()
    assert x.shape == (300, 2)
    got = keras.ops.convert_to_numpy(layer.mean).ravel(), keras.ops.convert_to_numpy(layer.variance).ravel()
    assert np.allclose(got, [x.mean(axis=0), x.var(axis=0)], rtol=1e-4)


def test_discretization_adapts_to_a_part_of_a_stream() -> None:
    pytest.importorskip("tensorflow")
    stream = numbers().map(lambda r: r["x"][:, :1]).take(300)
    layer = adapted(keras.layers.Discretization(num_bins=4), stream)
    assert np.allclose(layer.bin_boundaries, np.quantile(stream.read(), [0.25, 0.5, 0.75]), atol=0.3)


def test_lookups_adapt_to_a_part_of_a_stream() -> None:
    pytest.importorskip("tensorflow")
    words = adapted(keras.layers.StringLookup(), numbers().columns("room").take(250))
    assert [str(word) for word in words.get_vocabulary()][:2] == ["[UNK]", "a"]
    assert {str(word) for word in words.get_vocabulary()} == {"[UNK]", "a", "b", "c"}
    whole = adapted(keras.layers.IntegerLookup(), numbers().columns("n").take(250).batch(50))
    assert {int(number) for number in whole.get_vocabulary()[1:]} == set(range(7))
    # The vocabulary is what encode takes.
    vocabulary = [str(word) for word in words.get_vocabulary()[1:]]
    codes = numbers().encode("room", vocabulary).columns("room").take(250).batch(50)
    assert {int(code) for batch in codes for code in batch} == {0, 1, 2}


ADAPTED = """
import tensorflow
import keras, numpy as np
import unbounded as ub

x = np.random.default_rng(0).normal(5, 3, (500, 2))
part = ub.from_arrays({"x": x, "room": np.array(["a", "b", "c", "a", "a"] * 100)}).take(300)
layer = keras.layers.Normalization()
layer.adapt(part.columns("x"))
assert np.allclose(np.array(layer.get_weights()[0]), x.mean(axis=0), atol=0.5)
bins = keras.layers.Discretization(num_bins=4)
bins.adapt(part.map(lambda rows: rows["x"][:, :1]))
assert len(bins.bin_boundaries) == 3
words = keras.layers.StringLookup()
words.adapt(part.columns("room").batch(64))
print(keras.backend.backend(), [str(word) for word in words.get_vocabulary()][:2])
"""


@pytest.mark.skipif(km.BACKEND != "jax", reason="one of the backends beside TensorFlow, since two imports take long")
def test_adapt_takes_a_part_of_a_stream_on_other_backends_where_tensorflow_is_installed() -> None:
    # In a process of its own: this one hides TensorFlow, since Keras imports it where it finds it.
    path = os.pathsep.join(each for each in sys.path if "no_tensorflow" not in each)
    env = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": km.BACKEND}
    done = subprocess.run([sys.executable, "-c", ADAPTED], env=env, capture_output=True, text=True, check=False)
    if "No module named 'tensorflow'" in done.stderr:
        pytest.skip("needs TensorFlow")
    assert done.stdout.strip() == f"{km.BACKEND} ['[UNK]', 'a']", done.stderr


@pytest.mark.skipif(not TAKES_ITERABLES, reason="this Keras takes arrays alone")
def test_adapt_says_what_to_write_for_a_stream_without_an_end() -> None:
    with pytest.raises(TypeError, match=r"layer\.adapt\(stream\.take\(1000\)\)"):
        keras.layers.Normalization().adapt(numbers().columns("x"))
