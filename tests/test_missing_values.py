"""Tables with gaps, of files and in memory: what is missing comes as NaN, NaT or "", or is refused with its row."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, installed
from unbounded.testing import assert_resumes

pytestmark = [installed("pyarrow", "fsspec", "pandas", "polars"), pytest.mark.usefixtures("no_threads_left")]

Columns = dict[str, list[Any]]
DAYS = [datetime.datetime(2026, 1, 1, 12), None, datetime.datetime(2026, 1, 3), None]
GAPS: Columns = {
    "id": [0, 1, 2, 3],
    "x": [0.5, None, 2.5, None],
    "room": ["hall", None, "", "a long name"],
    "at": DAYS,
}


def _parquet(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=3)
    return ub.from_files(folder / "t.parquet", **given)


def _csv(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    lines = [["" if value is None else str(value) for value in row] for row in zip(*columns.values(), strict=True)]
    text = "\n".join(",".join(line) for line in [list(columns), *lines]) + "\n"
    (folder / "t.csv").write_text(text)
    return ub.from_files(folder / "t.csv", **given)


def _jsonl(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    # A field that is left out is missing, as null is.
    lines = [
        json.dumps({k: v for k, v in row.items() if v is not None or i % 2}, default=str) for i, row in enumerate(rows)
    ]
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    return ub.from_files(folder / "t.jsonl", **given)


def _arrow(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    import pyarrow as pa

    table = pa.table(columns)
    with pa.OSFile(str(folder / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=3):
            writer.write_batch(batch)
    return ub.from_files(folder / "t.arrow", **given)


def _pandas(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    import pandas as pd

    dtypes = {}
    for kind, dtype in ((int, "Int64"), (bool, "boolean")):
        dtypes |= {n: dtype for n, v in columns.items() if all(type(x) in (kind, type(None)) for x in v)}
    return ub.from_dataset(pd.DataFrame(columns).astype(dtypes), shuffle=False, **given)


def _polars(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    import polars as pl

    return ub.from_dataset(pl.DataFrame(columns), shuffle=False, **given)


def _table(columns: Columns, folder: Path, /, **given: Any) -> ub.Stream:
    import pyarrow as pa

    return ub.from_dataset(pa.table(columns), shuffle=False, **given)


Make = Callable[..., ub.Stream]
FILES = [_parquet, _csv, _jsonl, _arrow]
MAKERS = [*FILES, _pandas, _polars, _table]


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_missing_among_floats_times_and_text_has_a_value_that_says_so(make: Make, tmp_path: Path) -> None:
    (batch,) = first(make(GAPS, tmp_path).batch(4), 1)
    assert batch["id"].dtype == np.int64
    assert np.array_equal(batch["x"], [0.5, np.nan, 2.5, np.nan], equal_nan=True)
    assert batch["room"].dtype.kind == "U"
    assert batch["room"].tolist() == ["hall", "", "", "a long name"]
    assert batch["at"].dtype.kind == "M"
    assert np.isnat(batch["at"]).tolist() == [False, True, False, True]
    assert str(batch["at"].astype("M8[s]")[0]) == "2026-01-01T12:00:00"


@pytest.mark.parametrize("make", MAKERS)
def test_all_of_it_passes_the_stages_of_tables_and_resumes(make: Make, tmp_path: Path) -> None:
    stream = (
        make({name: values * 20 for name, values in GAPS.items()}, tmp_path)
        .fill({"x": 0.0, "at": "last"})
        .time("at")
        .encode("room", ["hall"])
        .columns(x={"x": "x", "room": "room"}, y="id")
        .shuffle(9)
        .batch(5)
    )
    assert_resumes(stream, 8)
    x, _ = stream.peek()
    assert (x["x"].dtype, x["room"].dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("values", [[1, 2, None, 4], [True, False, None, True]])
def test_whole_numbers_and_bools_that_are_missing_are_refused_with_row_column_and_remedy(
    make: Make, values: list[Any], tmp_path: Path
) -> None:
    columns = {"id": [0, 1, 2, 3], "count": values}
    where = r"row 3 from line 2 on" if make is _csv else r"row 3 from line 1 on" if make is _jsonl else "row 2"
    words = (
        rf"Column 'count' of ('t\.\w+'|DataFrame|Table) has no value in {where}, and .*dtypes=\{{'count': 'float64'\}}"
    )
    with pytest.raises(ub.RowsError, match=words):
        first(make(columns, tmp_path).batch(4), 1)
    stream = make(columns, tmp_path, dtypes={"count": "float64"})
    (batch,) = first(stream.batch(4), 1)
    assert batch["count"].dtype == np.float64
    assert np.array_equal(
        batch["count"], [float(values[0]), float(values[1]), np.nan, float(values[3])], equal_nan=True
    )
    assert batch["id"].dtype == np.int64
    assert_resumes(stream.fill("last").shuffle(3).batch(2), 6)


@pytest.mark.parametrize("make", MAKERS)
def test_dtypes_are_checked_and_part_of_the_fingerprint(make: Make, tmp_path: Path) -> None:
    columns = {"id": [0, 1], "n": [5, 6]}
    prints = {make(columns, tmp_path, dtypes=dtypes).fingerprint for dtypes in (None, {"n": "float32"}, {"n": "str"})}
    assert len(prints) == 3
    for dtype, kind in (("float32", "f"), (np.int8, "i"), (str, "U")):
        (batch,) = first(make(columns, tmp_path, dtypes={"n": dtype}).batch(2), 1)
        assert batch["n"].dtype.kind == kind
        assert batch["n"].astype(int).tolist() == [5, 6]
    with pytest.raises(ub.RowsError, match=r"\(dtypes=…\) names the column 'm', and the columns are 'id', 'n'"):
        make(columns, tmp_path, dtypes={"m": "float64"})
    with pytest.raises(ValueError, match=r"\(dtypes=\{'n': 'number'\}\): expected a dtype, such as 'float64'"):
        make(columns, tmp_path, dtypes={"n": "number"})
    for wrong in (None, object, "S5"):
        with pytest.raises(ValueError, match=r"\(dtypes=\{'n': .*\}\): expected a dtype"):
            make(columns, tmp_path, dtypes={"n": wrong})
    with pytest.raises(TypeError, match=r"\(dtypes=\['n'\]\): Expected a dict of names of columns and dtypes"):
        make(columns, tmp_path, dtypes=["n"])
    with pytest.raises(
        ub.RowsError, match=r"Column 't' of .* is not converted to (float64|double)|Line \d of 't.\w+' is no row"
    ):
        first(make({"t": ["a", "b"]}, tmp_path, dtypes={"t": "float64"}).batch(1), 1)


@pytest.mark.parametrize("make", FILES)
def test_columns_and_dtypes_go_together(make: Make, tmp_path: Path) -> None:
    columns = {"id": [0, 1], "n": [5, None], "x": [0.5, 1.5]}
    (batch,) = first(make(columns, tmp_path, columns=["n", "x"], dtypes={"n": "float64"}).batch(2), 1)
    assert list(batch) == ["n", "x"]
    with pytest.raises(ub.RowsError, match="names the column 'n', and the columns are 'id'"):
        make(columns, tmp_path, columns=["id"], dtypes={"n": "float64"})


def test_text_of_csv_that_looks_like_numbers_is_kept_as_it_is(tmp_path: Path) -> None:
    (batch,) = first(
        _csv({"code": ["0815", "1.50", ""], "id": [0, 1, 2]}, tmp_path, dtypes={"code": "str"}).batch(3), 1
    )
    assert batch["code"].tolist() == ["0815", "1.50", ""]


def test_dtypes_of_what_is_no_table_are_refused() -> None:
    for data in ([1, 2, 3], np.arange(3), iter([1])):
        with pytest.raises(ValueError, match=r"from_dataset\(dtypes=…\) was given beside a .*\.map\(\) converts"):
            ub.from_dataset(data, dtypes={"x": "float64"})


@pytest.mark.parametrize("kind", ["parquet", "pandas", "polars", "pyarrow", "csv"])
def test_times_with_a_zone_become_utc(kind: str, tmp_path: Path) -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    zone = datetime.timezone(datetime.timedelta(hours=2))
    when = [datetime.datetime(2026, 1, 31, 14, tzinfo=zone), None]
    table = pa.table({"at": pa.array(when, pa.timestamp("us", "Europe/Helsinki"))})
    stream = {
        "parquet": lambda: _parquet(table.to_pydict(), tmp_path),
        "csv": lambda: _csv({"id": [1, 2], "at": ["2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00Z"]}, tmp_path),
        "pandas": lambda: ub.from_dataset(pd.DataFrame({"at": pd.to_datetime(when)}), shuffle=False),
        "polars": lambda: ub.from_dataset(pl.from_arrow(table), shuffle=False),
        "pyarrow": lambda: ub.from_dataset(table, shuffle=False),
    }[kind]()
    (batch,) = first(stream.batch(1), 1)
    assert str(batch["at"].astype("M8[s]")[0]) == "2026-01-31T12:00:00"


def test_a_gap_beyond_the_lines_of_which_the_types_are_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "1\n" * 500 + '""\n' + "2\n" * 10)
    monkeypatch.setattr("unbounded.sources.files.text_blocks.BLOCK_BYTES", 400, raising=True)
    with pytest.raises(ub.RowsError, match=r"Column 'n' of 't.csv' has no value in row \d+ from line \d+ on"):
        first(ub.from_files(tmp_path / "t.csv").batch(100), 6)
    assert len(first(ub.from_files(tmp_path / "t.csv", dtypes={"n": "float64"}).batch(100), 6)) == 6


def test_types_that_numpy_lacks_have_a_way_out() -> None:
    import decimal

    import polars as pl
    import pyarrow as pa

    money = [decimal.Decimal("1.50"), None]
    for table in (pa.table({"money": money}), pl.DataFrame({"money": money})):
        with pytest.raises(
            ub.RowsError, match=r"Column 'money' of .* is \w+\(.*dtypes=\{'money': 'float64'\} converts it"
        ):
            ub.from_dataset(table)
        (batch,) = first(ub.from_dataset(table, shuffle=False, dtypes={"money": "float64"}).batch(2), 1)
        assert np.array_equal(batch["money"], [1.5, np.nan], equal_nan=True)
    with pytest.raises(ub.RowsError, match=r"Column 'clock' of Table is time64.*leave the column out"):
        ub.from_dataset(pa.table({"clock": [datetime.time(1, 2)]}))


def test_types_of_arrow_in_pandas_are_those_of_arrow() -> None:
    import pandas as pd
    import pyarrow as pa

    day = datetime.datetime(2026, 1, 31, 12)
    columns = {
        "at": (pa.timestamp("ms"), [day, None], "M8[ms]"),
        "zone": (pa.timestamp("us", "Europe/Helsinki"), [day, None], "M8[us]"),
        "day": (pa.date32(), [day.date(), None], "M8[D]"),
        "took": (pa.duration("s"), [datetime.timedelta(seconds=5), None], "m8[s]"),
        "text": (pa.string(), ["a", None], "U1"),
        "x": (pa.float32(), [1.5, None], "f4"),
        "n": (pa.int16(), [1, 2], "i2"),
    }
    frame = pd.DataFrame({n: pd.Series(pa.array(v, t), dtype=pd.ArrowDtype(t)) for n, (t, v, _) in columns.items()})
    (batch,) = first(ub.from_dataset(frame, shuffle=False).batch(2), 1, on_nan="pass")
    assert {name: batch[name].dtype for name in batch} == {name: np.dtype(d) for name, (*_, d) in columns.items()}
    assert [np.isnat(batch[name][1]) for name in ("at", "zone", "day", "took")] == [True] * 4
    assert batch["text"].tolist() == ["a", ""]


def test_categories_lists_and_columns_of_nothing_have_sentences_of_their_own() -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    with pytest.raises(ub.RowsError, match="Column 'k' of DataFrame has no value in row 1, and int64"):
        ub.from_dataset(pd.DataFrame({"k": pd.Categorical([7, None])}), shuffle=False).batch(2).peek()
    for table in (pa.table({"v": [[1.0], None]}), pl.DataFrame({"v": [[1.0], None]})):
        with pytest.raises(ub.RowsError, match=r"Column 'v' of .* has no value in row 1, and lists .* Fill it in"):
            ub.from_dataset(table, shuffle=False).batch(2).peek()
    for table in (pa.table({"v": pa.nulls(2)}), pl.DataFrame({"v": [None, None]})):
        assert np.isnan(ub.from_dataset(table).batch(2).peek()["v"]).all()


@installed("datasets")
def test_a_data_set_of_hugging_face_has_them_too() -> None:
    import datasets

    data = datasets.Dataset.from_dict({"n": [1, None, 3], "t": ["a", None, "c"]})
    with pytest.raises(ub.RowsError, match=r"Column 'n' of Dataset has no value in row 1, and int64"):
        first(ub.from_dataset(data, shuffle=False).batch(3), 1)
    (batch,) = first(ub.from_dataset(data, shuffle=False, dtypes={"n": "float32"}).batch(3), 1)
    assert batch["t"].tolist() == ["a", "", "c"]
    assert np.isnan(batch["n"]).tolist() == [False, True, False]
    with pytest.raises(ub.RowsError, match="names the column 'n'"):
        ub.from_dataset(data.with_format("numpy"), dtypes={"n": "float32"})
