"""Warnings at the user's line: the innermost one outside of this package and of the frameworks that call it."""

from __future__ import annotations

import inspect
import warnings

# The frames to skip, by the first part of their modules' names.
_INSIDE = frozenset({"unbounded", "keras", "tensorflow", "jax", "torch", "lightning", "accelerate", "contextlib"})


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """`warnings.warn` at the user's line; in a thread without one, at the line that calls this."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    level = level if frame is not None else 2
    warnings.warn(message, category, stacklevel=level)
