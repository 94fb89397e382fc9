"""from_files: each row once a pass, in order or shuffled, and exactly resumed, for every format."""

from __future__ import annotations

import gzip
import itertools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from files_of_rows import WRITE, columns, small_pieces, stream_of, write
from helpers import blocks, first, ids, installed
from unbounded.sources.files import shuffled_pieces
from unbounded.sources.reader import Opening
from unbounded.testing import assert_reads, assert_resumes

pytestmark = [
    installed("pyarrow", "fsspec", "google_crc32c", "google.protobuf"),
    pytest.mark.usefixtures("no_threads_left"),
]
FORMATS = tuple(WRITE)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    monkeypatch.setattr(shuffled_pieces, "WINDOW_BYTES", 500)


def all_ids(stream: ub.Stream, rows: int) -> list[int]:
    """The ids of so many rows."""
    return [i for batch in first(stream.batch(rows), 1) for i in ids(batch)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_shuffle_rows_come_in_the_order_of_files_and_of_each_file(tmp_path: Path, suffix: str) -> None:
    n = write(tmp_path, suffix)
    (batch,) = first(stream_of(tmp_path, suffix, passes=2).batch(2 * n), 9)
    expected = columns(range(n))
    assert batch["id"].tolist() == 2 * list(range(n))
    assert batch["x"].tolist() == 2 * expected["x"].tolist()
    assert batch["t"].tolist() == 2 * expected["t"].tolist()


@pytest.mark.parametrize("suffix", FORMATS)
def test_shuffled_each_row_comes_once_in_each_pass_in_a_new_order(tmp_path: Path, suffix: str) -> None:
    n = write(tmp_path, suffix)
    stream = stream_of(tmp_path, suffix, shuffle=True, seed=3)
    (batch,) = first(stream.batch(3 * n), 1)
    passes = batch["id"].reshape(3, n)
    assert (np.sort(passes, axis=1) == np.arange(n)).all()
    assert len({tuple(p) for p in passes.tolist()}) == 3
    assert (batch["x"] == batch["id"] / 8).all()
    assert batch["t"].tolist() == [f"row {i}" for i in batch["id"]]


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_of_several_pieces_are_mixed(tmp_path: Path, suffix: str) -> None:
    n = write(tmp_path, suffix)
    order = all_ids(stream_of(tmp_path, suffix, shuffle=True), n)
    assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(order)) < n / 3


def test_the_same_seed_gives_the_same_order_and_another_seed_another(tmp_path: Path) -> None:
    n = write(tmp_path, "parquet")
    orders = [all_ids(ub.from_files(tmp_path, shuffle=True, seed=seed), 2 * n) for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][n:] != orders[2][:n]  # seed 3, pass 1 is not seed 4, pass 0


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_it_keeps_the_protocol(tmp_path: Path, suffix: str, shuffle: bool) -> None:
    write(tmp_path, suffix, (12, 0, 1, 9))
    assert_reads(ub.from_files(tmp_path, shuffle=shuffle, passes=2).sources[0].source, blocks=12)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_it_resumes_at_every_step(tmp_path: Path, suffix: str, shuffle: bool) -> None:
    write(tmp_path, suffix, (12, 0, 1, 9))
    assert_resumes(stream_of(tmp_path, suffix, shuffle=shuffle, passes=2).batch(5), 12)


@pytest.mark.parametrize("seed", range(6))
def test_positions_of_any_blocks_lead_to_the_same_rows_by_two_resumes_in_a_row(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    suffix = FORMATS[seed % len(FORMATS)]
    small_pieces(monkeypatch, int(rng.integers(40, 600)))
    monkeypatch.setattr(shuffled_pieces, "WINDOW_BYTES", int(rng.integers(1, 2000)))
    monkeypatch.setattr(shuffled_pieces, "LARGE", int(rng.choice([0, 100, 10**6])))  # read in a thread of their own
    n = write(tmp_path, suffix, (*rng.integers(0, 40, 3).tolist(), 5))
    for shuffle in (False, True):
        source = ub.from_files(tmp_path, shuffle=shuffle, passes=3).sources[0].source
        whole = run(source, None, 10**6, 100)[0]
        assert len(whole) == 3 * n
        seen: list[int] = []
        position = None
        while len(seen) < len(whole):
            size = int(rng.integers(1, 30))
            part, position = run(source, position, int(rng.integers(1, 5)), size)
            seen += part
            again, _ = run(source, position, 3, int(rng.integers(1, 30)))
            assert whole[len(seen) : len(seen) + len(again)] == again
        assert seen == whole


def run(source: Any, position: Any, reads: int, size: int) -> tuple[list[int], Any]:
    """The ids of so many reads of `size` rows by a new reader, and its position as it comes back from JSON."""
    reader = source.open(Opening(block_rows=size))
    seen: list[int] = []
    try:
        if position is not None:
            reader.seek(position)
        for _ in range(reads):
            block = reader.read(0.0)
            if block.count:
                seen += block.rows["id"].tolist()
    except ub.EndOfStream:
        pass
    finally:
        position = json.loads(json.dumps(reader.position()))
        reader.close()
    return seen, position


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_seek_near_the_end_reads_the_piece_or_the_window_at_hand_alone(
    tmp_path: Path, suffix: str, shuffle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch, 150)
    n = write(tmp_path, suffix, (200, 200))
    source = ub.from_files(tmp_path, shuffle=shuffle).sources[0].source
    reader = source.open(Opening(block_rows=3))
    seen = 0
    while seen < n * 0.9 + 1:
        seen += reader.read(0.0).count
    whole, position = reader.pieces_read, reader.position()
    expected = [reader.read(0.0).rows["id"].tolist() for _ in range(3)]
    reader.close()
    assert whole > 20
    fresh = source.open(Opening(block_rows=3))
    fresh.seek(position)
    assert [fresh.read(0.0).rows["id"].tolist() for _ in range(3)] == expected
    assert fresh.pieces_read <= (whole / 3 if shuffle else 3)
    fresh.close()


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_and_passes_end_with_a_boundary(tmp_path: Path, suffix: str) -> None:
    n = write(tmp_path, suffix)
    rows, found = 0, []
    for block in blocks(ub.from_files(tmp_path, passes=2)):
        rows += block.count
        if block.boundary:
            found.append((rows, block.boundary.kind))
    one = [(30, "file"), (30, "file"), (31, "file"), (n, "pass")]
    assert found == one + [(n + at, kind) for at, kind in one]
    shuffled = ub.from_files(tmp_path, passes=2, shuffle=True)
    assert [b.boundary.kind for b in blocks(shuffled) if b.boundary] == ["pass", "pass"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tfrecord"])
def test_a_file_of_no_bytes_has_no_rows(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, (3, 4))
    (tmp_path / f"00.{suffix}").touch()
    (tmp_path / f"2.{suffix}").touch()
    for shuffle in (False, True):
        assert sorted(all_ids(stream_of(tmp_path, suffix, shuffle=shuffle, passes=1), 7)) == list(range(7))


def test_windows_do_not_span_files_and_epochs_count_passes_not_files(tmp_path: Path) -> None:
    write(tmp_path, "parquet", (5, 4))
    with ub.Feed(ub.from_files(tmp_path).columns(x="id", y="id").batch(3), epoch=ub.Epoch(passes=1)) as feed:
        assert sum(len(x) for x, _ in feed) == 9
    (batch,) = first(ub.from_files(tmp_path, passes=1, columns=["id"]).windows(3).batch(99), 1)
    assert batch["id"].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8]]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_first_file_without_rows_tells_no_types(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, (0, 7, 5))
    assert sorted(all_ids(stream_of(tmp_path, suffix, shuffle=True), 12)) == list(range(12))
    assert all_ids(stream_of(tmp_path, suffix), 12) == list(range(12))


@pytest.mark.parametrize("suffix", FORMATS)
def test_columns_are_chosen_and_converted(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix)
    x, t = ("x.npy", "t.txt") if suffix == "tar" else ("x", "t")
    (batch,) = first(ub.from_files(tmp_path, columns=[x, "id"]).batch(5), 1)
    assert list(batch) == [x, "id"]
    (batch,) = first(ub.from_files(tmp_path, columns={"id": "float32", t: str}, shuffle=True).batch(5), 1)
    assert batch["id"].dtype == np.float32
    assert batch[t].tolist() == [f"row {i:.0f}" for i in batch["id"]]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_that_is_missing_is_named_with_those_that_are_there(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix)
    with pytest.raises(ub.RowsError, match=r"asks for 'speed', and '0.* has the columns .*'id'"):
        ub.from_files(tmp_path, columns=["id", "speed"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_compressed_lines_are_read_in_order(tmp_path: Path, suffix: str) -> None:
    n = write(tmp_path, suffix)
    for path in tmp_path.glob(f"*.{suffix}"):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    stream = ub.from_files(tmp_path / "*.gz", passes=2)
    assert all_ids(stream, 2 * n) == 2 * list(range(n))
    assert_resumes(stream.batch(20), 8)
    with pytest.raises(ValueError, match=r"'0.*gz', which is compressed as a whole"):
        ub.from_files(tmp_path / "*.gz", shuffle=True)


def test_a_url_that_fsspec_knows_is_read(tmp_path: Path) -> None:
    write(tmp_path, "parquet")
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        for path in tmp_path.glob("*.parquet"):
            archive.write(path, f"part/{path.name}")
    stream = ub.from_files(f"zip://part/*.parquet::{tmp_path}/rows.zip")
    assert all_ids(stream, 76) == list(range(76))
    assert_resumes(stream.batch(9), 6)
    position = stream.sources[0].source.open(Opening()).position()
    assert [entry[0] for entry in position["files"]] == [f"{number}.parquet" for number in range(4)]


def test_tfrecords_that_tensorflow_wrote_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tf = pytest.importorskip("tensorflow")
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for i in range(40):
            feature = {
                "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[i])),
                "v": tf.train.Feature(float_list=tf.train.FloatList(value=[i, i + 0.5])),
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"\0%d\0" % i])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    monkeypatch.undo()
    (block,) = blocks(ub.from_files(tmp_path), 40)
    batch = block.rows
    assert batch["id"].tolist() == list(range(40))
    assert batch["v"].shape == (40, 2)
    assert batch["v"].dtype == np.float32
    assert batch["v"][7].tolist() == [7, 7.5]
    assert batch["image"].tolist() == [b"\0%d\0" % i for i in range(40)]


@installed("webdataset")
def test_shards_that_webdataset_wrote_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import webdataset as wds

    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(20):
            sink.write({"__key__": f"s{i:04d}", "jpg": b"\xff\0%d\0" % i, "cls": i, "json": {"i": i}})
    monkeypatch.undo()
    (block,) = blocks(ub.from_files(tmp_path), 20)
    batch = block.rows
    assert batch["cls"].tolist() == list(range(20))
    assert batch["__key__"].tolist() == [f"s{i:04d}" for i in range(20)]
    assert batch["jpg"].tolist() == [b"\xff\0%d\0" % i for i in range(20)]
    assert [json.loads(text)["i"] for text in batch["json"].tolist()] == list(range(20))
