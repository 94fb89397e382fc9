"""Opened: a stream at work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unbounded.core.node import Node, SourceNode
from unbounded.sources.logged import Logged
from unbounded.stages.combined import CombinedNode
from unbounded.stages.tap import NewRows


@dataclass(frozen=True)
class Opened:
    """A stream at work: the nodes of its sources, what these are called, and the last stage's node, to pull from."""

    sources: list[SourceNode]
    names: list[str]
    top: Node
    mixes: tuple[tuple[str, CombinedNode], ...] = ()
    """Each mix, and what stands before the names of its inputs."""
    new_rows: tuple[NewRows, ...] = ()
    """The rows of each source that were read and not trained on, where somebody asks for them."""

    def logged(self) -> Iterator[tuple[str, Logged]]:
        """The sources that have a row log, by their names."""
        for name, node in zip(self.names, self.sources, strict=True):
            if isinstance(node, Logged):
                yield name, node

    def waited_for(self) -> list[str]:
        """The sources for which a mix waits."""
        # Each mix that a source is in waits for what leads to it.
        return [
            name
            for name in self.names
            if all(
                name[len(before) :].partition("/")[0] == mix.waits_for
                for before, mix in self.mixes
                if name.startswith(before)
            )
        ]
