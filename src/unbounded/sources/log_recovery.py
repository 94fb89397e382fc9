"""Recovery: opens the segments of a log after a crash, up to the first record that is not whole.

Unfinished segments are removed. Segments that can't be read, or do not continue the one before, are set aside.
Segments of a newer generation replace older ones from their first record on.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from unbounded.core.files import Files
from unbounded.core.node import DataLoss
from unbounded.sources.log_chain import BEGIN, LogChain
from unbounded.sources.log_segment import LogSegment, Record, RecordEdge

_log = logging.getLogger("unbounded")
_NAME = re.compile(r"(\d{12,})(?:-(\d+))?\.log")


def segment_path(directory: Path, number: int, generation: int) -> Path:
    """The path of a segment, by the number of its first record."""
    return directory / (f"{number:012}" + (f"-{generation}" if generation else "") + ".log")


class Recovered(NamedTuple):
    """What is known of a log that was opened, besides its segments.

    Args:
        log: its id; None if there are no segments.
        generation: of its newest segment.
        synced: the place up to which it is known to be on the disk.
        last: the newest record.
    """

    log: str | None = None
    generation: int = 0
    synced: RecordEdge = BEGIN
    last: Record | None = None


def recover(files: Files, directory: Path, chain: LogChain) -> Recovered:
    """Fill an empty chain with the segments of a directory.

    Raises:
        OSError: they can't be read or written.
        DataLoss: they belong to several logs.
    """
    generation = 0
    found = []
    for name in sorted(files.list(directory)):
        if match := _NAME.fullmatch(name):
            found.append((int(match[2] or 0), int(match[1]), directory / name))
        elif _NAME.fullmatch(name.removesuffix(".new")):
            files.unlink(directory / name)
    segments = chain.segments
    for of, number, path in sorted(found):
        segment = LogSegment.open(files, path)
        if segment is None or segment.begin.number != number:
            _set_aside(files, path, segment)
            continue
        if segments and segments[0].log != segment.log:
            segment.close(files)
            raise DataLoss(
                f"{path} and {segments[0].path} are of two logs, and can't be read as one. Put back a copy of the "
                "run's directory, or begin a new run in another."
            )
        # It replaces the same records of an older generation: it was whole when it got its name.
        while segments and segments[-1].begin.number >= number:
            replaced = segments.pop()
            replaced.close(files)
            files.unlink(replaced.path)
        if segments:
            segments[-1].close(files)  # one file is open at a time
        segments.append(segment)
        generation = of
    if not segments:
        return Recovered()
    synced, last = _read_unsynced(files, chain)
    return Recovered(segments[0].log, generation, synced, last)


def _read_unsynced(files: Files, chain: LogChain) -> tuple[RecordEdge, Record | None]:
    """Find the log's end. Synced records are verified when they are read. The others may be torn after a power cut: the
    log ends at the first record that is not whole, in whichever segment that is."""
    segments = chain.segments
    number = segments[-1].synced
    k = max(0, bisect_right(segments, number, key=lambda each: each.begin.number) - 1)
    tail = synced = segments[k].begin
    last: Record | None = None
    for i, segment in enumerate(segments[k:], k):
        if segment.begin[2:] != tail[2:]:
            for after in segments[i:]:
                _set_aside(files, after.path, after)
            del segments[i:]
            break
        tail = segment.begin
        # Records from the beginning of the following segment on were written again there.
        until = segments[i + 1].begin.number if i + 1 < len(segments) else None
        for record, place in segment.records(files, segment.open_again(files), segment.begin, until):
            tail, last = place, record
    end = segments[-1]
    fd = end.open_again(files)
    for record, place in end.records(files, fd, tail):  # the following segment was set aside
        tail, last = place, record
    if tail.byte < end.size:
        _log.warning(
            "%s ended with %s bytes that are no whole record: it was being written when the process was killed or "
            "the power failed, or it was damaged. They are cut off; the log ends with row %s.",
            end.path,
            f"{end.size - tail.byte:,}",
            f"{tail.at.rows:,}",
        )
        files.truncate(fd, tail.byte)
        end.size = tail.byte
    chain.tail = tail
    chain.unsynced = segments[k:-1]
    for segment in reversed(segments[:k]):
        if last is not None:
            break
        for record, _ in segment.records(files, segment.open_again(files), segment.begin):
            last = record
        segment.close(files)
    return synced, last


def _set_aside(files: Files, path: Path, segment: LogSegment | None) -> None:
    """Rename a file that can't be read, so that it is not overwritten."""
    there = path.with_name(path.name + ".cut")
    number = 0
    while files.exists(there):
        number += 1
        there = path.with_name(f"{path.name}.cut-{number}")
    files.rename(path, there)
    if segment is not None:
        segment.close(files)
    _log.warning("%s can't be read as a part of the row log. It was set aside, as %s.", path, there.name)
