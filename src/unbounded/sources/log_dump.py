"""Rows of a log as plain data and arrays, for a state or a checkpoint in another directory, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.block import join as join_blocks
from unbounded.core.node import Cursor, StreamError
from unbounded.core.runtime import Runtime
from unbounded.sources.log_counts import LogCounts
from unbounded.sources.logged import Logged
from unbounded.sources.memory_log import MemoryLog

# The most rows, and bytes, of small blocks that become one.
_ROWS = 1 << 12
_BYTES = 1 << 22


def dump_rows(node: Logged, cursor: Cursor) -> dict[str, Any]:
    """The part of a node's log that a cursor needs: the rows from there on, their times, and their boundaries."""
    log = node.log
    start = at = Offset(cursor["row"], cursor["boundaries"])
    stop = log.stop
    count = 0
    parts: list[Block] = []
    boundaries: list[list[Any]] = []  # after how many rows, kind, missing rows, and how many numbers are skipped there
    cuts: list[list[int]] = []  # rows in a block, and how many such blocks follow each other
    # Many small blocks at once, unless each is a batch.
    rows, nbytes = (_ROWS, min(_BYTES, node.block_bytes or _BYTES)) if node.joins_blocks else (0, None)
    while at < stop and (found := log.read(at, rows, nbytes)) is not None:
        block, end = found
        skipped = end.rows - at.rows - block.count
        at = end
        if block.count:
            parts.append(replace(block, boundary=None))
            count += block.count
            if cuts and cuts[-1][0] == block.count:
                cuts[-1][1] += 1
            else:
                cuts.append([block.count, 1])
        if block.boundary is not None:
            boundaries.append([count, *block.boundary, skipped])
    whole = join_blocks(parts) if parts else Block(None, 0)
    return {
        "log": log.id,
        "start": list(start),
        "count": whole.count,
        "rows": whole.rows,
        "times": whole.times,
        "boundaries": boundaries,
        # Without `batch`, the blocks are the batches, so their sizes are restored.
        "cuts": cuts,
        **log.counts.plain(),
    }


def load_rows(node: Logged, dump: Mapping[str, Any], runtime: Runtime) -> None:
    """Give a node the rows from a saved state, unless its own log has them.

    Raises:
        StreamError: it is being read, and its log is another one.
    """
    start = Offset(*dump["start"])
    log = node.log
    if log.id == dump["log"] and log.start <= start:
        return
    if node.has_begun:
        refuse_moving()
    node.put(_as_log(dump, start, runtime, may_be_cut=node.joins_blocks))


def refuse_moving() -> NoReturn:
    """Raise StreamError: a source that can't seek is being read, and would have to be moved."""
    raise StreamError(
        "A source that can't seek is being read already, and can't be moved to another position. Load the state into a "
        "new feed, before its first batch."
    )


def _as_log(dump: Mapping[str, Any], start: Offset, runtime: Runtime, *, may_be_cut: bool) -> MemoryLog:
    log = MemoryLog(runtime)
    log.begin_at(start, LogCounts())
    seams: dict[int, list[tuple[Boundary | None, int]]] = {}
    for row, kind, missed, *more in dump["boundaries"]:
        skipped = more[0] if more else 0
        seams.setdefault(row, []).append((None if skipped else Boundary(kind, missed), skipped))
    whole = Block(dump["rows"], dump["count"], None, dump["times"])
    row = 0
    _put_seams(log, seams.get(0, []), None)
    for rows in (rows for rows, many in dump["cuts"] for _ in range(many)):
        boundary, after = None, seams.get(row + rows, [])
        if after and after[0][0] is not None:
            (boundary, _), *after = after
        log.append(replace(whole.part(row, row + rows), boundary=boundary), dump["position"], may_be_cut=may_be_cut)
        _put_seams(log, after, dump["position"])
        row += rows
    # What was let go of is counted, too; and the state may be of a moment after the last row that is kept.
    log.counts = LogCounts.of(dump)
    return log


def _put_seams(log: MemoryLog, seams: Sequence[tuple[Boundary | None, int]], position: Any) -> None:
    for boundary, skipped in seams:
        if boundary is None:
            log.skip(skipped)
        else:
            log.append(Block(None, 0, boundary), position)
