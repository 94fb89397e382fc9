"""The row log: the rows of a source that can't go back, on the disk, from the oldest that a checkpoint needs.

Rows are appended before they are handed on, and read again by their numbers. They lie as raw bytes, leaf by leaf; what
structure and dtypes they have is a line of `specs.jsonl`, written once for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.core import row_spec, trees
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.block import join as join_blocks
from unbounded.core.node import DataLoss
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.sources.record_log import SEGMENT, Record, RecordLog

_TIME = np.dtype("<f8")


class RowLog:
    """Rows on the disk, numbered from the beginning of the stream. One thread appends; others do the rest.

    Args:
        directory: of this log alone.
        runtime: files, locks and ids.
        segment_bytes: how large a file becomes.
        max_bytes: how large all files together may become; None: as large as it takes.

    Raises:
        BlockingIOError: another process writes to it.
        OSError: it can't be read or written.
    """

    def __init__(
        self, directory: Path, runtime: Runtime, *, segment_bytes: int = SEGMENT, max_bytes: int | None = None
    ) -> None:
        self._log = RecordLog(directory, runtime, segment_bytes=segment_bytes, max_bytes=max_bytes)
        try:
            self._specs = _Specs(directory / "specs.jsonl", runtime)
            self._read_last()
        except BaseException:
            self._log.close()
            raise

    def _read_last(self) -> None:
        self.passed = self.missed = 0
        self.last_time: float | None = None
        """When the last row arrived, seconds since 1970; None where that is not known."""
        self.position: Any = None
        """The reader's position after the last row."""
        self._plain_meta: dict[int, bytes] = {}  # by spec, of a record that says nothing else
        if self._log.last is not None:
            _, more = _parse(self._log.last.meta)
            self.passed, self.missed = more.get("n", (0, 0))
            self.position = more.get("p")
        if self._log.last_with_rows is not None:
            times = self._decode([self._log.last_with_rows]).times
            self.last_time = None if times is None else float(times[-1])

    @property
    def id(self) -> str:
        """Tells it from other logs; a copy has the same."""
        return self._log.id

    @property
    def where(self) -> str:
        """Its directory."""
        return self._log.where

    @property
    def start(self) -> Offset:
        """Where its oldest row begins."""
        return self._log.start

    @property
    def stop(self) -> Offset:
        """Where its newest row ends."""
        return self._log.stop

    @property
    def synced(self) -> Offset:
        """Up to where a loss of power takes nothing."""
        return self._log.synced

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, block: Block, position: Any = None) -> None:
        """Append rows, and the boundary after them; `position` is the reader's after both.

        Raises:
            OSError: they could not be written. Nothing of them is in the log.
        """
        leaves = _leaves(block)
        rows, boundary = block.count, block.boundary
        spec = self._specs.number(row_spec.spec(block.rows), block.times is not None) if rows else 0
        more: dict[str, Any] = {}
        passed, missed = self.passed, self.missed
        if boundary is not None:
            more["b"] = list(boundary)
            passed += boundary.kind == "pass"
            missed += boundary.missed if boundary.kind == "gap" else 0
        if position is not None:
            more["p"] = position
        if passed or missed:
            more["n"] = [passed, missed]
        if more:
            meta = b"%d %s" % (spec, json.dumps(more, separators=(",", ":")).encode())
        else:
            meta = self._plain_meta.setdefault(spec, b"%d " % spec)
        self._log.begin_segment(len(meta) + sum(leaf.nbytes for leaf in leaves))
        self._log.append(rows, boundary is not None, meta, [leaf for leaf in leaves if leaf.nbytes])
        self.passed, self.missed, self.position = passed, missed, position
        if block.times is not None and rows:
            self.last_time = float(block.times[-1])

    def begin_at(self, at: Offset, *, passed: int = 0, missed: int = 0) -> None:
        """Begin, empty, after rows that were let go of before they were written here."""
        self._log.begin_at(at)
        self.passed, self.missed = passed, missed

    def sync(self) -> None:
        """What was appended before this call survives a loss of power when it returns. Where the directory was removed
        meanwhile, all rows that it had are written again.

        Raises:
            OSError: the disk refused.
        """
        self._log.sync()
        self._specs.sync()

    def release(self, at: Offset) -> None:
        """Nothing before `at` will be read again."""
        self._log.release(at)

    def close(self) -> None:
        """Let go of the files, and of the lock on the directory."""
        self._log.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, at: Offset, rows: int = 0) -> tuple[Block, Offset] | None:
        """What follows `at`, and where it ends: up to the end of a record, or the first boundary from `rows` rows on;
        None where that is nothing. The rows are read-only.

        Raises:
            DataLoss: it was there, and can't be read.
        """
        parts: list[Record] = []
        count = 0
        for record in self._log.records(at):
            if not parts and record.first > at and record.first.rows > at.rows:
                # Rows that were let go of before anybody had read them.
                return Block(None, 0, Boundary("gap", record.first.rows - at.rows)), Offset(record.first.rows, 0)
            if parts and record.first.rows > parts[-1].end.rows:
                break
            parts.append(record)
            count += record.rows - (max(0, at.rows - record.first.rows) if len(parts) == 1 else 0)
            if count >= rows or record.end.boundaries:
                break
        if not parts:
            return None
        block = self._decode(parts)
        return block.part(max(0, at.rows - parts[0].first.rows), block.count), parts[-1].end

    def position_at(self, at: Offset) -> Any:
        """The reader's position at `at`, where a record ends there; None where that is not known."""
        if at == self.stop:
            return self.position
        # The one before must be read as well: the one that begins here does not say it.
        for record in self._log.records(Offset(max(0, at.rows - 1), 0)):
            if record.end == at:
                return _parse(record.meta)[1].get("p")
            if record.first >= at:
                return None
        return None

    def _decode(self, records: list[Record]) -> Block:
        """One block of records that follow each other, of which only the last may end with a boundary."""
        boundary = _parse(records[-1].meta)[1].get("b")
        seam = None if boundary is None else Boundary(*boundary)
        blocks = [block for records in _runs(records) if (block := self._decode_run(records)).count]
        if not blocks:
            return Block(None, 0, seam)
        whole = join_blocks(blocks)
        return Block(trees.read_only(whole.rows), whole.count, seam, whole.times)

    def _decode_run(self, records: list[Record]) -> Block:
        number = _parse(records[0].meta)[0]
        if not records[0].rows:
            return Block(None, 0)
        spec, has_times = self._specs.spec(number, self.where)
        if len(records) == 1:
            return _from_bytes(records[0].data, records[0].rows, spec, has_times)
        # Single rows: those of many records lie one after the other as in an array of structures.
        return _from_rows(b"".join(record.data for record in records), len(records), spec, has_times)


def _runs(records: list[Record]) -> Iterator[list[Record]]:
    """The records in runs that are decoded together: single rows of one spec."""
    run: list[Record] = []
    for record in records:
        if run and not (record.rows == run[0].rows == 1 and _spec_of(record) == _spec_of(run[0])):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def _spec_of(record: Record) -> bytes:
    return record.meta[: record.meta.index(b" ")]


def _parse(meta: bytes) -> tuple[int, dict[str, Any]]:
    number, _, more = meta.partition(b" ")
    return int(number), json.loads(more) if more else {}


def _leaves(block: Block) -> list[Any]:
    """What is written of a block: its times and then its leaves, each in one piece of memory."""
    if not block.count:
        return []
    found = [] if block.times is None else [np.ascontiguousarray(block.times, _TIME)]
    for _, leaf in trees.leaves(block.rows):
        found.append(
            np.ascontiguousarray(leaf).view(np.uint8) if leaf.dtype.kind in "MmV" else np.ascontiguousarray(leaf)
        )
    return found


def _from_bytes(data: memoryview, rows: int, spec: Tree, has_times: bool) -> Block:
    place = 0

    def take(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        nonlocal place
        items = rows * int(np.prod(shape, dtype=np.int64))
        size = items * dtype.itemsize
        found = np.frombuffer(data[place : place + size], dtype, items) if size else np.zeros(items, dtype)
        place += size
        return found.reshape(rows, *shape)

    times = take(_TIME, ()) if has_times else None
    return Block(_of_spec(spec, take), rows, None, times)


def _from_rows(data: bytes, rows: int, spec: Tree, has_times: bool) -> Block:
    fields: list[Any] = [("t", _TIME)] if has_times else []
    _of_spec(spec, lambda dtype, shape: fields.append((f"f{len(fields)}", dtype, shape)))
    table = np.frombuffer(data, np.dtype(fields), rows)
    names = iter(table.dtype.names or ())
    times = np.ascontiguousarray(table[next(names)]) if has_times else None
    return Block(_of_spec(spec, lambda dtype, shape: np.ascontiguousarray(table[next(names)])), rows, None, times)


def _of_spec(spec: Tree, make: Any) -> Tree:
    """A tree of what `make(dtype, shape)` gives for each leaf of a spec."""
    if isinstance(spec, dict):
        return {key: _of_spec(value, make) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_of_spec(value, make) for value in spec]
    if spec is None:
        return None
    if isinstance(spec[0], np.dtype):
        return make(*spec)
    return tuple(_of_spec(value, make) for value in spec)


class _Specs:
    """The structures of rows in a log, each a line of a file; records refer to them by number."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._path = path
        self._files = runtime.files
        self._specs: list[tuple[Tree, bool]] = []
        self._numbers: dict[Any, int] = {}
        self._last: tuple[Tree, bool, int] | None = None
        self._size = 0
        try:
            with self._files.open_read(path) as file:
                text = file.read()
        except FileNotFoundError:
            return
        for line in text.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # a process was killed while it wrote
            self._add(json.loads(line))
            self._size += len(line)

    def number(self, spec: Tree, has_times: bool) -> int:
        """The number of a spec, which is written down if it is new."""
        last = self._last
        if last is not None and last[1] == has_times and last[0] == spec:
            return last[2]
        line = json.dumps([_to_json(spec), has_times])
        number = self._numbers.get(line)
        if number is None:
            self._write(line.encode() + b"\n")
            number = self._add(json.loads(line))
        self._last = (spec, has_times, number)
        return number

    def spec(self, number: int, where: str) -> tuple[Tree, bool]:
        """A spec, and whether rows have times."""
        if number > len(self._specs):
            raise DataLoss(
                f"{self._path} is damaged: it lacks what rows in {where} are made of. Put back a copy of the run's "
                "directory, or begin a new run in another."
            )
        return self._specs[number - 1]

    def _add(self, line: Any) -> int:
        self._specs.append((_from_json(line[0]), line[1]))
        self._numbers[json.dumps(line)] = len(self._specs)
        return len(self._specs)

    def sync(self) -> None:
        """Write the file again, where it was removed."""
        if self._specs and not self._files.exists(self._path):
            self._size = 0
            self._write(b"".join(line.encode() + b"\n" for line in self._numbers))

    def _write(self, line: bytes) -> None:
        made = not self._files.exists(self._path)
        fd = self._files.open_write(self._path)
        try:
            self._files.truncate(fd, self._size)
            if self._files.pwrite(fd, line, self._size) < len(line):
                self._files.truncate(fd, self._size)
                raise OSError(28, "No space left on device", str(self._path))
            self._files.fsync(fd)  # before the rows that need it, and seldom
        finally:
            self._files.close(fd)
        if made:
            self._files.sync_directory(self._path.parent)
        self._size += len(line)


def _to_json(spec: Tree) -> Any:
    if isinstance(spec, dict):
        return {"d": [[key, _to_json(value)] for key, value in spec.items()]}
    if isinstance(spec, list):
        return {"l": [_to_json(value) for value in spec]}
    if spec is None:
        return None
    if isinstance(spec[0], np.dtype) if spec else False:
        return [np.lib.format.dtype_to_descr(spec[0]), list(spec[1])]
    return {"t": [_to_json(value) for value in spec]}


def _from_json(data: Any) -> Tree:
    if data is None:
        return None
    if isinstance(data, list):
        return _dtype(data[0]), tuple(data[1])
    if "d" in data:
        return {key: _from_json(value) for key, value in data["d"]}
    values = [_from_json(value) for value in (data.get("l") or data.get("t") or [])]
    return values if "l" in data else tuple(values)


def _dtype(description: Any) -> np.dtype[Any]:
    if isinstance(description, str):
        return np.dtype(description)
    # JSON has lists where the description of a structured dtype has tuples.
    return np.lib.format.descr_to_dtype([_field(field) for field in description])


def _field(field: Any) -> Any:
    name, kind, *shape = field
    inner = [_field(each) for each in kind] if isinstance(kind, list) else kind
    return (name, inner, *(tuple(s) for s in shape))
