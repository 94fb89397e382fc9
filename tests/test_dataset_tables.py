"""from_dataset over tables: frames of pandas and polars, pyarrow Tables, Hugging Face Datasets, arrays in HDF5 files.

Each gives many rows at once, in the order of from_arrays, with the dtypes of its columns.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, first_ids, installed, table
from unbounded.testing import assert_reads, assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")

N = 60
COLUMNS: dict[str, list[Any]] = {
    "id": [*range(N)],
    "x": [i / 4 for i in range(N)],
    "t": ["ab" * (i % 4) + "é" for i in range(N)],
    "v": [[float(i), 1.5, -i / 2] for i in range(N)],
    "b": [i % 2 == 0 for i in range(N)],
}


def _library(name: str) -> Any:
    return importlib.import_module(name)


def _pandas(columns: dict[str, Any] = COLUMNS) -> Any:
    return _library("pandas").DataFrame(columns, index=range(100, 100 + len(columns["id"])))


def _polars(columns: dict[str, Any] = COLUMNS) -> Any:
    return _library("polars").DataFrame(columns, strict=False)


def _arrow(columns: dict[str, Any] = COLUMNS) -> Any:
    return _library("pyarrow").table(columns)


def _chunks(columns: dict[str, Any] = COLUMNS) -> Any:
    """A Table whose columns are in several pieces, the first of them cut."""
    whole = _arrow(columns)
    return _library("pyarrow").concat_tables([whole.slice(0, 7), whole.slice(7, 40), whole.slice(47)])


def _hugging_face(columns: dict[str, Any] = COLUMNS) -> Any:
    return _library("datasets").Dataset.from_dict(columns)


TABLES = [
    pytest.param(_pandas, marks=installed("pandas"), id="pandas"),
    pytest.param(_polars, marks=installed("polars"), id="polars"),
    pytest.param(_arrow, marks=installed("pyarrow"), id="pyarrow"),
    pytest.param(_chunks, marks=installed("pyarrow"), id="pyarrow, in chunks"),
    pytest.param(_hugging_face, marks=installed("datasets"), id="datasets"),
]
Make = Callable[..., Any]


@installed("pandas")
def test_a_frame_in_place_of_arrays_or_paths_is_told_what_to_write() -> None:
    pd = _library("pandas")
    frame = pd.DataFrame({"x": [1.0, 2.0], "name": ["a", "b"]})
    for given in (frame, (frame, np.zeros(2))):
        with pytest.raises(TypeError, match=r"DataFrame .*several dtypes.*ub\.from_dataset\(frame\)"):
            ub.from_arrays(given)
    with pytest.raises(TypeError, match=r"from_files\(\) was given a DataFrame.*ub\.from_dataset\(table\)"):
        ub.from_files(frame)
    numbers = ub.from_arrays((frame[["x"]], frame["x"]), shuffle=False).batch(2).batch_at(0)
    assert [leaf.tolist() for leaf in numbers] == [[[1.0], [2.0]], [1.0, 2.0]]


@pytest.mark.parametrize("make", TABLES)
def test_rows_come_once_a_pass_in_the_order_of_from_arrays_with_their_columns_together(make: Make) -> None:
    stream = ub.from_dataset(make(), seed=2).batch(10)
    assert first_ids(stream, 12) == first_ids(table(N, seed=2).batch(10), 12)
    assert stream.rows_per_pass == N
    for batch in first(stream, 6):
        assert {name: batch[name].tolist() for name in COLUMNS} == {
            name: [values[i] for i in batch["id"]] for name, values in COLUMNS.items()
        }
        assert [batch[name].dtype.kind for name in COLUMNS] == ["i", "f", "U", "f", "b"]
        assert batch["x"].dtype == np.float64
        assert batch["v"].shape == (10, 3)


@pytest.mark.parametrize("make", TABLES)
def test_it_resumes_at_every_step_and_keeps_the_protocol(make: Make) -> None:
    stream = ub.from_dataset(make(), passes=2).batch(7)
    assert_resumes(stream, 12)
    assert_resumes(ub.from_dataset(make(), shuffle=False), 2)
    assert_reads(stream.sources[0].source)
    assert stream.describe().splitlines()[0].endswith(f"{N} rows a pass")


@pytest.mark.parametrize("make", TABLES)
def test_a_table_with_other_values_is_not_resumed(make: Make) -> None:
    def fingerprint(given: Any) -> str:
        return ub.from_dataset(given).batch(2).fingerprint

    other = {**COLUMNS, "t": ["x", *COLUMNS["t"][1:]]}
    assert fingerprint(make()) == fingerprint(make()) != fingerprint(make(other))


@pytest.mark.parametrize("make", TABLES)
def test_missing_values_are_nan_among_floats_and_empty_among_text(make: Make) -> None:
    (batch,) = first(ub.from_dataset(make({"id": [0, 1], "x": [0.5, None]}), shuffle=False).batch(2), 1)
    assert np.isnan(batch["x"][1])
    assert batch["x"].dtype == np.float64
    (batch,) = first(ub.from_dataset(make({"id": [0, 1], "t": ["a", None]}), shuffle=False).batch(2), 1)
    assert batch["t"].tolist() == ["a", ""]


@pytest.mark.parametrize("make", TABLES)
def test_a_ragged_column_is_an_error_that_names_the_way(make: Make) -> None:
    lengths = {"id": [0, 1, 2], "v": [[1.0], [1.0, 2.0], [1.0]]}
    with pytest.raises(ub.RowsError, match=r"'v'.*ragged=\['v'\]"):
        first(ub.from_dataset(make(lengths), shuffle=False).batch(3), 1)
    # Also where each block has one length.
    with pytest.raises(ub.RowsError, match=r"'v'.*ragged=\['v'\]"):
        first(ub.from_dataset(make(lengths), shuffle=False).batch(1), 2)


@pytest.mark.parametrize("make", TABLES)
def test_an_empty_table_is_an_error(make: Make) -> None:
    with pytest.raises(ValueError, match=r"from_dataset\(\) was given an empty \w+\. Expected at least one item"):
        ub.from_dataset(make({"id": [], "t": []}))


@installed("pandas")
def test_columns_of_pandas_types_become_numpys() -> None:
    pd = _library("pandas")
    frame = pd.DataFrame({0: [1, 2]}).assign(
        whole=pd.array([1, 2], dtype="Int32"),
        part=pd.array([0.5, None], dtype="Float32"),
        truth=pd.array([True, False], dtype="boolean"),
        kind=pd.Categorical(["a", "b"]),
        code=pd.Categorical([7, 8]),
        time=pd.to_datetime(["2026-01-01", "2026-01-02"]),
        zone=pd.to_datetime(["2026-01-01T01:00+01:00"] * 2, utc=True).tz_convert("Europe/Berlin"),
        array=[np.zeros(2, np.float32), np.ones(2, np.float32)],
    )
    (batch,) = first(ub.from_dataset(frame, shuffle=False).batch(2), 1, on_nan="pass")
    assert [(name, batch[name].dtype.kind) for name in batch] == [
        *(("0", "i"), ("whole", "i"), ("part", "f"), ("truth", "b"), ("kind", "U"), ("code", "i"), ("time", "M")),
        *(("zone", "M"), ("array", "f")),
    ]
    assert (batch["whole"].dtype, batch["part"].dtype) == (np.int32, np.float32)
    assert str(batch["zone"][0]).startswith("2026-01-01T00:00")
    assert batch["array"].shape == (2, 2)
    with pytest.raises(ub.RowsError, match="several columns named 'x'"):
        ub.from_dataset(pd.DataFrame(np.zeros((2, 2)), columns=["x", "x"]))
    with pytest.raises(ub.RowsError, match=r"Column 'whole' of DataFrame has no value in row 0, and Int32.*dtypes="):
        ub.from_dataset(pd.DataFrame({"whole": pd.array([None, 2], dtype="Int32")}))
    assert_resumes(ub.from_dataset(pd.Series(range(9))).batch(2), 4)


@installed("polars")
def test_columns_of_polars_types_become_numpys() -> None:
    pl = _library("polars")
    frame = pl.DataFrame(
        {
            "f": pl.Series([0.5, 1.5], dtype=pl.Float32),
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
            "fixed": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int16, 2)),
            "inner": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
            "day": pl.Series(["2026-01-01", "2026-01-02"]).str.to_date(),
        }
    )
    (batch,) = first(ub.from_dataset(frame, shuffle=False).batch(2), 1)
    assert (batch["f"].dtype, batch["fixed"].dtype, batch["fixed"].shape) == (np.float32, np.int16, (2, 2))
    assert batch["kind"].tolist() == ["a", "b"]
    assert batch["inner"]["a"].tolist() == [1, 2]
    assert batch["inner"]["b"].tolist() == ["x", "y"]
    assert batch["day"].dtype.kind == "M"
    with pytest.raises(TypeError, match=r"LazyFrame .*no rows yet: give \.collect\(\)"):
        ub.from_dataset(frame.lazy())
    with pytest.raises(
        ub.RowsError, match=r"Column 'd' of DataFrame is Decimal.*dtypes=\{'d': 'float64'\} converts it"
    ):
        ub.from_dataset(frame.select(d=pl.lit("1.5").cast(pl.Decimal(10, 2))))
    assert_resumes(ub.from_dataset(pl.Series("s", ["a", "bb"] * 5)).batch(3), 4)


@installed("pyarrow")
def test_text_that_is_too_much_to_be_joined_is_taken_from_each_record_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = first(ub.from_dataset(_chunks(), seed=1).batch(11), 6)
    monkeypatch.setattr("unbounded.sources.datasets.chunked_rows._JOINED", 0)
    for batch, other in zip(first(ub.from_dataset(_chunks(), seed=1).batch(11), 6), expected, strict=True):
        assert_same_rows(batch, other)
    assert_resumes(ub.from_dataset(_chunks()).batch(7), 9)


@installed("pyarrow")
def test_columns_of_arrow_types_become_numpys() -> None:
    pa = _library("pyarrow")
    rows = pa.table(
        {
            "f": pa.array([0.5, 1.5, 2.5], pa.float32()),
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int16(), 2)),
            "inner": pa.array([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}]),
            "time": pa.array([0, 1, 2], pa.timestamp("ms")),
        }
    ).slice(1)
    (batch,) = first(ub.from_dataset(rows, shuffle=False).batch(2), 1)
    assert (batch["f"].tolist(), batch["f"].dtype) == ([1.5, 2.5], np.float32)
    assert (batch["fixed"].tolist(), batch["fixed"].dtype) == ([[3, 4], [5, 6]], np.int16)
    assert batch["kind"].tolist() == ["b", "a"]
    assert (batch["inner"]["a"].tolist(), batch["inner"]["b"].tolist()) == ([2, 3], ["y", "z"])
    assert batch["time"].dtype == np.dtype("M8[ms]")
    with pytest.raises(ub.RowsError, match=r"Column 'raw' of Table is binary"):
        ub.from_dataset(pa.table({"raw": [b"\0"]}))


@installed("datasets")
def test_a_format_of_hugging_face_is_kept_and_a_transform_voids_exactness_of_values() -> None:
    data = _hugging_face()
    (batch,) = first(ub.from_dataset(data.with_format("torch", columns=["id", "v"]), shuffle=False).batch(4), 1)
    assert set(batch) == {"id", "v"}
    assert batch["v"].dtype == np.float32  # torch's format makes all floats float32
    (batch,) = first(ub.from_dataset(data.with_format(None, columns=["x"]), shuffle=False).batch(4), 1)
    assert set(batch) == {"x"}
    (batch,) = first(ub.from_dataset(data.with_format("pandas"), shuffle=False).batch(4), 1)
    assert batch["x"].dtype == np.float64
    lengths = data.with_transform(lambda rows: {"n": [len(text) for text in rows["t"]]})
    stream = ub.from_dataset(lengths, shuffle=False).batch(5)
    (batch,) = first(stream, 1)
    assert batch["n"].tolist() == [1, 3, 5, 7, 1]
    assert "the values are as its items give them" in stream.describe()
    assert_resumes(stream, 5)


@installed("datasets")
def test_the_rows_of_a_selection_of_hugging_face_are_its_own() -> None:
    data = _hugging_face().shuffle(seed=3).select(range(20))
    (batch,) = first(ub.from_dataset(data, shuffle=False).batch(20), 1)
    assert batch["id"].tolist() == data["id"][:]
    features = _library("datasets")
    typed = features.Dataset.from_dict(
        {"a": [[[0.5, 1.0], [1.5, 2.0]]] * 3, "label": [0, 1, 0]},
        features=features.Features(
            {"a": features.Array2D((2, 2), "float64"), "label": features.ClassLabel(names=["n", "y"])}
        ),
    )
    (batch,) = first(ub.from_dataset(typed, shuffle=False).batch(3), 1)
    assert (batch["a"].shape, batch["a"].dtype, batch["label"].tolist()) == ((3, 2, 2), np.float64, [0, 1, 0])
    with pytest.raises(TypeError, match=r"DatasetDict .*choose one, such as data\['train'\]"):
        ub.from_dataset(features.DatasetDict({"train": data}))


@installed("datasets", "PIL")
def test_images_of_hugging_face_are_decoded() -> None:
    library, image = _library("datasets"), _library("PIL.Image")
    pictures = [image.fromarray(np.full((4, 5, 3), i, np.uint8)) for i in range(6)]
    data = library.Dataset.from_dict(
        {"x": [i / 3 for i in range(6)], "image": pictures},
        features=library.Features({"x": library.Value("float64"), "image": library.Image()}),
    )
    (batch,) = first(ub.from_dataset(data, shuffle=False).batch(6), 1)
    assert list(batch) == ["x", "image"]
    assert batch["x"].tolist() == [i / 3 for i in range(6)]
    assert batch["image"].shape == (6, 4, 5, 3)
    assert batch["image"][:, 0, 0, 0].tolist() == [*range(6)]


@installed("h5py")
@pytest.mark.parametrize("dense", [16, 0])  # where few rows of a range are wanted, they are read one by one
def test_an_array_in_a_file_is_read_by_ranges_or_by_lists_of_rows_in_ascending_order(
    dense: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = _library("h5py")
    monkeypatch.setattr("unbounded.sources.datasets.row_access._DENSE", dense)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(N * 3).reshape(N, 3)
        file["t"] = [f"row {i}" for i in range(N)]
        stream = ub.from_dataset(file["x"], seed=2).batch(7)
        seen = np.concatenate(first(stream, 8))[:, 0] // 3
        assert seen.tolist() == first_ids(table(N, seed=2).batch(7), 8)
        assert_resumes(stream, 10)
        assert_resumes(ub.from_dataset(file["x"], shuffle=False).batch(7), 10)
        (batch,) = first(ub.from_dataset(file["t"], shuffle=False).batch(2), 1)
        assert batch.tolist() == ["row 0", "row 1"]
        with pytest.raises(TypeError, match=r"File .*give one of them, such as file\['x'\]"):
            ub.from_dataset(file)


@installed("zarr")
def test_an_array_of_zarr_has_a_shape_and_no_length(tmp_path: Path) -> None:
    array = _library("zarr").create_array(tmp_path / "x.zarr", shape=(N, 2), dtype="f4", chunks=(7, 2))
    array[:] = np.arange(N * 2).reshape(N, 2)
    stream = ub.from_dataset(array, seed=2).batch(7)
    seen = np.concatenate(first(stream, 8))[:, 0] // 2
    assert seen.tolist() == first_ids(table(N, seed=2).batch(7), 8)
    assert_resumes(stream, 10)


def test_a_memmap_is_read_where_it_lies(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(f"{tmp_path}/x.npy", "w+", np.int64, (40,))
    mapped[:] = np.arange(40)
    stream = ub.from_dataset(mapped, seed=1).batch(8)
    assert first_ids(stream, 10) == first_ids(ub.from_arrays(np.arange(40), seed=1).batch(8), 10)
    assert_resumes(stream, 6)
