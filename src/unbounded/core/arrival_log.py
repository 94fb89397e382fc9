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
"""What several nodes decided."""
_MARK = 256  # records after which it is noted again up to which ordinals they go


class ArrivalSink(Protocol):
    """A file of the arrival log."""

    @property
    def id(self) -> str:
        """The id of the log that it has."""

    @property
    def where(self) -> str:
        """Its directory."""

    def append(self, entries: Entries) -> int:
        """Append a record; gives how many there are with it. Raises OSError where nothing of it is in the file."""

    def release(self, records: int) -> None:
        """The first `records` records will not be read again."""

    def close(self) -> None:
        """Let go of it."""


class NodeLog:
    """One node's part of the arrival log.

    Args:
        log: the whole.
        name: the node's.
        apart: decisions of which each range stays by itself.
    """

    def __init__(self, log: ArrivalLog, name: str, apart: Iterable[Decision]) -> None:
        self._log = log
        self._name = name
        self.apart = tuple(apart)

    @property
    def decisions(self) -> Decisions:
        """What was decided. Another object after a state was loaded: a thread that is still at work on what was before
        does not write into it, if it asks for them where it is put to another place and not between."""
        return self._log.decisions(self._name)

    def write(self) -> None:
        """What was noted is in the file when this returns, where there is one. To be called before rows are handed on.

        Raises:
            StreamError: it could not be written. The next call tries again.
        """
        self._log.write(self._name)

    def release(self, ordinal: int) -> None:
        """Nothing before `ordinal` will be asked for again."""
        self.decisions.release(ordinal)
        self._log.release()


class ArrivalLog:
    """The arrival log of a stream at work: in memory, and in a file once the run has a directory.

    Args:
        runtime: locks and ids.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.id = runtime.unique()
        """Tells it from other logs; a copy has the same."""
        self._runtime = runtime
        self._lock = runtime.lock()  # guards what threads share; not held while the file is written
        self._writing = runtime.lock()  # held by who writes to the file, and while another takes its place
        self._nodes: dict[str, NodeLog] = {}
        self._decisions: dict[str, Decisions] = {}
        self._taken_up: dict[str, int] = {}  # by node, up to where its decisions were taken up
        self.file: ArrivalSink | None = None
        """Where it is written, where it is."""
        # Up to which record, and up to which ordinal of each node, in steps: what may be let go of.
        self._marks: deque[tuple[int, dict[str, int]]] = deque()
        self.first_record = 0
        """The records of the file before this one are not needed."""

    # -- the nodes' side -----------------------------------------------------------------------------------------------

    def of(self, name: str, apart: Iterable[Decision] = ()) -> NodeLog:
        """The part of a node, which is to say its name before anything runs.

        Args:
            name: the node's: no other has it, and it has it in the next process as well.
            apart: decisions of which each range stays by itself.
        """
        node = self._nodes[name] = NodeLog(self, name, apart)
        self._decisions[name] = Decisions(self._runtime, node.apart)
        return node

    @property
    def is_used(self) -> bool:
        """Whether any node of the stream decides by what has arrived."""
        return bool(self._nodes)

    @property
    def has_begun(self) -> bool:
        """Whether anything was decided, by this process or the one whose decisions it took up."""
        return any(each.stop for each in self._decisions.values())

    @property
    def has_decided(self) -> bool:
        """Whether anything was decided since decisions were taken up, or at all."""
        return any(each.stop > self._taken_up.get(name, 0) for name, each in self._decisions.items())

    def decisions(self, name: str) -> Decisions:
        """What a node has decided."""
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
                f"What was decided by what had arrived can't be written to the arrival log in {where}: "
                f"{error.strerror or error}. All rows that follow from what is in the log were handed on. Once there "
                "is room, the next attempt to read goes on with the next row."
            ) from error

    def _write(self) -> None:
        file = self.file
        if file is None:
            return
        # Of all nodes: what a thread has read ahead goes along in one record.
        found = {name: (each, each.unwritten()) for name, each in self._decisions.items()}
        entries = {name: ranges for name, (_, ranges) in found.items() if ranges}
        if not entries:
            return
        records = file.append(entries)
        # Interrupted before this, they are written twice, and read once.
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
        """Have the file let go of what no node will ask for again."""
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
        """Write all that is in memory to a file that has none of it, and what follows.

        Raises:
            OSError: it could not be written; it stays in memory.
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
        """Go on with a file and with what it holds, in place of all that was known. The nodes are restored after it.

        Args:
            file: it.
            first: the number of the first record that is needed.
            records: what it holds from there on: how many records there are up to each, and its entries.
            at_start: nothing runs yet, and the nodes stand where they begin: they are not restored.
        """
        with self._writing: self._go_on(file, first, records, at_start)  # fmt: skip  # noqa: E701 - see `locked`

    def _go_on(self, file: ArrivalSink, first: int, records: Iterable[tuple[int, Entries]], at_start: bool) -> None:
        decisions = self._decisions if at_start else self._new()
        self._marks.clear()
        self.first_record = first
        for upto, entries in records:
            for name, ranges in entries.items():
                if name in decisions:  # else of a node that the stream had, before it was changed
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
        """Let go of the file. What was written stays."""
        with self._writing: file, self.file = self.file, None  # fmt: skip  # noqa: E701 - see `locked`
        if file is not None:
            file.close()

    # -- as plain data -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that may be asked for again, as plain data and arrays."""
        return {"log": self.id, "nodes": {name: each.state() for name, each in self._decisions.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave, before the nodes are restored. Where it is a part of what is known here, all that
        is known stays: what was decided after the state was taken is decided so again.

        It is written to no file from then on, unless it is the same log.
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
