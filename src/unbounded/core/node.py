"""Node: the protocol of every source and stage of a running stream, and Context, the arguments with which it is opened.

The methods are few, and the same for all nodes: whatever has them can be fed, checkpointed, tested by `assert_resumes`
and timed. Their contract is the second law in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from unbounded.core.block import Block, Run
from unbounded.core.cursor import Cursor as Cursor
from unbounded.core.cursor import compose, input_cursors, own_part
from unbounded.core.runtime import Runtime

if TYPE_CHECKING:
    from unbounded.core.arrival_log import ArrivalLog


class EndOfStream(Exception):
    """The declared end of a stream: there are no more rows, and none were expected. A reader raises it.

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


class LogFull(StreamError):
    """A row log has the bytes that it may have, all of its rows were handed on, and more are waited for.

    The next pull tries again: rows may have been let go of meanwhile.
    """


class DataLoss(StreamError):
    """Rows that had to be read again are gone or have changed: a log was damaged, or a source lost rows.

    >>> import unbounded as ub
    >>> issubclass(ub.DataLoss, ub.StreamError)
    True
    """


def rows_are_gone() -> DataLoss:
    """The error for an end that comes while a restored node reads again what it had read before."""
    return DataLoss(
        "The stream ended before the place at which it is to go on: rows that were read before are gone. Restore the "
        "data, or begin a new run."
    )


class Node(Protocol):
    """A source or a stage of a running stream."""

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next rows; None if there are none yet. Raises EndOfStream at a declared end.

        A pull that raises, or returns None, leaves the cursor unchanged.
        """

    def cursor(self) -> Cursor:
        """The point after the last block pulled, in O(1)."""

    def restore(self, cursor: Cursor) -> None:
        """Continue at a cursor: pulls return exactly the rows that followed when it was taken."""

    def release(self, cursor: Cursor) -> None:
        """Allow the node to forget what lies before `cursor`: no earlier cursor will be restored."""

    def close(self) -> None:
        """End threads and close files. A closed node is not pulled again."""

    def counts(self) -> dict[str, int]:
        """The rows fetched, dropped, missed and bad so far, of this node and its inputs."""


class SourceNode(Node, Protocol):
    """A source of a running stream."""

    def commit(self, trained: Cursor, needed: Cursor) -> None:
        """Tell the source that the newest checkpoint on the disk has trained up to `trained`, and that the oldest needs
        what follows `needed`."""

    def settled(self, cursor: Cursor) -> Cursor:
        """A cursor of this node that may have been taken before the source was opened, with the position at which it
        was, where that is known by now. As it is where nothing is to be settled."""


class Inner:
    """A node with inputs: passes calls on to them, and composes its cursor of theirs and its own part.

    A subclass with state of its own overrides `own` and `take_up`.
    """

    inputs: Sequence[Node]

    # -- overridden by subclasses ------------------------------------------------------------------------------------

    def own(self) -> Mapping[str, Any] | None:
        """The node's own part of its cursor, in O(1). None if the class never has one: the cursor is then that of its
        only input."""
        return None

    def take_up(self, own: Mapping[str, Any]) -> None:
        """Restore the node's own part; its inputs are restored already."""

    # -- Node --------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        """Composed of the inputs' cursors and the node's own part."""
        own = self.own()
        if own is None:
            return self.inputs[0].cursor()
        return compose([node.cursor() for node in self.inputs], own)

    def restore(self, cursor: Cursor) -> None:
        """Restore the inputs, then the node's own part."""
        if self.own() is None:
            self.inputs[0].restore(cursor)
            return
        for node, each in self._for_inputs(input_cursors(cursor)):
            node.restore(each)
        self.take_up(own_part(cursor))

    def release(self, cursor: Cursor) -> None:
        """Pass each input its part."""
        if self.own() is None:
            self.inputs[0].release(cursor)
            return
        for node, each in zip(self.inputs, input_cursors(cursor), strict=True):
            node.release(each)

    def close(self) -> None:
        """Close all inputs, even if closing one fails."""
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

    def _for_inputs(self, parts: Sequence[Mapping[str, Any]]) -> list[tuple[Node, Mapping[str, Any]]]:
        """Pairs (input, its part); raises TypeError if the numbers differ."""
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
    """The arguments with which a node is opened.

    `place` is the node's place in the stream, a part of the key of its random choices. `block_rows` is the number of
    rows that a source should return at once, and `share` the fraction of that for an input of a mix. `coalesce` is the
    number of rows up to which small blocks may be joined. `runtime` has the threads, locks, clocks and files;
    `arrivals` is the stream's arrival log.
    """

    runtime: Runtime
    arrivals: ArrivalLog
    place: int = 0
    block_rows: int | None = None
    batch_rows: int = 1
    share: float = 1.0
    coalesce: int = 0

    def at(self, place: int) -> Context:
        """The context of another node."""
        return replace(self, place=place)

    def of_branch(self, place: int, share: float) -> Context:
        """The context of an input of a mix: its blocks are smaller by its share, so that the blocks of all inputs last
        for about the same number of output rows."""
        return replace(self, place=place, batch_rows=1, share=self.share * share, coalesce=int(self.coalesce * share))
