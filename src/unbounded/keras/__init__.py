"""Endless data into Keras 3's `fit`, exact to the batch, on TensorFlow, JAX and PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbounded.keras import _base
from unbounded.keras._checkpoint import Checkpoint
from unbounded.keras._weights import load_model_state

if TYPE_CHECKING or _base.find() is not None:
    from unbounded.keras._feed import Feed
else:
    from unbounded.keras._fallback import PyDatasetFeed as Feed

__all__ = ["Checkpoint", "Feed", "load_model_state"]
