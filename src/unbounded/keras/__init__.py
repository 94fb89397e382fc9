"""Feeds for Keras 3's `fit`, `evaluate` and `predict`, on TensorFlow, JAX and PyTorch."""

from __future__ import annotations

from unbounded.keras import _backend as _backend  # isort: skip - first: it says so where the backend is missing
from unbounded.keras._checkpoint import Checkpoint
from unbounded.keras._keras_feed import Feed
from unbounded.keras._weights import load_model_state
from unbounded.keras.prequential import Prequential

__all__ = ["Checkpoint", "Feed", "Prequential", "load_model_state"]
