"""Joining: the node of a join, which reads rows and labels in one order, independent of arrival, and returns pairs.

The order is that of a column of times, or of the numbers of rows and labels. Rows and labels that wait are in two
changelogs, to which cursors refer (see `changelog`); they are matched by `pairing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unbounded.core import block as blocks
from unbounded.core import trees, user_code
from unbounded.core.block import Block, Offset
from unbounded.core.cursor import Cursor, own_part
from unbounded.core.input_buffer import addresses, compose_held
from unbounded.core.node import Context, EndOfStream, Inner, Node
from unbounded.core.trees import RowsError
from unbounded.stages.join_side import Floats, JoinSide
from unbounded.stages.joined_rows import check_columns, with_labels
from unbounded.stages.keys import keys_of
from unbounded.stages.new_pairs import NewPairs
from unbounded.stages.pairing import LABEL, ROW, Pairing


@dataclass(frozen=True)
class _Done:
    """The result for some rows and labels; it is returned once nothing can fail any more."""

    before: Cursor
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]  # -1: no label came in time
    times: Floats  # at which each was matched, or timed out


@dataclass(frozen=True)
class _Matched:
    """What matching some rows and labels gave."""

    rows: NDArray[np.int64]  # in the changelog, that were matched or timed out
    labels: NDArray[np.int64]  # of each; -1: no label came in time
    times: Floats  # at which each was matched, or timed out
    before: NDArray[np.int64]  # for each row given, how many rows were returned before it came
    strays: int  # labels that timed out


class Joining(Inner):
    """The node of `Stream.join`.

    Args:
        inputs: the nodes of the rows and of the labels.
        leaves: the number of sources of each.
        on: the column of keys.
        within: how long a row or a label waits.
        time: the column of times, or None: then they are numbered.
        unmatched: "drop", "keep" or a function.
        context: the arguments with which nodes are opened.
    """

    def __init__(
        self,
        inputs: Sequence[Node],
        leaves: Sequence[int],
        on: str,
        within: float,
        time: str | None,
        unmatched: Any,
        context: Context,
    ) -> None:
        self.inputs = tuple(inputs)
        unique = context.runtime.unique()
        self._sides = [
            JoinSide(inputs[ROW], "rows", 0, f"{unique}-rows", on, time),
            JoinSide(inputs[LABEL], "labels", leaves[ROW], f"{unique}-labels", on, time),
        ]
        self._on = on
        self._time = time
        self._within = within
        self._unmatched = unmatched
        self._pairing = Pairing(within)
        self._done: _Done | None = None
        self._over = False  # True at the end: no more pairs, and nothing waits
        self._given = 0  # rows that were returned
        self._counts = [0, 0]  # rows and labels without a match
        self._timed = False  # True once rows have arrival times
        self.waits_for: str | None = None
        """The name of the input that it waits for."""
        self.new_rows = NewPairs(context.runtime)
        """Rows that came, and pairs that were returned, once they are asked for."""

    # -- pulling -----------------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | None:
        while True:
            if self._done is None and not self._next(timeout):
                return None
            found = self._finish()
            if found.count:
                return found

    def _next(self, timeout: float | None) -> bool:
        """Take the next rows and labels whose order is certain; False if none is yet."""
        for side in self._sides:
            if not self._is_ready(side, timeout):
                self.waits_for = side.name
                return False
        self.waits_for = None
        rows, labels = self._sides
        no_rows = not rows.input.count and (not labels.input.count or not self._pairing.count(ROW))
        no_labels = not labels.input.count and not self._pairing.count(LABEL) and self._unmatched == "drop"
        if no_rows or no_labels:
            return self._end()
        # A row precedes a label of the same time. Rows and labels still to come are not older than those read.
        last_row = rows.times[-1] if rows.input.count else np.inf
        last_label = labels.times[-1] if labels.input.count else np.inf
        many = np.searchsorted(rows.times, last_label, "right"), np.searchsorted(labels.times, last_row, "left")
        self._take(int(many[0]), int(many[1]))
        return True

    def _is_ready(self, side: JoinSide, timeout: float | None) -> bool:
        """True if rows with times are available, or the input has ended; False if that is not known yet."""
        while not side.input.count and not side.input.ended:
            if not side.input.read(timeout) and not side.input.ended:
                return False
        if side.input.count and not len(side.times):
            (block, _), *_ = side.input.peek(side.input.count)
            keys_of(block.rows, self._on, f"join(on={self._on!r}), for its {side.name},")
            if side.sample is None:
                sample = trees.map_leaves(np.copy, trees.cut(block.rows, 0, 1))
                other = self._sides[LABEL if side is self._sides[ROW] else ROW].sample
                if other is not None:
                    check_columns(
                        *((sample, other) if side is self._sides[ROW] else (other, sample)), self._on, self._time
                    )
                side.sample = sample
            side.times = side.times_of(block.rows)
        return True

    def _take(self, rows: int, labels: int) -> None:
        """Take this many of the rows and labels that were read."""
        before = self.cursor()
        taken, counts = [], (rows, labels)
        for side, count in zip(self._sides, counts, strict=True):
            if count:
                parts = side.input.peek(count)
                block = blocks.join([part for part, _ in parts])
                origin = np.concatenate(
                    [np.broadcast_to(side.input.provenance(part, passes), part.count) for part, passes in parts]
                )
                self._timed = self._timed or block.times is not None
                arrived = np.full(count, np.nan) if block.times is None else block.times
                # Of each row its number, and that of the next pair, which pairing tells: see `new_pairs`.
                came = {"came": np.zeros((count, 2), np.int64)} if side is self._sides[ROW] else {}
                side.changes.put({"rows": block.rows, "arrived": arrived, "origin": origin, **came}, count)
            taken.append(side.times[:count])
        starts = [side.changes.used for side in self._sides]
        paired = self._advance(taken, starts)
        if rows:
            came = self._sides[ROW].changes.rows["came"][starts[ROW] : starts[ROW] + rows]
            came[:, 0] = self._sides[ROW].read + np.arange(rows)
            came[:, 1] = self._given + 1 + paired.before
        self._note_rows(np.arange(starts[ROW], starts[ROW] + rows), taken[ROW])
        for side, count in zip(self._sides, counts, strict=True):
            if count:
                side.changes.accept(count)
                side.input.drop(count)
                side.read += count
                side.clock = float(side.times[count - 1])
                side.times = side.times[count:]
        self._counts = [self._counts[ROW] + int((paired.labels < 0).sum()), self._counts[LABEL] + paired.strays]
        self._done = _Done(before, paired.rows, paired.labels, paired.times)

    def _note_rows(self, index: NDArray[np.int64], times: Floats) -> None:
        """Keep rows of the changelog to be tested, once that is asked for."""
        if self.new_rows.wanted and len(index):
            kept = trees.gather(self._sides[ROW].changes.rows, index)
            self.new_rows.add_rows(kept["rows"], kept["came"][:, 0], kept["came"][:, 1], times)

    def _advance(self, times: Sequence[Floats], starts: Sequence[int]) -> _Matched:
        """Match the rows and labels in the changelogs from `starts` on, which have these times."""
        sides = np.repeat([ROW, LABEL], [len(times[ROW]), len(times[LABEL])])
        when = np.concatenate(times)
        order = np.lexsort((sides, when))
        numbers = np.concatenate([start + np.arange(len(each)) for start, each in zip(starts, times, strict=True)])
        keys: list[Any] = []
        for side, start, each in zip(self._sides, starts, times, strict=True):
            if len(each):
                keys += side.keys(start, start + len(each))
        found = self._pairing.advance(
            when[order].tolist(), sides[order].tolist(), [keys[i] for i in order], numbers[order].tolist()
        )
        rows, labels, at = (np.array(each, np.int64) for each in found[:3])
        out = at if self._unmatched == "keep" else at[labels >= 0]
        came = np.searchsorted(out, np.flatnonzero(sides[order] == ROW))
        return _Matched(rows, labels, when[order][at], came, found[3])

    def _end(self) -> bool:
        """The end: those that wait have no match."""
        if not self._pairing.count(ROW) and not self._pairing.count(LABEL):
            raise EndOfStream
        before = self.cursor()
        rows, strays = self._pairing.end()
        self._over = True
        self._counts = [self._counts[ROW] + len(rows), self._counts[LABEL] + strays]
        never = np.full(len(rows), -1)
        self._done = _Done(before, np.array(rows, np.int64), never, np.full(len(rows), np.inf))
        return True

    def _finish(self) -> Block:
        """Return the result. If that fails, the next pull retries."""
        done = self._done
        assert done is not None
        rows, labels, times = done.rows, done.labels, done.times
        lost = labels < 0
        if callable(self._unmatched) and lost.any():
            given_up = trees.gather(self._sides[ROW].changes.rows["rows"], rows[lost])
        if self._unmatched != "keep":
            rows, labels, times = rows[~lost], labels[~lost], times[~lost]
        out = self._joined(rows, labels) if len(rows) else Block(None, 0)
        if self.new_rows.wanted and out.count:
            numbers = self._sides[ROW].changes.rows["came"][rows, 0]
            sample = self._sides[LABEL].sample
            self.new_rows.label = {name: sample[name] for name in sample if name not in (self._on, self._time)}
            self.new_rows.add_pairs(out.rows, self._given, np.where(labels < 0, -1, numbers), times)
        if callable(self._unmatched) and lost.any():
            user_code.call(self._unmatched, trees.read_only(given_up))
        self._done = None
        self._given += out.count
        if sum(side.changes.excess for side in self._sides) > 0:
            with suppress(MemoryError):  # the rows were processed; the snapshot is retried after the next ones
                self._settle()
        return out

    def _joined(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Block:
        left = trees.gather(self._sides[ROW].changes.rows, rows)
        lost = labels < 0
        memory, sample = self._sides[LABEL].changes.rows, self._sides[LABEL].sample
        if sample is None:
            raise RowsError(
                "join(unmatched='keep') has rows without a label before the first label came, and does not know the "
                "labels' columns. Expected at least one label."
            )
        right = trees.gather(sample if memory is None else memory["rows"], np.maximum(labels, 0))
        joined = with_labels(left["rows"], right, lost, (self._on, self._time))
        times = None
        if self._timed:
            times = left["arrived"]
            if memory is not None:  # a pair exists when the later of the two has come
                times[~lost] = np.fmax(times[~lost], memory["arrived"][labels[~lost]])
        return Block(joined, len(rows), None, times, left["origin"])

    # -- cursors -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Take a snapshot of the rows and labels that wait."""
        waiting = [self._pairing.waiting(number) for number in (ROW, LABEL)]
        begins = [
            side.changes.snapshot(
                side.read,
                {"times": np.array([time for time, _, _ in entries]), "sample": side.sample},
                np.array([number for _, number, _ in entries], np.int64),
            )
            for side, entries in zip(self._sides, waiting, strict=True)
        ]
        self._pairing.begin(
            *(
                ([time for time, _, _ in entries], range(len(entries)), [key for *_, key in entries])
                for entries in waiting
            )
        )
        for side, begin in zip(self._sides, begins, strict=True):
            begin()
            side.since = (side.read, side.clock)

    def own(self) -> Mapping[str, Any]:
        sides = [
            {"passes": side.input.passes, "read": side.read, "clock": side.clock, "since": list(side.since)}
            for side in self._sides
        ]
        changes = [side.changes.own() for side in self._sides]
        return {
            "row": self._given,
            "sides": sides,
            "changes": changes,
            "unmatched": list(self._counts),
            "timed": self._timed,
            "over": self._over,
        }

    def cursor(self) -> Cursor:
        if self._done is not None:
            return self._done.before
        inputs = [side.input for side in self._sides]
        return compose_held([each.buffer.address(Offset(each.given)) for each in inputs], self.own())

    def restore(self, cursor: Cursor) -> None:
        self.new_rows.restored()
        own = own_part(cursor)
        for side, address in zip(self._sides, addresses(cursor), strict=True):
            side.input.buffer.restore(address)
        self._done = None
        waiting, times, starts = [], [], []
        for side, stood, changes in zip(self._sides, own["sides"], own["changes"], strict=True):
            snapshot = side.changes.take_up(changes)
            side.begin(stood["passes"], *stood["since"])
            side.since = tuple(stood["since"])
            first = side.changes.snapshot_rows
            at = [] if snapshot is None else snapshot["times"].tolist()
            waiting.append((at, range(first), side.keys(0, first) if first else []))
            times.append(np.empty(0))
            side.sample = None if snapshot is None else snapshot["sample"]
            if side.changes.used > first:
                rows = trees.cut(side.changes.rows["rows"], first, side.changes.used)
                side.sample = trees.cut(rows, 0, 1)
                times[-1] = side.times_of(rows)
            starts.append(first)
        self._pairing.begin(*waiting)
        self._advance(times, starts)
        self._over = own["over"]
        if self._over:
            self._pairing.end()
        for side, stood in zip(self._sides, own["sides"], strict=True):
            side.read, side.clock = stood["read"], stood["clock"]
        self._given = own["row"]
        self._counts = list(own["unmatched"])
        self._timed = own["timed"]
        # These do not come by again.
        entries = self._pairing.waiting(ROW)
        self._note_rows(np.array([at for _, at, _ in entries], np.int64), np.array([time for time, *_ in entries]))

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        for name, count in zip(("unmatched", "unmatched_labels"), self._counts, strict=True):
            counts[name] = counts.get(name, 0) + count
        return counts
