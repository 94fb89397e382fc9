"""Epoch: how much progress lies between two looks at the metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Epoch:
    """How much progress makes an epoch; the bound that is reached first ends it.

    An epoch ends with the batch that reaches a bound, and never before one batch was trained. The data does
    not start
    over: the next epoch goes on with the next batch, in the middle of a pass where need be.

    Args:
        steps: this many batches.
        rows: at least this many rows.
        passes: this many passes over the rows of a finite source. Passes are carried: 25 epochs of one pass
            are 25 passes, whether or not a pass is a whole number of batches.
        seconds: this long; time that passes while the model waits for data counts.

    Raises:
        ValueError: for no bound at all, or one that is not above 0.

    >>> Epoch(steps=1000)
    Epoch(steps=1000)
    """

    steps: int | None = None
    rows: int | None = None
    passes: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if not given:
            raise ValueError("Epoch() was given no bound. Expected at least one of steps=, rows=, passes=, seconds=.")
        for name, value in given.items():
            whole = name in ("steps", "rows")
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0 or (whole and value != int(value)):
                raise ValueError(f"Epoch({name}={value!r}): expected a {'whole ' if whole else ''}number above 0.")
            # Plain numbers: they travel with the state as JSON.
            object.__setattr__(self, name, int(value) if whole else value.item() if hasattr(value, "item") else value)

    def __repr__(self) -> str:
        given = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) is not None]
        return f"Epoch({', '.join(given)})"

    def identity(self) -> dict[str, float | None]:
        """As plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
