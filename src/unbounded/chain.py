"""Chain: a source, mix or join, and the stages after it, with its properties, without the user's methods.

A stream is a tree of chains with sources at its leaves.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

from unbounded.core.arrival_log import ArrivalLog
from unbounded.core.identity import comparable
from unbounded.core.node import Context, Node, StreamError
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.show import Line, call, words
from unbounded.opened import Opened, open_chain, places_of
from unbounded.sources.source import SourcePart
from unbounded.stages.batch import Batch
from unbounded.stages.combined import Combined
from unbounded.stages.event_time import Time
from unbounded.stages.exclude import Exclude
from unbounded.stages.prefetch import Buffer
from unbounded.stages.skip_non_finite import Finite
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee, Stage
from unbounded.stages.take import Take
from unbounded.stages.tap import place_of

# Small blocks of a source are joined if `batch` follows: up to this many batches, or rows.
_COALESCED_BATCHES, _COALESCED_ROWS = 8, 4096


class Chain:
    """A source or a mix, and the stages after it, immutable: the part of a `Stream` without the user's methods."""

    def __init__(self, head: SourcePart | Combined, stages: tuple[Stage, ...] = ()) -> None:
        self._head = head
        self._stages = stages
        self._fingerprint: str | None = None

    def __repr__(self) -> str:
        return ".".join(map(words, self.parts))

    @property
    def head(self) -> SourcePart | Combined:
        """The first part: a source, a mix or a join."""
        return self._head

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""
        return self._stages

    @property
    def parts(self) -> tuple[SourcePart | Combined | Stage, ...]:
        """The head, and the stages in order."""
        return (self._head, *self._stages)

    @property
    def branches(self) -> Mapping[str, Self]:
        """The input streams of a mix or a join by name; empty for a source."""
        return self._head.branches if isinstance(self._head, Combined) else {}

    @property
    def all_parts(self) -> list[SourcePart | Combined | Stage]:
        """The parts of all branches, each branch before the mix that it is in, then this chain's own parts."""
        return [part for branch in self.branches.values() for part in branch.all_parts] + list(self.parts)

    @property
    def leaves(self) -> dict[str, Self]:
        """The branches that begin with a source, by source name: "source" without a mix; else the names of the mixed
        streams, such as "old", or "old/a" if that is a mix itself."""
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
        """The rows of a batch; None without `batch`, where the source's blocks are the batches."""
        return next((stage.rows for stage in self._stages if isinstance(stage, Batch)), None)

    @property
    def _batched(self) -> bool:
        return any(isinstance(stage, Batch) for stage in self._stages)

    @property
    def _has_time(self) -> bool:
        return any(isinstance(stage, Time) for stage in self._stages)

    @property
    def _drops(self) -> bool:
        # A block larger than the buffer would always be dropped whole.
        return any(isinstance(part, Buffer) and part.overflow != "block" for part in self.all_parts)

    @property
    def _batch_index(self) -> int:
        return next((i for i, s in enumerate(self._stages) if isinstance(s, Batch)), len(self._stages))

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee for each row: the weakest of those of the source and the stages.

        `exact`: each row is trained on exactly once for each time that it comes. `at_least_once`: never lost.
        `at_most_once`: never repeated. For a source that can't seek, this is about its rows before the row log: while
        nobody reads, they are lost, or redelivered later. Rows in the log, which is on the disk once the run has a
        directory, are exact.
        """
        return min([self._head.guarantee, *(s.guarantee for s in self._stages)], key=WEAKEST_FIRST.index)

    @property
    def repeats(self) -> bool:
        """True if each pass has the same rows."""
        return isinstance(self._head, SourcePart) and self._head.repeats

    @property
    def has_passes(self) -> bool:
        """True if rows come in passes. A mix counts those of its inputs, and has none of its own."""
        return isinstance(self._head, SourcePart) and self._head.has_passes

    @property
    def has_end(self) -> bool:
        """True if it has a declared end."""
        head = self._head
        ends = head.has_end if isinstance(head, Combined) else head.passes is not None
        return ends or any(isinstance(stage, Take) for stage in self._stages)

    @property
    def rows_per_pass(self) -> int | None:
        """The output rows of each pass; None if they are not known beforehand, or no pass ends."""
        return self._rows_at()[-1]

    def lines(self, name: str = "", depth: int = 0) -> list[Line]:
        """A line for each part; those of mixed streams are under the mix, with their names."""
        head, rows, indent = self._head, self._rows_at(), "  " * depth
        text = call(head.word, {"": "{…}", **head.settings()}) if isinstance(head, Combined) else words(head)
        lines = [Line(f"{indent}{f'{name}: ' if name else ''}{text}", head, rows[0])]
        for each, branch in self.branches.items():
            lines += branch.lines(each, depth + 1)
        parts = zip(self._stages, rows[1:], strict=True)
        return lines + [Line(f"{indent}.{words(stage)}", stage, count) for stage, count in parts]

    def input_passes(self) -> dict[str, int | None]:
        """For each source of a mix, the rows of a pass in this chain's output; None if passes have to be counted by the
        rows that are trained on. Empty without a mix."""
        # A stage after the mix that drops or repeats rows changes the number of rows of a pass.
        keeps = all(stage.rows_per_pass(1 << 20) == 1 << 20 for stage in self._stages)
        found: dict[str, int | None] = {}
        for name, branch in self.branches.items():
            inner = branch.input_passes() or {"source": branch.rows_per_pass}
            found |= {_below(name, leaf): rows if keeps else None for leaf, rows in inner.items()}
        return found

    def _rows_at(self) -> list[int | None]:
        """The rows of a pass, as the source gives them and after each stage."""
        rows: list[int | None] = [None if isinstance(self._head, Combined) else self._head.rows_per_pass()]
        for stage in self._stages:
            rows.append(stage.rows_per_pass(rows[-1]))
        return rows

    def declared_rows(self, first: int = 0) -> int | None:
        """The number of rows before a declared end, if known."""
        head = self._head
        if isinstance(head, Combined):
            places = places_of(self, first)
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
        """Raise ValueError if it is known beforehand that no output row will come."""
        for before, rows, stage in zip(self._rows_at(), self._rows_at()[1:], self._stages, strict=False):
            if rows == 0 and before:
                raise ValueError(
                    f".{words(stage)} gives nothing of a pass of {before:,} rows: no window spans the end of a pass. "
                    f"Use .windows({before}) or a shorter one."
                )
        if self.declared_rows() == 0:
            raise ValueError(f"{self!r} gives no row before its declared end. Declare a later one.")

    def refuse_without_batches(self, passes: int) -> None:
        """Raise StreamError if rows repeat, and whole passes of them gave no batch: no later pass will."""
        if self.repeats:
            raise StreamError(
                f"{passes} passes over the rows have ended without a batch, and the next ones would too: {self!r} "
                "gives none. Look at what .filter() and .drop_missing() keep, and whether a pass is long enough for "
                ".windows()."
            )

    def identity(self) -> list[Any]:
        """Plain data for the fingerprint: the source, the seeds, the stages and their sizes; functions by their code
        and the constants that they read.

        Each part's identity is taken once, at the latest when the stream is first opened: values that functions read
        may change then.
        """
        parts = [self._head, *(stage for stage in self._stages if stage.moves_rows)]
        return [[part.word, part.first_identity] for part in parts]

    def source_identities(self) -> list[Any]:
        """The identity of each source, in the order of the leaves."""
        return [[source.word, source.first_identity] for source in self.sources]

    @property
    def fingerprint(self) -> str:
        """A short checksum of `identity`: equal if one stream can resume the other's position."""
        if self._fingerprint is None:
            text = json.dumps(comparable(self.identity()), sort_keys=True, default=str)
            self._fingerprint = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return self._fingerprint

    # -- derived chains ------------------------------------------------------------------------------------------------

    def before_batch(self) -> Self:
        """The chain up to `batch`, or all of it if there is no `batch`."""
        return self._with(self._stages[: self._batch_index])

    def finite(self, address: Callable[[int], str]) -> Self:
        """The stream without rows that have a NaN or an infinity, for feeds: see `Finite`."""
        if any(isinstance(stage, Finite) for stage in self._stages):
            return self
        at = self._batch_index
        return self._with((*self._stages[:at], Finite(address), *self._stages[at:]))

    def _with(self, stages: tuple[Stage, ...]) -> Self:
        stream = copy.copy(self)  # keeps the class: tests have subclasses
        stream._stages = stages
        stream._fingerprint = None
        return stream

    # -- opening -------------------------------------------------------------------------------------------------------

    def open(
        self,
        runtime: Runtime = SYSTEM,
        *,
        block_rows: int | None = None,
        wrap: Callable[[Node], Node] | None = None,
    ) -> Opened:
        """Open the stream; `wrap` may insert a node after any node, for tests."""
        self.identity()
        context = Context(
            runtime,
            ArrivalLog(runtime),
            block_rows=block_rows,
            batch_rows=self.batch_size or 1,
            coalesce=0 if self._drops else min(_COALESCED_ROWS, _COALESCED_BATCHES * (self.batch_size or 0)),
        )
        return open_chain(self, context, wrap or (lambda node: node))

    @property
    def makes_new_rows(self) -> bool:
        """True if the rows that can be tested before training are the output of its head, or come to it."""
        return not isinstance(self._head, Combined) or self._head.makes_new_rows

    def tested(self, name: str) -> Self:
        """The branch whose rows are tested before training; `name` is that of its first source, as in `leaves`."""
        if self.makes_new_rows:
            if name != next(iter(self.leaves)):
                raise ValueError(
                    f"source={name!r}: what is tested of a join is its rows, by the name of "
                    f"{next(iter(self.leaves))!r}."
                )
            return self
        first, _, rest = name.partition("/")
        return self.branches[first].tested(rest or "source")

    def after_tap(self, name: str) -> list[Stage]:
        """The stages between the tap of a source, by its name among `leaves`, or a join of it, and the end."""
        if self.makes_new_rows:
            return list(self._stages[0 if self.branches else place_of(self._stages) :])
        first, _, rest = name.partition("/")
        return [*self.branches[first].after_tap(rest or "source"), *self._stages]


def _below(name: str, leaf: str) -> str:
    """The name of a source in a branch."""
    return name if leaf == "source" else f"{name}/{leaf}"
