"""Epoch: the length of an epoch, in steps, rows, passes or seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Epoch:
    """The length of an epoch; the bound that is reached first ends it.

    An epoch ends with the batch that reaches a bound, and has at least one batch. The data does not start over: the
    next epoch continues with the next batch, even in the middle of a pass.

    Args:
        steps: this many batches.
        rows: at least this many rows.
        passes: this many passes over the rows of a finite source. Fractions are carried: 25 epochs of one pass are 25
            passes, whether or not a pass is a whole number of batches. For a mix, passes over the rows of some of its
            sources, by name: `passes={"old": 1}`.
        seconds: this long, including the time in which training waits for data.

    Raises:
        ValueError: no bound was given, or one that is not above 0.

    >>> Epoch(steps=1000)
    Epoch(steps=1000)
    """

    steps: int | None = None
    rows: int | None = None
    passes: float | Mapping[str, float] | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if not given:
            raise ValueError("Epoch() was given no bound. Expected at least one of steps=, rows=, passes=, seconds=.")
        for name, value in given.items():
            # Plain numbers: the state contains them as JSON.
            if name == "passes" and isinstance(value, Mapping):
                if not value or not all(isinstance(source, str) for source in value):
                    raise ValueError(
                        f"Epoch(passes={value!r}): expected a number, or numbers by the names of sources, such as "
                        "{'old': 1}."
                    )
                plain = {source: _number(f"passes={{{source!r}: {each!r}}}", each) for source, each in value.items()}
                object.__setattr__(self, name, plain)
            else:
                object.__setattr__(self, name, _number(name, value, whole=name in ("steps", "rows")))

    def __repr__(self) -> str:
        given = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) is not None]
        return f"Epoch({', '.join(given)})"

    def identity(self) -> dict[str, Any]:
        """The bounds as plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _number(name: str, value: Any, *, whole: bool = False) -> Any:
    """A bound as a plain number above 0; raises ValueError for anything else."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0 or (whole and value != int(value)):
        shown = name if "=" in name else f"{name}={value!r}"
        raise ValueError(f"Epoch({shown}): expected a {'whole ' if whole else ''}number above 0.")
    return int(value) if whole else value.item() if hasattr(value, "item") else value
