"""Files of every format that `from_files` reads, with the same rows, in small pieces."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from unbounded.sources.files import tar_shards, text_blocks, tfrecord_files

PIECE = 512
"""Bytes of a block of lines, of records and of members; see `small_pieces`."""
GROUP = 7
"""Rows of a row group and of a record batch."""


def small_pieces(monkeypatch: pytest.MonkeyPatch, size: int = PIECE) -> None:
    """Pieces of a few rows in the formats that have no groups."""
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", size)
    monkeypatch.setattr(tar_shards, "PIECE_BYTES", 32 * size)
    monkeypatch.setattr(tfrecord_files, "PIECE_BYTES", size)


def columns(ids: range) -> dict[str, Any]:
    """The columns of rows with these ids."""
    at = np.array(ids, np.int64)
    return {"id": at, "x": at.astype(np.float32) / 8, "t": np.array([f"row {i}" for i in ids] or [""])[: len(ids)]}


def write_parquet(path: Path, ids: range, group: int = GROUP) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({k: pa.array(v) for k, v in columns(ids).items()}, _schema()), path, row_group_size=group)


def write_arrow(path: Path, ids: range, group: int = GROUP) -> None:
    import pyarrow as pa

    table = pa.table({k: pa.array(v) for k, v in columns(ids).items()}, _schema())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=group):
            writer.write_batch(batch)


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([("id", pa.int64()), ("x", pa.float32()), ("t", pa.string())])


def write_csv(path: Path, ids: range) -> None:
    lines = [f'{i},{i / 8},"row {i}"\n' for i in ids]
    path.write_text("id,x,t\n" + "".join(lines))


def write_jsonl(path: Path, ids: range) -> None:
    path.write_text("".join(json.dumps({"id": i, "x": i / 8, "t": f"row {i}"}) + "\n" for i in ids))


def write_tar(path: Path, ids: range) -> None:
    with tarfile.open(path, "w") as archive:
        for i in ids:
            array = io.BytesIO()
            np.save(array, np.float32(i / 8))
            for name, data in (("id", str(i).encode()), ("x.npy", array.getvalue()), ("t.txt", b"row %d" % i)):
                member = tarfile.TarInfo(f"part/{i:06d}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_tfrecord(path: Path, ids: range) -> None:
    import google_crc32c

    from unbounded.sources.files.tfrecord_files import example_class

    def summed(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return data + masked.to_bytes(4, "little")

    with path.open("wb") as file:
        for i in ids:
            example = example_class()()
            example.features.feature["id"].int64_list.value.append(i)
            example.features.feature["x"].float_list.value.append(i / 8)
            example.features.feature["t"].bytes_list.value.append(b"row %d" % i)
            data = example.SerializeToString()
            file.write(summed(len(data).to_bytes(8, "little")) + summed(data))


WRITE: dict[str, Callable[[Path, range], None]] = {
    "parquet": write_parquet,
    "arrow": write_arrow,
    "csv": write_csv,
    "jsonl": write_jsonl,
    "tar": write_tar,
    "tfrecord": write_tfrecord,
}
"""By suffix."""

COUNTS = (30, 0, 1, 45)


def stream_of(folder: Path, suffix: str, **given: Any) -> ub.Stream:
    """The stream of a folder's files, with the columns of `columns` whatever the format."""
    if suffix == "tfrecord":  # its texts are bytes
        given = {"columns": {"id": "int64", "x": "float32", "t": "str"}, **given}
    stream = ub.from_files(folder / f"*.{suffix}", **given)
    if suffix == "tar":
        stream = stream.map(lambda rows: {"id": rows["id"], "x": rows["x.npy"], "t": rows["t.txt"]})
    return stream


def write(folder: Path, suffix: str, counts: tuple[int, ...] = COUNTS) -> int:
    """Write files of these numbers of rows, whose ids are consecutive; return the number of rows."""
    first = 0
    for number, count in enumerate(counts):
        WRITE[suffix](folder / f"{number}.{suffix}", range(first, first + count))
        first += count
    return first
