"""Buckets: the lengths by which rows of several lengths are put together in batches, and how they are padded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from typing import Any

from unbounded.core import check
from unbounded.stages.pad import Pad


@dataclass(frozen=True)
class Buckets:
    """The buckets of `batch(n, bucket=…)`: each has a bound, and rows of up to that length.

    Args:
        bounds: the lengths to which rows are padded: each row to the smallest that is enough.
        columns: the name of a column of rows of several lengths, or several names: the longest of them counts. None:
            all such columns.
        value: what stands behind shorter rows; behind text it is "".
        lengths: the name of a new column, of the length that each row had, int64 of shape (rows,).
        truncate: True cuts rows that are longer than the last bound, and counts them in `stats.cut`; False raises an
            error for them.
        within: the rows of the stream after which a row that still waits for others of its bucket is put in a batch
            with rows of other lengths, shorter ones if there are enough; the batch is padded to the longest. None: 100
            batches. So rare lengths wait, but not for ever. It counts rows and no seconds: in a live stream a row waits
            as long as these need to come.

    >>> import numpy as np, unbounded as ub
    >>> rows = {"tokens": ub.ragged([[1], [1, 2, 3, 4], [2], [5, 6, 7]])}
    >>> buckets = ub.Buckets([2, 4], lengths="length")
    >>> with ub.Feed(ub.from_arrays(rows, shuffle=False).batch(2, bucket=buckets)) as feed:
    ...     for _, batch in zip(range(2), feed.batches()):
    ...         print(batch["tokens"].tolist(), batch["length"].tolist())
    [[1, 0], [2, 0]] [1, 1]
    [[1, 2, 3, 4], [5, 6, 7, 0]] [4, 3]
    """

    bounds: Any
    columns: Any = None
    value: Any = field(default=0, kw_only=True)
    lengths: str | None = field(default=None, kw_only=True)
    truncate: bool = field(default=False, kw_only=True)
    within: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        try:
            bounds = tuple(check.positive(bound, "Buckets(bounds)") for bound in self.bounds)
        except TypeError:
            raise TypeError(
                f"bucket={self.bounds!r}: expected a list of lengths, such as [32, 64, 128], or ub.Buckets([…], …)."
            ) from None
        if not bounds or any(a >= b for a, b in itertools.pairwise(bounds)):
            raise ValueError(f"bucket={list(bounds)}: expected lengths in ascending order, such as [32, 64, 128].")
        object.__setattr__(self, "bounds", bounds)
        object.__setattr__(self, "columns", self.pad(bounds[0]).columns)
        if self.within is not None:
            check.positive(self.within, "Buckets(within=n)")

    def __repr__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        bounds = given.pop("bounds")
        return f"Buckets({', '.join([repr(list(bounds)), *(f'{name}={value!r}' for name, value in given.items())])})"

    def pad(self, length: int) -> Pad:
        """The stage that pads the rows of one bucket."""
        return Pad(length, self.columns, self.value, self.lengths, self.truncate)
