"""Inline: the node over a reader that is called in the thread that pulls, without a queue.

For this package's readers of rows that exist or are computed on demand. They return blocks, and a read that raises, at
any line, leaves `position()` unchanged: this is more than the public protocol requires.
"""

from __future__ import annotations

from typing import cast

from unbounded.core.block import Block
from unbounded.core.node import Context, Cursor
from unbounded.sources.reader import Opening, Source, open_reader


class Inline:
    """A node whose pull is a read."""

    is_inline = True

    def __init__(self, source: Source, context: Context) -> None:
        opening = Opening(
            block_rows=context.block_rows,
            batch_rows=context.batch_rows,
            share=context.share,
            runtime=context.runtime,
        )
        self._reader = open_reader(source, opening)
        self._row = 0

    def pull(self, timeout: float | None) -> Block | None:
        block = cast(Block | None, self._reader.read(0.0))
        if block is not None:
            self._row += block.count
        return block

    def cursor(self) -> Cursor:
        position = self._reader.position()
        # For arrays, the position is the row.
        return {"row": self._row} if position == self._row else {"position": position, "row": self._row}

    def restore(self, cursor: Cursor) -> None:
        self._reader.seek(cursor.get("position", cursor["row"]))
        self._row = cursor["row"]

    def release(self, cursor: Cursor) -> None:
        """No-op: the reader makes the rows again."""

    def commit(self, trained: Cursor, needed: Cursor) -> None:
        """No-op: no broker waits for it."""

    def settled(self, cursor: Cursor) -> Cursor:
        """Its cursors count rows from the beginning, wherever that is."""
        return cursor

    def close(self) -> None:
        self._reader.close()

    def counts(self) -> dict[str, int]:
        return {"fetched": self._row}
