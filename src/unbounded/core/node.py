"""The protocol that every source and stage at work keeps, and what it is opened with.

The verbs are few, and the same for all: whatever has them can be fed, checkpointed, tested by
`assert_resumes`, and timed. Their promises are the second law in docs/design.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from unbounded.core.block import Block, Run
from unbounded.core.runtime import Runtime

Cursor: TypeAlias = Mapping[str, Any]
"""The address of a point in a running stream: small plain data, which nobody changes once it was taken."""


class EndOfStream(Exception):
    """The declared end: there are no more rows, and there were not meant to be."""


class StreamError(RuntimeError):
    """A stream can't go on: the sentence says where it stood, what was expected and what to do."""


def empty_stream(words: str) -> StreamError:
    """The error for a stream that came to its declared end without a single batch."""
    return StreamError(
        f"{words} ended without a row: there is nothing to train on. Expected at least one row before the "
        "declared end: look at what the source gives, and at what filters leave of it."
    )


class CannotTell(LookupError):
    """What a step contains can't be said without running up to it."""


class DataLoss(StreamError):
    """What was to be read again is no longer there, or has changed."""


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

    def journal(self) -> dict[str, Any]:
        """What arrival decided and a cursor can't say: the log that a restored node needs beside its cursor."""

    def recall(self, journal: Mapping[str, Any]) -> None:
        """Take up a journal, before `restore`."""


class Over:
    """A node that stands over another: the verbs that it passes on, unless it has something to add."""

    _upstream: Node

    def cursor(self) -> Cursor:
        """The upstream's."""
        return self._upstream.cursor()

    def restore(self, cursor: Cursor) -> None:
        """Restore the upstream."""
        self._upstream.restore(cursor)

    def release(self, cursor: Cursor) -> None:
        """Pass it on."""
        self._upstream.release(cursor)

    def close(self) -> None:
        """Close the upstream."""
        self._upstream.close()

    def counts(self) -> dict[str, int]:
        """The upstream's."""
        return self._upstream.counts()

    def journal(self) -> dict[str, Any]:
        """The upstream's."""
        return self._upstream.journal()

    def recall(self, journal: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._upstream.recall(journal)


@dataclass(frozen=True, slots=True)
class Context:
    """What a node is opened with.

    `place` is the node's place in the stream, which keys its random choices; `block_rows` how many rows a
    source had best hand out at once; `runtime` has the threads, the locks, the time and the files.
    """

    runtime: Runtime
    place: int = 0
    block_rows: int | None = None
    batch_rows: int = 1

    def at(self, place: int) -> Context:
        """The same for another node."""
        return replace(self, place=place)
