"""Releases: what the sources and stages of a feed may forget, as batches are trained on and checkpoints are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from unbounded.core.cursor import Cursor, leaf_cursors
from unbounded.core.node import Node, SourceNode


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
        self._needed: dict[int, Cursor] = {}  # by number, what the checkpoints on the disk need, oldest first
        # (number of a new checkpoint, what it needs, how many are kept): appended by the thread that wrote it. A
        # deque's append and popleft are atomic, so no lock is needed.
        self._posted: deque[tuple[int, Cursor, int]] = deque()

    def hold(self, needed: Mapping[int, Cursor] | None = None) -> None:
        """From here on release only what `post` allows: all positions taken from now on can be restored.

        Args:
            needed: what the checkpoints on the disk need, by their numbers, oldest first; those that the run has gone
                back behind are not kept for it. None leaves them as they are known.
        """
        self._holding = True
        if needed is not None:
            self._needed = dict(needed)

    def post(self, number: int, needed: Cursor, keep: int) -> None:
        """A checkpoint that needs `needed` is on the disk, one of `keep` that are kept.

        Called from any thread. What the kept checkpoints do not need is released by the feed's own thread later, in
        `release_posted`.
        """
        self._posted.append((number, needed, keep))

    @property
    def has_posted(self) -> bool:
        """True if a new checkpoint is on the disk, and what it allows was not released yet."""
        return bool(self._posted)

    def release_posted(self) -> None:
        """Release what no checkpoint needs any more, and tell the sources of the newest and the oldest checkpoint."""
        while self._posted:
            number, needed, keep = self._posted.popleft()
            # As on the disk: it takes the place of one of the same number, and those written last are kept.
            self._needed.pop(number, None)
            self._needed[number] = needed
            while len(self._needed) > keep:
                del self._needed[next(iter(self._needed))]
            oldest = self._needed[min(self._needed)]  # a run that has gone back wrote the one before it later
            self._top.release(oldest)
            for node, trained, kept in zip(self._sources, leaf_cursors(needed), leaf_cursors(oldest), strict=True):
                node.commit(trained, kept)

    def trained(self, cursor: Cursor) -> None:
        """All batches before `cursor` were trained on."""
        self.release_posted()
        if not self._holding:
            self._top.release(cursor)
