"""The values of the command's options: read from text, with a sentence where they can't be."""

from __future__ import annotations

import re
from pathlib import Path

import typer

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def local(directory: Path | None) -> Path | None:
    """A run's directory: a path, not a URL."""
    # `Path` has removed one of two slashes. A single letter is a Windows drive.
    if directory is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(directory)):
        raise typer.BadParameter(
            f"{str(directory)!r} is a URL, and a path on a local or mounted file system is expected: give one such as "
            "'runs/first'."
        )
    return directory


def every(text: str) -> tuple[int | None, float]:
    """Steps, or seconds, between two checkpoints: one of them, and None or 0."""
    number, seconds = (text[:-1], True) if text.endswith("s") else (text, False)
    try:
        value = float(number) if seconds else int(number)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(
            f"{text!r} is neither a time nor a number of steps: expected seconds such as 5s, or steps such as 50.",
            param_hint="--every",
        )
    return (None, float(value)) if seconds else (int(value), 0.0)


def passes(text: str) -> int | None:
    """The number of passes over files; None for ever.

    Example:
        >>> passes("3"), passes("forever"), passes("0")
        (3, None, None)
    """
    if text == "forever":
        return None
    if not text.isdecimal():
        raise typer.BadParameter(
            f"{text!r} is no number of passes: expected such as 3, or forever.", param_hint="--passes"
        )
    return int(text) or None


def names(text: str | None) -> tuple[str, ...] | None:
    """Names of columns, separated by commas.

    Example:
        >>> names("a, b"), names(None)
        (('a', 'b'), None)
    """
    if text is None:
        return None
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise typer.BadParameter(
            f"{text!r} names no column: expected names with commas between them, such as a,b.", param_hint="--columns"
        )
    return found


def size(text: str) -> int:
    """A number of bytes.

    Example:
        >>> size("2GB"), size("500k")
        (2000000000, 500000)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    value = int(float(match[1]) * _SIZES[match[2]]) if match else 0
    if value <= 0:
        raise typer.BadParameter(f"{text!r} is no size: expected such as 1GB or 500MB.", param_hint="--keep-scores")
    return value
