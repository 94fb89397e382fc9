"""Checks of arguments: each raises an error that names the argument, what was given and what was expected."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np


def positive(value: Any, what: str) -> int:
    """`value` as an int of at least 1; `what` is the argument as the user wrote it, such as `batch(n)`."""
    return at_least(1, value, what)


def seed(value: Any, what: str) -> int:
    """`value` as an int of at least 0."""
    return at_least(0, value, what)


def whole(value: Any, what: str) -> int:
    """`value` as an int; True and False are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} takes a whole number, and was given {value!r}.") from None


def at_least(least: int, value: Any, what: str) -> int:
    """`value` as an int of at least `least`."""
    number = whole(value, what)
    if number < least:
        raise ValueError(f"{what} was given {number}. Expected at least {least}.")
    return number


def above_zero(value: Any, what: str, expected: str) -> None:
    """Raise TypeError unless `value` is a number, and ValueError unless it is finite and above 0; `expected` completes
    the message."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and value > 0):
        raise (ValueError if number else TypeError)(f"{what}: expected {expected}.")


def yes_or_no(value: Any, what: str, instead: str) -> None:
    """Raise TypeError unless `value` is True or False; `instead` tells the user what to write."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what}: expected True or False. {instead}")


def function(value: Any, what: str, *given: str) -> None:
    """Raise TypeError unless `value` is a function, and one that takes the arguments `given`, if there are any."""
    if not callable(value):
        raise TypeError(f"{what} takes a function, and was given {type(value).__name__} {value!r}.")
    if not given:
        return
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # builtins may have no signature
        return
    try:
        signature.bind(*given)
    except TypeError:
        names = ", ".join(signature.parameters)
        text = f"{what} calls its function with {' and '.join(given)}, and was given one that takes ({names})."
        if given[0].startswith("row") and len(signature.parameters) > len(given):
            columns = ", ".join(f"{given[0]}[{i}]" for i in range(len(signature.parameters) - len(given) + 1))
            text += (
                " Its argument is one tree, of the structure that the source yields: "
                f"lambda {given[0]}{''.join(f', {name}' for name in given[1:])}: ({columns}) takes its parts."
            )
        raise TypeError(text) from None


def required(fn: Callable[..., Any]) -> list[str]:
    """The names of the parameters of `fn` without a default; an empty list if `fn` has no readable signature."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]
