"""What a feed must be an instance of, so that `fit` takes it.

Keras takes its own `DataAdapter` as it is, but doesn't export it. Where it can't be found, the public `PyDataset`
serves, and what is lost is said.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULE = "keras.src.trainers.data_adapters.data_adapter"


def find() -> type | None:
    """Keras's `DataAdapter`; None where this version of Keras keeps it elsewhere."""
    try:
        found = importlib.import_module(_MODULE).DataAdapter
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, type) else None


Adapter: Any = find() or object
