"""The protocol that every source and stage at work keeps, and what it is opened with.

The verbs are few, and the same for all: whatever has them can be fed, checkpointed, tested by
`assert_resumes`, and timed. Their promises are the second law in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from unbounded.core.block import Block, Run
from unbounded.core.cursor import Cursor as Cursor
from unbounded.core.cursor import compose, input_cursors, own_part
from unbounded.core.runtime import Runtime


class EndOfStream(Exception):
    """The declared end: there are no more rows, and there were not meant to be. A reader of one's own raises it.

    >>> import numpy as np, unbounded as ub
    >>> class Once:
    ...     replayable = True
    ...     def identity(self):
    ...         return "once"
    ...     def open(self):
    ...         return OnceReader()
    >>> class OnceReader:
    ...     at = 0
    ...     def position(self):
    ...         return self.at
    ...     def seek(self, position):
    ...         self.at = position
    ...     def read(self, timeout):
    ...         if self.at:
    ...             raise ub.EndOfStream
    ...         self.at = 3
    ...         return np.arange(3)
    ...     def close(self):
    ...         pass
    >>> with ub.Feed(ub.from_source(Once()).batch(2)) as feed:
    ...     [batch.tolist() for batch in feed.batches()]
    [[0, 1], [2]]
    """


class StreamError(RuntimeError):
    """A stream can't go on: the sentence says where it stood, what was expected and what to do.

    >>> import numpy as np, unbounded as ub
    >>> def short():
    ...     yield np.arange(3)
    >>> with ub.Feed(ub.from_generator(short).batch(2)) as feed:
    ...     try:
    ...         list(feed.batches())
    ...     except ub.StreamError:
    ...         print("short() ended, and no end was declared: write passes=1")
    short() ended, and no end was declared: write passes=1
    """


def empty_stream(words: str) -> StreamError:
    """The error for a stream that came to its declared end without a single batch."""
    return StreamError(
        f"{words} ended without a row: there is nothing to train on. Expected at least one row before the "
        "declared end: look at what the source gives, and at what filters leave of it."
    )


class CannotTell(LookupError):
    """What a step contains can't be said without running up to it.

    >>> import numpy as np, unbounded as ub
    >>> def sensor():
    ...     yield np.zeros(4)
    >>> try:
    ...     ub.from_generator(sensor).batch(2).batch_at(10)
    ... except ub.CannotTell:
    ...     print("look at the batches of a feed")
    look at the batches of a feed
    """


class DataLoss(StreamError):
    """What was to be read again is no longer there, or has changed: a log was damaged, or a source lost rows.

    >>> import unbounded as ub
    >>> issubclass(ub.DataLoss, ub.StreamError)
    True
    """


class Node(Protocol):
    """A source or a stage at work."""

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next rows, or None where there are none yet and nothing moved; raises EndOfStream at a declared
        end.

        A pull that raises, or gives None, leaves the cursor where it was.
        """

    def cursor(self) -> Cursor:
        """The point right after all that was pulled, in O(1)."""

    def restore(self, cursor: Cursor) -> None:
        """Go there: pulls give exactly the rows that followed when the cursor was taken."""

    def release(self, cursor: Cursor) -> None:
        """Nothing before `cursor` will be asked for again."""

    def close(self) -> None:
        """End threads and let go of files; a closed node is not pulled again."""

    def counts(self) -> dict[str, int]:
        """What happened on the way so far: fetched, dropped, missed and bad rows, of this node and those
        before it."""

    def arrivals(self) -> Mapping[str, Any]:
        """The arrival log: decisions that depended on when rows arrived (what was dropped, which input was absent),
        which a restored node needs beside its cursor. In the form of a cursor."""

    def restore_arrivals(self, arrivals: Mapping[str, Any]) -> None:
        """Take up an arrival log, before `restore`."""


class SourceNode(Node, Protocol):
    """A source at work: the node from which a stream begins."""

    def commit(self, trained: Cursor, needed: Cursor) -> None:
        """Checkpoints on the disk need what follows `needed`; the newest has trained up to `trained`."""

    def settled(self, cursor: Cursor) -> Cursor:
        """A cursor of this node that may have been taken before the source was opened, with the position at which it
        was, where that is known by now. As it is where nothing is to be settled."""


class Inner:
    """A node with inputs: the verbs that it passes on to them, and its cursor put together and taken apart.

    A kind of node that keeps something of its own says so by `own`, and takes it up again by `take_up`; one that
    decides by what has arrived, by `own_arrivals` and `restore_own_arrivals`.
    """

    inputs: Sequence[Node]

    # -- what a kind of node says ------------------------------------------------------------------------------------

    def own(self) -> Mapping[str, Any] | None:
        """What it keeps of its own, in O(1); None of a kind that never keeps anything: its cursor is its only
        input's."""
        return None

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Stand where `own` was taken; the inputs do already."""

    def own_arrivals(self) -> Mapping[str, Any] | None:
        """Its own part of the arrival log; None of a kind that never decides by what has arrived."""
        return None

    def restore_own_arrivals(self, arrivals: Mapping[str, Any]) -> None:
        """Take up its own part of the arrival log."""

    # -- the verbs ---------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        """The inputs', and what the node keeps of its own."""
        own = self.own()
        if own is None:
            return self.inputs[0].cursor()
        return compose([node.cursor() for node in self.inputs], own)

    def restore(self, cursor: Cursor) -> None:
        """Restore the inputs, and take up the node's own part."""
        if self.own() is None:
            self.inputs[0].restore(cursor)
            return
        for node, each in self._for_inputs(input_cursors(cursor)):
            node.restore(each)
        self.take_up(own_part(cursor))

    def release(self, cursor: Cursor) -> None:
        """Pass it on to each input."""
        if self.own() is None:
            self.inputs[0].release(cursor)
            return
        for node, each in zip(self.inputs, input_cursors(cursor), strict=True):
            node.release(each)

    def close(self) -> None:
        """Close the inputs, each of them though another fails."""
        with ExitStack() as stack:
            for node in self.inputs:
                stack.callback(node.close)

    def counts(self) -> dict[str, int]:
        """The sum over the inputs."""
        total: dict[str, int] = {}
        for node in self.inputs:
            for name, count in node.counts().items():
                total[name] = total.get(name, 0) + count
        return total

    def arrivals(self) -> Mapping[str, Any]:
        """The inputs', and the node's own."""
        own = self.own_arrivals()
        if own is None:
            return self.inputs[0].arrivals()
        return compose([node.arrivals() for node in self.inputs], own)

    def restore_arrivals(self, arrivals: Mapping[str, Any]) -> None:
        """Pass on the inputs' parts, and take up its own."""
        if self.own_arrivals() is None:
            self._recall_inputs([arrivals])
            return
        self._recall_inputs(input_cursors(arrivals))
        self.restore_own_arrivals(own_part(arrivals))

    def _recall_inputs(self, arrivals: Sequence[Mapping[str, Any]]) -> None:
        for node, each in self._for_inputs(arrivals):
            node.restore_arrivals(each)

    def _for_inputs(self, parts: Sequence[Mapping[str, Any]]) -> list[tuple[Node, Mapping[str, Any]]]:
        """Each input with its part; raises TypeError where these are of a node with more or fewer inputs."""
        if len(parts) != len(self.inputs):
            raise TypeError(f"a cursor of {len(parts)} inputs for a node of {len(self.inputs)}")
        return list(zip(self.inputs, parts, strict=True))


class Over(Inner):
    """A node with one input."""

    def __init__(self, upstream: Node) -> None:
        self._upstream = upstream
        self.inputs = (upstream,)


@dataclass(frozen=True, slots=True)
class Context:
    """What a node is opened with.

    `place` is the node's place in the stream, which keys its random choices; `block_rows` how many rows a
    source had best hand out at once, `share` which part of a block, that of its input in a mix, and
    `coalesce` up to how many rows small blocks of it may be joined. `runtime` has the
    threads, the locks, the time and the files.
    """

    runtime: Runtime
    place: int = 0
    block_rows: int | None = None
    batch_rows: int = 1
    share: float = 1.0
    coalesce: int = 0

    def at(self, place: int) -> Context:
        """The same for another node."""
        return replace(self, place=place)

    def of_branch(self, place: int, share: float) -> Context:
        """The same for an input of a mix, which has a share of its rows: what is read of it at once is as much less, so
        that all inputs are held for about as long."""
        return replace(self, place=place, batch_rows=1, share=self.share * share, coalesce=int(self.coalesce * share))
