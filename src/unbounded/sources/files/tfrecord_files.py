"""TFRecord files of tf.train.Example, read without TensorFlow: a piece is some records in a row.

The frame of a record is its length, a checksum of that, its bytes, and a checksum of these
(https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details"). Its bytes are parsed by protobuf.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from unbounded.core.trees import RowsError
from unbounded.sources.files.arrow_columns import Wanted
from unbounded.sources.files.bad_rows import BadRows
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import NoRows, Piece, PieceAt, broken
from unbounded.sources.files.record_columns import RecordColumns
from unbounded.sources.reader import JSON

PIECE_BYTES = 1 << 22
"""A piece has at most so many bytes; more only if it is one record."""
_HEAD, _TAIL = 12, 4


class TFRecordFormat:
    """TFRecord files; arguments as for `TarFormat`."""

    def __init__(self, first: FoundFile, source: Any, wanted: Wanted) -> None:
        try:
            import google.protobuf  # noqa: F401
            import google_crc32c  # noqa: F401 - both are imported where they are used
        except ImportError as error:
            raise ImportError(
                f"from_files() needs {error.name} for TFRecord files, which is not installed: "
                "pip install 'unbounded[files]'."
            ) from None
        records, _ = _frames(first, source, 0)
        if not records:
            raise NoRows(f"{first.name!r} has no record. Expected records of tf.train.Example.")
        self._columns = RecordColumns(_record(records[0], f"Record 0 of {first.name!r}", None), first, wanted)

    def may_grow(self, file: FoundFile) -> bool:
        return True

    def columns(self) -> Mapping[str, str]:
        return self._columns.described()

    def open(self, file: FoundFile, source: Any, bad: BadRows) -> _TFRecordPieces:
        return _TFRecordPieces(file, source, self._columns)


def _frames(file: FoundFile, source: Any, offset: int) -> tuple[list[memoryview], int]:
    """The records from an offset on, up to a piece's bytes, and the offset after them."""
    source.seek(offset)
    data = source.read(min(PIECE_BYTES, file.size - offset))
    records: list[memoryview] = []
    at = 0
    while at < len(data):
        stop = at + _HEAD
        if stop <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            _check_sum(file, data[at : at + 8], data[at + 8 : stop], offset + at)
            stop += length + _TAIL
        if stop > len(data):
            if offset + stop > file.size:
                raise broken(file, f"the record at byte {offset + at:,}", ValueError("the file ends in it"))
            if records:
                break
            data += source.read(stop - len(data))
        view = memoryview(data)[at + _HEAD : stop - _TAIL]
        _check_sum(file, view, data[stop - _TAIL : stop], offset + at)
        records.append(view)
        at = stop
    return records, offset + at


def _check_sum(file: FoundFile, data: bytes | memoryview, expected: bytes, offset: int) -> None:
    import google_crc32c

    crc = google_crc32c.value(bytes(data))
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    if masked != int.from_bytes(expected, "little"):
        raise broken(file, f"the record at byte {offset:,}", ValueError("its checksum does not fit"))


@cache
def example_class() -> Any:
    """The message class of tf.train.Example, in a pool of its own: TensorFlow's has the same names."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    of = descriptor_pb2.FieldDescriptorProto
    lists = {"BytesList": of.TYPE_BYTES, "FloatList": of.TYPE_FLOAT, "Int64List": of.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="unbounded", syntax="proto3")

    def field(message: Any, name: str, number: int, kind: Any, label: Any, of_type: str | None = None) -> Any:
        return message.field.add(name=name, number=number, type=kind, label=label, type_name=of_type)

    for name, kind in lists.items():
        field(file.message_type.add(name=name), "value", 1, kind, of.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of_list) in enumerate(
        [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")], 1
    ):
        one = field(feature, name, number, of.TYPE_MESSAGE, of.LABEL_OPTIONAL, f".unbounded.{of_list}")
        one.oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, of.TYPE_STRING, of.LABEL_OPTIONAL)
    field(entry, "value", 2, of.TYPE_MESSAGE, of.LABEL_OPTIONAL, ".unbounded.Feature")
    field(features, "feature", 1, of.TYPE_MESSAGE, of.LABEL_REPEATED, ".unbounded.Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    field(example, "features", 1, of.TYPE_MESSAGE, of.LABEL_OPTIONAL, ".unbounded.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("unbounded.Example"))


def _record(data: memoryview, what: str, names: list[str] | None) -> dict[str, Any]:
    """The values of these features; None for all, by name. A list of one value is a scalar."""
    from google.protobuf.message import DecodeError

    try:
        features = example_class().FromString(bytes(data)).features.feature
    except DecodeError as error:
        raise RowsError(f"{what} is no tf.train.Example: {error}. Other records can't be read.") from None
    record: dict[str, Any] = {}
    for name in sorted(features) if names is None else names:
        if name not in features:
            continue
        feature = features[name]
        kind = feature.WhichOneof("kind")
        if kind is None:
            continue
        values = getattr(feature, kind).value
        if kind == "bytes_list":
            if len(values) != 1:
                raise RowsError(
                    f"{what} has {len(values)} texts in {name!r}. Expected one: join them where the file is written, "
                    "or leave it out by columns=[…]."
                )
            record[name] = values[0]
        else:
            array = np.array(values, np.float32 if kind == "float_list" else np.int64)
            record[name] = array.reshape(()) if len(array) == 1 else array
    return record


class _TFRecordPieces:
    """The place of a piece is a list of the offset of its first record and the record's number."""

    def __init__(self, file: FoundFile, source: Any, columns: RecordColumns) -> None:
        self._file, self._source, self._columns = file, source, columns

    def first(self) -> JSON | None:
        return [0, 0] if self._file.size else None

    def read(self, place: JSON) -> Piece:
        frames, end = _frames(self._file, self._source, place[0])
        crc, records = 0, []
        for number, frame in enumerate(frames, place[1]):
            what = f"Record {number:,} of {self._file.name!r}"
            record = _record(frame, what, self._columns.names)
            self._columns.check(record, what)
            records.append(record)
            crc = zlib.crc32(frame, crc)
        rows = self._columns.rows(records, f"Records from {place[1]:,} on of {self._file.name!r}")
        after = [end, place[1] + len(records)] if end < self._file.size else None
        return Piece(rows, len(records), after, f"{crc:08x}")

    def index(self) -> list[PieceAt]:
        return list(self._scan())

    def _scan(self) -> Iterator[PieceAt]:
        place = self.first()
        while place is not None:
            frames, end = _frames(self._file, self._source, place[0])
            yield PieceAt(place, len(frames), end - place[0])
            place = [end, place[1] + len(frames)] if end < self._file.size else None

    def close(self) -> None:
        self._source.close()
