"""Chain: a source, or a mix of chains, and the stages after it, without the words that a user writes: what is known of
them beforehand, and how they are put to work. So a stream is a tree, with sources at its leaves.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

from unbounded.core.identity import comparable
from unbounded.core.node import Context, Node, StreamError
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.show import Line, call, words
from unbounded.opened import Opened
from unbounded.sources.source import SourcePart, Turns
from unbounded.stages.batch import Batch
from unbounded.stages.combined import Combined, CombinedNode
from unbounded.stages.exclude import Exclude
from unbounded.stages.prefetch import Buffer
from unbounded.stages.skip_non_finite import Finite
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee, Stage
from unbounded.stages.take import Take
from unbounded.stages.tap import NewRows, Numbered, Tap, place_of


class Places(NamedTuple):
    """The places of a chain's parts in the whole tree: those that move no rows are not counted, so that a prefetch
    changes no random choice."""

    branches: list[int]  # the first one in each branch
    head: int
    stages: list[int]
    last: int


# Small blocks of a source are joined where `batch` follows: up to so many batches, or so many rows.
_COALESCED_BATCHES, _COALESCED_ROWS = 8, 4096


class Chain:
    """A source or a mix, and the stages after it, which never change: what a `Stream` is made of."""

    def __init__(self, head: SourcePart | Combined, stages: tuple[Stage, ...] = ()) -> None:
        self._head = head
        self._stages = stages
        self._fingerprint: str | None = None

    def __repr__(self) -> str:
        return ".".join(map(words, self.parts))

    @property
    def head(self) -> SourcePart | Combined:
        """What it begins with: a source, or streams that are put together."""
        return self._head

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""
        return self._stages

    @property
    def parts(self) -> tuple[SourcePart | Combined | Stage, ...]:
        """The source or the mix, and the stages in order."""
        return (self._head, *self._stages)

    @property
    def branches(self) -> Mapping[str, Self]:
        """The streams that are mixed, by their names; none where the head is a source."""
        return self._head.branches if isinstance(self._head, Combined) else {}

    @property
    def all_parts(self) -> list[SourcePart | Combined | Stage]:
        """The parts of all branches, each before the mix that it is in, and then its own."""
        return [part for branch in self.branches.values() for part in branch.all_parts] + list(self.parts)

    @property
    def leaves(self) -> dict[str, Self]:
        """The branches that begin with a source, by the names of these: "source" where there is no mix, else those of
        the streams that are mixed, such as "old", or "old/a" where that is a mix again."""
        if not self.branches:
            return {"source": self}
        return {
            _below(name, leaf): found for name, each in self.branches.items() for leaf, found in each.leaves.items()
        }

    @property
    def sources(self) -> list[SourcePart]:
        """The sources, in the order of the leaves."""
        return [leaf._head for leaf in self.leaves.values() if not isinstance(leaf._head, Combined)]

    @property
    def exclusions(self) -> list[Exclude]:
        """The stages that exclude rows, in all branches; of several sources, each with the name of its own among
        `leaves`."""
        found = [
            replace(stage, source=_below(name, stage.source or "source"))
            for name, branch in self.branches.items()
            for stage in branch.exclusions
        ]
        return found + [stage for stage in self._stages if isinstance(stage, Exclude)]

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch; None without `batch`, where the source's own blocks are the batches."""
        return next((stage.rows for stage in self._stages if isinstance(stage, Batch)), None)

    @property
    def _batched(self) -> bool:
        return any(isinstance(stage, Batch) for stage in self._stages)

    @property
    def _drops(self) -> bool:
        # A block that is larger than the buffer would be dropped whole, each time.
        return any(isinstance(part, Buffer) and part.overflow != "block" for part in self.all_parts)

    @property
    def _batch_index(self) -> int:
        return next((i for i, s in enumerate(self._stages) if isinstance(s, Batch)), len(self._stages))

    @property
    def guarantee(self) -> Guarantee:
        """What is promised of each row: the weakest of the source's and the stages' promises.

        `exact`: trained once for each time it comes, whatever happens. `at_least_once`: never lost. `at_most_once`:
        never twice. Of a source that can't go back it is said of its door: what comes while nobody reads is gone, or
        comes again. From the row log on, which is on the disk once the run has a directory, each row is exact.
        """
        return min([self._head.guarantee, *(s.guarantee for s in self._stages)], key=WEAKEST_FIRST.index)

    @property
    def repeats(self) -> bool:
        """Whether the same rows come in each pass."""
        return isinstance(self._head, SourcePart) and self._head.repeats

    @property
    def has_passes(self) -> bool:
        """Whether rows come in passes: a mix counts those of its inputs, and has none of its own."""
        head = self._head
        return not isinstance(head, Combined) and (head.rows_per_pass() is not None or head.passes is not None)

    @property
    def has_end(self) -> bool:
        """Whether it has a declared end."""
        head = self._head
        ends = head.has_end if isinstance(head, Combined) else head.passes is not None
        return ends or any(isinstance(stage, Take) for stage in self._stages)

    @property
    def rows_per_pass(self) -> int | None:
        """Rows that come out of the last stage in each pass; None where that can't be said, or no pass
        ends."""
        return self._rows_at()[-1]

    def lines(self, name: str = "", depth: int = 0) -> list[Line]:
        """Each part on a line of its own, those of the streams that are mixed under the mix, with their names."""
        head, rows, indent = self._head, self._rows_at(), "  " * depth
        text = call(head.word, {"": "{…}", **head.settings()}) if isinstance(head, Combined) else words(head)
        lines = [Line(f"{indent}{f'{name}: ' if name else ''}{text}", head, rows[0])]
        for each, branch in self.branches.items():
            lines += branch.lines(each, depth + 1)
        parts = zip(self._stages, rows[1:], strict=True)
        return lines + [Line(f"{indent}.{words(stage)}", stage, count) for stage, count in parts]

    def input_passes(self) -> dict[str, int | None]:
        """Rows in a pass of each source of a mix, by its name, as they come out of this chain; None where passes must
        be counted by the rows that are trained on. Empty without a mix."""
        # A stage after the mix that leaves rows out, or repeats them, gives a pass other rows than it had.
        keeps = all(stage.rows_per_pass(1 << 20) == 1 << 20 for stage in self._stages)
        found: dict[str, int | None] = {}
        for name, branch in self.branches.items():
            inner = branch.input_passes() or {"source": branch.rows_per_pass}
            found |= {_below(name, leaf): rows if keeps else None for leaf, rows in inner.items()}
        return found

    def _rows_at(self) -> list[int | None]:
        """Rows in a pass as the source gives them, and after each stage."""
        rows: list[int | None] = [None if isinstance(self._head, Combined) else self._head.rows_per_pass()]
        for stage in self._stages:
            rows.append(stage.rows_per_pass(rows[-1]))
        return rows

    def declared_rows(self, first: int = 0) -> int | None:
        """How many rows come before a declared end, where that can be said."""
        head = self._head
        if isinstance(head, Combined):
            places = self._places(first)
            inputs = zip(self.branches.values(), places.branches, strict=True)
            total = head.declared_rows([branch.declared_rows(place) for branch, place in inputs], places.head)
        else:
            passes, per_pass = head.passes, head.rows_per_pass()
            total = None if passes is None or per_pass is None else passes * per_pass
        for stage in self._stages:
            if isinstance(stage, Take):
                total = stage.rows if total is None else min(total, stage.rows)
            elif total is not None:
                total = stage.rows_per_pass(total)
        return total

    def check_gives_rows(self) -> None:
        """Raise ValueError where it is known beforehand that no row will come out of the last stage."""
        for before, rows, stage in zip(self._rows_at(), self._rows_at()[1:], self._stages, strict=False):
            if rows == 0 and before:
                raise ValueError(
                    f".{words(stage)} gives nothing of a pass of {before:,} rows: no window spans the end of a pass. "
                    f"Use .windows({before}) or a shorter one."
                )
        if self.declared_rows() == 0:
            raise ValueError(f"{self!r} gives no row before its declared end. Declare a later one.")

    def refuse_without_batches(self, passes: int) -> None:
        """Raise StreamError where rows repeat and whole passes of them gave no batch: no later one will."""
        if self.repeats:
            raise StreamError(
                f"{passes} passes over the rows have ended without a batch, and the next ones would too: {self!r} "
                "gives none. Look at what .filter() keeps, and whether a pass is long enough for .windows()."
            )

    def identity(self) -> list[Any]:
        """What moves or makes rows, as plain data: the source, the seeds, the stages and their sizes; functions by
        their code and the constants that they read.

        Each part's is taken once, at the latest when the stream is first put to work: what functions hold may change
        then.
        """
        parts = [self._head, *(stage for stage in self._stages if stage.moves_rows)]
        return [[part.word, part.first_identity] for part in parts]

    def source_identities(self) -> list[Any]:
        """The part of `identity` of each source, in the order of the leaves."""
        return [[source.word, source.first_identity] for source in self.sources]

    @property
    def fingerprint(self) -> str:
        """A short checksum of `identity`: equal where a position of the one stream is one of the other."""
        if self._fingerprint is None:
            text = json.dumps(comparable(self.identity()), sort_keys=True, default=str)
            self._fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return self._fingerprint

    # -- chains made of it ---------------------------------------------------------------------------------------------

    def before_batch(self) -> Self:
        """The chain up to `batch`; all of it where there is no `batch`."""
        return self._with(self._stages[: self._batch_index])

    def finite(self, address: Callable[[int], str]) -> Self:
        """The same stream without rows that have a NaN or an infinity: see `Finite`. For a feed, not for a user."""
        if any(isinstance(stage, Finite) for stage in self._stages):
            return self
        at = self._batch_index
        return self._with((*self._stages[:at], Finite(address), *self._stages[at:]))

    def _with(self, stages: tuple[Stage, ...]) -> Self:
        stream = copy.copy(self)  # of the same class: tests have streams that stall and fail on purpose
        stream._stages = stages
        stream._fingerprint = None
        return stream

    # -- at work -------------------------------------------------------------------------------------------------------

    def _places(self, first: int = 0) -> Places:
        branches, place = [], first
        for branch in self.branches.values():
            branches.append(place)
            place = branch._places(place).last + 1
        head, stages = place, []
        for stage in self._stages:
            place += 1 if stage.moves_rows and stage.has_place else 0
            stages.append(place)
        return Places(branches, head, stages, place)

    def open(
        self,
        runtime: Runtime = SYSTEM,
        *,
        block_rows: int | None = None,
        wrap: Callable[[Node], Node] | None = None,
    ) -> Opened:
        """Put it to work; `wrap` may put something between any two nodes, for tests."""
        self.identity()
        context = Context(
            runtime,
            block_rows=block_rows,
            batch_rows=self.batch_size or 1,
            coalesce=0 if self._drops else min(_COALESCED_ROWS, _COALESCED_BATCHES * (self.batch_size or 0)),
        )
        return self._open(context, wrap or (lambda node: node))

    def _open(self, context: Context, wrap: Callable[[Node], Node]) -> Opened:
        """The same for a branch, whose first part has the context's place."""
        places, head = self._places(context.place), self._head
        if isinstance(head, Combined):
            opened = [
                branch._open(context.of_branch(place, share), wrap)
                for branch, place, share in zip(
                    self.branches.values(), places.branches, head.shares.values(), strict=True
                )
            ]
            sources = [source for each in opened for source in each.sources]
            new_rows = [rows for each in opened for rows in each.new_rows]
            leaves = [len(each.sources) for each in opened]
            mixing = head.open([each.top for each in opened], leaves, context.at(places.head))
            node: Node = mixing
            mixes: list[tuple[str, CombinedNode]] = [("", mixing)]
            for name, each in zip(self.branches, opened, strict=True):
                mixes += [(f"{name}/{before}", mix) for before, mix in each.mixes]
            if head.makes_new_rows:
                new_rows[0] = NewRows(context.runtime)
                node = Numbered(node, new_rows[0])
        else:
            source = head.open(context)
            new_rows = [NewRows(context.runtime)]
            sources, node, mixes = [source], Numbered(Turns(source, context.runtime), new_rows[0]), []
        node = wrap(node)
        tap = place_of(self._stages) if self._makes_new_rows else -1
        for i, (stage, place) in enumerate(zip(self._stages, places.stages, strict=True)):
            node = wrap(stage.open(Tap(node, new_rows[0]) if i == tap else node, context.at(place)))
        if tap == len(self._stages):
            node = Tap(node, new_rows[0])
        return Opened(sources, list(self.leaves), node, tuple(mixes), tuple(new_rows))

    @property
    def _makes_new_rows(self) -> bool:
        """Whether the rows that can be tested before training come out of its head."""
        return not isinstance(self._head, Combined) or self._head.makes_new_rows

    def after_tap(self, name: str) -> list[Stage]:
        """The stages between the tap of a source, by its name among `leaves`, and the end."""
        if self._makes_new_rows:
            if name != next(iter(self.leaves)):
                raise ValueError(
                    f"source={name!r}: what is tested of a join is its rows with their labels, by the name of "
                    f"{next(iter(self.leaves))!r}."
                )
            return list(self._stages[place_of(self._stages) :])
        first, _, rest = name.partition("/")
        return [*self.branches[first].after_tap(rest or "source"), *self._stages]


def _below(name: str, leaf: str) -> str:
    """The name of a source in a branch."""
    return name if leaf == "source" else f"{name}/{leaf}"
