"""Recovery: opens the segments of a log after a crash, up to the first record that is not whole.

Unfinished segments are removed. Segments that can't be read, or do not continue the one before, are set aside.
Segments of a newer generation replace older ones from their first record on.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unbounded.core.files import Files
from unbounded.core.node import DataLoss
from unbounded.sources.log_chain import BEGIN, LogChain
from unbounded.sources.log_segment import LogSegment, Record, RecordEdge

_log = logging.getLogger("unbounded")
_NAME = re.compile(r"(?P<number>\d{12,})(-(?P<end>\d{12,}))?(-(?P<generation>\d+))?\.(log|gap)")


def segment_path(directory: Path, number: int, generation: int, end: int | None = None) -> Path:
    """The file of a segment, by the number of its first record; of a gap, also by that of the first one after it."""
    upto, of = "" if end is None else f"-{end:012}", f"-{generation}" if generation else ""
    return directory / f"{number:012}{upto}{of}.{'log' if end is None else 'gap'}"


class Recovered(NamedTuple):
    """What is known of a log that was opened, besides its segments.

    Args:
        log: its id; None if there are no segments.
        generation: of its newest segment.
        synced: the place up to which it is known to be on the disk.
        last: the newest record.
        renewed: True if what may not be on the disk was written again in its place.
    """

    log: str | None = None
    generation: int = 0
    synced: RecordEdge = BEGIN
    last: Record | None = None
    renewed: bool = True


def recover(files: Files, directory: Path, chain: LogChain) -> Recovered:
    """Fill an empty chain with the segments of a directory.

    Raises:
        OSError: they can't be read or written.
        DataLoss: they belong to several logs.
    """
    found = []
    for name in sorted(files.list(directory)):
        if match := _NAME.fullmatch(name):
            # Gaps after the segments that they were made among, and a longer one after a shorter.
            upto = int(match["end"] or 0)
            found.append((int(match["generation"] or 0), upto > 0, int(match["number"]), upto, directory / name))
        elif _NAME.fullmatch(name.removesuffix(".new")):
            files.unlink(directory / name)
    segments, generation = chain.segments, 0
    gaps: dict[int, Record] = {}
    for of, is_gap, number, _, path in sorted(found):
        segment = LogSegment.open(files, path)
        gap = _gap(files, segment) if is_gap and segment is not None else None
        if segment is None or segment.begin.number != number or is_gap != (gap is not None):
            _set_aside(files, path, segment)
            continue
        segment.close(files)
        if gap is not None:
            segment.is_gap, segment.skipped = True, gap[1].at.rows - segment.begin.at.rows
        if segments and segments[0].log != segment.log:
            raise DataLoss(
                f"{path} and {segments[0].path} are of two logs, and can't be read as one. Put back a copy of the "
                "run's directory, or begin a new run in another."
            )
        # A segment takes the place of the same records in an older generation, a gap that of the records that it says:
        # each was whole when it got its name.
        end = None if gap is None else gap[1].number
        first, last = _covered(segments, number, end)
        for replaced in segments[first:last]:
            files.unlink(replaced.path)
        segments[first:last] = [segment]
        gaps = {at: each for at, each in gaps.items() if at < number or (end is not None and at >= end)}
        if gap is not None:
            gaps[number] = gap[0]
        generation = of
    if not segments:
        return Recovered()
    synced, last_record = _read_unsynced(files, chain)
    for gap_record in gaps.values():
        last_record = _newer(last_record, gap_record)
    return Recovered(segments[0].log, generation, synced, last_record, _renew(files, [*chain.unsynced, segments[-1]]))


def _renew(files: Files, segments: Sequence[LogSegment]) -> bool:
    """Write what is in the files again, in its place; False if that fails.

    The process before may have been killed when a sync had failed: what the kernel could not write then is read from
    memory as before, and the next sync would neither write it nor say so.
    """
    try:
        for segment in segments:
            segment.renew(files)
    except OSError:
        return False
    return True


def _gap(files: Files, segment: LogSegment) -> tuple[Record, RecordEdge] | None:
    """The record of a file that stands for dropped ones, and the place after it."""
    found = list(segment.records(files, segment.open_again(files), segment.begin))
    return found[0] if len(found) == 1 and found[0][0].is_gap else None


def _covered(segments: list[LogSegment], number: int, end: int | None) -> tuple[int, int]:
    """Which segments lie between the numbers of two records, or after the first of them."""
    first = bisect_left(segments, number, key=lambda each: each.begin.number)
    last = len(segments) if end is None else bisect_left(segments, end, key=lambda each: each.begin.number)
    return first, last


def _newer(one: Record | None, other: Record) -> Record:
    """The one of two records that was written later."""
    return other if one is None or _moment(other) >= _moment(one) else one


def _moment(record: Record) -> float:
    # A gap was made after the record before `made_at`, and before that one.
    return record.number + 0.5 if record.made_at is None else record.made_at


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
            tail, last = place, _newer(last, record)
    end = segments[-1]
    fd = end.open_again(files)
    for record, place in end.records(files, fd, tail):  # where the one that followed was set aside
        tail, last = place, _newer(last, record)
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
            last = _newer(last, record)
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
