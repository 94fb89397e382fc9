"""Mix: the description of a mix of several streams in given shares; its node is a `Mixing`.

A mix stands in place of a source; its inputs are streams.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from unbounded.core import check
from unbounded.core.block import SOURCES
from unbounded.core.input_buffer import Address, compose_held
from unbounded.core.node import CannotTell, Context, Cursor, Node
from unbounded.stages.combined import Combined
from unbounded.stages.mixing import Mixing
from unbounded.stages.quotas import GROUP, INPUTS, Dealer, Quotas, Table

Silence: TypeAlias = Literal["wait", "leave_out"]
Ends: TypeAlias = Literal["first", "all"]
Weights: TypeAlias = Mapping[str, float] | Sequence[float] | Sequence[tuple[int, Mapping[str, float] | Sequence[float]]]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_TAKEN = ("arrival_log", "origin.json")  # what else lies where the logs of a stream are


@dataclass(frozen=True)
class Mix(Combined):
    """See `unbounded.mix`."""

    branches: Mapping[str, Any]  # a stream for each name
    table: tuple[tuple[int, tuple[Fraction, ...]], ...]  # pairs (first output row, weights)
    seed: int
    on_silence: Silence
    patience: float
    ends: Ends

    word = "mix"

    # -- properties --------------------------------------------------------------------------------------------------

    @property
    def has_end(self) -> bool:
        """True if it has a declared end."""
        return (any if self.ends == "first" else all)(branch.has_end for branch in self.branches.values())

    @property
    def shares(self) -> dict[str, float]:
        """The greatest share that each input ever has of the output rows."""
        rows = [[weight / sum(weights) for weight in weights] for _, weights in self.table if sum(weights)]
        return {name: float(max(row[i] for row in rows)) for i, name in enumerate(self.branches)}

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        inputs = ", ".join(f"{name!r}: {branch!r}" for name, branch in self.branches.items())
        return {"": f"{{{inputs}}}", **self.settings()}

    def settings(self) -> dict[str, Any]:
        """The arguments without the input streams."""
        rows = [(at, self._by_name(weights)) for at, weights in self.table]
        given: dict[str, Any] = {"weights": rows[0][1] if len(rows) == 1 else rows}
        defaults = {"seed": 0, "on_silence": "wait", "patience": 1.0, "ends": "first"}
        return given | {k: getattr(self, k) for k, v in defaults.items() if getattr(self, k) != v}

    def _by_name(self, weights: Sequence[Fraction]) -> dict[str, float]:
        return {
            name: int(weight) if weight.denominator == 1 else float(weight)
            for name, weight in zip(self.branches, weights, strict=True)
        }

    def identity(self) -> dict[str, Any]:
        """Plain data for the fingerprint: what decides which rows come where."""
        weights = [[at, {k: str(w) for k, w in zip(self.branches, row, strict=True)}] for at, row in self.table]
        inputs = {name: branch.identity() for name, branch in self.branches.items()}
        policies = {"on_silence": self.on_silence, "ends": self.ends}
        return {"inputs": inputs, "weights": weights, "seed": self.seed, **policies}

    # -- positions of rows -------------------------------------------------------------------------------------------

    @cached_property
    def quotas_table(self) -> Table:
        """The weights as integers, by groups of output rows: they take effect at the edges of groups."""
        common = math.lcm(*(weight.denominator for _, row in self.table for weight in row))
        return [(-(-at // GROUP), [int(weight * common) for weight in row]) for at, row in self.table]

    def dealer(self, place: int) -> Dealer:
        """The dealer of the output rows."""
        return Dealer(len(self.branches), (self.seed, place))

    @cached_property
    def _quotas(self) -> Quotas:
        if self.on_silence == "leave_out":
            raise CannotTell("what mix(on_silence='leave_out') gives depends on when rows arrive")
        return Quotas(self.quotas_table)

    def taken(self, ordinal: int, place: int) -> list[int]:
        """The number of rows of each input before output row `ordinal`."""
        return self.dealer(place).before(ordinal, self._quotas)

    def ordinal_of(self, index: int, row: int, place: int) -> int:
        """The output row that is row `row` of input `index`, provided that no input ends before."""
        try:
            return self.dealer(place).ordinal_of(index, row, self._quotas)
        except LookupError:
            name = list(self.branches)[index]
            raise CannotTell(
                f"row {row:,} of {name!r} never comes: the weights leave it out from some row on"
            ) from None

    def declared_rows(self, rows: Sequence[int | None], place: int) -> int | None:
        """The rows before the declared end, if known; `rows` are those of the inputs."""
        if self.ends == "all":
            return None if None in rows else sum(row for row in rows if row is not None)
        ends = [branch.has_end for branch in self.branches.values()]
        if self.on_silence == "leave_out" or any(end and row is None for end, row in zip(ends, rows, strict=True)):
            return None
        found = []
        for i, row in enumerate(rows):
            if row is not None:
                try:
                    found.append(self.ordinal_of(i, row, place))
                except CannotTell:
                    continue
        return min(found, default=None)

    def cursor_at(self, ordinal: int, inputs: Sequence[Callable[[int], Cursor]], place: int) -> Cursor:
        """The cursor before output row `ordinal`; `inputs` return those of the inputs."""
        taken = self.taken(ordinal, place)
        passes = []
        for name, branch, rows in zip(self.branches, self.branches.values(), taken, strict=True):
            # After the end of an input, its rows in the group are missing: the row's number does not tell what comes.
            if branch.has_end and self.ends == "all":
                raise CannotTell(f"when {name!r} ends decides which rows come out of mix(ends='all')")
            per_pass = branch.rows_per_pass
            passes.append((rows - 1) // per_pass if per_pass and rows else 0)
        below = [Address(at(rows)) for at, rows in zip(inputs, taken, strict=True)]
        return compose_held(below, {"given": ordinal, "passes": passes})

    def numbered(self) -> Mix:
        """The same over the numbers of its sources' rows in place of the rows."""
        return replace(self, branches={name: branch.numbered() for name, branch in self.branches.items()})

    # -- opening -----------------------------------------------------------------------------------------------------

    def open(self, inputs: Sequence[Node], leaves: Sequence[int], context: Context) -> Mixing:
        """Open the node over its inputs' nodes; `leaves` are the numbers of sources of each."""
        return Mixing(
            inputs,
            list(self.branches),
            leaves,
            self.quotas_table,
            self.dealer(context.place),
            context,
            leave_out_after=self.patience if self.on_silence == "leave_out" else None,
            to_the_last=self.ends == "all",
        )


def described(
    streams: Mapping[str, Any] | Sequence[Any],
    weights: Any,
    seed: int,
    on_silence: Silence,
    patience: float,
    ends: Ends,
) -> Mix:
    """The description of a mix from the user's arguments; raises ValueError or TypeError for wrong ones."""
    branches = _named(streams)
    if on_silence not in ("wait", "leave_out"):
        raise ValueError(f"mix(on_silence={on_silence!r}): expected 'wait' or 'leave_out'.")
    if ends not in ("first", "all"):
        raise ValueError(f"mix(ends={ends!r}): expected 'first' or 'all'.")
    number = isinstance(patience, (int, float)) and not isinstance(patience, bool)
    if not number or not (math.isfinite(patience) and patience >= 0):
        raise ValueError(f"mix(patience={patience!r}): expected a number of seconds, 0 or more.")
    table = _table(weights, list(branches))
    seed = check.seed(seed, "mix(seed=n)")
    return Mix(branches, table, seed, on_silence, float(patience), ends)


def _named(streams: Any) -> dict[str, Any]:
    if isinstance(streams, Mapping):
        named = dict(streams)
    elif isinstance(streams, (list, tuple)):
        named = {str(i): stream for i, stream in enumerate(streams)}
    else:
        raise TypeError(
            f"mix() was given a {type(streams).__name__}. Expected a dict of streams, as "
            "ub.mix({'old': a, 'new': b}), or a list of them."
        )
    if not 2 <= len(named) <= INPUTS:
        raise ValueError(f"mix() was given {len(named)} streams. Expected 2 to {INPUTS}; a mix may be mixed again.")
    for name, stream in named.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"mix() was given a stream by the name of {name!r}. Expected a text of letters, digits, '_', '-' and "
                "'.', which begins with none of the latter two: the name also names the stream's files."
            )
        if name in _TAKEN:
            raise ValueError(
                f"mix() was given a stream by the name of {name!r}, and the stream's files would have the name of the "
                "run's own. Expected another name."
            )
        if not hasattr(stream, "branches"):
            raise TypeError(
                f"mix() was given a {type(stream).__name__} for {name!r}. Expected a stream, such as ub.from_arrays(…)."
            )
        if stream.batch_size is not None:
            raise ValueError(
                f"mix() mixes rows, and {name!r} has .batch({stream.batch_size:,}). Put .batch() after the mix: "
                "ub.mix(…).batch(n)."
            )
    leaves = sum(len(stream.leaves) for stream in named.values())
    if leaves > SOURCES:
        raise ValueError(f"mix() was given streams with {leaves} sources in all. Expected at most {SOURCES}.")
    return named


def _table(weights: Any, names: list[str]) -> tuple[tuple[int, tuple[Fraction, ...]], ...]:
    if weights is None:
        weights = [1] * len(names)
    is_table = isinstance(weights, (list, tuple)) and any(isinstance(row, (list, tuple)) for row in weights)
    rows: list[tuple[int, tuple[Fraction, ...]]] = []
    for row in weights if is_table else [(0, weights)]:
        if not isinstance(row, (list, tuple)) or len(row) != 2:
            raise TypeError(
                f"mix(weights=…) was given {row!r} in a table. Expected pairs of an output row and the weights from "
                "there on: [(0, {'old': 1, 'new': 1}), (100_000, {'old': 1, 'new': 3})]."
            )
        at = check.at_least(0, row[0], "the output row in mix(weights=…)")
        if at <= rows[-1][0] if rows else at != 0:
            where = f"after {rows[-1][0]:,}" if rows else "first"
            raise ValueError(
                f"mix(weights=…) was given a table with row {at:,} {where}. Expected rising rows, the first of them 0."
            )
        rows.append((at, _weights(row[1], names)))
    for i, name in enumerate(names):
        if not any(row[i] for _, row in rows):
            raise ValueError(f"mix(weights=…) gives {name!r} the weight 0 throughout. Leave its stream out of the mix.")
    return tuple(rows)


def _weights(weights: Any, names: list[str]) -> tuple[Fraction, ...]:
    if isinstance(weights, Mapping):
        if {*weights} != {*names}:
            raise ValueError(
                f"mix(weights=…) names {', '.join(map(repr, weights))}, and the streams are "
                f"{', '.join(map(repr, names))}. Expected one weight for each."
            )
        given = [weights[name] for name in names]
    elif isinstance(weights, (list, tuple, np.ndarray)):
        if len(weights) != len(names):
            raise ValueError(f"mix(weights=…) has {len(weights)} weights for {len(names)} streams. Expected one each.")
        given = list(weights)
    else:
        raise TypeError(
            f"mix(weights={weights!r}): expected a weight for each stream, "
            f"{{{', '.join(f'{name!r}: 1' for name in names)}}}, or a table of them."
        )
    for name, weight in zip(names, given, strict=True):
        number = isinstance(weight, (int, float, np.integer, np.floating)) and not isinstance(weight, bool)
        if not number or not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"mix(weights=…) gives {name!r} the weight {weight!r}. Expected a number, 0 or more.")
    # As written: 0.1 is one tenth, not the nearest binary fraction.
    exact = tuple(Fraction(repr(weight.item() if hasattr(weight, "item") else weight)) for weight in given)
    if not any(exact):
        raise ValueError("mix(weights=…) gives all streams the weight 0. Expected one above 0.")
    return exact
