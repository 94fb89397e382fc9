"""Counting: a source whose rows are their own numbers, for finding out which rows come where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.core.block import Block
from unbounded.sources.reader import JSON, Opening


@dataclass(frozen=True)
class Counting:
    """The numbers from 0 on, without an end."""

    word = "counting"
    replayable = True
    redelivers = False
    any_thread = True

    def open(self, opening: Opening) -> Any:
        return _CountingReader(opening)

    def identity(self) -> JSON:
        return {}

    def position_at(self, row: int) -> JSON:
        """The position before a row."""
        return row


class _CountingReader:
    def __init__(self, opening: Opening) -> None:
        self._rows = opening.block_rows or max(1, int(4096 * opening.share))
        self._row = 0

    def read(self, timeout: float) -> Block:
        first, self._row = self._row, self._row + self._rows
        return Block(np.arange(first, self._row), self._rows)

    def position(self) -> JSON:
        return self._row

    def seek(self, position: JSON) -> None:
        self._row = position

    def close(self) -> None:
        """No-op."""
