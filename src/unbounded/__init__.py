"""Training on data that never ends: an epoch is a measure of progress, not a pass over the data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unbounded._sources import arrays, generate, machine, samples  # isort: skip
from unbounded._stream import Stream

from unbounded._epoch import Epoch  # isort: skip
from unbounded._feed import EpochRun, Feed, Position
from unbounded._stats import Stats

from unbounded._node import DataLoss, StreamError  # isort: skip
from unbounded._rows import RowsError

if TYPE_CHECKING:
    from unbounded import keras, testing

__version__ = "0.1.0"

__all__ = [
    "DataLoss",
    "Epoch",
    "EpochRun",
    "Feed",
    "Position",
    "RowsError",
    "Stats",
    "Stream",
    "StreamError",
    "arrays",
    "generate",
    "keras",
    "machine",
    "samples",
    "testing",
]


def __getattr__(name: str) -> Any:
    # Frameworks are imported where they are used: `ub.keras` loads on first use.
    if name in ("keras", "testing"):
        return importlib.import_module(f"unbounded.{name}")
    raise AttributeError(f"module 'unbounded' has no attribute {name!r}")
