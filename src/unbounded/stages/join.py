"""Join: the description of a join of rows with labels that come later; its node is a `Joining`.

A join stands in place of a source; its inputs are the stream of rows and the stream of labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from unbounded.core.node import Context, Node
from unbounded.core.trees import Tree
from unbounded.stages.combined import Combined
from unbounded.stages.joining import Joining
from unbounded.stages.stage import plain

WITHIN = 100_000
"""The default of `within`: the rows that are read while a row waits for its label."""

Unmatched: TypeAlias = Literal["drop", "keep"] | Callable[[Tree], Any]


@dataclass(frozen=True)
class Join(Combined):
    """See `Stream.join`."""

    branches: Mapping[str, Any]  # "rows" and "labels"
    on: str
    within: float | None
    time: str | None
    unmatched: Unmatched

    word = "join"
    makes_new_rows = True

    @property
    def has_end(self) -> bool:
        """A join ends with its rows, or with its labels if rows without a label are dropped."""
        rows, labels = self.branches.values()
        return bool(rows.has_end or (labels.has_end and self.unmatched == "drop"))

    @property
    def shares(self) -> dict[str, float]:
        """1 for each input: an output row is a row and its label."""
        return dict.fromkeys(self.branches, 1.0)

    def arguments(self) -> dict[str, Any]:
        """The arguments, for the stream's repr."""
        return {"": ", ".join(map(repr, self.branches.values())), **self.settings()}

    def settings(self) -> dict[str, Any]:
        """The arguments without the streams; `within` is shown even at its default, since it decides which rows
        match."""
        given = {"on": self.on, "within": self.within}
        optional = {"time": (self.time, None), "unmatched": (self.unmatched, "drop")}
        return given | {name: value for name, (value, default) in optional.items() if value != default}

    def identity(self) -> dict[str, Any]:
        """Plain data for the fingerprint. The function that receives unmatched rows does not count."""
        inputs = {name: branch.identity() for name, branch in self.branches.items()}
        keeps = self.unmatched == "keep"
        return {
            "inputs": inputs,
            "keeps": keeps,
            **{name: plain(getattr(self, name)) for name in ("on", "within", "time")},
        }

    def open(self, inputs: Sequence[Node], leaves: Sequence[int], context: Context) -> Joining:
        """Open the node."""
        within = math.inf if self.within is None else self.within
        return Joining(inputs, leaves, self.on, within, self.time, self.unmatched, context)


def described(rows: Any, labels: Any, on: Any, within: Any, time: Any, unmatched: Any) -> Join:
    """The description of a join from the user's arguments; raises ValueError or TypeError for wrong ones."""
    if not hasattr(labels, "branches"):
        raise TypeError(
            f"join() was given a {type(labels).__name__} for the labels. Expected a stream of them, such as "
            "ub.from_arrays({'id': ids, 'y': y})."
        )
    for name, stream in (("the rows", rows), ("the labels", labels)):
        if stream.batch_size is not None:
            raise ValueError(
                f"join() joins rows, and the stream of {name} has .batch({stream.batch_size:,}). Put .batch() after "
                "the join: rows.join(labels, on=…).batch(n)."
            )
    for name, column in (("on", on), ("time", time)):
        if not isinstance(column, str) and (name == "on" or column is not None):
            raise TypeError(f"join({name}={column!r}): expected the name of a column that rows and labels both have.")
    if unmatched not in ("drop", "keep") and not callable(unmatched):
        raise ValueError(
            f"join(unmatched={unmatched!r}): expected 'drop', 'keep', or a function that is given the rows."
        )
    number = isinstance(within, (int, float)) and not isinstance(within, bool)
    if within is not None and not (number and math.isfinite(within) and within > 0):
        raise ValueError(
            f"join(within={within!r}): expected how long a row waits for its label: a number above 0, of rows, or with "
            "time= of seconds; None lets it wait for ever."
        )
    return Join({"rows": rows, "labels": labels}, on, within, time, unmatched)
