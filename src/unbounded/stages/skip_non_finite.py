"""finite: rows with a NaN or an infinity are left out, counted, and the first of them is named.

`Feed(on_nan="skip")` puts this stage right before `batch`, so that batches keep their full size. It is no word of
a stream: what is done with such rows is the feed's choice. It changes which rows come, and so it is part of the
fingerprint; what it has counted is part of its cursor, so that a resumed run counts on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unbounded.core import finite_rows, trees
from unbounded.core.block import Block, Run
from unbounded.core.cursor import compose, own_part
from unbounded.core.node import Context, Cursor, Node, StreamError
from unbounded.core.warn import warn
from unbounded.stages.stage import Stage, Through

_log = logging.getLogger("unbounded")


class NonFiniteRows(UserWarning):
    """A warning: rows with a NaN or an infinity are left out of training; said at the first of them.

    >>> import warnings, numpy as np, unbounded as ub
    >>> stream = ub.from_arrays(np.array([1.0, np.nan, 3.0]), shuffle=False).batch(2)
    >>> with ub.Feed(stream, on_nan="skip") as feed, warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", ub.NonFiniteRows)
    ...     feed.peek()
    array([1., 3.])
    """


@dataclass(frozen=True)
class Finite(Stage):
    """See `Feed(on_nan="skip")`.

    `address` says in words which row of the source an input row is, by its ordinal; "" where that can't be said.
    """

    address: Callable[[int], str] = field(default=lambda ordinal: "", repr=False, compare=False)
    word = "on_nan"
    # Of the same stream, with and without it, random_map after batch draws the same.
    has_place = False

    def arguments(self) -> dict[str, Any]:
        return {"": "'skip'"}

    def identity(self) -> dict[str, Any]:
        return {"on_nan": "skip"}

    def rows_per_pass(self, rows: int | None) -> int | None:
        return None

    def open(self, upstream: Node, context: Context) -> Node:
        return _FiniteNode(upstream, self.address)


class _FiniteNode(Through):
    def __init__(self, upstream: Node, address: Callable[[int], str]) -> None:
        super().__init__(upstream)
        self._address = address
        self._seen = 0  # rows that came in
        self._bad = 0  # rows left out
        self._pass = (0, 0)  # the same two at the beginning of the pass
        self._said = False

    def apply(self, block: Block | Run) -> Block | None:
        assert isinstance(block, Block)
        bad = finite_rows.non_finite_mask(block.rows)
        count = 0 if bad is None else int(bad.sum())
        if bad is not None:
            self._say(block, bad)
        self._count(block, count)
        return block if bad is None else block.only(~bad)

    def apply_boundary(self, block: Block | Run) -> Block | Run:
        # A pass may end in a block without rows: where blocks begin and end carries no meaning.
        assert isinstance(block, Block)
        self._count(block, 0)
        return block

    def _count(self, block: Block, bad: int) -> None:
        seen, left = self._seen + block.count, self._bad + bad
        if block.boundary and block.boundary.kind == "pass":
            rows = seen - self._pass[0]
            if rows and rows == left - self._pass[1]:
                raise StreamError(
                    f"Each of the {rows:,} rows of a pass has a NaN or an infinity in it (the first is named in a "
                    "warning): on_nan='skip' leaves nothing to train on. Mend the rows with .map(), or leave the "
                    "column out with .columns()."
                )
            self._pass = (seen, left)
        self._seen, self._bad = seen, left

    def _say(self, block: Block, bad: Any) -> None:
        ordinals = self._seen + np.flatnonzero(bad)
        found = finite_rows.first_non_finite(block.rows)
        name = "a value" if found is None else trees.name(found[0])
        _log.info("Rows left out, since %s and perhaps others are not finite: %s", name, ordinals.tolist())
        if self._said:
            return
        # Before the warning: where warnings are errors, the next pull goes on.
        self._said = True
        warn(
            f"{name} has a NaN or an infinity in row {int(ordinals[0]):,} of the stream"
            f"{self._address(int(ordinals[0]))}: the row is left out, as on_nan='skip' asks. Further ones are counted "
            "in stats.bad; logging.getLogger('unbounded') names each of them at level INFO.",
            NonFiniteRows,
        )

    def own(self) -> Mapping[str, Any]:
        return {"seen": self._seen, "bad": self._bad, "pass": list(self._pass)}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._seen, self._bad = own["seen"], own["bad"]
        self._pass = (own["pass"][0], own["pass"][1])

    def restore(self, cursor: Cursor) -> None:
        if "seen" not in own_part(cursor):
            # Of a run without this stage, which a bad row ended: the cursor is that of the stage before.
            cursor = compose([cursor], {"seen": 0, "bad": 0, "pass": [0, 0]})
        super().restore(cursor)

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        # The same rows that `normalize` has counted, or those that it did not look at: not the sum.
        return {**counts, "bad": max(counts.get("bad", 0), self._bad)}
