"""from_files: files that change, grow, vanish or appear are noticed, named, and refused or read in the next pass."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from files_of_rows import WRITE, small_pieces, stream_of, write
from helpers import first_ids, ids, installed
from unbounded.sources.files import shuffled_pieces
from unbounded.sources.reader import Opening

pytestmark = [
    installed("pyarrow", "fsspec", "google_crc32c", "google.protobuf"),
    pytest.mark.usefixtures("no_threads_left"),
]
FORMATS = tuple(WRITE)
GROWING = ("csv", "jsonl", "tfrecord")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 150)
    monkeypatch.setattr(shuffled_pieces, "WINDOW_BYTES", 500)


def position_after(stream: ub.Stream, rows: int) -> Any:
    """The position of a reader after so many rows, or a few more, in the midst of a piece."""
    reader = stream.sources[0].source.open(Opening(block_rows=1))
    seen = 0
    while seen < rows or not reader.position()["row"]:
        seen += reader.read(0.0).count
    position = json.loads(json.dumps(reader.position()))
    reader.close()
    return position


def read_at(stream: ub.Stream, position: Any, rows: int) -> list[int]:
    """The ids from a position on, by a new reader."""
    reader = stream.sources[0].source.open(Opening(block_rows=2))
    try:
        reader.seek(position)
        seen: list[int] = []
        while len(seen) < rows:
            block = reader.read(0.0)
            seen += block.rows["id"].tolist() if block.count else []
        return seen
    finally:
        reader.close()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_resume_names_a_file_that_is_gone(tmp_path: Path, suffix: str, shuffle: bool) -> None:
    write(tmp_path, suffix, (40, 40))
    stream = ub.from_files(tmp_path, shuffle=shuffle)
    position = position_after(stream, 11)
    (tmp_path / f"1.{suffix}").unlink()
    with pytest.raises(ub.StreamError, match=rf"'1.{suffix}' is not there any more.*restore the file"):
        read_at(stream, position, 1)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_resume_names_a_file_that_was_cut(tmp_path: Path, suffix: str, shuffle: bool) -> None:
    write(tmp_path, suffix, (40, 40))
    stream = ub.from_files(tmp_path, shuffle=shuffle)
    position = position_after(stream, 11)
    path = tmp_path / f"1.{suffix}"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ub.StreamError, match=rf"'1.{suffix}' has {size - 3:,} bytes now, and had {size:,}"):
        read_at(stream, position, 1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_resume_names_a_file_whose_end_was_changed(tmp_path: Path, shuffle: bool) -> None:
    write(tmp_path, "csv", (40,))
    stream = ub.from_files(tmp_path, shuffle=shuffle)
    position = position_after(stream, 11)
    path = tmp_path / "0.csv"
    path.write_bytes(path.read_bytes()[:-2] + b"X\n")
    with pytest.raises(ub.StreamError, match=r"'0.csv' has other bytes at its beginning or end"):
        read_at(stream, position, 1)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "arrow"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_resume_names_a_file_whose_piece_at_hand_was_changed(tmp_path: Path, suffix: str, shuffle: bool) -> None:
    write(tmp_path, suffix, (2000,))
    stream = ub.from_files(tmp_path, shuffle=shuffle)
    position = position_after(stream, 1001)
    path = tmp_path / f"0.{suffix}"
    data = path.read_bytes()
    if shuffle:  # some piece of the window is in the middle
        part = data[5000:-5000].replace(b"row ", b"raw ")
        path.write_bytes(data[:5000] + part + data[-5000:])
    else:
        (following, *_) = read_at(stream, position, 1)
        path.write_bytes(data.replace(b"row %d" % following, b"raw %d" % following))
    with pytest.raises(ub.StreamError, match=rf"'0.{suffix}' has other content at .* than when the position was saved"):
        read_at(stream, position, 1)


def test_files_before_the_position_may_be_gone_where_the_order_is_theirs(tmp_path: Path) -> None:
    write(tmp_path, "parquet", (20, 20, 20))
    stream = ub.from_files(tmp_path)
    position = position_after(stream, 30)
    expected = read_at(stream, position, 4)
    (tmp_path / "0.parquet").unlink()
    assert read_at(stream, position, 4) == expected


def test_a_run_whose_folder_has_grown_goes_on_and_reads_the_new_file_in_its_next_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    write(data, "parquet", (10, 10))
    with ub.Feed(ub.from_files(data / "*.parquet").batch(4)) as feed:
        batches = feed.batches()
        seen = [next(batches)["id"].tolist() for _ in range(3)]
        feed.trained()
        batches.close()
        feed.save(run)
    WRITE["parquet"](data / "00.parquet", range(100, 105))  # sorts between the two
    with caplog.at_level(logging.WARNING), ub.Feed(ub.from_files(data / "*.parquet").batch(4)) as feed:
        feed.load(run)
        batches = feed.batches()
        rows = [i for batch in seen for i in batch]
        while len(rows) < 44:
            rows += ids(next(batches))
        batches.close()
    assert rows == [*range(20), *range(10), *range(100, 105), *range(10, 19)]
    assert [r.message for r in caplog.records if "new" in r.message] == [
        "Pass 1 of from_files(): 1 files are new: 00.parquet."
    ]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("suffix", GROWING)
def test_what_is_appended_to_a_file_is_read_in_the_next_pass(tmp_path: Path, suffix: str, shuffle: bool) -> None:
    write(tmp_path, suffix, (20,))
    source = stream_of(tmp_path, suffix, shuffle=shuffle).sources[0].source
    first, position = read_pass(source, None)
    assert sorted(first) == list(range(20))
    reader = source.open(Opening(block_rows=6))
    begun = reader.read(0.0).rows["id"].tolist()
    within = reader.position()
    reader.close()
    WRITE[suffix](tmp_path / f"0.{suffix}", range(25))
    rest, position = read_pass(source, within)
    assert begun + rest == first
    assert sorted(read_pass(source, position)[0]) == list(range(25))


def read_pass(source: Any, position: Any) -> tuple[list[int], Any]:
    """The ids from a position to the end of the pass, and the position there."""
    reader = source.open(Opening(block_rows=4))
    try:
        if position is not None:
            reader.seek(position)
        seen: list[int] = []
        while True:
            block = reader.read(0.0)
            seen += block.rows["id"].tolist() if block.count else []
            if block.boundary is not None and block.boundary.kind == "pass":
                return seen, reader.position()
    finally:
        reader.close()


def test_a_file_that_is_gone_before_a_pass_is_not_in_it_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "csv", (4, 4))
    reader = ub.from_files(tmp_path).sources[0].source.open(Opening(block_rows=4))
    seen = [reader.read(0.0).rows["id"].tolist()]
    (tmp_path / "0.csv").unlink()
    with caplog.at_level(logging.WARNING):
        seen += [reader.read(0.0).rows["id"].tolist() for _ in range(3)]
    reader.close()
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7], [4, 5, 6, 7]]
    assert [r.message for r in caplog.records] == ["Pass 1 of from_files(): 1 files are gone: 0.csv."]


def test_another_schema_is_named_with_both_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1], "x": [1.5]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2], "x": ["one"]}), tmp_path / "b.parquet")
    with pytest.raises(ub.RowsError, match=r"Column 'x' is string in 'b.parquet', and double in 'a.parquet'"):
        first_ids(ub.from_files(tmp_path).batch(2), 1)
    pq.write_table(pa.table({"id": [2]}), tmp_path / "b.parquet")
    with pytest.raises(ub.RowsError, match=r"asks for 'x', and 'b.parquet' has the columns 'id'"):
        first_ids(ub.from_files(tmp_path).batch(2), 1)
    pq.write_table(pa.table({"id": [2], "x": [2.5], "z": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ub.RowsError, match=r"'b.parquet' has the column 'z', and 'a.parquet' has none"):
        first_ids(ub.from_files(tmp_path).batch(2), 1)
    assert first_ids(ub.from_files(tmp_path, columns=["id", "x"]).batch(2), 1) == [1, 2]


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "tar", "tfrecord"])
def test_a_damaged_file_is_an_error_at_once_and_not_retried(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, (40, 40))
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 3])
    with pytest.raises(ub.StreamError, match=rf"can't read .* of '1.{suffix}'"):
        first_ids(stream_of(tmp_path, suffix).batch(80), 1)


@pytest.mark.parametrize("large", [0, 1 << 30])
def test_rows_before_a_damaged_piece_are_whole(tmp_path: Path, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is read in a thread of its own, which has its error when nobody waits for it."""
    import pyarrow.parquet as pq

    monkeypatch.setattr(shuffled_pieces, "LARGE", large)
    write(tmp_path, "parquet", (700,))
    path = tmp_path / "0.parquet"
    source = ub.from_files(path, shuffle=True).sources[0].source
    whole = read_pass(source, None)[0]
    group = whole[400] // 7
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    at = column.dictionary_page_offset or column.data_page_offset
    data[at : at + 20] = b"\xff" * 20
    path.write_bytes(data)
    reader = source.open(Opening(block_rows=7))
    seen: list[int] = []

    def read_all() -> None:
        while True:
            seen.extend(reader.read(0.0).rows["id"].tolist())

    with pytest.raises(ub.StreamError, match=rf"can't read row group {group} of '0.parquet'"):
        read_all()
    for _ in range(2):  # it stays where it is
        with pytest.raises(ub.StreamError, match=r"can't read row group"):
            reader.read(0.0)
    reader.close()
    assert seen == whole[: len(seen)]
    assert seen


@pytest.mark.parametrize("shuffle", [False, True])
def test_files_without_rows_are_an_error_and_no_endless_search(tmp_path: Path, shuffle: bool) -> None:
    write(tmp_path, "parquet", (0, 0))
    with pytest.raises(ub.RowsError, match=r"2 files have no row"):
        first_ids(ub.from_files(tmp_path, shuffle=shuffle).batch(2), 1)


def test_paths_that_name_no_file_or_no_format_are_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file for '.*\*\.parquet'"):
        ub.from_files(tmp_path / "*.parquet")
    with pytest.raises(FileNotFoundError, match=r"no file for '.*here.csv'"):
        ub.from_files([tmp_path / "here.csv"])
    write(tmp_path, "csv", (3,))
    (tmp_path / "0.csv").rename(tmp_path / "rows.log")
    with pytest.raises(ValueError, match=r"format of 'rows.log' from its suffix.*'parquet', 'csv'"):
        ub.from_files(tmp_path / "rows.log")
    assert first_ids(ub.from_files(tmp_path / "rows.log", "csv").batch(3), 1) == [0, 1, 2]
    write(tmp_path, "csv", (3,))
    write(tmp_path, "jsonl", (3,))
    with pytest.raises(ValueError, match=r"'0.csv' is csv and '0.jsonl' is jsonl"):
        ub.from_files([tmp_path / "0.csv", tmp_path / "0.jsonl"])
    with pytest.raises(ValueError, match=r"format='xml'"):
        ub.from_files(tmp_path / "0.csv", "xml")
    with pytest.raises(TypeError, match=r"given a int"):
        ub.from_files(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"empty list"):
        ub.from_files([])
    with pytest.raises(TypeError, match=r"columns='x'"):
        ub.from_files(tmp_path / "0.csv", columns="x")


@pytest.mark.parametrize(("package", "suffix"), [("pyarrow", "csv"), ("fsspec", "csv"), ("google_crc32c", "tfrecord")])
def test_a_package_that_is_missing_is_named_with_what_installs_it(
    tmp_path: Path, package: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, suffix, (3,))
    for module in (package, "fsspec.core" if package == "fsspec" else package):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{package}.* not installed: pip install 'unbounded\[files\]'"):
        ub.from_files(tmp_path)


def test_the_identity_has_no_path_and_stays_as_the_folder_grows(tmp_path: Path) -> None:
    write(tmp_path, "csv", (3,))
    before = ub.from_files(tmp_path).sources[0].source.identity()
    write(tmp_path, "csv", (3, 4))
    assert ub.from_files(tmp_path).sources[0].source.identity() == before
    assert str(tmp_path) not in json.dumps(before)
    position = position_after(ub.from_files(tmp_path), 1)
    assert str(tmp_path) not in json.dumps(position)
    assert [entry[0] for entry in position["files"]] == ["0.csv", "1.csv"]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("rows", [range(1000, 1200), range(200, 310), range(100, 200)])
def test_a_file_that_is_replaced_while_its_first_piece_is_trained_on_is_refused(
    tmp_path: Path, shuffle: bool, rows: range
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id\n" + "".join(f"{i}\n" for i in range(100, 200)))

    def train(steps: int) -> list[int]:
        stream = ub.from_files(path, shuffle=shuffle).batch(10)
        with ub.Feed(stream, epoch=ub.Epoch(steps=steps)) as feed:
            feed.load(tmp_path / "run")
            seen = [i for batch in feed for i in batch["id"].tolist()]
            feed.save(tmp_path / "run")
            return seen

    small = train(1)
    path.write_text("id\n" + "".join(f"{i}\n" for i in rows))
    if rows == range(100, 200):
        assert len({*small, *train(9)}) == 100
    else:
        with pytest.raises(ub.StreamError, match=r"'a.csv' has other bytes at its beginning or end"):
            train(1)


@pytest.mark.parametrize("stage", ["", "shuffle", "replay", "windows"])
def test_rows_that_were_read_before_and_are_gone_are_no_end(stage: str) -> None:
    class Numbers:
        """Numbers up to `rows`, some at a time."""

        replayable = True

        def __init__(self, rows: int) -> None:
            self.rows = rows

        def identity(self) -> Any:
            return "numbers"

        def open(self) -> Any:
            return Reading(self.rows)

    class Reading:
        def __init__(self, rows: int) -> None:
            self.rows, self.at = rows, 0

        def position(self) -> Any:
            return self.at

        def seek(self, position: Any) -> None:
            self.at = position

        def read(self, timeout: float) -> Any:
            if self.at >= self.rows:
                raise ub.EndOfStream
            first, self.at = self.at, self.rows
            return {"id": np.arange(first, self.rows)}

        def close(self) -> None:
            pass

    def stream(rows: int) -> ub.Stream:
        source = ub.from_source(Numbers(rows))
        staged = {
            "": source,
            "shuffle": source.shuffle(200),
            "replay": source.replay(30, reuse=1),
            "windows": source.windows(3),
        }
        return staged[stage].batch(10)

    with ub.Feed(stream(100), epoch=ub.Epoch(steps=8)) as feed:
        list(feed)
        state = feed.state_dict()
    with ub.Feed(stream(60)) as feed:
        feed.load_state_dict(state)
        with pytest.raises(ub.DataLoss, match="ended before the place at which it is to go on"):
            feed.peek()
