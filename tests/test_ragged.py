"""Ragged columns: rows of several lengths through sources, stages, the row log and checkpoints, and `pad`."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, blocks, first, installed, train_all
from unbounded.core import ragged, trees
from unbounded.core.block import Block, Offset
from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.packing import read_tree, write_tree
from unbounded.core.runtime import SYSTEM
from unbounded.sources.row_log import RowLog
from unbounded.stages.changelog import Changelog
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = pytest.mark.usefixtures("no_threads_left")


def _row(i: int) -> Any:
    return np.arange(i, i + i % 5, dtype=np.int32)


def _rows(n: int) -> Any:
    return {
        "id": np.arange(n),
        "tokens": ub.ragged([_row(i) for i in range(n)]),
        "raw": ub.ragged([bytes([0, i % 256, 0]) * (i % 3) for i in range(n)]),
    }


def _check(batch: Any) -> None:
    """The columns of each row belong together."""
    for i, tokens, raw in zip(batch["id"].tolist(), batch["tokens"], batch["raw"], strict=True):
        assert tokens.dtype == np.int32
        assert tokens.tolist() == _row(i).tolist()
        assert raw == bytes([0, i % 256, 0]) * (i % 3)


def _plain(rows: Any) -> Any:
    """Without bytes, and padded: what a feed hands out."""
    return {"id": rows["id"], "tokens": rows["tokens"], "size": np.array([len(raw) for raw in rows["raw"]])}


WORDS = [
    lambda s: s,
    lambda s: s.shuffle(30),
    lambda s: s.replay(20, reuse=2),
    lambda s: s.filter(lambda rows: rows["id"] % 3 > 0).buffer(10),
    lambda s: ub.mix([s, s.shuffle(9)]),
    lambda s: s.map_rows(lambda row: row),
]


@pytest.mark.parametrize("words", WORDS)
def test_they_pass_each_stage_and_resume(words: Any) -> None:
    stream = words(ub.from_arrays(_rows(50), seed=2))
    for block in itertools.islice(blocks(stream), 9):
        if block.count:
            _check(block.rows)
    assert_resumes(stream.map(_plain).pad(5, lengths="length").batch(7), 8)


def test_windows_of_ragged_rows_by_key_are_in_checkpoints(tmp_path: Path) -> None:
    rows = {**_rows(60), "key": np.arange(60) % 7}
    stream = (
        ub.from_arrays(rows, shuffle=False)
        .windows(3, by="key")
        .map(lambda w: {"id": w["id"], "total": np.array([sum(map(len, window)) for window in w["tokens"]])})
    )
    assert_resumes(stream.batch(4), 8)


def test_a_function_that_can_not_seek_keeps_them_in_the_row_log(tmp_path: Path) -> None:
    def device() -> Iterator[Any]:
        for i in itertools.count():
            yield {"id": i, "tokens": _row(i).tolist(), "raw": bytes([0, i % 256, 0]) * (i % 3)}

    def stream() -> ub.Stream:
        source = ub.from_samples(device, ragged=["tokens", "raw"])
        return source.map(lambda rows: (_check64(rows), _plain(rows))[1]).pad(5).batch(4)

    seen: list[int] = []
    with ub.Feed(stream(), epoch=ub.Epoch(steps=20)) as feed:
        feed.load(tmp_path)
        for batch in feed:
            seen += batch["id"].tolist()
        feed.save(tmp_path)
        logged = feed.opened.sources[0].log.stop.rows  # by now: the device goes on until the feed is closed
    with ub.Feed(stream(), epoch=ub.Epoch(steps=5)) as feed:
        feed.load(tmp_path)
        for batch in feed:
            assert batch["tokens"].shape == (4, 5)
            seen += batch["id"].tolist()
    # The rows that were logged, and then those of a device that begins again.
    begins = seen.index(0, 1) if 0 in seen[1:] else 100
    assert begins >= min(100, logged)
    assert seen == [*range(begins), *range(100 - begins)]


def _check64(rows: Any) -> None:
    for i, tokens, raw in zip(rows["id"].tolist(), rows["tokens"], rows["raw"], strict=True):
        assert tokens.tolist() == _row(i).tolist()
        assert raw == bytes([0, i % 256, 0]) * (i % 3)


def test_a_log_that_is_opened_again_has_them(tmp_path: Path) -> None:
    whole = _rows(200)
    log = RowLog(tmp_path / "log", SYSTEM, segment_bytes=2000)
    cuts = [0, *range(1, 60), 90, 91, 150, 200]  # many records of one row, which are read together
    for begin, end in itertools.pairwise(cuts):
        log.append(Block(trees.cut(whole, begin, end), end - begin, None, np.arange(begin, end) * 1.0))
    log.sync()
    log.close()
    log = RowLog(tmp_path / "log", SYSTEM)
    at = Offset(0)
    for rows in (50, 7, 1, 1000, 1000, 1000, 1000):
        found = log.read(at, rows)
        if found is None:
            break
        block, end = found
        assert_same_rows(block.rows, trees.cut(whole, at.rows, end.rows))
        assert block.times is not None
        assert block.times.tolist() == list(range(at.rows, end.rows))
        at = end
    assert at.rows == 200
    log.close()


def test_a_live_stream_of_them_resumes_within_a_run() -> None:
    def device() -> Iterator[Any]:
        for i in itertools.count():
            yield _rows(7) | {"id": np.arange(7) + 7 * i}

    stream = ub.from_generator(device).map(_plain).pad(4).shuffle(10).batch(3)
    assert_resumes(stream, 10)


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2], [3], []],
        [np.zeros((2, 3)), np.ones((0, 3))],
        [b"", b"\0a\0", b"b"],
        [["a", "bcd"], ["efghij"]],
        [np.array(["2026-01-01"], "M8[s]")],
        [np.array([(1, 2.0)], [("a", "<i4"), ("b", "<f8")])],
    ],
)
def test_the_bytes_of_a_column_give_it_back(rows: list[Any]) -> None:
    column = ub.ragged(rows)
    found, size = ragged.decoded(b"".join(ragged.encoded(column)) + b"more")
    assert size == sum(len(part) for part in ragged.encoded(column))
    assert_same_rows(found, column)
    assert all(isinstance(row, bytes) or not row.flags.writeable for row in found)
    file = io.BytesIO()
    write_tree(file, {"column": column})
    assert_same_rows(read_tree(io.BytesIO(file.getvalue()))["column"], column)
    assert_same_rows(from_plain(json.loads(json.dumps(to_plain({"column": column}))))["column"], column)


def test_a_column_counts_the_bytes_of_its_rows() -> None:
    rows = {"x": ub.ragged([np.zeros(1000), np.zeros(10)])}
    (block,) = [b for b in (ub.from_arrays(rows, passes=1).open().top.pull(None),) if b is not None]
    assert block.nbytes >= 8080


def test_rows_that_a_generator_reuses_are_copied() -> None:
    memory = np.zeros(3, int)

    def reuses() -> Iterator[Any]:
        for i in itertools.count():
            memory[:] = i
            yield {"x": ragged.column_of([memory[: i % 3 + 1], memory[:1]])}

    batch = first(ub.from_generator(reuses).pad(3).batch(8), 1)[0]
    assert batch["x"][:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1], [1.5]], "rows of int64 and of float64"),
        ([b"1", [1]], "bytes in one row"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "more than the length"),
        ([3], "is 3"),
        ([[{}]], "is \\[{}\\]"),
        ("text", "given a str"),
    ],
)
def test_rows_that_differ_in_more_than_their_length_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(ub.RowsError, match=message):
        ub.ragged(rows)


def test_a_source_whose_rows_change_their_dtype_is_refused() -> None:
    steps = Steps()
    steps.give({"x": ub.ragged([[1], [2, 3]])}, {"x": ub.ragged([[1.5]])})
    with ub.Feed(steps.stream().pad(3).batch(1)) as feed:
        with pytest.raises(ub.RowsError, match=r"values of float64 and shape .*had int64"):
            train_all(feed, None)
        steps.end()


def test_empty_lists_have_the_dtype_of_the_rows_that_follow() -> None:
    def samples(start: int = 0) -> Iterator[Any]:
        for i in itertools.count(start):
            yield {"words": [] if i < 50 else ["a"] * (i % 3), "x": np.array([]) if i < 5 else np.arange(i % 4)}

    top = ub.from_samples(samples, ragged=["words", "x"]).open(block_rows=1).top  # as where samples are slow
    parts = [block.rows for block in (top.pull(None) for _ in range(40)) if block is not None]
    top.close()
    assert {row.dtype.kind for rows in parts for row in rows["words"]} == {"U"}
    batch = first(ub.from_samples(samples, ragged=["words", "x"]).pad(3, value=-1).batch(60), 1)[0]
    assert batch["words"].dtype.kind == "U"
    assert {*batch["words"].ravel().tolist()} == {"", "a"}
    assert batch["x"].dtype == np.int64
    assert_resumes(ub.from_samples(_late, ragged=["words"]).pad(3, value=-1).batch(4), 20)


def _late(start: int = 0) -> Iterator[Any]:
    for i in itertools.count(start):
        yield {"id": i, "words": [] if i % 40 < 30 else [i] * (i % 3)}


def test_empty_arrays_take_the_dtype_of_the_others() -> None:
    def blocks_of_rows() -> Iterator[Any]:
        yield {"x": ragged.column_of([np.arange(3)])}
        while True:
            yield {"x": ragged.column_of([np.array([])] * 3)}  # float64, where nobody has said so

    for batch in first(ub.from_generator(blocks_of_rows).pad(3).batch(2), 5):
        assert batch["x"].dtype == np.int64
    mine = {"x": ragged.column_of([np.array([]), np.arange(2)])}
    assert first(ub.from_arrays(mine, shuffle=False).pad(2).batch(1), 1)[0]["x"].dtype == np.int64


def test_empty_lists_alone_are_an_error_with_the_way() -> None:
    with pytest.raises(ub.RowsError, match=r"no dtype.*dtype='int64'"):
        ub.ragged([[], []])
    assert ub.ragged([[], []], dtype="int32")[0].dtype == np.int32
    assert ub.ragged([[1], [2.5]], dtype="float32")[0].dtype == np.float32
    with pytest.raises(ub.RowsError, match=r"first rows of 'x' are empty lists alone.*np\.array\(\[\], 'int64'\)"):
        first(ub.from_samples(lambda: ({"x": []} for _ in itertools.count()), ragged="x").pad(3).batch(2), 1)
    with pytest.raises(ub.RowsError, match="first rows of 'x'"):
        ub.from_dataset([{"x": []}] * 5, ragged="x")


def test_a_sample_of_another_length_names_the_way() -> None:
    def samples() -> Iterator[Any]:
        for i in itertools.count(1):
            yield {"x": np.zeros(i)}

    with pytest.raises(ub.RowsError, match=r"ragged=\['x'\]"):
        first(ub.from_samples(samples).batch(2), 2)
    with pytest.raises(ub.RowsError, match="without 'y'"):
        first(ub.from_samples(samples, ragged="y").batch(2), 2)


def test_a_join_keeps_them(tmp_path: Path) -> None:
    rows = ub.from_arrays(_rows(60), shuffle=False, passes=2)
    labels = ub.from_arrays({"id": np.arange(60)[::-1].copy(), "y": np.arange(60.0)}, shuffle=False, passes=2)
    assert_resumes(rows.join(labels, on="id", within=50).map(lambda r: {**_plain(r), "y": r["y"]}).pad(5).batch(3), 10)


def test_rows_of_a_key_do_not_keep_the_memory_of_others() -> None:
    values = np.zeros(1 << 20)
    rows = {"key": np.arange(4), "x": ragged.cut(values, np.array([1, 1, 1, len(values) - 3]))}
    changelog = Changelog("test")
    changelog.put(trees.cut(rows, 0, 3), 3)
    assert all(row.base is None for row in changelog.rows["x"][:3])


def test_a_function_can_not_write_to_the_rows_of_a_user() -> None:
    mine = np.zeros(3)

    def writes(rows: Any) -> Any:
        rows["x"][0][:] = 1
        return rows

    with pytest.raises(ValueError, match="read-only"):
        ub.from_arrays({"x": ragged.column_of([mine, mine[:1]])}).map(writes).pad(3).batch(2).peek()
    assert (mine == 0).all()


def test_rows_with_nan_are_left_out_where_that_is_asked_for() -> None:
    rows = {"id": np.arange(10), "x": ub.ragged([[1.0, np.nan][: 1 + (i == 7)] for i in range(10)])}
    stream = ub.from_arrays(rows, passes=1)
    seen: list[int] = []
    with ub.Feed(stream.batch(3, bucket=[2]), on_nan="skip") as feed:
        with pytest.warns(ub.NonFiniteRows):
            train_all(feed, seen)
        assert sorted(seen) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        assert feed.stats.bad == 1


# -- pad ---------------------------------------------------------------------------------------------------------------


def test_padding_keeps_values_and_says_lengths() -> None:
    rows = {"a": ub.ragged([[1, 2], [], [3]]), "b": ub.ragged([["x"], ["yy", "z"], []])}
    stream = ub.from_arrays(rows, shuffle=False).pad(2, "a", value=-1, lengths="n").pad(1, "b", truncate=True)
    batch = stream.batch(3).peek()
    assert batch["a"].tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert batch["n"].tolist() == [2, 0, 1]
    assert batch["b"].tolist() == [["x"], ["yy"], [""]]
    deep = ub.from_arrays({"x": ub.ragged([np.ones((1, 2)), np.ones((3, 2))])}, shuffle=False).pad(3).batch(2).peek()
    assert deep["x"].sum(axis=(1, 2)).tolist() == [2, 6]


def test_rows_that_are_cut_are_counted_once() -> None:
    stream = ub.from_arrays({"x": ub.ragged([[1] * (i % 4) for i in range(40)])}, passes=2).pad(2, truncate=True)
    with ub.Feed(stream.batch(8)) as feed:
        train_all(feed, None)
        assert feed.stats.cut == 20
    assert_resumes(stream.batch(3), 6)


def test_counts_and_numbers_of_rows_go_on_after_a_resume() -> None:
    rows = {"x": ub.ragged([[1] * (i % 4) for i in range(39)] + [[1] * 9])}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).pad(2, truncate=True).batch(4)

    def threes(start: int = 0) -> Iterator[Any]:
        for i in itertools.count(start, 3):
            yield {"x": rows["x"][i : i + 3]}

    strict = ub.from_generator(threes).pad(3).batch(4)
    with ub.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        for _ in feed:
            pass
        state = feed.state_dict()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        train_all(feed, None)
        assert feed.stats.cut == 10
    with ub.Feed(strict, epoch=ub.Epoch(steps=5)) as feed:
        for _ in feed:
            pass
        state = feed.state_dict()
    with ub.Feed(strict) as feed:
        feed.load_state_dict(state)
        with pytest.raises(ub.RowsError, match="9 values in row 39 of the stream"):
            train_all(feed, None)


def test_a_longer_row_is_an_error_with_its_number() -> None:
    rows = {"x": ub.ragged([[1] * (i // 10) for i in range(40)])}
    with pytest.raises(ub.RowsError, match=r"pad\(2\): leaf \['x'\] has 3 values in row 30.*truncate=True"):
        first(ub.from_arrays(rows, shuffle=False).pad(2).batch(4), 10)


def test_a_column_of_one_length_is_padded_by_name() -> None:
    stream = ub.from_arrays({"x": np.ones((4, 2), np.float32)}).pad(3, "x", lengths="n").batch(2)
    assert stream.peek()["x"].tolist() == [[1, 1, 0]] * 2
    assert stream.peek()["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("pad", "message"),
    [
        (lambda s: s.pad(3, "id"), "Expected rows that are arrays"),
        (lambda s: s.pad(3, "no"), "asked for column 'no'"),
        (lambda s: s.pad(9, lengths="id"), "a dict of columns without that name"),
        (lambda s: s.pad(9, value="text"), "value='text'"),
        (lambda s: s.pad(9).pad(9), "without a column of several lengths"),
        (lambda s: s.pad(9, "raw"), "Expected rows that are arrays"),
    ],
)
def test_what_can_not_be_padded_is_an_error(pad: Any, message: str) -> None:
    with pytest.raises(ub.RowsError, match=message):
        pad(ub.from_arrays(_rows(9))).batch(2).peek()


def test_what_a_step_contains_can_be_told() -> None:
    stream = ub.from_arrays(_rows(30), seed=4).columns(x="tokens", y="id").pad(5, 0).shuffle(9).batch(4)
    for step, batch in enumerate(first(stream, 9)):
        assert_same_rows(stream.batch_at(step), batch)
        assert np.array_equal(stream.rows_at(step), batch[1])


@pytest.mark.parametrize("given", [{"vocabulary": ["a", "b", "c"]}, {"hash": 50}])
def test_words_of_texts_become_codes(given: Any) -> None:
    texts = [["a", "b"], [], ["c", "x", "a"], []] * 9
    stream = ub.from_arrays({"words": ub.ragged(texts)}, shuffle=False).encode("words", **given)
    batch = stream.pad(3, value=-1).batch(4).peek()["words"]
    single = ub.from_arrays({"words": np.array(["a", "b", "c", "x"])}, shuffle=False).encode("words", **given)
    a, b, c, x = single.batch(4).peek()["words"].tolist()
    assert batch.tolist() == [[a, b, -1], [-1] * 3, [c, x, a], [-1] * 3]
    assert_resumes(stream.batch(3, bucket=[1, 3]), 6)
    with pytest.raises(ub.RowsError, match="was given bytes"):
        ub.from_arrays({"x": ub.ragged([b"a"])}).encode("x", **given).batch(1).peek()


# -- sources of other libraries ----------------------------------------------------------------------------------------


@installed("pyarrow")
@pytest.mark.parametrize("shuffle", [False, True])
def test_lists_in_parquet(tmp_path: Path, shuffle: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": np.arange(100),
            "tokens": pa.array([_row(i).tolist() for i in range(100)], pa.list_(pa.int32())),
            "raw": pa.array([bytes([0, i % 256, 0]) * (i % 3) for i in range(100)]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20)
    stream = ub.from_files(tmp_path / "a.parquet", ragged=["tokens", "raw"], shuffle=shuffle)
    rows = trees.join([block.rows for block in blocks(stream, 100) if block.count])
    assert sorted(rows["id"].tolist()) == list(range(100))
    _check(rows)
    assert_resumes(stream.map(_plain).pad(5).batch(7), 8)
    with pytest.raises(ub.RowsError, match=r"ragged=\['tokens'\]"):
        ub.from_files(tmp_path / "a.parquet").batch(2).peek()
    with pytest.raises(ub.RowsError, match=r"'id'.*asked for as ragged"):
        ub.from_files(tmp_path / "a.parquet", ragged="id").batch(2).peek()


@installed("pyarrow", "webdataset")
def test_arrays_of_several_lengths_in_tar_shards(tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(20):
            sink.write({"__key__": f"s{i:04d}", "npy": np.arange(i % 4), "bin": b"\0" * i})
    batch = ub.from_files(tmp_path / "a.tar", ragged="npy", passes=1).columns(x=["npy"]).pad(3).batch(20).peek()
    assert (batch[0][0] > 0).sum() == 5 * (0 + 0 + 1 + 2)
    with pytest.raises(ub.RowsError, match=r"ragged=\['npy'\]"):
        ub.from_files(tmp_path / "a.tar").batch(20).peek()


@installed("datasets", "pandas", "polars", "pyarrow", "torch")
@pytest.mark.parametrize("kind", ["list", "hugging face", "hf iterable", "pandas", "polars", "pyarrow", "torch"])
def test_lists_in_data_sets_of_other_libraries(kind: str) -> None:
    items = [{"id": i, "tokens": list(range(i % 4)), "tags": ["t"] * (i % 3)} for i in range(40)]
    columns = {name: [item[name] for item in items] for name in items[0]}
    dataset: Any = items
    if kind in ("hugging face", "hf iterable"):
        import datasets

        dataset = datasets.Dataset.from_list(items)
        dataset = dataset if kind == "hugging face" else dataset.to_iterable_dataset()
    elif kind == "pandas":
        import pandas as pd

        dataset = pd.DataFrame(columns)
    elif kind == "polars":
        import polars as pl

        dataset = pl.DataFrame(columns)
    elif kind == "pyarrow":
        import pyarrow as pa

        dataset = pa.table(columns)
    elif kind == "torch":
        import torch

        dataset = [{**item, "tokens": torch.arange(item["id"] % 4)} for item in items]
    stream = ub.from_dataset(dataset, passes=1, ragged=["tokens", "tags"])
    whole = first(stream.pad(3, "tokens", lengths="n").pad(2, "tags").batch(40), 1)[0]
    assert sorted(whole["id"].tolist()) == list(range(40))
    assert whole["n"].tolist() == [i % 4 for i in whole["id"]]
    assert whole["tokens"].dtype == np.int64
    assert whole["tokens"][:, 1].tolist() == [1 if i % 4 > 1 else 0 for i in whole["id"]]
    assert whole["tags"].tolist() == [["t"] * (i % 3) + [""] * (2 - i % 3) for i in whole["id"]]
    if kind != "list":
        assert_resumes(stream.pad(3, "tokens").pad(2, "tags").batch(7), 4)


def test_a_list_whose_length_varies_is_told_with_what_to_write() -> None:
    def samples() -> Iterator[dict[str, Any]]:
        for i in itertools.count(1):
            yield {"id": i, "tokens": list(range(i))}

    with pytest.raises(ub.RowsError, match=r"\['tokens'\]\[1\] is new.* its length varies, write ragged='tokens'"):
        ub.from_samples(samples).batch(4).peek()
    assert ub.from_samples(samples, ragged="tokens").pad(999).batch(4).peek()["tokens"].shape == (4, 999)
    with pytest.raises(ub.RowsError, match=r"ub\.ragged\(rows\) makes a column of rows of several lengths"):
        ub.from_arrays({"x": [[1], [2, 3]]})
