"""ArrivalLog: the decisions of a stream's nodes that depended on arrival, to be repeated when rows are read again.

A node notes each decision here before it passes on the rows that it concerns. If the run has a directory, the note is
in the log's file by then: a resumed run repeats the decisions up to the end of the file, and decides anew after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from unbounded.core.decisions import DecidedRange, Decision, Decisions
from unbounded.core.locked import locked
from unbounded.core.node import StreamError
from unbounded.core.runtime import Runtime

Entries: TypeAlias = Mapping[str, list[DecidedRange]]
"""Decisions of several nodes, by node."""
_MARK = 256  # the number of records for which one mark tells the ordinals up to which they go


class ArrivalSink(Protocol):
    """A file of the arrival log."""

    @property
    def id(self) -> str:
        """The id of the log in the file."""

    @property
    def where(self) -> str:
        """Its directory."""

    def append(self, entries: Entries) -> int:
        """Append a record; return the number of records with it. Raises OSError if nothing of it is in the file."""

    def release(self, records: int) -> None:
        """The first `records` records are not needed again."""

    def close(self) -> None:
        """Close the file."""


class NodeLog:
    """One node's part of the arrival log.

    Args:
        log: the stream's log.
        name: the node's name.
        apart: decisions whose ranges are never merged.
    """

    def __init__(self, log: ArrivalLog, name: str, apart: Iterable[Decision]) -> None:
        self._log = log
        self._name = name
        self.apart = tuple(apart)

    @property
    def decisions(self) -> Decisions:
        """The node's decisions. They are another object after a state was loaded, so that a thread that still works at
        the old position writes to the old object: a node reads this property when it is restored, and not later."""
        return self._log.decisions(self._name)

    def write(self) -> None:
        """Write what was noted to the file, if there is one. Called before rows are handed on.

        Raises:
            StreamError: it could not be written. The next call retries.
        """
        self._log.write(self._name)

    def release(self, ordinal: int) -> None:
        """Ordinals before `ordinal` are not needed again."""
        self.decisions.release(ordinal)
        self._log.release()


class ArrivalLog:
    """The arrival log of a running stream: in memory, and in a file once the run has a directory.

    Args:
        runtime: gives locks and ids.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.id = runtime.unique()
        """Differs from that of other logs; a copy has the same."""
        self._runtime = runtime
        self._lock = runtime.lock()  # guards what threads share; not held while the file is written
        self._writing = runtime.lock()  # held while the file is written to, or replaced by another
        self._nodes: dict[str, NodeLog] = {}
        self._decisions: dict[str, Decisions] = {}
        self._taken_up: dict[
            str, int
        ] = {}  # by node, the ordinal up to which its decisions were read from a file or a state
        self.file: ArrivalSink | None = None
        """The file; None without a directory."""
        # Records, and the ordinals of each node up to which they go: from these follows which records can be released.
        self._marks: deque[tuple[int, dict[str, int]]] = deque()
        self.first_record = 0
        """The records of the file before this one are not needed."""

    # -- the nodes' side -----------------------------------------------------------------------------------------------

    def of(self, name: str, apart: Iterable[Decision] = ()) -> NodeLog:
        """The part of one node. Each node asks for it when the stream is opened.

        Args:
            name: the node's name: unique in the stream, and the same in the next process.
            apart: decisions whose ranges are never merged.
        """
        node = self._nodes[name] = NodeLog(self, name, apart)
        self._decisions[name] = Decisions(self._runtime, node.apart)
        return node

    @property
    def is_used(self) -> bool:
        """True if any node of the stream decides by arrival."""
        return bool(self._nodes)

    @property
    def has_begun(self) -> bool:
        """True if there is any decision, of this process or of one before it."""
        return any(each.stop for each in self._decisions.values())

    @property
    def has_decided(self) -> bool:
        """True if there is any decision of this process."""
        return any(each.stop > self._taken_up.get(name, 0) for name, each in self._decisions.items())

    def decisions(self, name: str) -> Decisions:
        """The decisions of a node."""
        return self._decisions[name]

    def write(self, name: str) -> None:
        """See `NodeLog.write`."""
        decisions = self._decisions[name]
        if self.file is None or decisions.written >= decisions.stop:
            return
        try:
            with self._writing: self._write()  # fmt: skip  # noqa: E701 - see `locked`
        except OSError as error:
            where = self.file.where if self.file is not None else "the run's directory"
            raise StreamError(
                f"Decisions that depended on arrival can't be written to the arrival log in {where}: "
                f"{error.strerror or error}. All rows that follow from what is in the log were handed on. Once there "
                "is room, the next attempt to read goes on with the next row."
            ) from error

    def _write(self) -> None:
        file = self.file
        if file is None:
            return
        # Of all nodes: the decisions for what threads have read ahead are in the same record.
        found = {name: (each, each.unwritten()) for name, each in self._decisions.items()}
        entries = {name: ranges for name, (_, ranges) in found.items() if ranges}
        if not entries:
            return
        records = file.append(entries)
        # After an interrupt before this line they are written twice; when they are read, the second has no effect.
        for name, ranges in entries.items():
            found[name][0].written = ranges[-1].stop
        self._mark(records, {name: ranges[-1].stop for name, ranges in entries.items()})

    @locked
    def _mark(self, records: int, stops: Mapping[str, int]) -> None:
        if self._marks and records % _MARK:
            self._marks[-1] = (records, {**self._marks[-1][1], **stops})
        else:
            self._marks.append((records, dict(stops)))

    def release(self) -> None:
        """Release the records of the file that no node needs again."""
        file, records = self.file, self._released()
        if file is not None and records:
            file.release(records)

    @locked
    def _released(self) -> int:
        records = 0
        while self._marks:
            upto, stops = self._marks[0]
            if any(stop > self._decisions[name].released for name, stop in stops.items() if name in self._decisions):
                break
            self._marks.popleft()
            self.first_record = records = upto
        return records

    # -- the file ------------------------------------------------------------------------------------------------------

    def move(self, file: ArrivalSink) -> None:
        """Write all decisions in memory to a new file, and from now on the later ones.

        Raises:
            OSError: they could not be written, and stay in memory.
        """
        with self._writing: self._move(file)  # fmt: skip  # noqa: E701 - see `locked`

    def _move(self, file: ArrivalSink) -> None:
        self._marks.clear()
        self.first_record = 0
        for each in self._decisions.values():
            each.written = 0
        self.file = file
        try:
            self._write()
        except BaseException:
            self.file = None
            raise

    def go_on(
        self, file: ArrivalSink, first: int, records: Iterable[tuple[int, Entries]], *, at_start: bool = False
    ) -> None:
        """Continue with a file and its decisions, in place of those in memory. The nodes are restored after it.

        Args:
            file: the file.
            first: the number of the first record that is needed.
            records: its records from there on: for each, the number of records up to it, and its entries.
            at_start: True if nothing has run, and the nodes are at their beginning: they are not restored.
        """
        with self._writing: self._go_on(file, first, records, at_start)  # fmt: skip  # noqa: E701 - see `locked`

    def _go_on(self, file: ArrivalSink, first: int, records: Iterable[tuple[int, Entries]], at_start: bool) -> None:
        decisions = self._decisions if at_start else self._new()
        self._marks.clear()
        self.first_record = first
        for upto, entries in records:
            for name, ranges in entries.items():
                if name in decisions:  # else the stream had this node before it was changed
                    for one in ranges:
                        decisions[name].note(*one)
            self._mark(upto, {name: ranges[-1].stop for name, ranges in entries.items()})
        for each in decisions.values():
            each.written = each.stop
        self._decisions, self.id = decisions, file.id
        self._taken_up = {name: each.stop for name, each in decisions.items()}
        before, self.file = self.file, file
        if before is not None and before is not file:
            before.close()

    def close(self) -> None:
        """Close the file."""
        with self._writing: file, self.file = self.file, None  # fmt: skip  # noqa: E701 - see `locked`
        if file is not None:
            file.close()

    # -- as plain data -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All decisions that are needed, as plain data and arrays."""
        return {"log": self.id, "nodes": {name: each.state() for name, each in self._decisions.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with the decisions of a state. The nodes are restored after it.

        If the state is of this log, the decisions that were made after it are kept, and will be repeated. If it is of
        another one, decisions are in no file from then on.
        """
        with self._writing: self._restore(state)  # fmt: skip  # noqa: E701 - see `locked`

    def _restore(self, state: Mapping[str, Any]) -> None:
        nodes = {name: each for name, each in state.get("nodes", {}).items() if name in self._nodes}
        if state.get("log") == self.id and all(self._decisions[name].covers(each) for name, each in nodes.items()):
            decisions = self._decisions
        else:
            decisions, self.id = self._new(), self._runtime.unique()
            self._marks.clear()
            before, self.file = self.file, None
            if before is not None:
                before.close()
        for name, each in nodes.items():
            decisions[name].extend(each)
        if decisions is not self._decisions:
            self._taken_up = {name: each.stop for name, each in decisions.items()}
        self._decisions = decisions

    def _new(self) -> dict[str, Decisions]:
        return {name: Decisions(self._runtime, node.apart) for name, node in self._nodes.items()}
