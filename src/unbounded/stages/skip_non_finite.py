"""Finite: leaves out rows with a NaN or an infinity, counts them, and warns of the first.

`Feed(on_nan="skip")` puts this stage before `batch`, so that batches keep their size. There is no method of Stream for
it: the treatment of such rows is the feed's choice. The stage changes the rows, so it is part of the fingerprint; its
counts are in its cursor, so that a resumed run counts on.
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
    """A warning: rows with a NaN or an infinity are left out of training; given for the first of them.

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

    `address` returns the number of the source's row in words, given an input row's ordinal; "" if unknown.
    """

    address: Callable[[int], str] = field(default=lambda ordinal: "", repr=False, compare=False)
    word = "on_nan"
    # It has no place: a random_map after it draws the same numbers as without it.
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
        self._seen = 0  # input rows
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
        # A block without rows may carry the end of a pass.
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
        # Set before the warning, which may be turned into an error: the next pull then continues.
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
        super().restore(_own_cursor(cursor))

    def release(self, cursor: Cursor) -> None:
        super().release(_own_cursor(cursor))

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        # Not the sum: `normalize` has counted the same rows, or rows with other columns.
        return {**counts, "bad": max(counts.get("bad", 0), self._bad)}


def _own_cursor(cursor: Cursor) -> Cursor:
    """The cursor of this stage; a checkpoint of a run without it, which a bad row has ended, has that of the node
    before."""
    if "seen" in own_part(cursor):
        return cursor
    return compose([cursor], {"seen": 0, "bad": 0, "pass": [0, 0]})
