"""MixInput: one input of a mix or a join, with its rows that were read and not used yet, and its passes."""

from __future__ import annotations

from collections import deque
from typing import Any

from unbounded.core import trees
from unbounded.core.block import Block, Offset, provenance_of
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import EndOfStream, Node
from unbounded.core.row_spec import same_spec
from unbounded.core.trees import RowsError, Tree


class MixInput:
    """One input, with a buffer of the rows that were read and not used yet.

    `given` counts the rows used since the buffer began, `passes` the passes of this input that ended before the last of
    them.
    """

    def __init__(self, node: Node, name: str, first_leaf: int, word: str = "mix") -> None:
        self.name = name
        self._word = word
        self.buffer: InputBuffer[Block] = InputBuffer(node)
        self._first_leaf = first_leaf
        self.rows: Tree = None  # some rows, for their structure
        self.begin(0)

    def begin(self, passes: int) -> None:
        """Begin with an empty buffer."""
        self._parts: deque[tuple[Block, int]] = deque()  # (block, passes that ended before it)
        self._read_passes = passes
        self.count = 0
        self.given = 0
        self.passes = passes
        self.ended = False

    def read(self, timeout: float | None) -> bool:
        """Read another block; return False if there is none yet, or no more."""
        try:
            block = self.buffer.read(timeout)
        except EndOfStream:
            self.ended = True
            return False
        if block is None:
            return False
        if block.count:
            if self.rows is None:
                self.rows = trees.cut(block.rows, 0, 1)
            elif not same_spec(self.rows, block.rows):
                raise RowsError(differs(self._word, self.name, block.rows, self.name, self.rows))
            self._parts.append((block, self._read_passes))
            self.count += block.count
        if block.boundary is not None and block.boundary.kind == "pass":
            self._read_passes += 1
        return True

    def has(self, rows: int) -> bool:
        """True if `rows` rows are in the buffer, or will never be; reads what can be read without waiting."""
        while self.count < rows and not self.ended:
            # A source may give nothing where it is its turn to, but never twice in a row.
            if not self.read(0.0) and not self.ended and not self.read(0.0):
                break
        return self.count >= rows or self.ended

    def peek(self, rows: int) -> list[tuple[Block, int]]:
        """The first `rows` rows in their original blocks, each with the passes that ended before it."""
        found: list[tuple[Block, int]] = []
        for block, passes in self._parts:
            if not rows:
                break
            part = block.part(0, rows)
            found.append((part, passes))
            rows -= part.count
        return found

    def drop(self, rows: int) -> None:
        """Remove what `peek` returns, after it was used."""
        self.count -= rows
        self.given += rows
        while rows:
            block, self.passes = self._parts.popleft()
            if block.count > rows:
                self._parts.appendleft((block.part(rows, block.count), self.passes))
                break
            rows -= block.count
        self.buffer.keep(Offset(self.given))

    def provenance(self, block: Block, passes: int) -> Any:
        """The provenance of a block's rows; if the input is a mix itself, that of its inputs."""
        if block.provenance is None:
            return provenance_of(self._first_leaf, passes)
        return block.provenance + self._first_leaf


def differs(word: str, name: str, rows: Tree, other: str, others: Tree) -> str:
    """The error message for rows of two structures."""

    def shown(tree: Tree) -> str:
        return ", ".join(f"{trees.name(path)} {leaf.dtype}{list(leaf.shape[1:])}" for path, leaf in trees.leaves(tree))

    return (
        f"{word}(): the rows of {name!r} ({shown(rows)}) are not as those of {other!r} ({shown(others)}). Expected one "
        "structure, and the same dtypes and shapes in it: bring one to the other's by .map()."
    )
