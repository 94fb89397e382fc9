"""Releases: what the sources and stages of a feed may forget, as batches are trained on and checkpoints are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from unbounded.core.cursor import Cursor, leaf_cursors
from unbounded.core.node import Node, SourceNode


class KeptCheckpoint(NamedTuple):
    """What a checkpoint needs that is kept.

    Args:
        needed: the cursor from which rows are read again.
        has_rows: whether it has the rows itself that can't be read again, and what was decided on their arrival: its
            directory is not that of the run's logs.
    """

    needed: Cursor
    has_rows: bool = False


# The number of what a directory needs that has no checkpoint yet: the first one there takes its place.
_BEFORE_ANY = -1


class Releases:
    """Releases rows once they are trained on; after `hold`, once no checkpoint on the disk needs them.

    Args:
        top: the last node of the stream.
        sources: the nodes of its sources, in the order of the tree's leaves.
    """

    def __init__(self, top: Node, sources: Sequence[SourceNode]) -> None:
        self._top = top
        self._sources = sources
        self._holding = False  # True once checkpoints or positions may need what is trained on
        # By directory, oldest first, what the checkpoints need that may be there, each with its number.
        self._kept: dict[str, list[tuple[int, KeptCheckpoint]]] = {}
        # (directory, number of a new checkpoint, what it needs, the numbers there): appended by the thread that wrote
        # it. A deque's append and popleft are atomic, so no lock is needed.
        self._posted: deque[tuple[str, int, KeptCheckpoint, Set[int] | None]] = deque()

    def hold(self, directory: str = "", kept: Mapping[int, KeptCheckpoint] | None = None) -> None:
        """From here on release only what `post` allows: all positions taken from now on can be restored.

        Args:
            directory: of checkpoints.
            kept: what the checkpoints there need, by their numbers, oldest first, up to the one from which the run goes
                on. None leaves them as they are known.
        """
        self._holding = True
        if kept is not None:
            self._kept[directory] = list(kept.items())

    def begin(self, directory: str, needed: Cursor) -> None:
        """A run was begun at `needed` in a directory that has no checkpoint. Killed before the first one there, it
        begins again with these rows, wherever else it was saved meanwhile.
        """
        self._holding = True
        self._kept.setdefault(directory, [(_BEFORE_ANY, KeptCheckpoint(needed))])

    def post(self, directory: str, number: int, kept: KeptCheckpoint, there: Set[int] | None) -> None:
        """A checkpoint was written, or may have been. Called from any thread.

        What the kept checkpoints do not need is released by the feed's own thread later, in `release_posted`.

        Args:
            directory: of checkpoints.
            number: of the new one.
            kept: what it needs.
            there: the numbers of all checkpoints in the directory. None if the write failed: it may be there
                nevertheless, whole, and a later process goes on from it if a newer one is damaged.
        """
        self._posted.append((directory, number, kept, there))

    @property
    def has_posted(self) -> bool:
        """True if a new checkpoint is on the disk, and what it allows was not released yet."""
        return bool(self._posted)

    def release_posted(self) -> None:
        """Release what no checkpoint needs any more, and tell the sources of the newest and the oldest checkpoint."""
        while self._posted:
            directory, number, new, there = self._posted.popleft()
            kept = self._kept.setdefault(directory, [])
            if there is None:
                kept.append((number, new))
                continue
            # It takes the place of one of the same number.
            kept[:] = [*(each for each in kept if each[0] in there and each[0] != number), (number, new)]
            self._top.release(self._oldest(has_rows=False))
            oldest = leaf_cursors(self._oldest())
            for node, trained, needed in zip(self._sources, leaf_cursors(new.needed), oldest, strict=True):
                node.commit(trained, needed)

    def _oldest(self, *, has_rows: bool = True) -> Cursor:
        """What the checkpoint of the lowest number needs: of those that do not have their rows themselves, if there are
        any; with `has_rows`, of all."""
        every = [each for kept in self._kept.values() for each in kept]
        relying = [] if has_rows else [(number, one) for number, one in every if not one.has_rows]
        # By number, not by age: a run that has gone back wrote the one before it later.
        return min(relying or every, key=lambda each: each[0])[1].needed

    def trained(self, cursor: Cursor) -> None:
        """All batches before `cursor` were trained on."""
        self.release_posted()
        if not self._holding:
            self._top.release(cursor)
