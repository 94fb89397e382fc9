"""Training on data that never ends: an epoch is a measure of progress, not a pass over the data.

The public face, in the order in which a user meets it. Each name loads what it needs on first use, so that
importing the library costs next to nothing, and a framework is imported only where it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbounded import keras as keras
    from unbounded import testing as testing
    from unbounded._checkpoint import CheckpointError, DamagedCheckpoint
    from unbounded._describe import Position, RunFinished
    from unbounded._epoch import Epoch
    from unbounded._epoch_run import EpochRun
    from unbounded._feed import Feed
    from unbounded._node import CannotTell, DataLoss, StreamError
    from unbounded._rows import RowsError
    from unbounded._sources import arrays, generate, machine, samples
    from unbounded._stats import Stats
    from unbounded._stream import Stream
    from unbounded.stages.finite import NonFiniteRows

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - in the order in which a user meets them
    "arrays",
    "generate",
    "samples",
    "machine",
    "Stream",
    "Epoch",
    "Feed",
    "EpochRun",
    "Position",
    "Stats",
    "RowsError",
    "StreamError",
    "DataLoss",
    "CannotTell",
    "CheckpointError",
    "DamagedCheckpoint",
    "RunFinished",
    "NonFiniteRows",
]

_HOME = {
    "_sources": ("arrays", "generate", "samples", "machine"),
    "_stream": ("Stream",),
    "_epoch": ("Epoch",),
    "_feed": ("Feed",),
    "_epoch_run": ("EpochRun",),
    "_stats": ("Stats",),
    "_rows": ("RowsError",),
    "_node": ("StreamError", "DataLoss", "CannotTell"),
    "_checkpoint": ("CheckpointError", "DamagedCheckpoint"),
    "_describe": ("Position", "RunFinished"),
    "stages.finite": ("NonFiniteRows",),
}


def __getattr__(name: str) -> Any:
    if name in ("keras", "testing"):
        return importlib.import_module(f"unbounded.{name}")
    for module, names in _HOME.items():
        if name in names:
            value = getattr(importlib.import_module(f"unbounded.{module}"), name)
            globals()[name] = value
            return value
    if name.startswith("_"):
        raise AttributeError(f"module 'unbounded' has no attribute {name!r}")
    from unbounded._words import PACKAGE, unknown

    raise AttributeError(unknown("unbounded", name, PACKAGE, __dir__()))


def __dir__() -> list[str]:
    return sorted([*__all__, "keras", "testing", "__version__"])
