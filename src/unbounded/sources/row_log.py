"""RowLog: the rows of a source that can't seek, on the disk, from the oldest that a checkpoint needs.

Rows are appended before they are used, and read again by number. They are raw bytes, leaf by leaf; structures and
dtypes are lines of `specs.jsonl`, each written once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from unbounded.core import ragged, row_spec, trees
from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.block import join as join_blocks
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.sources.log_counts import LogCounts
from unbounded.sources.log_segment import Record
from unbounded.sources.log_specs import LogSpecs
from unbounded.sources.record_log import SEGMENT, RecordLog
from unbounded.sources.row_stage import RowStage

_TIME = np.dtype("<f8")
_SMALL = 1 << 14  # bytes: smaller records are decoded together
_META = 200  # bytes that a record may have beside its rows, roughly


class RowLog:
    """Rows on the disk, numbered from the beginning of the stream. One thread appends; any thread may read and release.

    Args:
        directory: for this log alone.
        runtime: files, locks and ids.
        segment_bytes: the size of a file.
        max_bytes: the limit for all files together; None for no limit.

    Raises:
        BlockingIOError: another process writes to it.
        OSError: it can't be read or written.
    """

    counts = LogCounts()
    """The counts up to the end of the log."""

    def __init__(
        self, directory: Path, runtime: Runtime, *, segment_bytes: int = SEGMENT, max_bytes: int | None = None
    ) -> None:
        self._log = RecordLog(directory, runtime, segment_bytes=segment_bytes, max_bytes=max_bytes)
        try:
            self._specs = LogSpecs(directory / "specs.jsonl", runtime)
            self._log.before_segment = self._specs.sync  # a process that finds rows must find their specs
            self._read_last()
        except BaseException:
            self._log.close()
            raise

    def _read_last(self) -> None:
        self._plain_meta: dict[int, bytes] = {}  # by spec, the metadata of a record that has nothing else
        self._staged: tuple[RowStage | None, int] = (None, 0)  # the stage that rows came from last, and its spec
        last = self._log.last
        if last is not None:
            number, more = _parse(last.meta)
            last_time = more.get("t")
            if last.rows and self._specs.spec(number, self.where)[1]:
                last_time = float(np.frombuffer(last.data, _TIME, last.rows)[-1])
            passed, missed, dropped = more.get("n", (0, 0, 0))
            self.counts = LogCounts(passed, missed, dropped, last_time, more.get("p"))

    @property
    def id(self) -> str:
        """The log's id; a copy has the same."""
        return self._log.id

    @property
    def is_closed(self) -> bool:
        """True after `close`, also by another feed of this process that continues the log."""
        return self._log.is_closed

    @property
    def form(self) -> Tree:
        """The `row_spec.spec` of the newest rows; None without rows. The width of text may be that of older ones."""
        return self._specs.newest if self.stop.rows else None

    @property
    def where(self) -> str:
        """The directory."""
        return self._log.where

    @property
    def start(self) -> Offset:
        """The offset of the oldest row."""
        return self._log.start

    @property
    def stop(self) -> Offset:
        """The offset after the newest row."""
        return self._log.stop

    @property
    def synced(self) -> Offset:
        """The offset up to which a power cut loses nothing."""
        return self._log.synced

    @property
    def size(self) -> int:
        """The bytes of all segments."""
        return self._log.size

    # -- writing -------------------------------------------------------------------------------------------------------

    def append(self, block: Block, position: Any = None, *, beyond: bool = False) -> None:
        """Append rows and the boundary after them; `position` is the reader's position after both. With `beyond`, they
        may exceed the limit.

        Raises:
            OSError: they could not be written. Nothing of them is in the log.
        """
        self._log.check_open()  # before a spec is written: after a close the file of specs belongs to the next feed
        times = block.times if block.count else None
        spec = self._specs.number(block.rows, times is not None) if block.count else 0
        counts = self.counts.after(block, position)
        meta = self._meta(spec, block.boundary, counts, says_time=times is None)
        self._log.append(block.count, block.boundary is not None, meta, _leaves(block), beyond=beyond)
        self.counts = counts

    def append_staged(self, stage: RowStage, rows: int) -> None:
        """Append rows that were put into a stage, which count there from then on. Their reader has no positions.

        Raises:
            OSError: they could not be written. Nothing of them is in the log.
        """
        begin, end = stage.count, stage.count + rows
        if self._staged[0] is not stage:
            self._log.check_open()  # see `append`
            self._staged = stage, self._specs.number(stage.block(begin, end).rows, True)
        counts = self.counts.staged(stage.time(end - 1))
        meta = self._meta(self._staged[1], None, counts, says_time=False)
        self._log.append(rows, 0, meta, stage.memory(begin, end))
        self.counts = counts
        stage.count = end

    def _meta(self, spec: int, boundary: Boundary | None, counts: LogCounts, *, says_time: bool = True) -> bytes:
        more: dict[str, Any] = {}
        if boundary is not None:
            more["b"] = list(boundary)
        if counts.position is not None:
            more["p"] = counts.position
        if counts[:3] != (0, 0, 0):
            more["n"] = list(counts[:3])
        if says_time and counts.last_time is not None:
            more["t"] = counts.last_time
        if more:
            return b"%d %s" % (spec, json.dumps(more, separators=(",", ":")).encode())
        return self._plain_meta.setdefault(spec, b"%d " % spec)

    def begin_at(self, at: Offset, counts: LogCounts) -> None:
        """Begin an empty log at an offset other than 0, with the counts of the rows before it.

        Raises:
            OSError: it could not be written.
        """
        self._log.begin_at(at)
        if counts != LogCounts():
            # A record without rows, for the counts.
            self._log.append(0, 0, self._meta(0, None, counts), [])
        self.counts = counts

    def skip(self, rows: int) -> None:
        """Append a gap of `rows` dropped rows, which are counted already.

        Raises:
            OSError: it could not be written.
        """
        self._log.skip(rows, self._meta(0, None, self.counts))

    def drop(self, since: Offset, block: Block) -> int:
        """Replace the oldest rows from `since` on by a gap, to make room for a block; the gap is on the disk when this
        returns. Return the number of dropped rows; 0 if there would be no room even so.

        Raises:
            OSError: it could not be written, and nothing was dropped.
        """
        size = block.nbytes + 8 * block.count + _META
        rows = self._log.drop(since, size, lambda rows: self._meta(0, None, self.counts.drop(rows)))
        self.counts = self.counts.drop(rows)
        return rows

    def limit(self, max_bytes: int | None) -> None:
        """Set the size limit; None for no limit."""
        self._log.limit(max_bytes)

    def sync(self) -> None:
        """Sync: when it returns, what was appended before the call survives a power cut. If the directory was removed,
        the rows in open files are written again.

        Raises:
            OSError: the sync failed.
        """
        self._log.check_open()
        self._specs.sync()  # first: a process that finds rows must find their specs
        self._log.sync()

    def release(self, at: Offset) -> None:
        """Allow rows before `at` to be removed."""
        self._log.release(at)

    def close(self) -> None:
        """Close the files, and release the lock on the directory."""
        self._log.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, at: Offset, rows: int = 0, nbytes: int | None = None) -> tuple[Block, Offset] | None:
        """The rows after `at`, read-only, and their end; None if there are none.

        Whole blocks as they were appended, until they have `rows` rows, up to a boundary, and at most `nbytes` bytes if
        they are several. If rows were dropped there, or `at` is before the oldest row: a gap.

        Raises:
            DataLoss: rows of the log can't be read.
        """
        with self._log.reading: parts = self._parts(at, rows, nbytes)  # fmt: skip  # noqa: E701 - see `locked`
        if not parts:
            return None
        first = parts[0]
        skipped = first.first.rows - at.rows
        if skipped > 0:
            # Rows that were released and never read.
            return Block(None, 0, Boundary("gap", skipped)), Offset(first.first.rows, 0)
        if first.is_gap:
            return Block(None, 0, Boundary("gap", first.end.rows - at.rows)), first.end
        block = self._decode(parts)
        return block.part(-skipped, block.count), parts[-1].end

    def _parts(self, at: Offset, rows: int, nbytes: int | None) -> list[Record]:
        parts: list[Record] = []
        count = total = 0
        for record in self._log.records(at):
            total += len(record.whole)
            if parts and (record.is_gap or (nbytes is not None and total > nbytes)):
                break
            parts.append(record)
            count += record.end.rows - max(at.rows, record.first.rows)
            if count >= rows or record.end.boundaries or record.is_gap:
                break
        return parts

    def position_at(self, at: Offset) -> Any:
        """The reader's position at `at`; None unless a record ends there."""
        if at == self.stop:
            return self.counts.position
        with self._log.reading: return self._position_at(at)  # fmt: skip  # noqa: E701 - see `locked`

    def _position_at(self, at: Offset) -> Any:
        # Read the record before, too: it has the position at its end.
        for record in self._log.records(Offset(max(0, at.rows - 1), 0)):
            if record.end == at:
                return None if record.is_gap else _parse(record.meta)[1].get("p")
            if record.first >= at:
                return None
        return None

    def _decode(self, records: list[Record]) -> Block:
        """One block of consecutive records, of which only the last may end with a boundary."""
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
        if row_spec.has_objects(spec):  # the bytes of a ragged row are in no fixed place
            return join_blocks([_from_bytes(record.data, record.rows, spec, has_times) for record in records])
        # Many records of as many rows each have together the layout of an array of structures.
        data = b"".join([record.data for record in records])
        return _from_records(data, len(records), records[0].rows, spec, has_times)


def _runs(records: list[Record]) -> Iterator[list[Record]]:
    """The records in groups that are decoded together: small ones of one spec and as many rows."""
    for _, run in groupby(enumerate(records), _form):
        yield [record for _, record in run]


def _form(numbered: tuple[int, Record]) -> tuple[int, bytes, int]:
    number, record = numbered
    is_small = len(record.data) < _SMALL
    return record.rows, record.meta[: record.meta.index(b" ")], -1 if is_small else number


def _parse(meta: bytes) -> tuple[int, dict[str, Any]]:
    number, _, more = meta.partition(b" ")
    return int(number), json.loads(more) if more else {}


def _leaves(block: Block) -> list[memoryview]:
    """The memory of a block that is written: its times, then its leaves."""
    if not block.count:
        return []
    found = [] if block.times is None else [np.ascontiguousarray(block.times, _TIME).data.cast("B")]
    for leaf in trees.arrays(block.rows):
        if leaf.dtype == object:
            found += map(memoryview, ragged.encoded(leaf))
        elif leaf.nbytes:
            whole = leaf if leaf.flags.c_contiguous else np.ascontiguousarray(leaf)
            # Dates and structured arrays do not support the buffer protocol.
            whole = whole.reshape(-1).view(np.uint8) if leaf.dtype.kind in "MmV" else whole
            found.append(whole.data.cast("B"))
    return found


def _from_bytes(data: memoryview, rows: int, spec: Tree, has_times: bool) -> Block:
    place = 0

    def take(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        nonlocal place
        if dtype.hasobject:
            column, size = ragged.decoded(data[place:])
            place += size
            return column
        items = rows * int(np.prod(shape, dtype=np.int64))
        size = items * dtype.itemsize
        found = np.frombuffer(data[place : place + size], dtype, items) if size else np.zeros(items, dtype)
        place += size
        return found.reshape(rows, *shape)

    times = take(_TIME, ()) if has_times else None
    return Block(_of_spec(spec, take), rows, None, times)


def _from_records(data: bytes, records: int, rows: int, spec: Tree, has_times: bool) -> Block:
    fields: list[Any] = [("t", _TIME, (rows,))] if has_times else []
    _of_spec(spec, lambda dtype, shape: fields.append((f"f{len(fields)}", dtype, (rows, *shape))))
    table = np.frombuffer(data, np.dtype(fields), records)
    names = iter(table.dtype.names or ())

    def take(shape: tuple[int, ...]) -> Any:
        return np.ascontiguousarray(table[next(names)]).reshape(records * rows, *shape)

    times = take(()) if has_times else None
    return Block(_of_spec(spec, lambda dtype, shape: take(shape)), records * rows, None, times)


def _of_spec(spec: Tree, make: Any) -> Tree:
    """A tree of the results of `make(dtype, shape)` for each leaf of a spec."""
    if isinstance(spec, dict):
        return {key: _of_spec(value, make) for key, value in spec.items()}
    if isinstance(spec, list):
        return [_of_spec(value, make) for value in spec]
    if spec is None:
        return None
    if isinstance(spec[0], np.dtype):
        return make(*spec)
    return tuple(_of_spec(value, make) for value in spec)
