"""Warnings at the user's line: the innermost one outside of this package and of the frameworks that call it."""

from __future__ import annotations

import inspect
import warnings

# The frames to skip, by the first part of their modules' names.
_INSIDE = frozenset(
    {"unbounded", "keras", "tensorflow", "jax", "torch", "lightning", "accelerate", "contextlib", "threading"}
)


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """`warnings.warn` at the user's line; at the line that calls this if there is none, as in a thread or under the
    command, which knows warnings of this package by their file."""
    level, frame = 1, inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _INSIDE:
            break
        frame = None if module.startswith("unbounded.cli") else frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=2 if frame is None else level)
