"""Opened: a running stream, and the opening of a chain's nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from unbounded.core.arrival_log import ArrivalLog
from unbounded.core.node import Context, Node, SourceNode
from unbounded.sources.logged import Logged
from unbounded.sources.source import Turns
from unbounded.stages.combined import Combined, CombinedNode
from unbounded.stages.tap import NewRows, Numbered, Tap, place_of

if TYPE_CHECKING:
    from unbounded.chain import Chain


@dataclass(frozen=True)
class Opened:
    """A running stream: the nodes of its sources with their names, and the last stage's node, to pull from."""

    sources: list[SourceNode]
    names: list[str]
    top: Node
    arrivals: ArrivalLog
    """What its nodes decide by what has arrived."""
    mixes: tuple[tuple[str, CombinedNode], ...] = ()
    """Each mix, with the prefix of the names of its inputs."""
    new_rows: tuple[NewRows, ...] = ()
    """The rows of each source that were read and not trained on, if new rows were asked for."""

    def close(self) -> None:
        """Close the nodes, and let go of the arrival log."""
        try:
            self.top.close()
        finally:
            self.arrivals.close()

    def logged(self) -> Iterator[tuple[str, Logged]]:
        """The sources that have a row log, by name."""
        for name, node in zip(self.names, self.sources, strict=True):
            if isinstance(node, Logged):
                yield name, node

    def waited_for(self) -> list[str]:
        """The names of the sources for which a mix waits."""
        # A nested source counts if each mix on the way to it waits for the branch with the source.
        return [
            name
            for name in self.names
            if all(
                name[len(before) :].partition("/")[0] == mix.waits_for
                for before, mix in self.mixes
                if name.startswith(before)
            )
        ]


class Places(NamedTuple):
    """The places of a chain's parts in the tree. Stages that move no rows are not counted, so that a prefetch changes
    no random choice."""

    branches: list[int]  # the first place in each branch
    head: int
    stages: list[int]
    last: int


def places_of(chain: Chain, first: int = 0) -> Places:
    """The places of a chain's parts, of which the first has place `first`."""
    branches, place = [], first
    for branch in chain.branches.values():
        branches.append(place)
        place = places_of(branch, place).last + 1
    head, stages = place, []
    for stage in chain.stages:
        place += 1 if stage.moves_rows and stage.has_place else 0
        stages.append(place)
    return Places(branches, head, stages, place)


def open_chain(chain: Chain, context: Context, wrap: Callable[[Node], Node]) -> Opened:
    """Open a chain, whose first part has the context's place; `wrap` may insert a node after any node, for tests."""
    places, head = places_of(chain, context.place), chain.head
    if isinstance(head, Combined):
        opened = [
            open_chain(branch, context.of_branch(place, share), wrap)
            for branch, place, share in zip(chain.branches.values(), places.branches, head.shares.values(), strict=True)
        ]
        sources = [source for each in opened for source in each.sources]
        new_rows = [rows for each in opened for rows in each.new_rows]
        leaves = [len(each.sources) for each in opened]
        mixing = head.open([each.top for each in opened], leaves, context.at(places.head))
        node: Node = mixing
        mixes: list[tuple[str, CombinedNode]] = [("", mixing)]
        for name, each in zip(chain.branches, opened, strict=True):
            mixes += [(f"{name}/{before}", mix) for before, mix in each.mixes]
        if mixing.new_rows is not None:
            new_rows[0] = mixing.new_rows
            node = Numbered(node, new_rows[0])
    else:
        source = head.open(context)
        new_rows = [NewRows(context.runtime)]
        sources, node, mixes = [source], Numbered(Turns(source, context.runtime), new_rows[0]), []
    node = wrap(node)
    tap = -1 if isinstance(head, Combined) else place_of(chain.stages)
    for i, (stage, place) in enumerate(zip(chain.stages, places.stages, strict=True)):
        node = wrap(stage.open(Tap(node, new_rows[0]) if i == tap else node, context.at(place)))
    if tap == len(chain.stages):
        node = Tap(node, new_rows[0])
    return Opened(sources, list(chain.leaves), node, context.arrivals, tuple(mixes), tuple(new_rows))
