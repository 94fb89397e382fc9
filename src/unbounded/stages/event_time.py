"""Time: the event time of rows, from a column of text, of numbers, or of times.

It becomes the time of the row, in place of that of its arrival: the age of rows, and `windows(max_gap=)`, count by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unbounded.core.block import Block, Run
from unbounded.core.cursor import compose
from unbounded.core.node import Context, Cursor, Node
from unbounded.core.trees import RowsError
from unbounded.stages.named_columns import check_name, column_of, with_columns
from unbounded.stages.parsed_times import MICROSECONDS, UNITS, TimeParser
from unbounded.stages.stage import OneToOne, Through


@dataclass(frozen=True)
class Time(OneToOne):
    """See `Stream.time`."""

    column: str
    format: str | None = None
    word = "time"

    def __post_init__(self) -> None:
        check_name(self.column, "time(column)")
        if self.format is None or (isinstance(self.format, str) and ("%" in self.format or self.format in UNITS)):
            return
        raise (ValueError if isinstance(self.format, str) else TypeError)(
            f"time(format={self.format!r}): expected the form of the text, as of datetime.strptime, such as "
            f"'%d.%m.%Y %H:%M', or the unit of the numbers: {', '.join(map(repr, UNITS))}."
        )

    def arguments(self) -> dict[str, Any]:
        return {"": repr(self.column)} | ({} if self.format is None else {"format": self.format})

    def open(self, upstream: Node, context: Context) -> Node:
        return _TimeNode(upstream, self)

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        return compose([upstream(ordinal)], {"row": ordinal})


class _TimeNode(Through):
    def __init__(self, upstream: Node, time: Time) -> None:
        super().__init__(upstream)
        self._column = time.column
        self._what = f"time({time.column!r})"
        self._parser = TimeParser(time.format, self._what)
        self._row = 0  # the number of the next row, for errors

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        column = column_of(block.rows, self._column, self._what)
        if column.ndim != 1:
            raise RowsError(
                f"{self._what}: the column has rows of shape {column.shape[1:]}. Expected one time in each."
            )
        times = self._parser.times(column, self._row)
        rows = with_columns(block.rows, {self._column: times})
        seconds = times.astype(np.int64) / MICROSECONDS
        out = replace(block.with_rows(rows), times=seconds)
        self._row += block.count
        return out

    def own(self) -> Mapping[str, Any]:
        return {"row": self._row}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._row = own["row"]
