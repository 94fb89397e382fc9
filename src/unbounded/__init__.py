"""Training on data that never ends: an epoch is a measure of progress, not a pass over the data.

This module has the public names, in the order in which a user meets them. Each is imported on first use, so that
importing the library is fast, and frameworks are imported only where they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbounded import keras as keras
    from unbounded import testing as testing
    from unbounded.constructors import (
        from_arrays,
        from_dataset,
        from_files,
        from_generator,
        from_machine,
        from_samples,
        from_source,
        mix,
    )
    from unbounded.core.block import Boundary
    from unbounded.core.node import CannotTell, DataLoss, EndOfStream, StreamError
    from unbounded.core.trees import RowsError
    from unbounded.feed.describe import Position, RunFinished
    from unbounded.feed.epoch import Epoch
    from unbounded.feed.epoch_run import EpochRun
    from unbounded.feed.feed import Feed
    from unbounded.feed.stats import Stats
    from unbounded.sources.log_options import LogOptions
    from unbounded.sources.ragged_columns import ragged
    from unbounded.sources.reader import Opening, Reader, Rows, Source
    from unbounded.sources.retention import Retention
    from unbounded.stages.bucket_batch import Buckets
    from unbounded.stages.skip_non_finite import NonFiniteRows
    from unbounded.store.checkpoints import CheckpointError, DamagedCheckpoint, saved_steps
    from unbounded.store.json_log import Log
    from unbounded.stream import Stream

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - in the order in which a user meets them
    "from_arrays",
    "from_generator",
    "from_samples",
    "from_dataset",
    "from_files",
    "from_machine",
    "from_source",
    "mix",
    "ragged",
    "Stream",
    "Epoch",
    "Feed",
    "EpochRun",
    "Position",
    "Stats",
    "Log",
    "Buckets",
    "LogOptions",
    "saved_steps",
    "Source",
    "Reader",
    "Rows",
    "Boundary",
    "Opening",
    "Retention",
    "EndOfStream",
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
    "constructors": (
        "from_arrays",
        "from_generator",
        "from_samples",
        "from_dataset",
        "from_files",
        "from_machine",
        "from_source",
        "mix",
    ),
    "stream": ("Stream",),
    "feed.epoch": ("Epoch",),
    "feed.feed": ("Feed",),
    "feed.epoch_run": ("EpochRun",),
    "feed.stats": ("Stats",),
    "core.trees": ("RowsError",),
    "core.block": ("Boundary",),
    "core.node": ("EndOfStream", "StreamError", "DataLoss", "CannotTell"),
    "sources.ragged_columns": ("ragged",),
    "sources.reader": ("Source", "Reader", "Rows", "Opening"),
    "sources.retention": ("Retention",),
    "sources.log_options": ("LogOptions",),
    "store.checkpoints": ("CheckpointError", "DamagedCheckpoint", "saved_steps"),
    "store.json_log": ("Log",),
    "feed.describe": ("Position", "RunFinished"),
    "stages.bucket_batch": ("Buckets",),
    "stages.skip_non_finite": ("NonFiniteRows",),
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
    from unbounded.core.words import PACKAGE, unknown

    raise AttributeError(unknown("unbounded", name, PACKAGE, __dir__()))


def __dir__() -> list[str]:
    return sorted([*__all__, "keras", "testing", "__version__"])
