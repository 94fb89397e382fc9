"""from_files: types of columns, missing values, and lines that are no rows."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from files_of_rows import small_pieces
from helpers import blocks, first, first_ids, installed
from unbounded.testing import assert_resumes

pytestmark = [installed("pyarrow", "fsspec"), pytest.mark.usefixtures("no_threads_left")]


def parquet(path: Path, **columns: Any) -> Path:
    """A file with these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def arrow(path: Path, **columns: Any) -> Path:
    """The same in Arrow's own format."""
    import pyarrow as pa

    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)
    return path


def rows(stream: ub.Stream, count: int) -> dict[str, Any]:
    """The first rows of a stream, which may have objects."""
    parts = [block.rows for block in blocks(stream, count) if block.count]
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_columns_have_the_types_of_the_file(tmp_path: Path, suffix: str) -> None:
    import pyarrow as pa

    when = [datetime.datetime(2026, 1, day) for day in (1, 2, 3)]
    path = (parquet if suffix == "parquet" else arrow)(
        tmp_path / f"a.{suffix}",
        small=pa.array([1, 2, 3], pa.uint8()),
        whole=pa.array([1, 2, 3]),
        half=pa.array([1.5, None, 3.0], pa.float32()),
        yes=pa.array([True, False, True]),
        text=pa.array(["a", "long text", ""]),
        kind=pa.array(["x", "y", "x"]).dictionary_encode(),
        when=pa.array([when[0], None, when[2]], pa.timestamp("us")),
        day=pa.array([w.date() for w in when]),
        took=pa.array([1, 2, 3], pa.duration("s")),
        vector=pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2)),
        list=pa.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        bytes=pa.array([b"\0a\0", b"", b"c"]),
        zone=pa.array(when, pa.timestamp("ns", "Europe/Berlin")),
        gaps=pa.array([[1.0, None], [3.0, 4.0], [5.0, 6.0]]),
    )
    for shuffle in (False, True):
        found = rows(ub.from_files(path, shuffle=shuffle), 3)
        order = np.argsort(found["whole"])
        found = {name: values[order] for name, values in found.items()}
        assert found["small"].dtype == np.uint8
        assert found["whole"].dtype == np.int64
        assert found["half"].dtype == np.float32
        assert np.isnan(found["half"]).tolist() == [False, True, False]
        assert found["yes"].tolist() == [True, False, True]
        assert found["yes"].dtype == bool
        assert found["text"].tolist() == ["a", "long text", ""]
        assert found["text"].dtype.kind == "U"
        assert found["kind"].tolist() == ["x", "y", "x"]
        assert found["when"].dtype == np.dtype("datetime64[us]")
        assert np.isnat(found["when"]).tolist() == [False, True, False]
        assert found["day"].dtype == np.dtype("datetime64[D]")
        assert found["took"].dtype == np.dtype("timedelta64[s]")
        assert found["vector"].tolist() == [[1, 2], [3, 4], [5, 6]]
        assert found["vector"].dtype == np.float32
        assert found["list"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        assert found["zone"].dtype == np.dtype("datetime64[ns]")
        assert np.isnan(found["gaps"]).tolist() == [[False, True], [False, False], [False, False]]
        assert found["bytes"].tolist() == [b"\0a\0", b"", b"c"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [1, None, 3],
            r"Column 'v' of 'a.parquet' has no value in row 1, and int64 has none.*dtypes=\{'v': 'float64'\}",
        ),
        ([1, 2, 3, None], "has no value in row 3, and int64"),
        ([1, 2, None, None], "has no value in row 2, nor in 1 more rows, and int64"),
        ([True, None], r"has no value in row 1, and bool"),
        ([[1], [2, 3]], r"is ragged: its lists have 1 to 2 values.*ragged=\['v'\]"),
        ([{"a": 1}], r"is struct<a: int64>.*leave the column out"),
        ([datetime.time(1, 2)], r"is time64\[us\]"),
    ],
)
def test_what_a_column_of_numpy_can_not_have_is_named_with_a_way_out(tmp_path: Path, values: Any, words: str) -> None:
    path = parquet(tmp_path / "a.parquet", v=values)
    with pytest.raises(ub.RowsError, match=words):
        first(ub.from_files(path).batch(1), 4)


def test_integers_with_missing_values_are_read_as_floats_where_that_is_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", v=[1, None, 3], w=[1, 2, 3])
    found = rows(ub.from_files(path, columns={"v": "float64"}), 3)
    assert list(found) == ["v"]
    assert found["v"].tolist()[::2] == [1, 3]
    assert np.isnan(found["v"][1])


def test_a_column_without_any_value_in_a_file_is_one_of_missing_values(tmp_path: Path) -> None:
    import pyarrow as pa

    parquet(tmp_path / "a.parquet", id=[1, 2], v=[1.5, 2.5])
    parquet(tmp_path / "b.parquet", id=[3], v=pa.nulls(1))
    assert np.isnan(rows(ub.from_files(tmp_path), 3)["v"]).tolist() == [False, False, True]


def test_the_types_of_csv_are_those_of_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,x,when,"na,me",none\n1,1.5,2026-01-01 00:00:01,"a,b",\n2,,2026-01-02,c,\n')
    found = rows(ub.from_files(tmp_path), 2)
    assert found["id"].dtype == np.int64
    assert found["x"].tolist()[0] == 1.5
    assert np.isnan(found["x"][1])
    assert found["when"].dtype.kind == "M"
    assert found["na,me"].tolist() == ["a,b", "c"]
    assert np.isnan(found["none"]).all()


def test_tabs_separate_the_columns_of_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\tx\n1\t1,5\n")
    assert rows(ub.from_files(tmp_path), 1)["x"].tolist() == ["1,5"]


BROKEN = {
    "csv": ("id,x\n0,1.5\n1,2.5\n\n2\n3,4.5\n4,no\n5,5.5\n", [(5, "2"), (7, "4,no")]),
    "jsonl": (
        '{"id": 0, "x": 1.5}\n{"id": 1, "x": 2.5}\n\n{"id": 2, "x":\n{"id": 3, "x": 4.5}\n{"id": 4, "x": "no"}\n'
        '{"id": 5, "x": 5.5}\n',
        [(4, '{"id": 2, "x":'), (6, '{"id": 4, "x": "no"}')],
    ),
}
TYPES = {"id": "int64", "x": "float64"}


@pytest.mark.parametrize("suffix", BROKEN)
def test_a_broken_line_is_an_error_with_its_file_and_number(tmp_path: Path, suffix: str) -> None:
    text, bad = BROKEN[suffix]
    (tmp_path / f"a.{suffix}").write_text(text)
    line, words = bad[0]
    with pytest.raises(ub.RowsError, match=rf"Line {line} of 'a.{suffix}' is no row: .*on_bad='skip'") as raised:
        first_ids(ub.from_files(tmp_path, columns=TYPES).batch(6), 1)
    assert repr(words) in str(raised.value)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("suffix", BROKEN)
def test_broken_lines_are_left_out_and_that_is_logged_once_for_each_file(
    tmp_path: Path, suffix: str, shuffle: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.{suffix}").write_text(BROKEN[suffix][0])
    stream = ub.from_files(tmp_path, columns=TYPES, shuffle=shuffle, on_bad="skip")
    with caplog.at_level(logging.WARNING):
        ids = first_ids(stream.batch(8), 2)
    for part in (ids[:8], ids[8:]):
        assert sorted(part) == [0, 0, 1, 1, 3, 3, 5, 5]
    line, _ = BROKEN[suffix][1][0]
    said = sorted(record.message.partition(" is no row")[0] for record in caplog.records)
    assert said == [f"Line {line} of '{name}.{suffix}'" for name in "ab"]
    assert_resumes(stream.batch(3), 8)


@pytest.mark.parametrize("suffix", BROKEN)
def test_broken_lines_are_kept_apart_once_each_over_passes_and_processes(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch, 30)
    data, kept = tmp_path / "data", tmp_path / "bad.jsonl"
    data.mkdir()
    text, bad = BROKEN[suffix]
    (data / f"a.{suffix}").write_text(text)
    if suffix == "jsonl":  # the types are those of the first piece
        small_pieces(monkeypatch, 60)
    for _ in range(2):
        assert sorted(first_ids(ub.from_files(data, columns=TYPES, on_bad=kept).batch(8), 1)) == [
            0,
            0,
            1,
            1,
            3,
            3,
            5,
            5,
        ]
    entries = [json.loads(line) for line in kept.read_text().splitlines()]
    assert entries == [{"file": f"a.{suffix}", "line": line, "text": words} for line, words in bad]


def test_broken_lines_that_are_kept_in_the_same_folder_are_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(BROKEN["jsonl"][0])
    stream = ub.from_files("*.jsonl", columns=TYPES, on_bad="bad.jsonl")
    assert first_ids(stream.batch(4), 3) == 3 * [0, 1, 3, 5]
    assert (tmp_path / "bad.jsonl").exists()


def test_a_field_that_the_first_lines_lack_is_a_broken_line_unless_columns_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 0}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 1, "new": 1}\n')
    with pytest.raises(ub.RowsError, match=r"Line 1 of 'b.jsonl' is no row"):
        first_ids(ub.from_files(tmp_path).batch(2), 1)
    assert first_ids(ub.from_files(tmp_path, columns=["id"]).batch(2), 1) == [0, 1]


def test_one_broken_line_among_many_costs_few_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unbounded.sources.files import csv_files

    lines = [f"{i},{i / 2}" for i in range(3000)]
    lines[1234] = "1234,no"
    (tmp_path / "a.csv").write_text("id,x\n" + "\n".join(lines))
    stream = ub.from_files(tmp_path, columns=TYPES, on_bad="skip", passes=1)
    parse, parses = csv_files._table, []
    monkeypatch.setattr(csv_files, "_table", lambda *given: parses.append(1) or parse(*given))
    assert len(first_ids(stream.batch(2999), 1)) == 2999
    assert len(parses) < 30
